"""A training step never waits for the GPU and launches few kernels; `launches` has the means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh_process import run_fresh
from launches import DEVICE, CaptureError, LaunchRecorder, recording
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.gpu import TritonBackend, use_strategy
from goal_kernels.backends.gpu.plan import HOPPER, STRIP, TILE

pytest.importorskip("triton")

OBJECTIVES = (
    "hinge/constant",
    "nca/constant",
    "circle/linear",
    "constant/linear_ms",
    "nca/sigmoid_ms",
)
FLAVOURS = (
    (torch.bfloat16, "highest"),
    (torch.float16, "highest"),
    (torch.float32, "highest"),
    (torch.float32, "high"),
    (torch.float32, "medium"),
)

SMALL = 2048
"""Batches up to here are limited by launches, not by arithmetic."""

SMALL_STEP = ["prepare_kernel", "tile_kernel", "weigh_kernel", "gather_kernel"]
"""All that forward and backward of a small batch launch."""

DIVISIONS = ["div", "div"]
"""What reduction="mean" adds: one for the value, one for the incoming gradient."""


SORTED = ["sort", "sort"]
"""All of torch's that a large batch adds: positives are sorted if there are sums, lists always."""


def embeddings(
    batch: int, dtype: torch.dtype = torch.bfloat16, need: tuple[bool, bool] = (True, True)
) -> tuple[Tensor, Tensor]:
    """Image and text embeddings [batch, 64]."""
    image, text = (
        torch.empty(batch, 64, dtype=dtype, device=DEVICE, requires_grad=wanted) for wanted in need
    )
    return image, text


def step(image: Tensor, text: Tensor, objective: Any, **options: Any) -> list[Tensor]:
    """Forward and backward; the gradients that are wanted."""
    loss = gk.goal_loss(image, text, objective, backend="triton", **options)
    wanted = [x for x in (image, text) if x.requires_grad]
    return list(torch.autograd.grad(loss, wanted, torch.empty((), device=DEVICE)))


def check_step(recorder: LaunchRecorder, *tensors: Tensor, **options: Any) -> None:
    image, text = tensors
    grads = step(image, text, **options)
    wanted = [x for x in (image, text) if x.requires_grad]
    assert [(g.shape, g.dtype, g.device) for g in grads] == [
        (x.shape, x.dtype, x.device) for x in wanted
    ]
    assert recorder.kernels
    assert "cumsum" not in recorder.operators, "torch's scan of a GPU adds in any order"
    assert all(min(launch.grid) >= 1 for launch in recorder.kernels)
    objective = options["objective"]
    if image.shape[0] > 4096 and options.get("reduction") != "mean":
        kind = gk.Objective.parse(objective).pair_element.relative
        assert recorder.operators == SORTED[kind == "none" :]
    if image.shape[0] <= SMALL and isinstance(objective, str):
        assert [launch.kernel for launch in recorder.kernels] == SMALL_STEP
        assert recorder.operators == (DIVISIONS if options.get("reduction") == "mean" else [])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("batch", [2, SMALL, 65536])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_can_be_captured(monkeypatch, objective: str, batch: int, normalize: bool) -> None:
    with recording(monkeypatch) as recorder:
        check_step(recorder, *embeddings(batch), objective=objective, normalize=normalize)


@pytest.mark.parametrize(("dtype", "precision"), FLAVOURS)
@pytest.mark.parametrize("batch", [130, 16384])
def test_every_product_can_be_captured(
    monkeypatch, dtype: torch.dtype, precision: str, batch: int
) -> None:
    with recording(monkeypatch) as recorder:
        pair = embeddings(batch, dtype)
        check_step(recorder, *pair, objective="nca/sigmoid_ms", precision=precision)


@pytest.mark.parametrize("strategy", [TILE, STRIP, HOPPER])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_strategy_can_be_captured(monkeypatch, objective: str, strategy: str) -> None:
    with recording(monkeypatch) as recorder, use_strategy(strategy):
        check_step(recorder, *embeddings(4097), objective=objective)
    kernels = [launch.kernel for launch in recorder.kernels]
    for name, kernel in ((TILE, "tile_kernel"), (STRIP, "strip_kernel"), (HOPPER, "mine")):
        assert kernels.count(kernel) == (strategy == name)


@pytest.mark.parametrize("need", [(True, False), (False, True)])
def test_a_gradient_of_one_side_can_be_captured(monkeypatch, need: tuple[bool, bool]) -> None:
    with recording(monkeypatch) as recorder:
        check_step(recorder, *embeddings(64, need=need), objective="nca/sigmoid_ms")


