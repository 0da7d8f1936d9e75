"""Full and re-ranked rankings of a model that scores pairs, against orders made by sorting."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import goal_kernels as gk
from goal_kernels.retrieval import EmbeddingScores, MatrixScores
from goal_kernels.training.evaluation import evaluate, worse_reranked
from goal_kernels.training.options import ScoreOptions
from goal_kernels.training.rankings import PairScores, RerankedScores
from goal_kernels.training.scoring import Scorer, TokenSet

IMAGES, TEXTS = 9, 20
OWNER = torch.arange(TEXTS) % (IMAGES - 1)  # the last image has no caption


def make_dual(seed: int = 0) -> EmbeddingScores:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(IMAGES + TEXTS, 4, generator=generator)
    return EmbeddingScores(*(rows / rows.norm(dim=1, keepdim=True)).split([IMAGES, TEXTS]))


def make_scores(levels: int = 1000, nan: bool = False) -> Tensor:
    """[N, M], of few levels with ties."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(levels, (IMAGES, TEXTS), generator=generator).float()
    if nan:
        scores[2, 2], scores[4, :5] = math.nan, math.nan
    return scores


def literal_rank(first: Tensor, then: Tensor, own: Tensor, k: int) -> float:
    """Expected rank of the best positive when the k first by `first` are put in order by `then`."""
    order = first.argsort(descending=True).tolist()
    near, far = order[:k], order[k:]
    value = {c: -math.inf if then[c].isnan() else float(then[c]) for c in near}
    if not any(own[c] for c in near):
        return k + next(place for place, c in enumerate(far) if own[c])
    best = max(value[c] for c in near if own[c])
    wrong = [value[c] for c in near if not own[c]]
    positives = sum(value[c] == best for c in near if own[c])
    return sum(v > best for v in wrong) + wrong.count(best) / (positives + 1)


@pytest.mark.parametrize("k", [1, 3, 8, 50])
@pytest.mark.parametrize(("levels", "nan"), [(1000, False), (3, False), (1000, True)])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 0, 2, 2, 3, 4, 5, 6])])
@pytest.mark.filterwarnings("ignore:retrieval_ranks")
def test_reranked_ranks_are_those_of_sorting(
    k: int, levels: int, nan: bool, groups: Tensor | None
) -> None:
    dual, scores = make_dual(), make_scores(levels, nan)
    asked: list[int] = []

    def pair_scores(images: Tensor, texts: Tensor) -> Tensor:
        asked.append(len(images))
        return scores[images, texts]

    ranks = gk.similarity_ranks(RerankedScores(dual, pair_scores, k), OWNER, groups=groups)
    first = dual.image @ dual.text.T
    things = torch.arange(IMAGES) if groups is None else groups
    own = things[:, None] == things[OWNER]
    for image in range(IMAGES - 1):
        assert ranks.i2t[image] == literal_rank(first[image], scores[image], own[image], k)
    assert ranks.i2t[-1].isnan()
    for text in range(TEXTS):
        assert ranks.t2i[text] == literal_rank(first[:, text], scores[:, text], own[:, text], k)
    assert sum(asked) == min(k, TEXTS) * IMAGES + min(k, IMAGES) * TEXTS


@pytest.mark.parametrize("k", [1, 4, 50])
@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.filterwarnings("ignore:retrieval_ranks")
def test_a_ranking_of_all_pairs_is_reranked_too(k: int, nan: bool) -> None:
    scores, first = make_scores(), make_dual().image @ make_dual().text.T
    if nan:
        first[3, 3] = first[:, 5] = math.nan
    base = first.nan_to_num(nan=-9.0)
    ranks = gk.similarity_ranks(
        RerankedScores(MatrixScores(first), lambda i, j: scores[i, j], k), OWNER
    )
    own = torch.arange(IMAGES)[:, None] == OWNER
    for image in range(IMAGES - 1):
        assert ranks.i2t[image] == literal_rank(base[image], scores[image], own[image], k)
    for text in set(range(TEXTS)) - ({3, 5} if nan else set()):
        assert ranks.t2i[text] == literal_rank(base[:, text], scores[:, text], own[:, text], k)


def test_folds_rerank_their_own_candidates() -> None:
    dual, scores = make_dual(), make_scores()
    owner = torch.arange(TEXTS) % IMAGES
    reranked = RerankedScores(dual, lambda i, j: scores[i, j], 2)
    found = gk.fold_metrics(reranked, owner, 3)
    for fold, ranks in enumerate(found.ranks):
        rows, texts = slice(3 * fold, 3 * fold + 3), (owner // 3 == fold).nonzero().flatten()
        part = scores[rows][:, texts]
        alone = RerankedScores(
            EmbeddingScores(dual.image[rows], dual.text[texts]), lambda i, j, s=part: s[i, j], 2
        )
        assert torch.equal(ranks.t2i, gk.similarity_ranks(alone, owner[texts] - 3 * fold).t2i)


def test_what_needs_scores_of_all_pairs_is_refused() -> None:
    reranked = RerankedScores(make_dual(), lambda i, j: make_scores()[i, j], 2)
    with pytest.raises(ValueError, match="--ranking full"):
        gk.similarity_ranks(reranked, OWNER, ties="argsort")


def make_tokens(count: int, places: int, seed: int) -> TokenSet:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, places + 1, (count,), generator=generator)
    weights = (torch.arange(places) < sizes[:, None]).float()
    return TokenSet(torch.randn(count, places, 3, generator=generator), weights)


