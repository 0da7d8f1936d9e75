"""Every backend against the float64 reference, over objectives, shapes and dtypes."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from cases import DTYPES, OBJECTIVES, SHAPES, caption_ids, paired_batch, unruly_batch
from comparators import check_against_truth

import goal_kernels as gk
from goal_kernels import ops
from goal_kernels.backends.answers import Forward, Found
from goal_kernels.backends.base import Call, Pairing, SearchQuery
from goal_kernels.backends.choice import BACKENDS
from goal_kernels.weights import weigh

INTERPRETED_ROWS = 3
"""Largest batch on which Triton's interpreter, numpy calls per tile operation, does everything."""


@lru_cache(maxsize=1)
def devices() -> dict[str, str]:
    """Where each backend is tested; a backend that cannot run here maps to its own reason."""
    found = {}
    for backend in BACKENDS:
        verdict = backend.availability()
        cuda = torch.cuda.is_available() and backend.name != "cpu"
        found[backend.name] = ("cuda" if cuda else "cpu") if verdict.ok else f"!{verdict.reason}"
    return found


def interpreted(name: str) -> bool:
    """Whether the kernels of this backend run in an interpreter here."""
    return name == "triton" and devices()[name] == "cpu"


def device_or_skip(name: str, dtype: torch.dtype, width: int) -> str:
    device = devices()[name]
    if device.startswith("!"):
        pytest.skip(f"{name}: {device[1:]}")
    backend = next(b for b in BACKENDS if b.name == name)
    verdict = backend.supports(Call(device, dtype))
    if not verdict.ok:
        pytest.skip(f"{name}: {verdict.reason}")
    return device


def mine_with(name, image, text, objective, ids):
    """positive and mined by the backend's own operator, on the device the inputs are on."""
    kind, epsilon, beta = objective.pair_element.relative, objective.epsilon, objective.beta
    query = SearchQuery(kind, epsilon, beta, False, "highest")
    found = ops.search(name, image, text, Pairing(None, *ids), query)
    return found.positive, found.mined


def finish_with(name, image, text, objective, found, direction="both"):
    """positive, mined, value and both gradients, by the backend's own operator. found: mined."""
    positive, mined = found
    weighted = weigh(objective, positive, mined, direction)
    one = torch.ones((), device=image.device)
    _, *state = Forward.pack(Found.pack(positive, mined), weighted)
    backward = getattr(torch.ops.goal_kernels, f"backward_{name}")
    grads = backward(one, image, text, *state, True, True)
    return positive.cpu(), mined, weighted.value.cpu(), *grads


def run_backend(name, image, text, objective, ids=(None, None), direction="both"):
    """positive, mined, value and both gradients of one objective."""
    device = device_or_skip(name, image.dtype, image.shape[1])
    image, text = image.to(device), text.to(device)
    ids = tuple(None if i is None else i.to(device) for i in ids)
    found = mine_with(name, image, text, objective, ids)
    return finish_with(name, image, text, objective, found, direction)


def parity(name, image, text, objective, ids=(None, None), direction="both") -> None:
    outcome = run_backend(name, image, text, objective, ids, direction)
    check_against_truth(image, text, objective, outcome, ids, direction)