@pytest.mark.parametrize("direction", ["both", "i2t", "t2i"])
@pytest.mark.parametrize("batch", [64, 16384])
def test_ids_and_directions_can_be_captured(monkeypatch, direction: str, batch: int) -> None:
    with recording(monkeypatch) as recorder:
        ids = torch.empty(batch, dtype=torch.int64, device=DEVICE)
        options = {"image_ids": ids, "direction": direction, "reduction": "mean"}
        check_step(recorder, *embeddings(batch), objective="nca/sigmoid_ms", **options)


def test_a_layout_that_has_to_be_copied_can_be_captured(monkeypatch) -> None:
    with recording(monkeypatch) as recorder:
        image, text = (
            torch.empty(65, 130, dtype=torch.bfloat16, device=DEVICE).T.requires_grad_()
            for _ in range(2)
        )
        check_step(recorder, image, text, objective="nca/sigmoid_ms")


def test_an_element_of_ones_own_and_statistics_can_be_captured(monkeypatch) -> None:
    objective = gk.Objective(lambda positive, negative: (negative - positive).sigmoid(), "linear")
    with recording(monkeypatch) as recorder:
        check_step(recorder, *embeddings(64), objective=objective)
    with recording(monkeypatch) as recorder:
        loss, stats = gk.goal_loss(
            *embeddings(64), "nca/sigmoid_ms", backend="triton", return_stats=True
        )
        assert stats.hardest_text.shape == (64,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_direction_can_be_captured(monkeypatch, dtype: torch.dtype) -> None:
    objective = gk.Objective("nca", "sigmoid_ms", direction_element="tangent")
    with recording(monkeypatch) as recorder:
        check_step(recorder, *embeddings(64, dtype), objective=objective)
        kernels = [launch.kernel for launch in recorder.kernels]
    assert kernels == SMALL_STEP


def test_mining_with_targets_can_be_captured(monkeypatch) -> None:
    with recording(monkeypatch) as recorder:
        image, text = embeddings(64)[0], embeddings(300)[1]
        target = torch.empty(64, dtype=torch.int64, device=DEVICE)
        mined = gk.mine(image, text, target=target, backend="triton")
        assert mined.hardest_image.shape == (300,)
    kernels = [launch.kernel for launch in recorder.kernels]
    assert kernels == ["prepare_kernel", "tile_kernel", "finish_kernel"]
    assert recorder.operators == []


HOST = torch.zeros(3)


def launch(grid: Any, *arguments: Any, **options: Any) -> None:
    """Launch a kernel, any one."""
    from sample_kernels import walk_kernel

    walk_kernel[grid](*arguments, **options)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: torch.nonzero(x),
        lambda x: x[x > 0],
        lambda x: x.clone().index_put_((x[:, 0] > 0,), x[0]),
        lambda x: torch.where(x > 0),
        lambda x: torch.unique(x),
        lambda x: torch.bincount(x[:, 0].to(torch.int64)),
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.as_tensor(1.0, device=x.device),
        lambda x: x[:3, 0].float().copy_(HOST),
        lambda x: launch((1,), x, HOST),
    ],
)
def test_what_cannot_be_captured_is_found(monkeypatch, wait: Callable[[Tensor], Any]) -> None:
    """The check itself: planted into the backend, each of these has to fail a step."""
    forward = TritonBackend.forward

    def waiting(self: TritonBackend, image: Tensor, *rest: Any) -> Any:
        wait(image)
        return forward(self, image, *rest)

    with recording(monkeypatch) as recorder:
        monkeypatch.setattr(TritonBackend, "forward", waiting)
        with pytest.raises(CaptureError):
            check_step(recorder, *embeddings(8), objective="nca/linear")


def test_launches_are_counted(monkeypatch) -> None:
    """Views and allocations are none, a fill and a sum are."""
    with recording(monkeypatch) as recorder:
        x = torch.empty(4, 6, device=DEVICE)
        x.view(24)[3:].unsqueeze(0)
        x.split(2)
        x.T.detach()
        torch.empty_like(x)
        assert recorder.count == 0
        (x * 2.0).sum()
        x.zero_()
        assert recorder.operators == ["mul", "sum", "zero_"]
        launch(lambda options: (options["BLOCK"], 2), x, x, BLOCK=3)
        assert [launch[:2] for launch in recorder.kernels] == [("walk_kernel", (3, 2))]
        assert recorder.count == 4


MANY_SIZES = """
import torch
from tools.aot.cases import Case, variants

sizes = torch.linspace(2049, 16384, 60).long().tolist()
print(len(variants(90, [Case((), f"{size}x512", "bf16", "nca/sigmoid_ms") for size in sizes])))
"""


def test_batches_of_many_sizes_share_their_kernels() -> None:
    """60 sizes of large batches: 40 compilations if sizes of grids were specialised."""
    root = Path(__file__).parent.parent.parent
    done = run_fresh(MANY_SIZES, environment={"TRITON_INTERPRET": None}, folder=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 22
