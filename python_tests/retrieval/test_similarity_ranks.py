"""Ranks of given scores, ensembles and the sorting protocol, against literal numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from literature import IMAGES, argsort_ranks, embeddings, flat, index, printed

import goal_kernels as gk
from goal_kernels.backends import reference_rank
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, MeanScores, scores


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that divide nothing."""
    monkeypatch.setattr(scores, "BLOCK_SCORES", 1900)
    monkeypatch.setattr(reference_rank, "IMAGE_BLOCK", 17)
    monkeypatch.setattr(reference_rank, "TEXT_BLOCK", 101)


def matrix(kind: str, dtype) -> np.ndarray:
    image, text = (side.double().numpy() for side in embeddings())
    similarity = image @ text.T
    if kind == "tied":
        similarity = np.round(similarity, 1)
    elif kind == "bfloat16":
        similarity = torch.from_numpy(similarity).bfloat16().double().numpy()
    elif kind == "constant":
        similarity = np.zeros_like(similarity)
    elif kind == "nan":
        similarity[:, 7] = np.nan
    return similarity.astype(dtype)


@pytest.mark.filterwarnings("ignore:retrieval_ranks")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["random", "tied", "bfloat16", "constant", "nan"])
def test_argsort_is_the_literature_to_the_last_bit(kind: str, dtype) -> None:
    similarity = matrix(kind, dtype)
    i2t, t2i = argsort_ranks(similarity, index().numpy())
    found = gk.similarity_ranks(similarity, index(), ties="argsort")
    assert found.i2t.tolist() == i2t.tolist()
    assert found.t2i.tolist() == t2i.tolist()
    assert flat(gk.retrieval_metrics(found)) == printed(i2t, t2i)


def test_argsort_of_embeddings_sorts_float64_products() -> None:
    image, text = embeddings()
    text[::7] = text[0]  # equal captions: ties in every row
    products = image.double().numpy() @ text.double().numpy().T
    found = gk.retrieval_ranks(image, text, index(), ties="argsort")
    i2t, t2i = argsort_ranks(products, index().numpy())
    assert found.i2t.tolist() == i2t.tolist()
    assert found.t2i.tolist() == t2i.tolist()


def test_argsort_leaves_images_without_texts_out() -> None:
    ragged = torch.tensor([2, 0, 0, 2, 2])
    similarity = torch.rand(3, 5)
    found = gk.similarity_ranks(similarity, ragged, ties="argsort")
    assert found.i2t.isnan().tolist() == [False, True, False]
    counted = gk.similarity_ranks(similarity, ragged)
    assert torch.equal(found.i2t.nan_to_num(-1), counted.i2t.nan_to_num(-1))


def literal_counts(similarity: np.ndarray, owner: np.ndarray, rule: str):
    """Ranks by the definition of a tie rule, one comparison at a time."""
    ranks = ([], [])
    sides = (
        [(row, [j for j in range(len(row)) if owner[j] == i]) for i, row in enumerate(similarity)],
        [(similarity[:, j], [owner[j]]) for j in range(similarity.shape[1])],
    )
    for side, out in zip(sides, ranks, strict=True):
        for row, own in side:
            best = max(row[own])
            wrong = [x for j, x in enumerate(row) if j not in own]
            better, tied = sum(x > best for x in wrong), sum(x == best for x in wrong)
            share = {"optimistic": 0, "pessimistic": 1, "expected": 1 / (sum(row[own] == best) + 1)}
            out.append(better + tied * share[rule])
    return ranks


