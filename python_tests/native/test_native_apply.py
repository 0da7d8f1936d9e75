"""Native gradients against literal float64 loops, for every instruction set of this machine."""

from __future__ import annotations

import native_calls
import native_loops as loops
import pytest
import torch
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms, unpack_terms
from goal_kernels.backends.arguments import DTYPES
from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.backends.cpu import CpuBackend
from goal_kernels.normalization import row_scale

NAN = float("nan")
SHAPES = ((1, 1, 1), (2, 3, 7), (40, 31, 33), (31, 40, 64), (70, 70, 129))


def random_terms(rows: int, columns: int, dtype: torch.dtype, holes: bool) -> GradientTerms:
    """Random indices and weights; with holes some indices are -1 and targets are explicit."""
    generator = torch.Generator().manual_seed(rows + columns)

    def index(count: int, limit: int) -> Tensor:
        result = torch.randint(0, limit, (count,), generator=generator)
        missing = torch.rand(count, generator=generator) < 0.2
        return result.masked_fill(missing, -1) if holes else result

    def weight(count: int) -> Tensor:
        return torch.randn(count, generator=generator).to(dtype)

    target = index(rows, columns)
    if holes:
        target[::7] = columns + 3
    return GradientTerms(
        index(rows, columns),
        index(columns, rows),
        target if holes else None,
        weight(rows),
        weight(rows),
        weight(columns),
    )


