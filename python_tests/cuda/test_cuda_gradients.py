"""Gradients of the CUDA backend given mined pairs: lists, hubs, targets, normalised rows."""

from __future__ import annotations

import pytest
import torch
from cuda_truth import DTYPES, ENGINES, engine, exact_rows
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms
from goal_kernels.backends.cuda import gradients
from goal_kernels.reference import apply_terms

BOTH = (True, True)


def terms_of(rows: int, columns: int, targets: bool, popular: bool) -> GradientTerms:
    """Random terms with holes; popular: most anchors share one negative."""
    generator = torch.Generator().manual_seed(rows)

    def draw(limit: int, count: int) -> Tensor:
        index = torch.randint(-1, limit, (count,), generator=generator)
        return torch.where(torch.rand(count, generator=generator) < 0.8, 1, index) * int(
            popular
        ) + index * int(not popular)

    def weights(count: int) -> Tensor:
        return (torch.randint(-4, 5, (count,), generator=generator) / 4).float()

    target = torch.randint(-1, columns + 2, (rows,), generator=generator) if targets else None
    return GradientTerms(
        draw(columns, rows),
        draw(rows, columns),
        target,
        *(weights(n) for n in (rows, rows, columns)),
    )


def applied(device, image, text, terms, need=BOTH, grad_loss=0.5):
    moved = GradientTerms(*(None if x is None else x.to(device) for x in terms))
    scalar = torch.tensor(grad_loss, device=device)
    grads = engine(device).apply(scalar, image.to(device), text.to(device), moved, need)
    return tuple(None if g is None else g.cpu() for g in grads)


@pytest.mark.parametrize("popular", [False, True])
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (300, 260, 16), (260, 300, 24)], ids=str)
@pytest.mark.parametrize("device", ENGINES)
def test_literal_sums_on_exact_data(device, shape, targets, popular, nan_filled_memory) -> None:
    """Multiples of 1/32 below 2**24 of them: float32 sums are exact in any order."""
    rows, columns, width = shape
    image = exact_rows(rows, width, torch.float32, 1)
    text = exact_rows(columns, width, torch.float32, 2)
    terms = terms_of(rows, columns, targets, popular and min(rows, columns) > 1)
    wide = terms._replace(**{n: getattr(terms, n).double() for n in terms._fields[3:]})
    half = torch.tensor(0.5, dtype=torch.float64)
    expected = apply_terms(half, image.double(), text.double(), wide, BOTH)
    for grad, right in zip(applied(device, image, text, terms), expected, strict=True):
        assert torch.equal(grad.double(), right)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("device", ENGINES)
def test_sorted_lists_give_what_counted_lists_give(device, dtype, monkeypatch) -> None:
    """Bit for bit, hubs of several chunks included; width 520 has two slabs, 519 no packs."""
    for width in (519, 520):
        generator = torch.Generator().manual_seed(1)
        image, text = (torch.randn(310, width, generator=generator).to(dtype) for _ in range(2))
        terms = terms_of(310, 310, False, popular=True)
        counted = applied(device, image, text, terms)
        with monkeypatch.context() as patched:
            patched.setattr(gradients, "DENSE_ENTRIES", 0)
            in_order = applied(device, image, text, terms)
        for left, right in zip(counted, in_order, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("device", ENGINES)
def test_only_what_is_needed(device) -> None:
    image, text = exact_rows(40, 8, torch.float16, 1), exact_rows(40, 8, torch.float16, 2)
    terms = terms_of(40, 40, False, False)
    both = applied(device, image, text, terms)
    for need in ((True, False), (False, True), (False, False)):
        for grad, whole, wanted in zip(
            applied(device, image, text, terms, need), both, need, strict=True
        ):
            assert (grad is not None) == wanted
            assert grad is None or torch.equal(grad, whole)


@pytest.mark.parametrize("device", ENGINES)
def test_gradients_reach_through_normalize(device) -> None:
    """Torch's own backward of F.normalize; 0 for a row of zeros and one too short to matter."""
    generator = torch.Generator().manual_seed(2)
    raw = [torch.randn(50, 12, generator=generator, dtype=torch.float64) for _ in range(2)]
    raw[0][3], raw[1][4] = 0.0, 1e-14
    terms = terms_of(50, 50, False, popular=True)
    leaves = [x.clone().requires_grad_() for x in raw]
    units = [torch.nn.functional.normalize(x, dim=1) for x in leaves]
    similarity = (units[0] @ units[1].T).detach()
    wide = terms._replace(**{n: getattr(terms, n).double() for n in terms._fields[3:]})
    one = torch.ones((), dtype=torch.float64)
    grads = apply_terms(one, units[0].detach(), units[1].detach(), wide, BOTH)
    torch.autograd.backward(units, grads)
    leaves[0].grad[3] = leaves[1].grad[4] = 0
    values = [
        similarity.diagonal(),
        similarity.gather(1, terms.hardest_text.clamp(min=0)[:, None])[:, 0],
        similarity.T.gather(1, terms.hardest_image.clamp(min=0)[:, None])[:, 0],
    ]
    scales = [1 / x.norm(dim=1).clamp(min=1e-12) for x in raw]
    vectors = torch.stack([*values, *(w.double() for w in terms[3:]), *scales]).float()
    hardest = torch.stack([terms.hardest_text, terms.hardest_image])
    moved = [x.to(device) for x in (torch.ones(()), *(x.float() for x in raw), vectors, hardest)]
    found = engine(device).backward(*moved, BOTH)
    for grad, leaf, scale in zip(found, leaves, scales, strict=True):
        relative = (grad.cpu().double() - leaf.grad) / scale[:, None]
        assert relative.abs().max() < 2e-5