def objectives_for(name: str, batch: int) -> tuple[gk.Objective, ...]:
    """All of them; above a few rows, one of each relative kind where kernels are interpreted."""
    if not interpreted(name) or batch <= INTERPRETED_ROWS:
        return OBJECTIVES
    return tuple(gk.Objective.parse(x) for x in ("nca/sigmoid", "circle/linear_ms", "nca/sig_ms"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_every_objective(name, dtype, shape) -> None:
    if interpreted(name) and (shape == SHAPES[-1] or (dtype.itemsize == 2 and shape != SHAPES[3])):
        pytest.skip("python_tests/triton takes every path of the interpreted kernels")
    image, text = paired_batch(shape.batch, shape.width, dtype, seed=shape.batch)
    device = device_or_skip(name, dtype, shape.width)
    moved = image.to(device), text.to(device)
    mined = {}
    for objective in objectives_for(name, shape.batch):
        # Mining depends on the objective through the relative kind alone.
        kind = objective.pair_element.relative
        if kind not in mined:
            mined[kind] = mine_with(name, *moved, objective, (None, None))
        outcome = finish_with(name, *moved, objective, mined[kind])
        check_against_truth(image, text, objective, outcome)


@pytest.mark.parametrize("pair", ["constant", "linear_ms", "sigmoid_ms"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_unruly_embeddings_and_ids(name, dtype, pair) -> None:
    image, text = unruly_batch(45, 37, dtype)
    ids = (caption_ids(45), caption_ids(45))
    parity(name, image, text, gk.Objective("circle", pair), ids)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_one_direction(name, direction) -> None:
    image, text = paired_batch(20, 8, torch.float32)
    parity(name, image, text, gk.Objective("nca", "sigmoid"), direction=direction)


@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_any_memory_layout(name) -> None:
    """Transposed, strided and offset views give what their contiguous copies give, bit for bit."""
    image, text = paired_batch(21, 10, torch.float32)
    device = device_or_skip(name, image.dtype, 10)
    expected = [gk.mine(image.to(device), text.to(device), backend=name)]
    padded = torch.full((21, 25), float("nan"), device=device)
    padded[:, 3:13] = image.to(device)
    transposed = text.to(device).T.contiguous().T
    every_second = torch.full((21, 20), float("nan"), device=device)
    every_second[:, ::2] = image.to(device)
    for view in (padded[:, 3:13], every_second[:, ::2]):
        expected.append(gk.mine(view, transposed, backend=name))
        for left, right in zip(expected[0], expected[-1], strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("pair", ["constant", "linear_ms", "sigmoid_ms"])
@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_reruns_are_bit_equal(name, pair) -> None:
    image, text = paired_batch(60, 33, torch.float32)
    objective = gk.Objective("nca", pair)
    first = run_backend(name, image, text, objective)
    for _ in range(1 if interpreted(name) else 3):
        again = run_backend(name, image, text, objective)
        assert torch.equal(first[2], again[2])
        assert torch.equal(first[3], again[3])
        assert torch.equal(first[4], again[4])
        assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["cpu", "chunked", "reference"])
def test_gradients_are_bit_equal_for_any_number_of_threads(name, dtype) -> None:
    """Rows so long that most anchors mine the same text: a scatter with collisions."""
    generator = torch.Generator().manual_seed(1)
    image, text = torch.randn(2, 3000, 32, generator=generator, dtype=dtype)
    text[5] *= 20
    before = torch.get_num_threads()
    runs = set()
    for threads in (1, 4, 3, 4, 4, 4):
        torch.set_num_threads(threads)
        x, y = image.clone().requires_grad_(), text.clone().requires_grad_()
        loss = gk.goal_loss(x, y, "nca/linear", backend=name)
        loss.backward()
        runs.add(tuple(part.detach().numpy().tobytes() for part in (loss, x.grad, y.grad)))
    torch.set_num_threads(before)
    assert len(runs) == 1


@pytest.mark.parametrize("objective", ["nca/sigmoid_ms", "circle/linear_ms"])
@pytest.mark.parametrize("name", ["cpu", "chunked", "reference"])
def test_ms_weights_of_long_rows_are_finite_where_float32_holds_them(name, objective) -> None:
    """Similarities of +-60, exponents of several hundred: the float64 weights say what is right."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 64, 512, generator=generator)
    objective = gk.Objective.parse(objective)
    options = (None, None), objective, ("both", False, "highest")
    found = ops.forward(name, image, text, *options).vectors[3:]
    truth = ops.forward("reference", image.double(), text.double(), *options).vectors[3:]
    assert truth.isfinite().all()
    beyond = truth.abs() > 1e37
    assert beyond.any() == (objective.pair_element.name == "sigmoid_ms")
    assert found.isfinite().all()
    assert (found[beyond] >= 0.99e37).all()
    # An exponent of 1000 is rounded to 1e-4 in float32, and the mean R-, of which a weight is the
    # reciprocal, holds terms below the smallest normal number as that number.
    error = (found.double() - truth).abs()[~beyond]
    truth = truth.abs()[~beyond]
    smallest = torch.finfo(torch.float32).tiny
    assert (error <= 2e-3 * truth + smallest * truth.square() + 1e-30).all()


@pytest.mark.parametrize("name", [b.name for b in BACKENDS])
def test_every_output_is_written(name, nan_filled_memory) -> None:
    image, text = paired_batch(33, 17, torch.float32)
    parity(name, image, text, gk.Objective("nca", "sigmoid_ms"))


def test_no_backend_is_silently_missing() -> None:
    """With the native library and Triton installed, all but `cuda` must run on any machine.

    Its kernels are emulated in python_tests/cuda.
    """
    missing = {name: where for name, where in devices().items() if where.startswith("!")}
    missing.pop("cuda", None)
    assert not missing, missing