def test_evaluation_has_all_rankings_side_by_side_and_their_cost() -> None:
    owner = torch.arange(TEXTS) % IMAGES
    dual, images, texts = make_dual(), make_tokens(IMAGES, 4, 0), make_tokens(TEXTS, 6, 1)
    scorer = Scorer(ScoreOptions(kind="late", rerank=4, block=2 * IMAGES))
    found = evaluate(dual.image, dual.text, owner, {"scores": PairScores(scorer, images, texts)})
    full = scorer.block(images, texts)
    assert found.similarity is not None
    torch.testing.assert_close(found.similarity, full)
    expected = {
        "dual": gk.retrieval_ranks(dual.image, dual.text, owner),
        "reranked": gk.similarity_ranks(RerankedScores(dual, lambda i, j: full[i, j], 4), owner),
        "full": gk.similarity_ranks(full, owner),
    }
    assert list(found.rankings) == list(expected)
    for name, ranks in expected.items():
        assert found.rankings[name] == gk.retrieval_metrics(ranks)
    assert found.metrics == found.rankings["full"]
    assert found.scoring["scores"]["pairs"] == IMAGES * TEXTS + 4 * (IMAGES + TEXTS)
    assert torch.equal(found.scores_of_caption(3), full[:, 3])
    pairs = {"scores": PairScores(scorer, images.at(slice(5)), texts)}
    cut = evaluate(dual.image[:5], dual.text, owner, pairs)
    assert cut.similarity is not None
    torch.testing.assert_close(cut.similarity, full[:5][:, owner < 5])


@pytest.mark.parametrize("ranking", ["dual", "reranked"])
def test_nothing_is_scored_that_was_not_asked_for(ranking: str) -> None:
    dual, images, texts = make_dual(), make_tokens(IMAGES, 4, 0), make_tokens(TEXTS, 6, 1)
    scorer = Scorer(ScoreOptions(kind="late", rerank=4, ranking=ranking))
    found = evaluate(dual.image, dual.text, OWNER, {"scores": PairScores(scorer, images, texts)})
    rows = IMAGES - 1  # those with captions
    assert found.scoring["scores"]["pairs"] == (4 * (rows + TEXTS) if ranking == "reranked" else 0)
    assert found.metrics == found.rankings[ranking]
    assert found.similarity is None


def test_progress_counts_pairs() -> None:
    said: list[tuple[str, int, int]] = []
    images, texts = make_tokens(IMAGES, 4, 0), make_tokens(TEXTS, 6, 1)
    scorer = Scorer(ScoreOptions(kind="late", block=3 * IMAGES))
    PairScores(scorer, images, texts, lambda *args: said.append(args)).matrix()
    done = [number for _, number, _ in said]
    assert done == sorted(done)
    assert done[-1] == said[-1][2] == IMAGES * TEXTS


def test_a_warning_says_where_reranking_is_worse() -> None:
    def table(i2t: float, t2i: float) -> dict:
        return {"i2t": {"R@1": i2t}, "t2i": {"R@1": t2i}}

    assert worse_reranked({"dual": table(9, 9)}) is None
    assert worse_reranked({"dual": table(9, 9), "reranked": table(9, 12)}) is None
    said = worse_reranked({"dual": table(9, 11.7), "reranked": table(10, 1.6)})
    assert said is not None
    assert "t2i R@1 1.6 (reranked) after 11.7 (dual)" in said
    assert "i2t" not in said
    assert "--model.scores.embedding_weight" in said
    assert "--model.fusion" not in said
    full = {"dual": table(9, 9), "reranked": table(9, 9), "full": table(30, 20)}
    assert worse_reranked({**full, "matched": table(31, 20)}) is None
    said = worse_reranked({**full, "matched": table(29, 21)})
    assert said is not None
    assert "i2t R@1 29.0 (matched) after 30.0 (full)" in said
    assert "t2i" not in said
    assert all(option in said for option in ("--model.scores.embedding_weight", "--model.fusion."))
    said = worse_reranked({"dual": table(9, 9), "matched": table(8, 9)})
    assert said is not None
    assert "data, or raise --model.fusion.random_share or --model.fusion.weight; until" in said
    assert "--model.scores" not in said
