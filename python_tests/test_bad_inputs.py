"""The table of bad inputs: the call, the exception, and the words its message must hold."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from cases import paired_batch

import goal_kernels as gk

X, Y = paired_batch(4, 3, torch.float32)
OBJECTIVE = "nca/linear"


def loss(image=X, text=Y, objective=OBJECTIVE, **options):
    return gk.goal_loss(image, text, objective, **options)


TABLE = (
    (lambda: loss(X[:1], Y[:1]), ValueError, "image_embeddings: expected B >= 2 .* got 1"),
    (lambda: loss(X[:0], Y[:0]), ValueError, "image_embeddings: expected B >= 2 .* got 0"),
    (lambda: loss(X[:, :0], Y[:, :0]), ValueError, r"image_embeddings: expected D >= 1"),
    (lambda: loss(X, Y[:3]), ValueError, "text_embeddings: expected 4 rows, .* got 3"),
    (lambda: loss(X, Y[:, :2]), ValueError, "text_embeddings: expected the width .* 3, got"),
    (lambda: loss(X[0], Y), ValueError, r"image_embeddings: expected a tensor \[rows, D\]"),
    (lambda: loss(X[None], Y[None]), ValueError, r"image_embeddings: expected a tensor"),
    (lambda: loss(X.double(), Y), TypeError, "text_embeddings: expected the dtype of"),
    (lambda: loss(X.long(), Y.long()), TypeError, "image_embeddings: expected one of float16"),
    (lambda: loss(X.numpy(), Y), TypeError, "image_embeddings: expected a torch.Tensor .* ndarray"),
    (lambda: loss(X, None), TypeError, "text_embeddings: expected a torch.Tensor .* NoneType"),
    (lambda: loss(X, Y.to("meta")), ValueError, "text_embeddings: expected device cpu"),
    (lambda: loss(objective="nca"), ValueError, "objective: expected 'triplet/pair'"),
    (lambda: loss(objective="ncaa/linear"), ValueError, "triplet: unknown element 'ncaa'.*nca"),
    (lambda: loss(objective="nca/quadratic"), ValueError, "pair: unknown element 'quadratic'"),
    (lambda: loss(objective=3), TypeError, "objective: expected an Objective or a string"),
    (lambda: gk.Objective("nca", "linear", tau=0.0), ValueError, r"tau: .*\(0, inf\), got 0"),
    (lambda: gk.Objective("nca", "linear", tau=math.nan), ValueError, "tau: expected a finite"),
    (lambda: gk.Objective("nca", "linear", lam=math.inf), ValueError, "lam: expected a finite"),
    (lambda: gk.Objective("nca", "linear", epsilon=-1), ValueError, r"epsilon: .*\[0, inf\)"),
    (lambda: gk.Objective("nca", "linear", margin="a"), TypeError, "margin: expected a number"),
    (lambda: gk.Objective("nca", "linear", beta=True), TypeError, "beta: expected a number"),
    (lambda: gk.Objective(7, "linear"), TypeError, "triplet: expected the name .* callable"),
    (lambda: gk.Objective(lambda p: p, "linear"), TypeError, "triplet: a callable must accept two"),
    (lambda: loss(image_ids=torch.arange(3)), ValueError, r"image_ids: .* \[4\], got \[3\]"),
    (lambda: loss(text_ids=torch.zeros(4, 1)), TypeError, "ids: expected integers"),
    (lambda: loss(image_ids=[0, 1, 2, 3]), TypeError, "image_ids: expected an integer"),
    (lambda: loss(image_ids=torch.arange(4.0)), TypeError, "image_ids: expected integers"),
    (lambda: loss(image_ids=torch.arange(4, device="meta")), ValueError, "image_ids: .* device"),
    (lambda: loss(reduction="none"), ValueError, "reduction: expected one of sum, mean"),
    (lambda: loss(direction="i2i"), ValueError, "direction: expected one of both, i2t, t2i"),
    (lambda: loss(precision="tf32"), ValueError, "precision: expected one of highest"),
    (lambda: loss(backend="cudnn"), ValueError, "backend: expected one of auto, .* got 'cudnn'"),
    (lambda: gk.GOALLoss("a/b"), ValueError, "triplet: unknown element 'a'"),
    (lambda: gk.goal_loss_from_similarity(X, OBJECTIVE), ValueError, "similarity: expected 4 rows"),
    (lambda: gk.goal_loss_from_similarity(X[:1, :1], OBJECTIVE), ValueError, "B >= 2"),
    (lambda: gk.mine(X, Y[:0]), ValueError, "expected N, M >= 1, got N = 4, M = 0"),
    (lambda: gk.mine(X, Y, target=torch.arange(3)), ValueError, r"target: .*\[4\], got \[3\]"),
    (lambda: gk.mine(X, Y[:3], image_ids=torch.arange(4)), ValueError, "text_ids: expected ids"),
    (lambda: gk.explain_backend(device="nowhere"), ValueError, "device: expected a torch device"),
)


@pytest.mark.parametrize(("call", "error", "words"), TABLE, ids=range(len(TABLE)))
def test_message_names_argument_expectation_and_value(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


def test_a_named_backend_never_falls_back() -> None:
    with pytest.raises(gk.BackendUnavailableError, match=r"'triton' cannot serve .*float64"):
        loss(X.double(), Y.double(), backend="triton")


def test_explanation_names_the_choice_and_every_refusal() -> None:
    text = gk.explain_backend("cuda", torch.float64)
    assert "auto takes 'chunked'" in text
    for name in ("cpu", "triton", "chunked", "reference"):
        assert f"\n  {name}" in text
    assert set(gk.available_backends()) <= {"cpu", "triton", "cuda", "chunked", "reference"}


def test_import_costs_nothing_but_torch() -> None:
    """No Triton, no native library, no training extra at import."""
    script = (
        "import sys, goal_kernels; "
        "print([m for m in ('triton', 'pytorch_lightning', 'matplotlib', 'jsonargparse', "
        "'goal_kernels._native') if m in sys.modules])"
    )
    # torch itself may import triton when it is installed; what matters is what we add.
    bare = "import sys, torch; print([m for m in ('triton',) if m in sys.modules])"
    found, before = (
        subprocess.run([sys.executable, "-c", s], capture_output=True, text=True, check=True).stdout
        for s in (script, bare)
    )
    assert found == before
