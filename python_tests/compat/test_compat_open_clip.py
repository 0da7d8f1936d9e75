"""`GOALClipLoss` in open_clip: its loss where the mathematics coincide, its models, its loop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from compat_cases import assert_same, outcome, unit_rows
from real_packages import real_package
from torch import nn

from goal_kernels import goal_loss
from goal_kernels.compat.open_clip import GOALClipLoss


def test_signature_is_that_of_clip_loss() -> None:
    """Everything `create_loss` passes, by name."""
    batch = unit_rows(6, 4), unit_rows(6, 4, seed=1)
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True)
    loss = GOALClipLoss(
        local_loss=True,
        gather_with_grad=True,
        cache_labels=True,
        rank=0,
        world_size=1,
        use_horovod=False,
    )
    plain = loss(*batch, scale)
    assert torch.equal(plain, goal_loss(*batch, "nca/sigmoid_ms", reduction="mean"))
    named = loss(
        image_features=batch[0],
        text_features=batch[1],
        logit_scale=scale,
        logit_bias=bias,
        output_dict=True,
    )
    assert list(named) == ["contrastive_loss"]
    assert torch.equal(named["contrastive_loss"], plain)
    # DistributedDataParallel waits for a gradient of every parameter.
    assert torch.autograd.grad(named["contrastive_loss"], [scale, bias]) == (0, 0)


@pytest.mark.filterwarnings("ignore:goal_loss")
def test_one_pair_gives_a_zero_with_a_graph() -> None:
    value, *gradients = outcome(GOALClipLoss(), unit_rows(1, 4), unit_rows(1, 4, seed=1))
    assert value == 0
    assert all(gradient.eq(0).all() for gradient in gradients)


def test_ids_and_options_reach_the_objective() -> None:
    batch, ids = (unit_rows(6, 4), unit_rows(6, 4, seed=1)), torch.arange(6) // 2
    loss = GOALClipLoss(objective="hinge/constant", reduction="sum", margin=0.4, direction="t2i")
    wanted = goal_loss(*batch, "hinge/constant", margin=0.4, direction="t2i", image_ids=ids)
    assert torch.equal(loss(*batch, 100.0, image_ids=ids), wanted)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="use_horovod: expected False"):
        GOALClipLoss(use_horovod=True)
    with pytest.raises(RuntimeError, match="world_size: expected 2 processes"):
        GOALClipLoss(world_size=2)(unit_rows(2, 4), unit_rows(2, 4))


@pytest.mark.parametrize("scale", [5.0, 20.0])
def test_two_pairs_have_the_gradient_of_clip(scale: float) -> None:
    """With one negative an anchor: nca/constant with tau = scale is 2 / scale of `ClipLoss`."""
    clip = real_package("open_clip").ClipLoss()
    batch = unit_rows(2, 6), unit_rows(2, 6, seed=1)
    goal = GOALClipLoss(objective="nca/constant", tau=scale)
    _, *got = outcome(lambda x, y: goal(x, y, scale), *batch)
    _, *wanted = outcome(lambda x, y: clip(x, y, scale), *batch)
    assert_same(tuple(got), tuple(wanted), 2.0 / scale)


def tiny_clip() -> nn.Module:
    tower = {"width": 32, "layers": 1}
    return real_package("open_clip").CLIP(
        embed_dim=16,
        vision_cfg={**tower, "image_size": 16, "patch_size": 8, "head_width": 16},
        text_cfg={**tower, "context_length": 8, "vocab_size": 50, "heads": 2},
        output_dict=True,
        init_logit_bias=-10.0,
    )


class Batches(list):
    """A loader that knows its numbers, as open_clip's do."""

    num_batches, num_samples, batch_size = 2, 8, 4


@pytest.mark.parametrize("accumulate", [1, 2], ids=["whole", "accumulated"])
def test_their_training_loop_runs(accumulate: int) -> None:
    """open_clip's own epoch with the loss exchanged: parameters move but for scale and bias."""
    model = tiny_clip()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pairs = [(torch.randn(4, 3, 16, 16), torch.randint(1, 50, (4, 8))) for _ in range(2)]
    data = {"train": SimpleNamespace(dataloader=Batches(pairs), set_epoch=lambda epoch: None)}
    off = dict.fromkeys(["distill", "horovod", "wandb", "distributed"], False)
    arguments = SimpleNamespace(
        **off,
        grad_clip_norm=None,
        device="cpu",
        precision="fp32",
        accum_freq=accumulate,
        skip_scheduler=True,
        log_every_n_steps=10,
        batch_size=4,
        rank=0,
        local_rank=0,
        world_size=1,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = real_package("open_clip_train.train")
    training.train_one_epoch(model, data, GOALClipLoss(), 0, optimizer, None, None, None, arguments)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved >= {"visual.proj", "text_projection", "token_embedding.weight"}
    assert not moved & {"logit_scale", "logit_bias"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
