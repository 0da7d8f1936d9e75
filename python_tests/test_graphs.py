"""`graphed_loss`: what it refuses, what it guards, and on a GPU that replay equals the loss itself.

Without a GPU the capture is emulated: like the real one, it answers in memory that the next call
overwrites, and only the last call can be differentiated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import goal_kernels as gk

BATCH, WIDTH = 12, 8
OBJECTIVE = "nca/sigmoid_ms"


def emulated_capture(
    function: Callable[..., Tensor], sample_args: tuple[Tensor, ...], num_warmup_iters: int
) -> Callable[..., Tensor]:
    """`torch.cuda.make_graphed_callables` for one function, without a GPU."""
    assert not torch.is_autocast_enabled("cuda")
    assert torch.cuda.graph.keywords == {"capture_error_mode": "thread_local"}
    for _ in range(num_warmup_iters):
        recorded = function(*sample_args)
    static_loss = recorded.detach().clone()
    static_grads = [torch.zeros_like(x) if x.requires_grad else None for x in sample_args]
    state = {}

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            for static, given in zip(sample_args, inputs, strict=True):
                static.copy_(given)
            with torch.enable_grad():
                state["loss"] = function(*sample_args)
            static_loss.copy_(state["loss"])
            return static_loss.detach()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            wanted = [x for x in sample_args if x.requires_grad]
            computed = iter(torch.autograd.grad(state["loss"], wanted, grad, retain_graph=True))
            for static in static_grads:
                if static is not None:
                    static.copy_(next(computed))
            return tuple(None if g is None else g.detach() for g in static_grads)

    return Graphed.apply


@pytest.fixture
def emulated(monkeypatch) -> Iterator[dict[str, Any]]:
    """CPU tensors are CUDA tensors, and graphs are emulated; what the capture was given."""
    given: dict[str, Any] = {}

    def capture(function: Any, sample_args: Any, **options: Any) -> Any:
        given.update(function=function, sample_args=sample_args, **options)
        return emulated_capture(function, sample_args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "is_cuda", property(lambda self: True))
        patch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        patch.setattr(torch.cuda, "make_graphed_callables", capture)
        yield given


def pair(
    need: tuple[bool, bool] = (True, True), device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Image and text embeddings, leaves."""
    image, text = (
        torch.randn(BATCH, WIDTH, device=device, dtype=dtype).requires_grad_(n) for n in need
    )
    return image, text


def check_replays(
    criterion: gk.GOALLoss, samples: tuple[Tensor, ...], batches: list[tuple[Tensor, ...]]
) -> None:
    """Loss and gradients of every batch are those of the criterion, bit for bit, and stay so."""
    ids = dict(zip(("image_ids", "text_ids"), samples[2:], strict=False))
    graphed = gk.graphed_loss(criterion, *samples[:2], **ids)
    kept = []
    for scale, batch in enumerate(batches, start=2):
        expected = criterion(*batch)
        loss = graphed(*batch)
        wanted = [x for x in batch if x.requires_grad]
        grads = torch.autograd.grad(expected * scale, wanted)
        (loss * scale).backward()
        kept.append((loss, expected, wanted, grads))
    for loss, expected, wanted, grads in kept:
        assert torch.equal(loss, expected)
        assert all(torch.equal(x.grad, grad) for x, grad in zip(wanted, grads, strict=True))


@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    "options", [{}, {"normalize": True, "reduction": "mean"}, {"direction": "i2t"}]
)
def test_replay_equals_the_loss(emulated, options: dict[str, Any], need: tuple[bool, bool]) -> None:
    criterion = gk.GOALLoss(OBJECTIVE, backend="reference", **options)
    check_replays(criterion, pair(need), [pair(need) for _ in range(3)])


def test_directions_are_replayed(emulated) -> None:
    criterion = gk.GOALLoss("nca/sigmoid/tangent", backend="reference")
    check_replays(criterion, pair(), [pair() for _ in range(3)])


def test_ids_are_replayed(emulated) -> None:
    criterion = gk.GOALLoss(OBJECTIVE, backend="reference")

    def ids() -> Tensor:
        return torch.randint(0, 3, (BATCH,))

    check_replays(criterion, (*pair(), ids()), [(*pair(), ids()) for _ in range(3)])
    check_replays(criterion, (*pair(), ids(), ids()), [(*pair(), ids(), ids()) for _ in range(3)])


def test_embeddings_that_a_model_computed(emulated) -> None:
    model = torch.nn.Linear(WIDTH, WIDTH)
    criterion = gk.GOALLoss(OBJECTIVE, normalize=True, backend="reference")
    inputs = [torch.randn(2, BATCH, WIDTH) for _ in range(3)]
    graphed = gk.graphed_loss(criterion, *model(inputs[0]))
    for loss in (criterion, graphed):  # Gradients of several batches add up.
        for batch in inputs:
            loss(*model(batch)).backward()
        if loss is criterion:
            expected = model.weight.grad.clone()
            model.zero_grad()
    assert torch.equal(model.weight.grad, expected)


def test_a_gradient_that_is_retained_is_a_copy(emulated) -> None:
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    image, text = (x * 1.0 for x in pair())
    image.retain_grad()
    graphed(image, text).backward()
    before = image.grad.clone()
    graphed(*pair()).backward()
    assert torch.equal(image.grad, before)


