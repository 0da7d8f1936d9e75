"""Images that show one thing, and their captions, are never each other's negatives."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_cases import make_module, make_trainer
from torch import Tensor
from torch.utils.data import DataLoader

import goal_kernels as gk
from goal_kernels.data import load_split
from goal_kernels.distributed import gather_pairs
from goal_kernels.training.data import Batch
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.evaluation import evaluate
from goal_kernels.training.hardest_examples import hardest_examples
from goal_kernels.training.options import ImageOptions, TextOptions
from goal_kernels.training.report.gallery import Exhibit
from goal_kernels.training.warmup import WarmedLoss, WarmupSchedule

GROUPS = np.arange(24) % 8
"""Of the 24 images of the made-up training split: three each."""


@pytest.fixture
def grouped(folder: Path, tmp_path: Path) -> Path:
    """The made-up folder, its training images in groups of three."""
    copy = shutil.copytree(folder, tmp_path / "grouped")
    (copy / "train_groups.txt").write_text("".join(f"thing {group}\n" for group in GROUPS))
    return copy


def of_groups(rows: Tensor) -> Tensor:
    """Embeddings [B, 8] that images of one group share: unmasked, one of them is the hardest."""
    return torch.eye(8)[torch.from_numpy(GROUPS)[rows]]


def mined_own_group(batch: Batch, criterion: WarmedLoss) -> list[int]:
    """How many mined texts, and mined images, of all pairs are of the pair's own group."""
    relation = batch.relation(True)
    texts = batch.image_ids
    owner = batch.text_to_image
    images = texts if owner is None else texts[owner.diff(prepend=owner[:1] - 1) > 0]
    _, found = criterion(gather_pairs(of_groups(images), of_groups(texts), **relation), 0)
    of = torch.from_numpy(GROUPS)
    counts = []
    for place, candidates in ((found.hardest_text, texts), (found.hardest_image, images)):
        inside = place >= 0
        counts.append(int((of[candidates[place[inside]]] == of[texts[inside]]).sum()))
    return counts


@pytest.mark.parametrize("captions", [None, 2])
def test_another_picture_of_the_thing_is_never_mined(
    folder: Path, grouped: Path, captions: int | None
) -> None:
    for path, never in ((grouped, True), (folder, False)):
        data = RetrievalDataModule(str(path), batch_size=24, captions_per_image=captions)
        objective = gk.Objective("nca", "constant")
        loss = WarmedLoss(objective, WarmupSchedule(0, 0), "reference")
        found = np.array([mined_own_group(batch, loss) for batch in data.train_dataloader()])
        assert (found.sum(axis=0) == 0).tolist() == [never, never]


def test_a_memory_knows_the_groups_of_its_rows() -> None:
    """All that is stored is of the anchor's group, so nothing of it is mined."""
    memory = gk.NegativeMemory(8)
    criterion = partial(memory, gk.GOALLoss("nca/constant", return_stats=True))
    rows = torch.tensor([0, 8, 16, 0])
    batch = Batch(*[rows] * 6, group_ids=torch.from_numpy(GROUPS)[rows])
    for _ in range(2):
        ids = batch.relation(True)["image_ids"]
        _, found = criterion(of_groups(rows), of_groups(rows), image_ids=ids)
        assert {*found.hardest_text.tolist(), *found.hardest_image.tolist()} == {-1}


def test_a_negative_of_the_own_group_that_was_chosen_is_none(grouped: Path, tmp_path: Path) -> None:
    """Mined without groups, captions of image i + 8 come with image i; they are masked."""
    mined = 2 * ((np.arange(24)[:, None] + 8) % 24)
    np.savez(tmp_path / "mined.npz", i2t_indices=mined)
    options = {"captions_per_image": 1, "explicit_negatives": str(tmp_path / "mined.npz")}
    [batch] = RetrievalDataModule(str(grouped), batch_size=24, **options).train_dataloader()
    relation = batch.relation(True)
    chosen = relation["text_to_image"] < 0
    assert chosen.sum() == 24
    own = relation["image_ids"][batch.text_to_image]
    assert torch.equal(relation["text_ids"], own)
    assert (batch.image_ids[chosen] - batch.image_ids[~chosen]).remainder(24).eq(8).all()


@pytest.mark.parametrize(("mask", "loss"), [(True, 0.0), (False, 2 * 12 * 0.2)])
def test_the_training_step_masks_groups(grouped: Path, mask: bool, loss: float) -> None:
    data = RetrievalDataModule(str(grouped), batch_size=12)
    batch = next(iter(data.train_dataloader()))
    rows = torch.arange(12)  # of twelve images, two of a group
    batch = batch._replace(image_ids=rows, group_ids=rows // 2)
    image, text = ImageOptions(drop_probability=0), TextOptions(word_dim=8, drop_probability=0)
    module = make_module(data, mask_same_image=mask, image=image, text=text)
    same = torch.eye(6)[rows // 2].requires_grad_()
    module.model.forward = lambda _: (same, same)
    trainer = make_trainer(1, limit_val_batches=0)
    trainer.fit(module, train_dataloaders=DataLoader([batch], batch_size=None))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss)


def test_distinct_images_are_of_distinct_groups(grouped: Path) -> None:
    data = RetrievalDataModule(str(grouped), batch_size=6, distinct_images=True)
    batches = list(data.train_dataloader())
    assert len(batches) == 8
    for batch in batches:
        assert len(batch.group_ids.unique()) == 6
        assert batch.group_ids.tolist() == GROUPS[batch.image_ids].tolist()


def test_evaluation_during_training_knows_groups(grouped: Path) -> None:
    """Of dev, also where only its first images are encoded."""
    (grouped / "dev_groups.txt").write_text("".join(f"{row // 4}\n" for row in range(12)))
    data = RetrievalDataModule(str(grouped), batch_size=12)
    module = make_module(data)
    make_trainer(1).validate(module, datamodule=data, verbose=False)
    found = module.evaluation
    facts = found.image_embeddings, found.text_embeddings, found.image_of_caption
    groups = torch.arange(12) // 4
    assert torch.equal(found.groups, groups)
    assert found.metrics == gk.retrieval_metrics(gk.retrieval_ranks(*facts, groups=groups))
    assert found.chance["t2i"]["R@1"] == pytest.approx(100 / 3)
    shown = hardest_examples(found)
    owner = found.image_of_caption
    assert all(row["negative"] // 4 != owner[row["caption"]] // 4 for row in shown["captions"])
    assert all(owner[row["negative"]] // 4 != row["image"] // 4 for row in shown["images"])
    verdicts = [Exhibit(data.split("dev")).verdict(0, image) for image in (0, 3, 4)]
    assert verdicts == ["match", "also", "other"]
    cut = evaluate(facts[0][:5], *facts[1:], groups=groups)
    first = gk.retrieval_ranks(facts[0][:5], facts[1][:10], facts[2][:10], groups=groups[:5])
    assert cut.metrics == gk.retrieval_metrics(first)


def test_batches_are_those_without_groups(folder: Path, grouped: Path) -> None:
    """But for the ids: order, images and captions stay."""
    plain, other = (
        list(RetrievalDataModule(str(path), batch_size=8, num_workers=0).train_dataloader())
        for path in (folder, grouped)
    )
    for one, two in zip(plain, other, strict=True):
        assert one.group_ids is None
        assert all(torch.equal(a, b) for a, b in zip(one[:6], two[:6], strict=True))
        assert one.relation(True)["image_ids"] is one.image_ids
    assert load_split(folder, "train").groups is None
