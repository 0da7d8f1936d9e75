"""The table of docs/evaluation.md on ties and NaN; `python python_tests/evaluate/tie_table.py`."""

from __future__ import annotations

import platform
import warnings

import numpy as np
import torch

import goal_kernels as gk

IMAGES, CAPTIONS = 1000, 5
INDEX = torch.arange(IMAGES * CAPTIONS) // CAPTIONS
COLUMNS = ("expected", "optimistic", "pessimistic", "`(S > s).sum()`", "argsort")


def situations() -> dict[str, np.ndarray]:
    """Score matrices [1000, 5000] float32 by what is wrong with them."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(IMAGES, 1024))
    text = np.repeat(image, CAPTIONS, axis=0) + 11 * rng.normal(size=(IMAGES * CAPTIONS, 1024))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    clean = (image @ text.T).astype(np.float32)
    broken = clean.copy()
    broken[:, 7] = np.nan
    return {
        "nothing wrong": clean,
        "scores rounded to bfloat16": torch.from_numpy(clean).bfloat16().float().numpy(),
        "one caption's embedding is NaN": broken,
        "collapsed: all embeddings equal": np.ones_like(clean),
        "all embeddings NaN": np.full_like(clean, np.nan),
    }


def naive(matrix: np.ndarray) -> float:
    """i2t R@1 of counting what is greater, as a few lines of numpy would."""
    own = matrix[INDEX.numpy(), np.arange(len(INDEX))].reshape(IMAGES, CAPTIONS)
    ranks = (matrix[:, :, None] > own[:, None, :]).sum(axis=1).min(axis=1)
    return 100.0 * float((ranks < 1).mean())


def cells(matrix: np.ndarray, argsort: bool) -> list[str]:
    """i2t R@1 under every rule, in the order of COLUMNS; the last only if `argsort`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        rules = ("expected", "optimistic", "pessimistic", "argsort")[: 4 if argsort else 3]
        found = [
            gk.retrieval_metrics(gk.similarity_ranks(matrix, INDEX, ties=rule))["i2t"]["R@1"]
            for rule in rules
        ]
    found.insert(3, naive(matrix))
    return [f"{value:.1f}" for value in found]


def main() -> None:
    """Print the table in Markdown."""
    print(f"| i2t R@1 | {' | '.join(COLUMNS)} |\n|---|{'--:|' * len(COLUMNS)}")
    for name, matrix in situations().items():
        print(f"| {name} | {' | '.join(cells(matrix, argsort=True))} |")
    print(f"\nnumpy {np.__version__}, torch {torch.__version__}, {platform.processor()}")


if __name__ == "__main__":
    main()
