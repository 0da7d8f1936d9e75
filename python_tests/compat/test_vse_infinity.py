"""VSE-infinity's own training with its loss and evaluation exchanged: every step the same.

    git clone --branch bigru https://github.com/woodfrog/vse_infty
    VSE_INFTY=vse_infty python -m pytest python_tests/compat/test_vse_infinity.py -s

Skipped without a clone. Prints what docs/compat.md reports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from goal_kernels.compat import evaluate, vse

BATCH, STEPS, EPOCHS = 128, 20, 3
TEXTS, FEATURES, REGIONS, WORDS = BATCH * STEPS, 128, 12, 300


class Loader:
    """Region features and captions of made-up topics, five captions an image.

    order: seeds noise and order; None: in order of the captions, for evaluation.
    """

    batch_size = BATCH
    dataset = range(TEXTS)

    def __init__(self, order: int | None) -> None:
        self.order = order

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        world = np.random.default_rng(0)
        topics = world.normal(size=(TEXTS // 5, 1, FEATURES))
        themes = world.integers(4, WORDS, size=(TEXTS // 5, REGIONS))
        draw = np.random.default_rng(99 if self.order is None else self.order)
        order = np.arange(TEXTS) if self.order is None else draw.permutation(TEXTS)
        for ids in order.reshape(-1, BATCH):
            regions = topics[ids // 5] + draw.normal(size=(BATCH, REGIONS, FEATURES))
            kept = draw.random((BATCH, REGIONS)) < 0.6
            words = np.where(kept, themes[ids // 5], draw.integers(4, WORDS, size=kept.shape))
            yield (
                torch.from_numpy(regions).to(torch.get_default_dtype()),
                torch.full((BATCH,), float(REGIONS)),
                torch.from_numpy(words),
                [REGIONS] * BATCH,
                torch.from_numpy(ids),
            )


class Run(NamedTuple):
    """Loss of every step, rsum after every epoch, the parameters in the end."""

    losses: np.ndarray
    rsums: list[float]
    parameters: Tensor


def train(theirs: Any, criterion: Any, i2t: Any, t2i: Any) -> Run:
    """Their train() and validate(), an epoch of all hinges and two of the hardest."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, what their encoder draws dropped regions from
    options = theirs.arguments.get_argument_parser().parse_args([])
    options.vocab_size, options.img_dim, options.embed_size = WORDS, FEATURES, 256
    options.learning_rate = 5e-4
    sys.modules["lib.vse"].ContrastiveLoss = criterion  # type: ignore[attr-defined]
    theirs.i2t, theirs.t2i = i2t, t2i
    model = theirs.VSEModel(options)
    model.make_data_parallel()
    computed, losses, rsums = model.forward_loss, [], []

    def watched(*embeddings: Tensor) -> Tensor:
        loss = computed(*embeddings)
        if loss.requires_grad:
            losses.append(loss.item())
        return loss

    model.forward_loss = watched
    for epoch in range(EPOCHS):
        model.set_max_violation(epoch > 0)
        theirs.train(options, Loader(epoch), model, epoch, None)
        rsums.append(theirs.validate(options, Loader(None), model))
    flat = torch.cat([parameter.detach().flatten() for parameter in model.params])
    return Run(np.array(losses), rsums, flat)


@pytest.fixture
def _their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules on the path; what reads images and writes logs is left out."""
    if "VSE_INFTY" not in os.environ:
        pytest.skip("VSE_INFTY names no clone of woodfrog/vse_infty")
    monkeypatch.syspath_prepend(os.environ["VSE_INFTY"])
    for name in ("imageio", "cv2", "tensorboard_logger"):
        absent: Any = ModuleType(name)
        absent.imread = absent.log_value = lambda *_, **__: None
        monkeypatch.setitem(sys.modules, name, absent)
    if not torch.cuda.is_available():
        monkeypatch.setattr(Tensor, "cuda", lambda self: self)


@pytest.mark.usefixtures("_their_code")
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-2)], ids=["float64", "float32"]
)
def test_training_is_the_same_step_by_step(dtype: torch.dtype, bound: float) -> None:
    """In float32 an anchor whose two hardest negatives are equal to rounding may take the other."""
    import lib.evaluation
    import lib.loss
    import train as theirs

    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        before = train(theirs, lib.loss.ContrastiveLoss, lib.evaluation.i2t, lib.evaluation.t2i)
        after = train(theirs, vse.ContrastiveLoss, evaluate.i2t, evaluate.t2i)
    finally:
        torch.set_default_dtype(usual)
    assert len(before.losses) == STEPS * EPOCHS
    apart = np.abs(after.losses / before.losses - 1)
    change = ((after.parameters - before.parameters).norm() / before.parameters.norm()).item()
    print(f"{dtype}, torch {torch.__version__}")
    for epoch in range(EPOCHS):
        part = slice(epoch * STEPS, (epoch + 1) * STEPS)
        ends = before.losses[part][[0, -1]].round(2)
        print(f"epoch {epoch}: loss {ends}, at most {apart[part].max():.1e} apart")
    print(f"rsum {before.rsums} and {after.rsums}; parameters {change:.1e} apart")
    assert apart[:STEPS].max() < 1e-5
    assert apart.max() < bound
    assert change < bound