@pytest.mark.parametrize("rule", ["expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_given_scores_compare_as_they_are(rule: str, dtype, tmp_path: Path) -> None:
    """Mapped from a file, in float64 down to the last bit."""
    similarity = matrix("tied", dtype)
    if dtype is np.float64:
        similarity[3, 40] = np.nextafter(similarity[3, 15], 2)  # float32 could not tell them apart
    np.save(tmp_path / "sims.npy", similarity)
    mapped = np.load(tmp_path / "sims.npy", mmap_mode="r")
    found = gk.similarity_ranks(mapped, index(), ties=rule)
    i2t, t2i = literal_counts(similarity, index().numpy(), rule)
    assert found.i2t.tolist() == pytest.approx(i2t)
    assert found.t2i.tolist() == pytest.approx(t2i)


def test_a_matrix_and_its_embeddings_agree() -> None:
    image, text = embeddings()
    products = (image.double() @ text.double().T).float()
    for given in (products, products.numpy(), (image, text), (image.numpy(), text.numpy())):
        found = gk.similarity_ranks(given, index())
        assert torch.equal(found.i2t, gk.retrieval_ranks(image, text, index()).i2t)
        assert torch.equal(found.t2i, gk.retrieval_ranks(image, text, index()).t2i)
    half = gk.similarity_ranks(products.bfloat16(), index())
    assert torch.equal(half.t2i, gk.similarity_ranks(products.bfloat16().float(), index()).t2i)


@pytest.mark.parametrize("kinds", ["eee", "ee", "em", "mm"])
def test_an_ensemble_is_the_mean_of_the_matrices(kinds: str) -> None:
    pairs = [embeddings(seed) for seed in range(len(kinds))]
    products = [image.double().numpy() @ text.double().numpy().T for image, text in pairs]
    members = [
        EmbeddingScores(*pair) if kind == "e" else MatrixScores(product)
        for kind, pair, product in zip(kinds, pairs, products, strict=True)
    ]
    mean = np.array(products).mean(axis=0)
    together = MeanScores(members)
    assert np.array_equal(together.block(slice(None), slice(None)), mean)
    for ties, expected in (("expected", mean.astype(np.float32)), ("argsort", mean)):
        found = gk.similarity_ranks(together, index(), ties=ties)
        wanted = gk.similarity_ranks(expected, index(), ties=ties)
        assert torch.equal(found.i2t, wanted.i2t)
        assert torch.equal(found.t2i, wanted.t2i)
    alone = gk.similarity_ranks(products[0], index())
    assert not torch.equal(alone.t2i, gk.similarity_ranks(together, index()).t2i)


def test_embeddings_of_several_widths_and_dtypes_make_an_ensemble() -> None:
    image, text = embeddings()
    wide = EmbeddingScores(torch.cat([image, image], 1).half(), torch.cat([text, text], 1).half())
    mean = MeanScores([EmbeddingScores(image.bfloat16(), text.bfloat16()), wide])
    expected = sum(member.block(slice(None), slice(None)) for member in mean.members) / 2
    found = gk.similarity_ranks(mean, index())
    assert torch.equal(found.t2i, gk.similarity_ranks(expected.astype(np.float32), index()).t2i)


def test_nan_ranks_last_and_what_is_broken_is_counted() -> None:
    similarity = matrix("nan", np.float32)
    with pytest.warns(RuntimeWarning, match="1 of 360 queries have a NaN .* rank last"):
        found = gk.similarity_ranks(similarity, index())
    assert found.t2i[7] == (IMAGES - 1) / 2
    assert MatrixScores(similarity).broken() == {"scores": IMAGES}
    with pytest.warns(RuntimeWarning, match="wherever the sort puts them"):
        sorted_ = gk.similarity_ranks(similarity, index(), ties="argsort")
    assert (sorted_.i2t >= 1).sum() >= IMAGES - 1, "NaN takes the first place of every other row"
    image, text = embeddings()
    text[3], image[2] = np.nan, np.inf
    broken = {"image embeddings": 1, "text embeddings": 1}
    assert EmbeddingScores(image, text).broken() == broken
    both = MeanScores([EmbeddingScores(image, text), MatrixScores(similarity)])
    assert both.broken() == {**broken, "scores": IMAGES}
    assert EmbeddingScores(*embeddings()).broken() == {}


GOOD = np.zeros((4, 8), dtype=np.float32)
BAD = (
    (lambda: gk.similarity_ranks(GOOD.astype(int), index(4)), TypeError, "cast them"),
    (lambda: gk.similarity_ranks(GOOD[0], index(4)), ValueError, r"matrix \[N images, M texts\]"),
    (lambda: gk.similarity_ranks(GOOD[:0], index(4)), ValueError, "N, M >= 1"),
    (lambda: gk.similarity_ranks(GOOD, index(4)), ValueError, "text_to_image: .*one integer"),
    (lambda: gk.similarity_ranks("sims.npy", index(4)), TypeError, "scores: expected a matrix"),
    (
        lambda: gk.similarity_ranks(GOOD, index(4)[:8], backend="cpu"),
        gk.BackendUnavailableError,
        "scores of embeddings only",
    ),
    (
        lambda: MeanScores([MatrixScores(GOOD), MatrixScores(GOOD[:2])]),
        ValueError,
        "members: expected scores of one set",
    ),
)


@pytest.mark.parametrize(("call", "error", "words"), BAD, ids=range(len(BAD)))
def test_bad_scores_are_refused(call, error, words: str) -> None:
    with pytest.raises(error, match=words):
        call()
