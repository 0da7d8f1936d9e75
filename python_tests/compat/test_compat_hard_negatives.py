"""`mine_top_k` finds what `mine_hard_negatives` of sentence-transformers finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compat_cases import unit_rows
from real_packages import real_package
from torch import Tensor

from goal_kernels import mine_top_k

IMAGES, WIDTH, FEWEST, MOST = 60, 16, 1, 4
NEGATIVES = 5


class Table:
    """A SentenceTransformer whose texts are names of rows that were made before."""

    def __init__(self, queries: Tensor, corpus: Tensor) -> None:
        self.rows = {f"query {i}": row for i, row in enumerate(queries)}
        self.rows |= {f"text {j}": row for j, row in enumerate(corpus)}
        self.device = torch.device("cpu")

    def _encode(self, texts: list[str], **_: Any) -> Any:
        return torch.stack([self.rows[text] for text in texts]).numpy()

    encode_query = encode_document = _encode

    def similarity(self, a: Any, b: Any) -> Tensor:
        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a: Any, b: Any) -> Tensor:
        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(dim=1)

    def get_embedding_dimension(self) -> int:
        return WIDTH


@pytest.mark.parametrize("margin", [None, 0.1])
@pytest.mark.parametrize("use_faiss", [False, True], ids=["torch", "faiss"])
def test_the_same_negatives(margin: float | None, use_faiss: bool) -> None:
    """Images with one to four captions; `absolute_margin` is a `max_score` below the positives."""
    real = real_package("sentence_transformers.util.hard_negatives")
    datasets = real_package("datasets")
    if use_faiss:
        real_package("faiss")
    owner = torch.arange(IMAGES).repeat_interleave(FEWEST + torch.arange(IMAGES) % MOST)
    queries = unit_rows(IMAGES, WIDTH).detach().float()
    other = unit_rows(len(owner), WIDTH, seed=1).detach().float()
    corpus = F.normalize(other + queries[owner], dim=1)
    pairs = {
        "anchor": [f"query {i}" for i in owner.tolist()],
        "positive": [f"text {j}" for j in range(len(owner))],
    }
    table = real.mine_hard_negatives(
        datasets.Dataset.from_dict(pairs),
        Table(queries, corpus),
        range_max=len(owner) - MOST,
        num_negatives=NEGATIVES,
        absolute_margin=margin,
        output_format="labeled-list",
        use_faiss=use_faiss,
        verbose=False,
    )
    positive = (queries[owner] * corpus).sum(dim=1)
    weakest = torch.full((IMAGES,), 2.0).scatter_reduce(0, owner, positive, "amin")
    found = mine_top_k(
        queries,
        corpus,
        NEGATIVES,
        query_ids=torch.arange(IMAGES),
        corpus_ids=owner,
        max_score=None if margin is None else weakest - margin,
    )
    assert found.counts.eq(NEGATIVES).any()
    theirs = {}
    for row in table:
        kept = zip(*(row[name] for name in table.column_names[1:]), strict=True)
        theirs[row["anchor"]] = [text for text, label in kept if not label]
    for image, (indices, count) in enumerate(zip(found.indices, found.counts, strict=True)):
        if count == NEGATIVES:  # they leave out anchors with fewer
            assert theirs[f"query {image}"] == [f"text {j}" for j in indices.tolist()]
