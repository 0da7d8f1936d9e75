"""The table of bad inputs: the call, the exception, and the words its message must hold."""

from __future__ import annotations

import math

import pytest
import torch
from cases import paired_batch
from fresh_process import run_fresh
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

import goal_kernels as gk
from goal_kernels.distributed import distributed_goal_loss

X, Y = paired_batch(4, 3, torch.float32)
OBJECTIVE = "nca/linear"


def loss(image=X, text=Y, objective=OBJECTIVE, **options):
    return gk.goal_loss(image, text, objective, **options)


def similarity(matrix, **options):
    return gk.goal_loss_from_similarity(matrix, OBJECTIVE, **options)


TABLE = (
    (lambda: loss(X[:0], Y[:0]), ValueError, "image_embeddings: expected B >= 1 .* got 0; skip"),
    (lambda: loss(X[:, :0], Y[:, :0]), ValueError, r"image_embeddings: expected D >= 1"),
    (lambda: loss(X, Y[:3]), ValueError, "text_embeddings: expected 4 rows, .* got 3"),
    (lambda: loss(X, Y[:, :2]), ValueError, "text_embeddings: expected the width .* 3, got"),
    (lambda: loss(X[0], Y), ValueError, r"image_embeddings: expected a tensor \[rows, D\]"),
    (lambda: loss(X[None], Y[None]), ValueError, r"image_embeddings: expected a tensor"),
    (lambda: loss(X + 0j, Y), TypeError, r"image_embeddings: .*complex64; torch.view_as_real"),
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
    (lambda: loss(image_ids=["a", "b", "c", "d"]), TypeError, "image_ids: .* list; number the"),
    (lambda: loss(image_ids=[0.0, 1.0, 2.0, 3.0]), TypeError, r"image_ids: .* call .long\(\)"),
    (lambda: loss(image_ids=torch.arange(4.0)), TypeError, r"image_ids: .* call .long\(\)"),
    (lambda: loss(image_ids=X[:, 0] > 0), TypeError, "image_ids: expected integers .* torch.bool"),
    (lambda: loss(image_ids=[0, 1, 2]), ValueError, r"image_ids: .* \[4\], got \[3\]"),
    (lambda: loss(image_ids=torch.arange(4).to_sparse()), TypeError, r"image_ids: .*to_dense\(\)"),
    (
        lambda: loss(marign=0.3),
        TypeError,
        r"marign: expected .* got marign=0.3; did you mean 'margin'\?$",
    ),
    (lambda: loss(normalise=True), TypeError, "normalise: .* did you mean 'normalize'"),
    (lambda: loss(zzz=1), TypeError, r"zzz: .* of nca/linear \(tau, .*, margin\), got zzz=1\.$"),
    (lambda: loss(margin=-1), ValueError, r"margin: expected .* \[0, inf\), got -1"),
    (lambda: gk.GOALLoss(OBJECTIVE, marign=0.3), TypeError, "did you mean 'margin'"),
    (lambda: similarity(X[:, :3], marign=0.3), TypeError, "did you mean 'margin'"),
    (lambda: loss(image_ids=torch.arange(4, device="meta")), ValueError, "image_ids: .* device"),
    (lambda: loss(reduction="none"), ValueError, "reduction: expected one of sum, mean"),
    (lambda: loss(normalize="no"), TypeError, "normalize: expected True or False, got 'no'"),
    (lambda: loss(return_stats="no"), TypeError, "return_stats: expected True or False, got 'no'"),
    (lambda: similarity(X @ Y.T, return_stats=None), TypeError, "return_stats: expected True or"),
    (lambda: gk.mine(X, Y, normalize=None), TypeError, "normalize: expected True or False, got No"),
    (lambda: loss(direction="i2i"), ValueError, "direction: expected one of both, i2t, t2i"),
    (lambda: loss(precision="tf32"), ValueError, "precision: expected one of highest"),
    (lambda: gk.mine(X, Y, backend=["cpu"]), ValueError, r"backend: expected one .* got \['cpu'\]"),
    (lambda: loss(backend="cudnn"), ValueError, "backend: expected one of auto, .* got 'cudnn'"),
    (lambda: gk.GOALLoss("a/b"), ValueError, "triplet: unknown element 'a'"),
    (lambda: gk.goal_loss_from_similarity(X, OBJECTIVE), ValueError, "similarity: expected 4 rows"),
    (lambda: similarity(X[:0, :0]), ValueError, "B >= 1"),
    (lambda: loss(text_to_image=[0, 1, 2]), ValueError, r"text_to_image: .* \[4\], got \[3\]"),
    (
        lambda: loss(text_to_image=[0, 1, 2, 4]),
        ValueError,
        "text_to_image: .* of the 4 images, .* got 4",
    ),
    (lambda: loss(text_to_image=[0, 1, 2, -2]), ValueError, "text_to_image: .* got -2"),
    (lambda: loss(text_to_image=[-1] * 4), ValueError, "text_to_image: .* got -1 for all"),
    (lambda: loss(text_to_image=[0.0] * 4), TypeError, "text_to_image: expected integers"),
    (
        lambda: loss(text_to_image=[0, 1, 2, 3], text_ids=[0, 1, 2, 3]),
        ValueError,
        "image_ids: expected .* beside text_ids",
    ),
    (lambda: gk.goal_loss(X, Y[:3], OBJECTIVE), ValueError, "pass text_to_image"),
    (
        lambda: gk.goal_loss(X[:0], Y, OBJECTIVE, text_to_image=[0] * 4),
        ValueError,
        "text_embeddings: expected at least one image and one text, got 0 and 4",
    ),
    (lambda: similarity(X[:, :3], text_to_image=[0, 0, 4]), ValueError, "text_to_image: .* got 4"),
    (
        lambda: gk.mine(X, Y, target=[0] * 4, text_to_image=[0] * 4),
        ValueError,
        "target: expected None beside text_to_image",
    ),
    (lambda: gk.retrieval_ranks(X, Y, [0, 1, 2]), ValueError, r"text_to_image: .*\[4\], got \[3\]"),
    (lambda: gk.retrieval_ranks(X, Y, [0, 1, 2, 4]), ValueError, "expected image rows in"),
    (lambda: gk.chance_metrics([0.5], 1), TypeError, "text_to_image: expected integers"),
    (lambda: gk.graphed_loss(OBJECTIVE, X, Y.tolist()), TypeError, "text_embeddings: .* list"),
    (lambda: gk.mine(X, Y[:0]), ValueError, "expected N, M >= 1, got N = 4, M = 0"),
    (lambda: gk.mine(X, Y, target=torch.arange(3)), ValueError, r"target: .*\[4\], got \[3\]"),
    (lambda: gk.mine(X, Y[:3], image_ids=torch.arange(4)), ValueError, "text_ids: expected ids"),
    (
        lambda: gk.retrieval_metrics(X[0]),
        TypeError,
        "ranks: expected what .* got Tensor; recall_at",
    ),
    (lambda: gk.recall_at_k("abc", 1), TypeError, r"ranks: expected numbers \[Q\], got str"),
    (lambda: gk.recall_at_k(X[0] + 0j, 1), TypeError, "ranks: expected real numbers"),
    (lambda: gk.recall_at_k(X[0].to_sparse(), 1), TypeError, r"ranks: .* call .to_dense\(\)"),
    (lambda: gk.rank_histogram(X[0].to("meta"), 4), TypeError, "ranks: .* without numbers"),
    (lambda: gk.explain_backend(device="nowhere"), ValueError, "device: expected a torch device"),
)


