"""Ranks where several images show one thing, against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends.choice import BackendUnavailableError
from goal_kernels.retrieval import EmbeddingScores, MeanScores, fold_chance, scores

IMAGES, TEXTS = 9, 20
OWNER = torch.arange(TEXTS) * 7 % 8  # the last image has no text of its own
GROUPS = torch.tensor([4, -1, 4, 9, 9, 9, 2, -1, 4])
"""The last image has those of its group; any integers will do."""


def make_matrix(levels: int, nan: bool = False) -> Tensor:
    matrix = torch.randint(levels, (IMAGES, TEXTS), generator=torch.Generator().manual_seed(1))
    matrix = matrix.float()
    if nan:
        matrix[3, 2:9], matrix[6] = math.nan, math.nan
    return matrix


def literal_rank(row: Tensor, own: Tensor, ties: str) -> float:
    """Rank of the best of the positives among the wrong candidates."""
    row = row.nan_to_num(nan=-math.inf)
    wrong, right = row[~own], row[own]
    before, tied = int((wrong > right.max()).sum()), int((wrong == right.max()).sum())
    shared = int((right == right.max()).sum())
    return before + {"optimistic": 0, "pessimistic": tied, "expected": tied / (shared + 1)}[ties]


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize(("levels", "nan"), [(1000, False), (3, False), (1000, True)])
@pytest.mark.parametrize("block", [7, 1 << 22])
@pytest.mark.filterwarnings("ignore:retrieval_ranks")
def test_the_best_of_the_group_ranks(
    ties: str, levels: int, nan: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "BLOCK_SCORES", block)
    matrix = make_matrix(levels, nan)
    found = gk.similarity_ranks(matrix, OWNER, ties=ties, groups=GROUPS.tolist())
    own = GROUPS[:, None] == GROUPS[OWNER]
    for image in range(IMAGES):
        assert found.i2t[image] == literal_rank(matrix[image], own[image], ties)
    for text in range(TEXTS):
        assert found.t2i[text] == literal_rank(matrix[:, text], own[:, text], ties)
    lost = [(matrix.isnan() | ~own).all(dim=dim) for dim in (0, 1)]
    assert found.nan_scores == sum(int(part.sum()) for part in lost)


@pytest.mark.parametrize("groups", [torch.arange(IMAGES), torch.arange(IMAGES).flip(0) * 3])
@pytest.mark.parametrize("ties", ["expected", "argsort"])
@pytest.mark.parametrize("levels", [3, 1000])
def test_an_image_a_group_is_as_without(groups: Tensor, ties: str, levels: int) -> None:
    matrix = make_matrix(levels)
    plain = gk.similarity_ranks(matrix, OWNER, ties=ties)
    found = gk.similarity_ranks(matrix, OWNER, ties=ties, groups=groups)
    assert found.i2t[:-1].equal(plain.i2t[:-1])
    assert found.i2t[-1].isnan()
    assert found.t2i.equal(plain.t2i)
    assert gk.retrieval_metrics(found) == gk.retrieval_metrics(plain)
    assert gk.chance_metrics(OWNER, IMAGES, groups) == gk.chance_metrics(OWNER, IMAGES)


def test_a_sort_has_the_same_ranks_where_nothing_ties() -> None:
    matrix = torch.randn(IMAGES, TEXTS, generator=torch.Generator().manual_seed(2))
    by_sort = gk.similarity_ranks(matrix, OWNER, ties="argsort", groups=GROUPS)
    counted = gk.similarity_ranks(matrix, OWNER, groups=GROUPS)
    assert by_sort.i2t.equal(counted.i2t)
    assert by_sort.t2i.equal(counted.t2i)


def test_embeddings_and_means_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.randint(-3, 4, (IMAGES + TEXTS, 5), generator=generator)
        .float()
        .split([IMAGES, TEXTS])
    )
    wanted = gk.similarity_ranks(image @ text.T, OWNER, groups=GROUPS)
    found = gk.retrieval_ranks(image, text, OWNER, groups=GROUPS)
    mean = gk.similarity_ranks(MeanScores([EmbeddingScores(image, text)] * 2), OWNER, groups=GROUPS)
    for one in (found, mean):
        assert one.i2t.equal(wanted.i2t)
        assert one.t2i.equal(wanted.t2i)


def test_a_collapsed_model_has_chance() -> None:
    """Also in folds, each with its own part of the groups."""
    owner = torch.arange(TEXTS) % IMAGES
    same = torch.zeros(IMAGES, TEXTS)
    found = gk.fold_metrics(same, owner, 3, groups=GROUPS)
    for direction in ("i2t", "t2i"):
        chance = fold_chance(owner, IMAGES, 3, GROUPS)[direction]
        assert found.mean[direction] == pytest.approx(chance)
        alone = fold_chance(owner, IMAGES, 3)[direction]
        assert chance["R@1"] > alone["R@1"]
    # Of nine images three are right for a text of group 4.
    texts = GROUPS[OWNER]
    sizes = (texts[:, None] == GROUPS).sum(dim=1)
    expected = 100 * float((sizes / IMAGES).double().mean())
    assert gk.chance_metrics(OWNER, IMAGES, GROUPS)["t2i"]["R@1"] == pytest.approx(expected)


def test_what_is_no_group_is_refused() -> None:
    matrix = make_matrix(5)
    with pytest.raises(ValueError, match="groups"):
        gk.similarity_ranks(matrix, OWNER, groups=GROUPS[:-1])
    with pytest.raises(TypeError, match="groups"):
        gk.similarity_ranks(matrix, OWNER, groups=np.ones(IMAGES))
    with pytest.raises(BackendUnavailableError, match="groups"):
        gk.retrieval_ranks(matrix[:, :4], matrix.T[:, :4], OWNER, groups=GROUPS, backend="cpu")
