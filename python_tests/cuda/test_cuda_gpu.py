"""What only a GPU can show: the operators end to end, replayed graphs, no waiting."""

from __future__ import annotations

import pytest
import torch
from cases import caption_ids, paired_batch
from cuda_truth import ENGINES

import goal_kernels as gk

GPU = ENGINES[1:]
OBJECTIVES = ("hinge/constant", "circle/linear_ms", "nca/sigmoid_ms")


def leaves(batch: int, width: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    return [x.to(device).requires_grad_() for x in paired_batch(batch, width, dtype)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("batch", [300, 5000])
@pytest.mark.parametrize("device", GPU)
def test_loss_and_gradients_are_those_of_float64(device, batch, normalize) -> None:
    """The reference in float64 chooses the same pairs wherever they are not almost tied."""
    ids = caption_ids(batch).to(device)
    for name in OBJECTIVES:
        found = leaves(batch, 64, torch.bfloat16, device)
        options = {"image_ids": ids, "text_ids": ids, "normalize": normalize}
        loss = gk.goal_loss(*found, name, backend="cuda", **options)
        loss.backward()
        truth = [x.detach().double().requires_grad_() for x in found]
        expected = gk.goal_loss(*truth, name, backend="reference", **options)
        expected.backward()
        torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=1e-2)
        for left, right in zip(found, truth, strict=True):
            cosine = torch.nn.functional.cosine_similarity(
                left.grad.double().flatten(), right.grad.flatten(), dim=0
            )
            assert cosine > 0.995


@pytest.mark.parametrize(("batch", "width"), [(300, 72), (5000, 72), (2300, 1024)])
@pytest.mark.parametrize("device", GPU)
def test_a_captured_step_replays_bit_for_bit(device, batch, width) -> None:
    """Below and above the sizes at which lists are sorted; and two thread blocks share images."""
    for name in OBJECTIVES:
        image, text = leaves(batch, width, torch.float16, device)

        def step(image=image, text=text, name=name):
            loss = gk.goal_loss(image, text, name, backend="cuda", normalize=True)
            return loss, *torch.autograd.grad(loss, (image, text))

        expected = step()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        for _ in range(3):
            graph.replay()
            for left, right in zip(captured, expected, strict=True):
                assert torch.equal(left, right)


@pytest.mark.parametrize("device", GPU)
def test_no_launch_waits_for_the_device(device) -> None:
    image, text = leaves(700, 64, torch.bfloat16, device)
    gk.goal_loss(image, text, "nca/sigmoid_ms", backend="cuda").backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gk.goal_loss(image, text, "nca/sigmoid_ms", backend="cuda").backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