@pytest.mark.parametrize(("call", "error", "words"), TABLE, ids=range(len(TABLE)))
def test_message_names_argument_expectation_and_value(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


UNUSUAL = {
    "coo": (torch.Tensor.to_sparse, r"torch.sparse_coo; call .to_dense\(\)"),
    "csr": (torch.Tensor.to_sparse_csr, r"torch.sparse_csr; call .to_dense\(\)"),
    "mkldnn": (torch.Tensor.to_mkldnn, r"torch._mkldnn; call .to_dense\(\)"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), "a nested tensor; pool it"),
    "jagged": (
        lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
        "a nested tensor; pool it",
    ),
    "quantized": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        r"a quantized tensor; call .dequantize\(\)",
    ),
    "masked": (
        lambda x: torch.masked.masked_tensor(x, x == x),
        r"got MaskedTensor; unwrap it .*\.to_tensor",
    ),
    "wrapper": (lambda x: TwoTensor(x, x), "got TwoTensor; unwrap it"),
}

ENTRIES = {
    "goal_loss": loss,
    "GOALLoss": gk.GOALLoss(OBJECTIVE),
    "distributed": lambda x, y: distributed_goal_loss(x, y, OBJECTIVE),
    "graphed_loss": lambda x, y: gk.graphed_loss(OBJECTIVE, x, y),
    "mine": gk.mine,
    "retrieval_ranks": lambda x, y: gk.retrieval_ranks(x, y, torch.arange(4)),
    "similarity_ranks": lambda x, y: gk.similarity_ranks((x, y), torch.arange(4)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about its prototypes
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_not_dense_are_refused_by_name(kind, entry) -> None:
    make, words = UNUSUAL[kind]
    with pytest.raises(TypeError, match=f"image_embeddings: expected an ordinary .*{words}"):
        ENTRIES[entry](make(X), Y)
    with pytest.raises(TypeError, match=f"text_embeddings: expected an ordinary .*{words}"):
        ENTRIES[entry](X, make(Y))
    square = make(X @ Y.T)
    for call in (similarity, lambda x: gk.similarity_ranks(x, torch.arange(4))):
        with pytest.raises(TypeError, match=f"similarity: expected an ordinary .*{words}"):
            call(square)


def test_ranks_want_tensors_with_numbers() -> None:
    """A loss of the meta device has a shape, ranks have nothing at all."""
    image, text = X.to("meta"), Y.to("meta")
    assert loss(image, text).device.type == "meta"
    index = torch.arange(4, device="meta")
    for call in (
        lambda: gk.retrieval_ranks(image, text, index),
        lambda: gk.similarity_ranks(image @ text.T, torch.arange(4)),
    ):
        with pytest.raises(TypeError, match=r"got one without numbers .*; load the model"):
            call()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
    with pytest.raises(TypeError, match=r"image_embeddings: .* without numbers"):
        gk.retrieval_ranks(fake, fake, torch.arange(4))
    with pytest.raises(TypeError, match=r"queries: .* without numbers"):
        gk.mine_top_k(fake, fake, 2)


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(lambda x: f(x, Y).sum())(X),
    "grad of another": lambda f: torch.func.grad(lambda x: x.sum() + f(X, Y).sum())(X),
    "jvp": lambda f: torch.func.jvp(lambda x: f(x, Y), (X,), (X,)),
    "vmap": lambda f: torch.func.vmap(lambda x: f(x, Y))(X[None]),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("queries", lambda x, y: gk.mine_top_k(x, y, 2).scores),
        ("image_embeddings", lambda x, y: gk.retrieval_ranks(x, y, torch.arange(4)).t2i),
        ("similarity", lambda x, y: gk.similarity_ranks(x @ y.T, torch.arange(4)).t2i),
    ],
    ids=["mine_top_k", "retrieval_ranks", "similarity_ranks"],
)
def test_what_reads_numbers_refuses_transforms(name, call, transform) -> None:
    """Within one even memory allocated anew has no address: native code crashed."""
    with pytest.raises(TypeError, match=f"{name}: .* within a transform of torch.func; call this"):
        TRANSFORMS[transform](call)


