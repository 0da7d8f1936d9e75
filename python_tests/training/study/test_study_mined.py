"""The share of mined negatives that are true, against a loop over the pairs of each batch."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_cases import make_module
from torch.nn.functional import normalize

from goal_kernels.data import TruthRelation
from goal_kernels.training.data import TextDataset, collate_images, collate_texts, images_of
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.study.mined import mined_truth


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> RetrievalDataModule:
    """Made-up data in which a caption is true of every image that has its colour: i mod 6."""
    known = tmp_path / "known"
    shutil.copytree(folder, known)
    rows = [np.arange(caption // 2 % 6, 24, 6) for caption in range(48)]
    TruthRelation.from_rows(rows, 24).save(known / "train_truth.npz")
    return RetrievalDataModule(str(known), batch_size=16)


def made(data: RetrievalDataModule, **options) -> RetrievalModule:
    """A module whose embeddings are far enough apart for one order, in any precision."""
    module = make_module(data, **options)
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    pixels, words = draw(10, 12), draw(len(data.vocabulary), 12)
    module.model.encode_images = lambda batch: normalize(batch.images.double().sum(1) @ pixels)
    module.model.encode_texts = lambda batch: normalize(words[batch.tokens].sum(1))
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_same_image": False},
        {"false_negative_margin": 0.02},
        {"negatives": "semi_hard"},
        {"negatives": "skip:14"},
    ],
    ids=lambda options: "-".join(options) or "hardest",
)
def test_shares_are_those_of_a_literal_loop(data: RetrievalDataModule, options: dict) -> None:
    module = made(data, **options)
    found = mined_truth(module, data)
    split = data.split("train")
    texts, images = TextDataset(split, data.tokenizer), images_of(split, data.pictures, 0)
    strict = options.get("negatives") == "semi_hard"
    limit = 0.0 if strict else options.get("false_negative_margin", np.inf)
    passed_over = 14 if options.get("negatives") == "skip:14" else 0
    skipped, true, mined, candidates = 0, [0, 0], [0, 0], 0
    for captions in np.random.default_rng(0).permutation(48).reshape(3, 16):
        owners = captions // 2
        with torch.no_grad():
            text = module.model.encode_texts(collate_texts([texts[int(c)] for c in captions]))
            image = module.model.encode_images(collate_images([images[int(i)] for i in owners]))
        scores = (image.double() @ text.double().T).numpy()
        known = owners[:, None] % 6 == owners % 6  # [image, caption], symmetric
        candidates += known.sum() - 16
        ids = owners if options.get("mask_same_image", True) else np.arange(16)
        for side, table in enumerate((scores, scores.T)):
            for anchor in range(16):
                above = table[anchor] - table[anchor, anchor]
                others = np.flatnonzero(ids != ids[anchor])
                left = [j for j in others if above[j] < limit]
                skipped += len(others) - len(left)
                ranked = sorted(left, key=lambda j: -above[j])[passed_over:]
                if ranked:
                    mined[side] += 1
                    true[side] += bool(known[anchor, ranked[0]])
    assert sum(mined) > 0
    assert found == pytest.approx(
        {
            "pairs": 48,
            "true_candidates": candidates / (48 * 15),
            "false_negatives": sum(true) / sum(mined),
            "false_negatives_i2t": true[0] / mined[0],
            "false_negatives_t2i": true[1] / mined[1],
            "without": 1 - sum(mined) / 96,
            "skipped": skipped / (96 * 15),
        }
    )


def test_no_negative_is_no_false_one(data: RetrievalDataModule) -> None:
    found = mined_truth(make_module(data, negatives="skip:16"), data)
    assert (found["without"], found["false_negatives"]) == (1, 0)


def test_nothing_is_said_without_a_truth(folder: Path) -> None:
    data = RetrievalDataModule(str(folder), batch_size=16)
    assert mined_truth(make_module(data), data) is None
