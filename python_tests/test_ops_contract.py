"""What torch expects of an operator: opcheck, compile, autograd rules, AMP, gradients honoured."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from cases import caption_ids, paired_batch
from test_backend_parity import device_or_skip
from torch.autograd import forward_ad
from torch.autograd.gradcheck import GradcheckError

import goal_kernels as gk
from goal_kernels.backends.choice import BACKENDS
from goal_kernels.distributed import distributed_goal_loss
from goal_kernels.registry import unregister_element

NAMES = [b.name for b in BACKENDS]
COMPILED = ["hinge/constant", "circle/linear_ms", "nca/sigmoid_ms"]


def always_half(positive, negative):
    return 0.5 + 0 * positive


LOSSES = {
    "built_in": lambda x, y: gk.goal_loss(x, y, "nca/sigmoid"),
    "custom": lambda x, y: gk.goal_loss(x, y, gk.Objective(always_half, "sigmoid")),
    "similarity": lambda x, y: gk.goal_loss_from_similarity(x @ y.T, "nca/sigmoid"),
    "captions": lambda x, y: gk.goal_loss(
        x, y, "nca/sigmoid", text_to_image=torch.arange(len(y)) % 5
    ),
    "direction": lambda x, y: gk.goal_loss(x, y, "nca/sigmoid/tangent"),
    "whole_batch": lambda x, y: gk.info_nce_loss(x, y, label_smoothing=0.1),
}


def leaves(batch=12, width=6, dtype=torch.float32, device="cpu"):
    image, text = paired_batch(batch, width, dtype)
    return image.to(device).requires_grad_(), text.to(device).requires_grad_()


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def opcheck(operator, arguments, whole: bool) -> None:
    """Schema, autograd and fake kernel of an operator; as a whole also under AOT autograd.

    That takes most of the time, so each operator has it once, where it has the most outputs.
    """
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    checks += ["test_aot_dispatch_dynamic"] if whole else []
    torch.library.opcheck(operator, arguments, test_utils=checks)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("relative", ["none", "linear", "exponential"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_search(name, relative, normalize) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = (x.detach() for x in leaves(device=device))
    ids = caption_ids(12).to(device)
    arguments = (image, text, None, ids, ids, relative, 0.1, 10.0, normalize, "highest")
    whole = normalize and relative == "exponential"
    opcheck(getattr(torch.ops.goal_kernels, f"search_{name}"), arguments, whole)


FORWARD_WORDS = ("nca", "sigmoid_ms", 10.0, 2.0, 10.0, 0.5, 0.1, 0.2, "both")
"""Arguments of `forward_*` after the tensors: the objective and the direction."""


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_forward(name, normalize) -> None:
    device = device_or_skip(name, torch.float32, 6)
    ids = caption_ids(12).to(device)
    operator = getattr(torch.ops.goal_kernels, f"forward_{name}")
    arguments = (*leaves(device=device), ids, ids, *FORWARD_WORDS, normalize, "highest")
    opcheck(operator, arguments, whole=normalize)


@pytest.mark.parametrize("name", NAMES)
def test_forward_takes_built_in_elements_only(name) -> None:
    operator = getattr(torch.ops.goal_kernels, f"forward_{name}")
    element = gk.register_triplet("always_two", lambda positive, negative: 2 + 0 * positive)
    try:
        with pytest.raises(ValueError, match="expected built-in elements, got always_two/linear"):
            operator(
                *leaves(), None, None, element.name, "linear", *FORWARD_WORDS[2:], False, "highest"
            )
    finally:
        unregister_element("triplet", element.name)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_backward(name, need, scaled) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = (x.detach() for x in leaves(device=device))
    found = gk.mine(image, text, backend=name)
    vectors = torch.rand(8 if scaled else 6, 12, device=device)
    hardest = torch.stack([found.hardest_text, found.hardest_image])
    opcheck(
        getattr(torch.ops.goal_kernels, f"backward_{name}"),
        (torch.ones((), device=device), image, text, vectors, hardest, *need),
        whole=scaled and all(need),
    )


def terms_of(image, text, device="cpu"):
    """Gradient terms of [N, D] and [M, D] with a target: one row has none, some share one."""
    rows, columns = len(image), len(text)
    return (
        torch.randint(-1, columns, (rows,), device=device),
        torch.randint(-1, rows, (columns,), device=device),
        torch.randint(-1, columns, (rows,), device=device),
        *torch.rand(2, rows, device=device).unbind(),
        torch.rand(columns, device=device),
    )


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_apply(name, need, scaled) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = (x.detach() for x in leaves(device=device))
    text = text[:7]
    scales = torch.rand(19 if scaled else 0, device=device)
    terms = terms_of(image, text, device)
    opcheck(
        getattr(torch.ops.goal_kernels, f"apply_{name}"),
        (torch.ones((), device=device), image, text, *terms, scales, *need),
        whole=scaled and all(need),
    )


def test_opcheck_attach_and_similarity() -> None:
    image, text = leaves()
    found = gk.mine(image, text)
    hardest = torch.stack([found.hardest_text, found.hardest_image])
    vectors, value = torch.rand(6, 12), torch.tensor(3.0)
    ops = torch.ops.goal_kernels
    torch.library.opcheck(ops.attach, (image, text, value, vectors, hardest, "reference"))
    terms, none = terms_of(image, text), torch.empty(0)
    torch.library.opcheck(ops.attach_terms, (image, text, value, *terms, none, "reference"))
    similarity = (image @ text.T).detach()
    for relative in ("none", "linear"):
        question = (None, None, relative, 0.1, 10.0)
        torch.library.opcheck(ops.mine_similarity, (similarity, *question))
    torch.library.opcheck(ops.backward_similarity, (value, similarity, *terms))
    torch.library.opcheck(ops.attach_similarity, (similarity.requires_grad_(), value, *terms))


@pytest.mark.parametrize("objective", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(name, objective) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = leaves(device=device)
    ids = caption_ids(12).to(device)

    def function(x, y):
        return gk.goal_loss(
            x, y, objective, image_ids=ids, normalize=True, reduction="mean", backend=name,
            return_stats=True,
        )  # fmt: skip

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected, stats = function(image, text)
    found, found_stats = compiled(image, text)
    assert found.item() == expected.item()
    assert found_stats.collapsed == stats.collapsed
    for left, right in zip(
        gradients(found, image, text), gradients(expected, image, text), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


COMPILED_CALLS = {
    **LOSSES,
    "hyper-parameter": lambda x, y: gk.goal_loss(x, y, gk.Objective("nca", "linear"), tau=3.0),
    "two dtypes": lambda x, y: gk.goal_loss(x, y.bfloat16(), "nca/linear"),
    "module": gk.GOALLoss("hinge/constant", normalize=True, reduction="mean"),
    "mine": lambda x, y: gk.mine(x, y).negative_image.sum() * x.sum() * y.sum(),
    "distributed": lambda x, y: distributed_goal_loss(x, y, "nca/linear"),
}


@pytest.mark.parametrize("call", COMPILED_CALLS)
def test_one_graph_serves_every_batch_and_width(call) -> None:
    """Each is traced with sizes as symbols; autograd's graph of them is made where it differs.

    Operators of the other calls meet AOT autograd and symbols alone, in opcheck.
    """
    aot = ("built_in", "custom", "whole_batch")
    function, backend = COMPILED_CALLS[call], "aot_eager" if call in aot else "eager"
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((12, 6), (5, 6), (12, 19)):
            pair = leaves(*shape)
            found, expected = compiled(*pair), function(*pair)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
            for left, right in zip(
                gradients(found, *pair), gradients(expected, *pair), strict=True
            ):
                torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiles_with_the_default_compiler() -> None:
    torch._dynamo.reset()
    criterion = gk.GOALLoss("nca/sigmoid_ms")
    compiled = torch.compile(criterion, fullgraph=True)
    image, text = leaves()
    found, expected = compiled(image, text), criterion(image, text)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, image, text), gradients(expected, image, text))


@pytest.mark.parametrize("name", NAMES)
def test_double_backward_raises(name) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = leaves(device=device)
    loss = gk.goal_loss(image, text, "nca/sigmoid", backend=name)
    (grad,) = torch.autograd.grad(loss**2, image, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


def test_double_backward_of_similarity_raises() -> None:
    image, text = leaves()
    loss = gk.goal_loss_from_similarity(image @ text.T, "nca/sigmoid")
    (grad,) = torch.autograd.grad(loss, image, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


def dual_tangent(loss, primal, tangent):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(loss(forward_ad.make_dual(primal, tangent))).tangent


FORWARD_MODE = {
    "jvp": lambda f, x, t: torch.func.jvp(f, (x,), (t,)),
    "jacfwd": lambda f, x, t: torch.func.jacfwd(f)(x),
    "dual numbers": dual_tangent,
    "dual numbers of a leaf": lambda f, x, t: dual_tangent(f, x.requires_grad_(), t),
    "without gradient": lambda f, x, t: torch.no_grad()(torch.func.jvp)(f, (x,), (t,)),
    "value of grad_and_value": lambda f, x, t: torch.func.jvp(
        lambda z: torch.func.grad_and_value(f)(z)[1], (x,), (t,)
    ),
    "hessian": lambda f, x, t: torch.func.hessian(f)(x),
}


@pytest.mark.parametrize("mode", FORWARD_MODE)
@pytest.mark.parametrize("kind", LOSSES)
def test_forward_mode_raises(kind, mode) -> None:
    """Its answer would be a plausible zero."""
    image, text = (x.detach() for x in leaves())
    with pytest.raises(RuntimeError, match=r"no forward-mode derivative .* torch.func.vjp"):
        FORWARD_MODE[mode](lambda x: LOSSES[kind](x, text), image, torch.rand_like(image))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("kind", LOSSES)
def test_transforms_of_torch_func_give_the_same_gradient(kind) -> None:
    image, text = leaves(dtype=torch.float64)
    other = paired_batch(12, 6, seed=1)[0]
    stacked, fixed = torch.stack([image, other]).detach(), text.detach()

    def loss(x):
        return LOSSES[kind](x, fixed)

    values = torch.stack([loss(x) for x in stacked])
    expected = torch.stack([gradients(loss(x), x)[0] for x in stacked.clone().requires_grad_()])
    func = torch.func
    _, pull = func.vjp(loss, stacked[0])
    for found in (func.grad(loss)(stacked[0]), pull(torch.ones_like(values[0]))[0]):
        torch.testing.assert_close(found, expected[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(func.vmap(loss)(stacked), values, rtol=0, atol=1e-14)
    for found in (
        func.vmap(func.grad(loss))(stacked),
        func.grad(lambda x: func.vmap(loss)(x).sum())(stacked),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        func.grad(lambda x: func.grad(loss)(x).sum())(stacked[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [0.0, -2.5, 65536.0])
def test_incoming_gradient_is_honoured(name, factor) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = leaves(device=device)
    loss = gk.goal_loss(image, text, "nca/linear", backend=name)
    plain = gradients(loss, image, text)
    scaled = gradients(factor * gk.goal_loss(image, text, "nca/linear", backend=name), image, text)
    for left, right in zip(scaled, plain, strict=True):
        torch.testing.assert_close(left, factor * right, rtol=1e-6, atol=0)


def test_gradient_scaler_leaves_the_gradient_unchanged() -> None:
    image, text = leaves()
    expected = gradients(gk.goal_loss(image, text, "circle/sigmoid"), image, text)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    optimizer = torch.optim.SGD([image, text], lr=0.0)
    scaler.scale(gk.goal_loss(image, text, "circle/sigmoid")).backward()
    scaler.unscale_(optimizer)
    torch.testing.assert_close(image.grad, expected[0])
    torch.testing.assert_close(text.grad, expected[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [0, 1])
def test_only_the_gradient_that_is_needed(name, side) -> None:
    device = device_or_skip(name, torch.float32, 6)
    pair = list(leaves(device=device))
    both = gradients(gk.goal_loss(*pair, "nca/linear", backend=name), *pair)
    pair[1 - side] = pair[1 - side].detach()
    loss = gk.goal_loss(*pair, "nca/linear", backend=name)
    (grad,) = gradients(loss, pair[side])
    assert torch.equal(grad, both[side])


def test_no_gradient_needed_at_all() -> None:
    image, text = (x.detach() for x in leaves())
    assert not gk.goal_loss(image, text, "nca/linear").requires_grad
    with torch.no_grad():
        assert gk.goal_loss(*leaves(), "nca/linear").grad_fn is None
    with torch.inference_mode():
        assert gk.goal_loss(*leaves(), "nca/linear") == gk.goal_loss(image, text, "nca/linear")


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_lower_the_precision_inside(name) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = leaves(60, 33, device=device)
    expected = gk.goal_loss(image, text, "nca/sigmoid_ms", backend=name)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = gk.goal_loss(image, text, "nca/sigmoid_ms", backend=name)
    assert found.item() == expected.item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", [False, True])
def test_dtypes_of_results(dtype, normalize) -> None:
    image, text = leaves(dtype=dtype)
    loss, stats = gk.goal_loss(
        image, text, "nca/sigmoid_ms", normalize=normalize, return_stats=True
    )
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert loss.dtype == stats.positive.dtype == wide
    assert stats.hardest_text.dtype == torch.int64
    assert all(g.dtype == dtype for g in gradients(loss, image, text))


def test_mean_divides_value_and_gradient_by_the_batch() -> None:
    image, text = leaves(batch=10)
    total, mean = (gk.goal_loss(image, text, "nca/linear", reduction=r) for r in ("sum", "mean"))
    assert mean.item() == pytest.approx(total.item() / 10, rel=1e-6)
    for left, right in zip(
        gradients(mean, image, text), gradients(total, image, text), strict=True
    ):
        torch.testing.assert_close(left, right / 10)


@pytest.mark.parametrize("triplet", ["nca", always_half], ids=["built_in", "custom"])
@pytest.mark.parametrize("name", ["cpu", "chunked", "reference"])
def test_normalize_is_f_normalize_with_its_backward(name, triplet) -> None:
    device_or_skip(name, torch.float64, 6)
    image, text = leaves(dtype=torch.float64)
    image, text = (3 * image).detach(), (0.5 * text).detach()
    image[4] = 0  # F.normalize leaves such a row as it is, and multiplies its gradient by 10^12
    text[5] *= 1e-13
    image.requires_grad_()
    text.requires_grad_()
    objective = gk.Objective(triplet, "sigmoid_ms")
    found = gk.goal_loss(image, text, objective, normalize=True, backend=name)
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (image, text)]
    expected = gk.goal_loss(*unit, objective, backend=name)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    found, expected = gradients(found, image, text), gradients(expected, image, text)
    for short, row in ((0, 4), (1, 5)):
        assert expected[short][row].abs().max() > 1e9
        expected[short][row] = 0
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_a_row_of_zeros_leaves_scaled_gradients_finite(name, dtype) -> None:
    """A GradScaler would skip every step of float16 training otherwise."""
    device = device_or_skip(name, dtype, 6)
    image, text = ((3 * x).detach() for x in leaves(dtype=dtype, device=device))
    image[1] = text[3] = 0
    image.requires_grad_()
    text.requires_grad_()
    loss = gk.goal_loss(image, text, "nca/sigmoid", normalize=True, backend=name)
    grad_image, grad_text = gradients(1024 * loss, image, text)
    for grad, row in ((grad_image, 1), (grad_text, 3)):
        assert grad.isfinite().all()
        assert grad.any(dim=1).tolist() == [i != row for i in range(len(grad))]


@pytest.mark.parametrize("objective", ["nca/sigmoid_ms", "hinge/constant"])
def test_similarity_and_embeddings_agree(objective) -> None:
    image, text = leaves(20, 8, torch.float64)
    ids = caption_ids(20)
    direct = gk.goal_loss(image, text, objective, image_ids=ids, reduction="mean")
    dense = gk.goal_loss_from_similarity(image @ text.T, objective, image_ids=ids, reduction="mean")
    torch.testing.assert_close(direct, dense, rtol=1e-12, atol=0)
    for left, right in zip(
        gradients(direct, image, text), gradients(dense, image, text), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-13)


def test_gradcheck_passes_for_the_hinge_and_fails_for_a_designed_gradient() -> None:
    """hinge x constant is the gradient of its value; nca x linear is the gradient of nothing."""
    image, text = leaves(5, 4, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, y: gk.goal_loss(x, y, "hinge/constant"), (image, text)
    )
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda x, y: gk.goal_loss(x, y, "nca/linear"), (image, text))


def test_module_is_the_function() -> None:
    image, text = leaves()
    criterion = gk.GOALLoss("nca/sigmoid", reduction="mean", direction="i2t", normalize=True)
    expected = gk.goal_loss(
        image, text, "nca/sigmoid", reduction="mean", direction="i2t", normalize=True
    )
    assert criterion(image, text).item() == expected.item()
    assert not list(criterion.parameters())
    assert not criterion.state_dict()
    assert "nca/sigmoid" in repr(criterion)


def test_nan_in_an_embedding_reaches_loss_and_gradient() -> None:
    for name in NAMES:
        device = device_or_skip(name, torch.float32, 6)
        image, text = leaves(device=device)
        with torch.no_grad():
            image[3, 2] = float("nan")
        loss = gk.goal_loss(image, text, "nca/linear", backend=name)
        assert loss.isnan()
        grad_image, grad_text = gradients(loss, image, text)
        assert grad_image[3].isnan().all()
        assert grad_text[3].isnan().any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("left", "right", "wide"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_two_dtypes_are_promoted_as_torch_does(name, left, right, wide) -> None:
    device = device_or_skip(name, wide, 6)
    image, text = leaves(device=device)
    pair = image.detach().to(left).requires_grad_(), text.detach().to(right).requires_grad_()
    loss = gk.goal_loss(*pair, "nca/sigmoid", backend=name)
    same = [x.detach().to(wide).requires_grad_() for x in pair]
    expected = gk.goal_loss(*same, "nca/sigmoid", backend=name)
    assert loss.dtype == expected.dtype
    assert loss.item() == expected.item()
    wanted = gradients(expected, *same)
    for x, grad, truth in zip(pair, gradients(loss, *pair), wanted, strict=True):
        assert torch.equal(grad, truth.to(x.dtype))


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "context",
    [lambda: torch.device("meta"), lambda: default_dtype(torch.bfloat16)],
    ids=["device", "dtype"],
)
@pytest.mark.parametrize("objective", [*COMPILED, gk.Objective(always_half, "sigmoid_ms")])
def test_what_torch_makes_by_default_changes_nothing(objective, context) -> None:
    """With "meta" a tensor of the default device has no numbers at all."""
    pair = leaves()
    numbers = [x.detach().numpy() for x in pair]
    ids = caption_ids(12).tolist()

    def results():
        loss, stats = gk.goal_loss(*pair, objective, image_ids=ids, return_stats=True)
        similar = gk.goal_loss_from_similarity(pair[0] @ pair[1].T, objective, image_ids=ids)
        alone = gk.goal_loss(pair[0][:1], pair[1][:1].double(), objective)
        mined = gk.mine(*numbers, target=list(range(12)))
        losses = [loss, similar, alone, distributed_goal_loss(*pair, objective)]
        grads = [gradients(x, *pair) for x in losses]
        return [*losses, *mined, *grads[0], *grads[1]], stats.summary(), gk.recall_at_k([0, 1.3], 1)

    expected = results()
    with context():
        found = results()
    for left, right in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)  # device and dtype too
    assert found[1:] == expected[1:]


class Column:
    """A filtered column of a table, as pandas has it: items go by labels, of which 0 is none."""

    def __init__(self, values) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, label: int) -> int:
        raise KeyError(label)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_ids_and_targets_may_be_lists_and_arrays() -> None:
    image, text = leaves()
    ids = caption_ids(12)
    expected = gk.goal_loss(image, text, "nca/linear", image_ids=ids)
    array = ids.numpy()
    backwards = array[::-1].copy()[::-1]  # strides of either sign, as rows may have them
    arrays = (array, array.astype("uint16"), array.astype(">i4"), backwards, Column(array))
    for same in (ids.tolist(), tuple(ids.tolist()), *arrays):
        assert gk.goal_loss(image, text, "nca/linear", image_ids=same) == expected
        similar = gk.goal_loss_from_similarity(image @ text.T, "nca/linear", text_ids=same)
        torch.testing.assert_close(similar, expected)
    mined = gk.mine(image, text, target=range(11, -1, -1))
    assert torch.equal(mined.hardest_text, gk.mine(image, text, target=11 - ids.new_tensor(
        range(12))).hardest_text)  # fmt: skip
    ranks = gk.retrieval_ranks(image, text, torch.arange(12))
    assert torch.equal(gk.retrieval_ranks(image, text, list(range(12))).i2t, ranks.i2t)
    assert gk.chance_metrics([0, 0, 1], 2) == gk.chance_metrics(torch.tensor([0, 0, 1]), 2)
    array = torch.tensor([7, 1.5, 0]).numpy()[::-1]
    for same in ([0, 1.5, 7], array, array.astype(">f8")):
        assert gk.recall_at_k(same, 2) == pytest.approx(200 / 3)
        assert gk.rank_histogram(same, 8).queries.tolist() == [1, 1, 0, 1]
    folds = [gk.fold_metrics((image, text), index, 2) for index in (range(12), torch.arange(12))]
    assert folds[0].mean == folds[1].mean


@pytest.mark.parametrize("kind", ["float16", "float32", ">f8"])
def test_arrays_are_embeddings_where_no_gradient_is_wanted(kind) -> None:
    pair = [x.detach() for x in leaves(dtype=torch.float64)]
    arrays = [x.numpy().astype(kind)[::-1] for x in pair]
    arrays[0].flags.writeable = False  # as a memory map may be
    tensors = [torch.from_numpy(x.astype(x.dtype.newbyteorder("="))) for x in arrays]
    for left, right in zip(gk.mine(*arrays), gk.mine(*tensors), strict=True):
        assert torch.equal(left, right)
    index = torch.arange(12)
    ranks = gk.retrieval_ranks(*tensors, index)
    assert torch.equal(gk.retrieval_ranks(*arrays, index).t2i, ranks.t2i)
    assert torch.equal(gk.similarity_ranks(arrays, index).t2i, ranks.t2i)
    narrow = (pair[0] @ pair[1].T).to(torch.float8_e4m3fn)  # numpy has no such type
    found = gk.similarity_ranks(narrow, index)
    assert torch.equal(found.t2i, gk.similarity_ranks(narrow.float(), index).t2i)


@pytest.mark.filterwarnings("ignore:goal_loss. got a batch of one:RuntimeWarning")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_pair_alone_on_every_backend(name, normalize, nan_filled_memory) -> None:
    device = device_or_skip(name, torch.float32, 6)
    pair = [x.detach()[:1].requires_grad_() for x in leaves(device=device)]
    for objective in COMPILED:
        loss = gk.goal_loss(*pair, objective, backend=name, normalize=normalize)
        assert loss.item() == 0
        assert not any(grad.any() for grad in gradients(loss, *pair))


def test_hyper_parameters_by_keyword() -> None:
    image, text = leaves()
    wide = gk.Objective("hinge", "constant", margin=0.4)
    expected = gk.goal_loss(image, text, wide)
    assert expected != gk.goal_loss(image, text, "hinge/constant")
    assert gk.goal_loss(image, text, "hinge/constant", margin=0.4) == expected
    assert gk.goal_loss(image, text, gk.Objective("hinge", "con"), margin=0.4) == expected
    assert gk.GOALLoss("hinge/constant", margin=0.4).objective == wide
    similar = gk.goal_loss_from_similarity(image @ text.T, "hinge/constant", margin=0.4)
    torch.testing.assert_close(similar, expected)
    values = {"tau": 5.0, "alpha": 3.0, "beta": 7.0, "lam": 0.1, "epsilon": 0.3, "margin": 0.1}
    assert gk.GOALLoss("nca/sig_ms", **values).objective == gk.Objective("nca", "sig_ms", **values)
    gamma = gk.Parameter("gamma", 2.0, 0.0)
    gk.register_triplet("power", lambda positive, negative, gamma: gamma + 0 * positive,
                        parameters=[gamma])  # fmt: skip
    try:
        own = gk.Objective("power", "constant", tau=4.0, parameters={"gamma": 3.0})
        assert gk.GOALLoss("power/constant", gamma=3.0, tau=4.0).objective == own
        with pytest.raises(TypeError, match=r"gama: .* did you mean 'gamma'"):
            gk.goal_loss(image, text, own, gama=1.0)
        with pytest.raises(ValueError, match="gamma: expected a finite number"):
            gk.goal_loss(image, text, own, gamma=-1.0)
    finally:
        unregister_element("triplet", "power")


def test_callables_take_their_arguments_by_position() -> None:
    image, text = leaves()
    named = gk.Objective(always_half, "linear")
    found = gk.goal_loss(
        image, text, gk.Objective(lambda p, n: 0.5 + 0 * p, lambda p, n: (1 - p, n))
    )
    expected = gk.goal_loss(image, text, named)
    assert torch.equal(gradients(found, image)[0], gradients(expected, image)[0])
