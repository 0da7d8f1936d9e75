"""What torch expects of an operator: opcheck, compile, autograd rules, AMP, gradients honoured."""

from __future__ import annotations

import pytest
import torch
from cases import caption_ids, paired_batch
from test_backend_parity import device_or_skip
from torch.autograd.gradcheck import GradcheckError

import goal_kernels as gk
from goal_kernels.backends import BACKENDS
from goal_kernels.registry import unregister_element

NAMES = [b.name for b in BACKENDS]
COMPILED = ["hinge/constant", "circle/linear_ms", "nca/sigmoid_ms"]


def leaves(batch=12, width=6, dtype=torch.float32, device="cpu"):
    image, text = paired_batch(batch, width, dtype)
    return image.to(device).requires_grad_(), text.to(device).requires_grad_()


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("relative", ["none", "linear", "exponential"])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_search(name, relative, normalize) -> None:
    device = device_or_skip(name, torch.float32, 6)
    image, text = (x.detach() for x in leaves(device=device))
    ids = caption_ids(12).to(device)
    arguments = (image, text, None, ids, ids, relative, 0.1, 10.0, normalize, "highest")
    torch.library.opcheck(getattr(torch.ops.goal_kernels, f"search_{name}"), arguments)


FORWARD_WORDS = ("nca", "sigmoid_ms", 10.0, 2.0, 10.0, 0.5, 0.1, 0.2, "both")
"""Arguments of `forward_*` after the tensors: the objective and the direction."""


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_forward(name, normalize) -> None:
    device = device_or_skip(name, torch.float32, 6)
    ids = caption_ids(12).to(device)
    operator = getattr(torch.ops.goal_kernels, f"forward_{name}")
    arguments = (*leaves(device=device), ids, ids, *FORWARD_WORDS, normalize, "highest")
    torch.library.opcheck(operator, arguments)


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
    torch.library.opcheck(
        getattr(torch.ops.goal_kernels, f"backward_{name}"),
        (torch.ones((), device=device), image, text, vectors, hardest, *need),
    )


def test_opcheck_attach_and_similarity() -> None:
    image, text = leaves()
    found = gk.mine(image, text)
    hardest = torch.stack([found.hardest_text, found.hardest_image])
    vectors, value = torch.rand(6, 12), torch.tensor(3.0)
    ops = torch.ops.goal_kernels
    torch.library.opcheck(ops.attach, (image, text, value, vectors, hardest, "reference"))
    similarity = (image @ text.T).detach()
    torch.library.opcheck(ops.mine_similarity, (similarity, None, None, "linear", 0.1, 10.0))
    torch.library.opcheck(ops.backward_similarity, (value, similarity, vectors, hardest))
    torch.library.opcheck(
        ops.attach_similarity, (similarity.requires_grad_(), value, vectors, hardest)
    )


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


def always_half(positive, negative):
    return 0.5 + 0 * positive


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