def test_samples_are_left_alone(emulated) -> None:
    image, text = (torch.randn(WIDTH, BATCH).T for _ in range(2))
    before = image.clone()
    graphed = gk.graphed_loss(OBJECTIVE, image, text, backend="reference", warmup=5)
    graphed(*pair((False, False)))
    assert torch.equal(image, before)
    assert emulated["num_warmup_iters"] == 5
    assert all(x.is_contiguous() for x in emulated["sample_args"])


def test_autocast_changes_nothing(emulated) -> None:
    torch.set_autocast_enabled("cuda", True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    finally:
        torch.set_autocast_enabled("cuda", False)
    batch = pair()
    assert torch.equal(graphed(*batch), gk.goal_loss(*batch, OBJECTIVE, backend="reference"))


def test_a_backward_must_come_before_the_next_call(emulated) -> None:
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    first, second = graphed(*pair()), graphed(*pair())
    with pytest.raises(RuntimeError, match="call 2, the last one, got that of call 1"):
        first.backward()
    second.backward()
    third = graphed(*pair())
    with torch.no_grad():
        graphed(*pair((False, False)))
    with pytest.raises(RuntimeError, match="overwritten"):
        third.backward()


def test_a_backward_happens_once(emulated) -> None:
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    loss = graphed(*pair())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward for each call"):
        loss.backward()


def test_without_gradients_embeddings_may_need_none(emulated) -> None:
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    batch = pair((False, False))
    with torch.no_grad():
        loss = graphed(*batch)
    assert not loss.requires_grad
    assert torch.equal(loss, gk.goal_loss(*batch, OBJECTIVE, backend="reference"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x[:-1], y), ValueError, r"image_embeddings: expected shape \[12, 8\].*drop"),
        (lambda x, y: (x, y[:, 1:]), ValueError, r"text_embeddings: expected shape"),
        (
            lambda x, y: (x, y.double()),
            TypeError,
            r"text_embeddings: expected torch.float32 .*cast",
        ),
        (lambda x, y: (x.to("meta"), y), ValueError, r"image_embeddings: expected device cpu"),
        (lambda x, y: (x.detach(), y), ValueError, r"image_embeddings: .*requires_grad=True"),
        (lambda x, y: (x, 3.0), TypeError, r"text_embeddings: expected a torch.Tensor, got float"),
        (lambda x, y: (x, None), ValueError, r"text_embeddings: expected a tensor .* got None"),
        (lambda x, y: (x, y, torch.arange(12)), ValueError, r"image_ids: expected None .* tensor"),
    ],
)
def test_calls_unlike_the_capture_are_refused(
    emulated, change: Callable[..., tuple[Any, ...]], error: type[Exception], message: str
) -> None:
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), backend="reference")
    with pytest.raises(error, match=message):
        graphed(*change(*pair()))


def test_ids_that_were_captured_are_needed(emulated) -> None:
    ids = torch.arange(BATCH)
    graphed = gk.graphed_loss(OBJECTIVE, *pair(), text_ids=ids, backend="reference")
    graphed(*pair(), text_ids=ids)
    with pytest.raises(ValueError, match=r"text_ids: expected a tensor as at the capture"):
        graphed(*pair())
    with pytest.raises(ValueError, match=r"image_ids: expected None"):
        graphed(*pair(), ids, ids)
    with pytest.raises(TypeError, match=r"text_ids: expected torch.int64 .* got torch.int32"):
        graphed(*pair(), text_ids=ids.int())


@pytest.mark.parametrize(
    ("criterion", "options", "error", "message"),
    [
        (OBJECTIVE, {"return_stats": True}, ValueError, "return_stats: expected False"),
        (gk.GOALLoss(OBJECTIVE, return_stats=True), {}, ValueError, "return_stats"),
        (gk.GOALLoss(OBJECTIVE), {"normalize": True}, TypeError, "normalize: expected no options"),
        (torch.nn.Linear(2, 2), {}, TypeError, "objective: expected an Objective or a string"),
        (OBJECTIVE, {"warmup": 0}, ValueError, "warmup: expected an integer >= 1, got 0"),
        (OBJECTIVE, {"warmup": True}, ValueError, "warmup"),
        (OBJECTIVE, {"image_ids": torch.zeros(3, dtype=torch.int64)}, ValueError, "image_ids"),
    ],
)
def test_captures_that_cannot_be_made_are_refused(
    emulated, criterion: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gk.graphed_loss(criterion, *pair(), **options)


def test_embeddings_are_checked(emulated) -> None:
    image, text = pair()
    with pytest.raises(ValueError, match="text_embeddings: expected 12 rows"):
        gk.graphed_loss(OBJECTIVE, image, text[:-1])
    with pytest.raises(TypeError, match=r"image_ids: expected a torch.Tensor, .* got list"):
        gk.graphed_loss(OBJECTIVE, image, text, image_ids=list(range(12)))


def test_graphs_need_a_cuda_device() -> None:
    with pytest.raises(ValueError, match="image_embeddings: expected a CUDA device, got cpu"):
        gk.graphed_loss(OBJECTIVE, *pair())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("objective", ["hinge/constant", "circle/linear_ms", OBJECTIVE])
def test_replay_equals_the_loss_on_a_gpu(
    objective: str, dtype: torch.dtype, normalize: bool
) -> None:
    criterion = gk.GOALLoss(objective, normalize=normalize, backend="triton")

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.randint(0, 9, (BATCH,), device="cuda")
        return (*pair(device="cuda", dtype=dtype), ids)

    check_replays(criterion, batch(), [batch() for _ in range(4)])