def test_a_named_backend_never_falls_back() -> None:
    with pytest.raises(gk.BackendUnavailableError, match=r"'triton' cannot serve .*float64"):
        loss(X.double(), Y.double(), backend="triton")


def test_explanation_names_the_choice_and_every_refusal() -> None:
    text = gk.explain_backend("cuda", torch.float64)
    assert "auto takes 'chunked'" in text
    for name in ("cpu", "triton", "chunked", "reference"):
        assert f"\n  {name}" in text
    assert set(gk.available_backends()) <= {"cpu", "triton", "cuda", "chunked", "reference"}


def test_the_first_name_costs_nothing_but_torch() -> None:
    """No Triton, no native library, no training extra. What importing alone costs: test_package."""
    script = (
        "import sys, goal_kernels; goal_kernels.goal_loss; "
        "print([m for m in ('triton', 'pytorch_lightning', 'matplotlib', 'jsonargparse', "
        "'goal_kernels._native') if m in sys.modules])"
    )
    # torch itself may import triton when it is installed; what matters is what we add.
    bare = "import sys; print([m for m in ('triton',) if m in sys.modules])"
    found, before = run_fresh(script), run_fresh(bare)
    assert found.returncode == before.returncode == 0, found.stderr
    assert found.stdout == before.stdout
