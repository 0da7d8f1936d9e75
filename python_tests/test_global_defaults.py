"""torch's default device and default dtype change nothing that is given tensors of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from fresh_process import run_fresh

import goal_kernels as gk

PROGRAM = """
import hashlib, sys
import torch
import goal_kernels as gk
from goal_kernels import retrieval
from goal_kernels.backends.choice import BACKENDS

generator = torch.Generator().manual_seed(3)
image, text = (torch.randn(70, 12, generator=generator) for _ in range(2))
text[7] = text[9] = text[11]  # ties
ids = torch.arange(70) // 3
owner = torch.arange(70) // 2
image[40:] = image[:30]
served = [b.name for b in BACKENDS if b.name in ("cpu", "chunked", "reference")]

def every_result():
    for name in served:
        for objective in ("hinge/constant", "nca/linear_ms", "circle/sigmoid_ms"):
            x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
            loss, stats = gk.goal_loss(
                x, y, objective, image_ids=ids, normalize=True, backend=name, return_stats=True
            )
            loss.backward()
            yield loss.detach(), x.grad, y.grad, *stats[:8]
            yield tuple(getattr(stats, n) for n in ("active_fraction", "plateau_ratio"))
        yield gk.mine(image, text, target=owner, backend=name)
        for ties in ("expected", "pessimistic", "argsort"):
            ranks = gk.retrieval_ranks(image, text, owner, ties=ties, backend=name)
            yield ranks.i2t, ranks.t2i
            yield repr(gk.retrieval_metrics(ranks))
    similarity = (image @ text.T).requires_grad_()
    loss = gk.goal_loss_from_similarity(similarity, "nca/sigmoid_ms")
    loss.backward()
    yield loss.detach(), similarity.grad
    own = gk.Objective(lambda positive, negative: torch.sigmoid(negative - positive), "linear_ms")
    yield (gk.goal_loss(image, text, own),)
    product = similarity.detach().round(decimals=1)
    yield (gk.similarity_ranks(product, owner).i2t,)
    yield repr(retrieval.relevance_metrics(product, Relation, owner))

class Relation:
    shape = (70, 70)
    indptr = torch.arange(71).numpy() * 2
    indices = torch.stack([torch.arange(70), (torch.arange(70) + 5) % 70], 1).flatten().numpy()

def digest():
    whole = hashlib.sha256()
    for result in every_result():
        if isinstance(result, str):
            whole.update(result.encode())
        else:
            for part in result:
                assert part.device.type == "cpu", part.device
                whole.update(part.numpy().tobytes())
    return whole.hexdigest()

plain = digest()
for device in ("cpu", "meta"):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        assert digest() == plain, (device, dtype)
"""


def test_results_do_not_follow_the_defaults() -> None:
    """A process of its own: memory of another device ends it."""
    done = run_fresh(PROGRAM)
    assert done.returncode == 0, f"{done.returncode}\n{done.stderr[-2000:]}"


@pytest.fixture
def own_precision() -> Iterator[None]:
    """Undoes what a test sets of torch's products."""
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("device", "word", "named"),
    [("cuda", "tf32", "highest"), ("mkldnn", "tf32", "high"), ("mkldnn", "bf16", "medium")],
)
@pytest.mark.parametrize("backend", ["cpu", "chunked", "reference"])
def test_precision_set_by_device(own_precision, device, word, named, backend) -> None:
    """torch cannot say it in the one word that it had before, and raises when asked for it."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 40, 16, generator=generator)
    calls = [
        lambda p: gk.goal_loss(image, text, "nca/linear", precision=p, backend=backend),
        lambda p: gk.mine_top_k(image, text, 3, precision=p, backend=backend).scores,
        lambda p: gk.sum_of_hinges_loss(image, text, precision=p),
    ]
    expected = [call(named) for call in calls]
    products = getattr(torch.backends, device).matmul
    torch.set_float32_matmul_precision("highest")
    products.fp32_precision = word
    for call, value in zip(calls, expected, strict=True):
        assert torch.equal(call(None), value)
        call("medium" if named == "high" else "high")
        assert products.fp32_precision == word
    assert f"precision {named}:" in gk.explain_backend("cpu")