def random_pair(rows: int, columns: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    image = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return image.to(dtype), torch.randn(columns, width, generator=generator).to(dtype)


def truth(scale: float, image: Tensor, text: Tensor, terms: GradientTerms) -> tuple[Tensor, Tensor]:
    target = terms.target
    listed = list(range(len(image))) if target is None else target.tolist()
    lists = [x.tolist() for x in terms if x is not target and x is not None]
    return loops.apply(scale, image, text, loops.Terms(lists[0], lists[1], listed, *lists[2:]))


def check(found: Tensor | None, expected: Tensor, dtype: torch.dtype, terms: int) -> None:
    """Rounding of a sum of `terms` products in the accumulate dtype, then of the result."""
    assert found is not None
    assert found.dtype == dtype
    assert found.is_contiguous()
    largest = expected.abs().max().item() + 1
    atol = 4 * torch.finfo(accumulate_dtype(dtype)).eps * (terms**0.5 + 4) * largest
    atol += torch.finfo(dtype).tiny
    rtol = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("nan_filled_memory")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_loops(backend, shape, holes, dtype) -> None:
    image, text = random_pair(*shape, dtype)
    terms = random_terms(*shape[:2], accumulate_dtype(dtype), holes)
    scale = torch.tensor(-1.75, dtype=accumulate_dtype(dtype))
    expected = truth(scale.item(), image, text, terms)
    for need in ((True, True), (True, False), (False, True), (False, False)):
        found = native_calls.apply(backend, scale, image, text, terms, need)
        for wanted, grad, exact in zip(need, found, expected, strict=True):
            if wanted:
                check(grad, exact, dtype, terms=20)
            else:
                assert grad is None


def hub_terms(rows: int, columns: int, dtype: torch.dtype) -> GradientTerms:
    """One text and one image are the hardest of nearly everyone; one text is a popular target."""
    weights = [torch.linspace(-1, 2, n).to(dtype) for n in (rows, rows, columns)]
    target = torch.arange(rows).clamp(max=columns - 1)
    target[100:900] = 3
    return GradientTerms(torch.full((rows,), 5), torch.full((columns,), rows - 1), target, *weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_hubs(backend, dtype) -> None:
    """Rows with thousands of terms are summed in runs; the order of the sums does not matter."""
    image, text = random_pair(1500, 1100, 20, dtype)
    terms = hub_terms(1500, 1100, accumulate_dtype(dtype))
    scale = torch.ones((), dtype=accumulate_dtype(dtype))
    found = native_calls.apply(backend, scale, image, text, terms, (True, True))
    for grad, exact in zip(found, truth(1.0, image, text, terms), strict=True):
        check(grad, exact, dtype, terms=2000)


def test_bit_equal_for_any_thread_count(backend, set_threads) -> None:
    image, text = random_pair(1500, 1100, 600, torch.float32)
    scale = torch.tensor(0.3)
    for terms in (
        random_terms(1500, 1100, torch.float32, True),
        hub_terms(1500, 1100, torch.float32),
    ):
        set_threads(1)
        serial = native_calls.apply(backend, scale, image, text, terms, (True, True))
        for threads in (2, 3, 5):
            set_threads(threads)
            again = native_calls.apply(backend, scale, image, text, terms, (True, True))
            assert torch.equal(serial[0], again[0])
            assert torch.equal(serial[1], again[1])


def test_zero_times_nan_is_nan_but_a_missing_term_is_nothing(backend) -> None:
    image, text = torch.ones(3, 4), torch.ones(3, 4)
    text[1] = NAN
    zeros = torch.zeros(3)
    none = torch.full((3,), -1)
    terms = GradientTerms(torch.tensor([1, -1, 0]), none, none, zeros, zeros, zeros)
    grad_image, grad_text = native_calls.apply(
        backend, torch.tensor(2.0), image, text, terms, (True, True)
    )
    assert grad_image[0].isnan().all()
    assert torch.equal(grad_image[1:], torch.zeros(2, 4))
    assert torch.equal(grad_text, torch.zeros(3, 4))


def test_terms_without_an_index_ignore_their_weight(backend) -> None:
    image, text = torch.ones(2, 3), torch.ones(2, 3)
    weight, none = torch.full((2,), NAN), torch.full((2,), -1)
    terms = GradientTerms(none, none, none, weight, weight, weight)
    for grad in native_calls.apply(backend, torch.tensor(1.0), image, text, terms, (True, True)):
        assert torch.equal(grad, torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_to_16_bits_is_torch_rounding(backend, dtype) -> None:
    """Halfway cases, subnormals, overflow and a sample of all float32 bit patterns."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(1 << 31), 1 << 31, (100_000,), generator=generator).to(torch.int32)
    exact = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    between = (exact[1:] + exact[:-1]) / 2
    values = torch.cat([bits.view(torch.float32), exact, between])
    rows = len(values)
    none = torch.full((rows,), -1)
    terms = GradientTerms(
        torch.zeros(rows, dtype=torch.int64), none[:1], none, torch.zeros(rows), values,
        torch.zeros(1),
    )  # fmt: skip
    ones = torch.ones(1, 1, dtype=dtype)
    found = native_calls.apply(
        backend, torch.tensor(1.0), ones.expand(rows, 1), ones, terms, (True, False)
    )[0]
    expected = values.to(dtype)
    same = (found[:, 0] == expected) | (found[:, 0].isnan() & expected.isnan())
    assert same.all(), values[~same][:10]


@pytest.mark.parametrize(
    ("name", "value"), [("hardest_text", 4), ("hardest_text", -2), ("hardest_image", 1 << 40)]
)
def test_an_index_out_of_range_is_refused(fastest: CpuBackend, name, value) -> None:
    image, text = torch.ones(3, 2), torch.ones(4, 2)
    terms = random_terms(3, 4, torch.float32, False)
    index = getattr(terms, name).clone()
    index[-1] = value
    with pytest.raises(ValueError, match=rf"{name}.*got {value} at position {len(index) - 1}"):
        native_calls.apply(
            fastest, torch.tensor(1.0), image, text, terms._replace(**{name: index}), (True, True)
        )


def test_strided_inputs_and_expanded_weights(backend) -> None:
    image, text = random_pair(30, 20, 9, torch.float32)
    terms = random_terms(30, 20, torch.float32, True)
    terms = terms._replace(positive_weight=torch.tensor(0.5).expand(30))
    one = torch.tensor(1.0)
    plain = native_calls.apply(backend, one, image, text, terms, (True, True))
    strided = native_calls.apply(
        backend, one, image.T.contiguous().T, text.repeat(1, 2)[:, 9:], terms, (True, True)
    )
    assert torch.equal(plain[0], strided[0])
    assert torch.equal(plain[1], strided[1])
    check(plain[0], truth(1.0, image, text, terms)[0], torch.float32, terms=20)


def test_gradients_of_normalised_rows(backend, set_threads) -> None:
    """With scales, in float64: as autograd of F.normalize, hubs included; 0 for too short rows."""
    image, text = random_pair(600, 600, 33, torch.float64)
    image[7] *= 1e-14
    image[8] = 0
    vectors = torch.randn(6, 600, dtype=torch.float64)
    hardest = torch.randint(-1, 600, (2, 600))
    hardest[:, :400] = 5
    terms, _ = unpack_terms(vectors, hardest)
    leaves = [x.clone().requires_grad_() for x in (image, text)]
    unit = [torch.nn.functional.normalize(x, dim=1) for x in leaves]
    upstream = native_calls.apply(backend, torch.tensor(-0.7).double(), *unit, terms, (True, True))
    expected = torch.autograd.grad(unit, leaves, upstream)
    expected[0][7:9] = 0
    scales = torch.stack([row_scale(x) for x in (image, text)])
    for threads in (1, 3):
        set_threads(threads)
        found = backend.backward(
            torch.tensor(-0.7).double(), image, text, torch.cat([vectors, scales]), hardest,
            (True, True),
        )  # fmt: skip
        for grad, exact in zip(found, expected, strict=True):
            assert grad is not None
            largest = exact.abs().amax(dim=1, keepdim=True) + 1
            torch.testing.assert_close(grad / largest, exact / largest, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_normalised_gradients_in_lower_precision(backend, dtype) -> None:
    image, text = random_pair(90, 90, 70, dtype)
    vectors, hardest = torch.randn(6, 90), torch.randint(-1, 90, (2, 90))
    scales = torch.stack([row_scale(x) for x in (image, text)])
    vectors = torch.cat([vectors, scales])
    found = backend.backward(torch.tensor(1.5), image, text, vectors, hardest, (True, True))
    exact = backend.backward(
        torch.tensor(1.5).double(), image.double(), text.double(), vectors.double(), hardest,
        (True, True),
    )  # fmt: skip
    for grad, truth in zip(found, exact, strict=True):
        check(grad, truth, dtype, terms=20)


def test_backward_checks_what_it_is_given(fastest) -> None:
    image, vectors = torch.ones(3, 2), torch.zeros(6, 3)
    hardest, one = torch.zeros(2, 3, dtype=torch.int64), torch.tensor(1.0)
    both = (True, True)
    with pytest.raises(ValueError, match="expected 3 and 6 or 8 rows, got 3 and 5"):
        fastest.backward(one, image, image, vectors[:5], hardest, both)
    with pytest.raises(ValueError, match=r"vectors: expected 18 contiguous .*float32"):
        fastest.backward(one, image, image, vectors.double(), hardest, both)
    with pytest.raises(ValueError, match="hardest: expected 6 contiguous"):
        fastest.backward(one, image, image, vectors, hardest[:1], both)
