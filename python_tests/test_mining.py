"""Mining on planted cases: ties, duplicates, signed zeros, NaN, holes, rectangular batches."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest
import torch
from cases import paired_batch
from comparators import check_indices
from test_backend_parity import device_or_skip
from torch.utils._python_dispatch import TorchDispatchMode

import goal_kernels as gk
from goal_kernels import native
from goal_kernels.backends.base import Pairing
from goal_kernels.backends.choice import BACKENDS
from goal_kernels.reference import negative_mask

NAMES = [b.name for b in BACKENDS]


def mine(name: str, image, text, **options) -> gk.MinedPairs:
    device = device_or_skip(name, image.dtype, image.shape[1])
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    found = gk.mine(image.to(device), text.to(device), backend=name, **moved)
    return gk.MinedPairs(*(x.cpu() for x in found))


def exact_batch(rows: int, columns: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Small integers: every product and sum is exact in every precision, and ties abound."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    image = torch.randint(-2, 3, (rows, width), generator=generator).float()
    text = torch.randint(-2, 3, (columns, width), generator=generator).float()
    return image, text


def brute_force(image, text, target, ids) -> tuple[list[int], list[int]]:
    similarity = (image.double() @ text.double().T).tolist()
    rows, columns = len(similarity), len(similarity[0])

    def allowed(i: int, j: int) -> bool:
        return target[i] != j and (ids is None or ids[0][i] != ids[1][j])

    def hardest(candidates: list[tuple[float, int]]) -> int:
        return -max(candidates, key=lambda c: (c[0], c[1]), default=(0.0, 1))[1]

    best_text = [
        hardest([(similarity[i][j], -j) for j in range(columns) if allowed(i, j)])
        for i in range(rows)
    ]
    best_image = [
        hardest([(similarity[i][j], -i) for i in range(rows) if allowed(i, j)])
        for j in range(columns)
    ]
    return best_text, best_image


@pytest.mark.parametrize("shape", [(2, 2, 1), (5, 9, 3), (40, 17, 8), (17, 40, 65), (70, 70, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_lowest_index_wins_every_tie(name, shape) -> None:
    image, text = exact_batch(*shape)
    found = mine(name, image, text)
    expected = brute_force(image, text, list(range(len(image))), None)
    assert found.hardest_text.tolist() == expected[0]
    assert found.hardest_image.tolist() == expected[1]


@pytest.mark.parametrize("name", NAMES)
def test_targets_with_holes_and_ids(name) -> None:
    image, text = exact_batch(30, 23, 5)
    generator = torch.Generator().manual_seed(1)
    target = torch.randperm(40, generator=generator)[:30]
    target[target >= 23] = -1
    ids = (
        torch.randint(0, 6, (30,), generator=generator),
        torch.randint(0, 6, (23,), generator=generator),
    )
    found = mine(name, image, text, target=target, image_ids=ids[0], text_ids=ids[1])
    expected = brute_force(image, text, target.tolist(), [i.tolist() for i in ids])
    assert found.hardest_text.tolist() == expected[0]
    assert found.hardest_image.tolist() == expected[1]
    assert torch.equal(found.positive == float("-inf"), target == -1)


@pytest.mark.parametrize("name", NAMES)
def test_signed_zeros_tie(name) -> None:
    """-0.0 and 0.0 are equal similarities, so the lower index wins whatever the sign."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    text = torch.tensor([[0.0, 0.0], [-0.0, -0.0], [0.0, -0.0], [-0.0, 0.0]])
    found = mine(name, image, text)
    assert found.hardest_text.tolist() == [1, 0, 0, 0]
    assert found.hardest_image.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("position", [0, 12, 39])
@pytest.mark.parametrize("name", NAMES)
def test_planted_hardest_negative(name, position) -> None:
    """One text copies another image at the start, in the middle and in the last partial tile."""
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(40, 24, generator=generator), dim=1)
    text = torch.nn.functional.normalize(torch.randn(40, 24, generator=generator), dim=1)
    anchor = (position + 20) % 40
    text[position] = image[anchor]
    found = mine(name, image, text)
    assert found.hardest_text[anchor] == position
    assert found.hardest_image[position] == anchor
    assert found.negative_text[anchor].item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_candidate_at_all(name) -> None:
    image, text = exact_batch(6, 6, 3)
    ids = torch.full((6,), 3)
    found = mine(name, image, text, image_ids=ids, text_ids=ids)
    assert found.hardest_text.tolist() == [-1] * 6
    assert (found.negative_text == float("-inf")).all()
    one_by_one = mine(name, image[:1], text[:1])
    assert one_by_one.hardest_text.tolist() == one_by_one.hardest_image.tolist() == [-1]


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_mined_and_stays_nan(name) -> None:
    image, text = exact_batch(40, 40, 6)
    image[5, 2] = float("nan")
    found = mine(name, image, text)
    assert found.positive[5].isnan()
    assert found.negative_text[5].isnan()
    assert found.hardest_text[5] == 0, "the first NaN of the row wins"
    others = torch.arange(40) != 5
    assert (found.hardest_image[others] == 5).all(), "the NaN row is every other text's hardest"
    assert found.negative_image[others].isnan().all()
    expected = brute_force(image, text, list(range(40)), None)[0]
    unaffected = [i for i in range(40) if i != 5]
    assert [found.hardest_text[i].item() for i in unaffected] == [expected[i] for i in unaffected]


@pytest.mark.parametrize("name", NAMES)
def test_infinity_never_breaks_the_index(name) -> None:
    image, text = exact_batch(20, 20, 4)
    image[3] = torch.tensor([float("inf"), 1.0, 1.0, 1.0])
    text[:, 0] = 1.0
    found = mine(name, image, text)
    assert ((found.hardest_text >= 0) & (found.hardest_text < 20)).all()
    assert (found.hardest_image[torch.arange(20) != 3] == 3).all()
    assert found.negative_text[3] == float("inf")


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("name", NAMES)
def test_precision_changes_choice_never_value(name, precision) -> None:
    """Whatever the mining precision, the values of the mined pairs are accurate to float32."""
    generator = torch.Generator().manual_seed(3)
    image = torch.nn.functional.normalize(torch.randn(50, 80, generator=generator), dim=1)
    text = torch.nn.functional.normalize(torch.randn(50, 80, generator=generator), dim=1)
    found = mine(name, image, text, precision=precision)
    similarity = image.double() @ text.double().T
    rows = torch.arange(50)
    exact = similarity[rows, found.hardest_text]
    torch.testing.assert_close(found.negative_text.double(), exact, rtol=0, atol=1e-6)
    bound = {"highest": 1e-6, "high": 1e-4, "medium": 1e-2}[precision]
    allowed = negative_mask(50, 50, Pairing(), torch.device("cpu"))
    check_indices(similarity, allowed, found.hardest_text, bound, precision)


@pytest.mark.parametrize("watch", ["mode", "profiler", "autocast", "gradients"])
def test_the_operator_is_called_where_it_is_seen(watch: str) -> None:
    """Elsewhere it is passed by, for the sake of small batches; the result is the same."""
    image, text = (rows.float() for rows in paired_batch(20, 6))
    expected = gk.mine(image, text, backend="reference", image_ids=torch.arange(20) // 2)
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            seen.append(str(operator))
            return operator(*args, **(kwargs or {}))

    with ExitStack() as stack:
        if watch == "mode":
            stack.enter_context(Watch())
        elif watch == "profiler":
            profile = stack.enter_context(torch.profiler.profile())
        elif watch == "autocast":  # of products in bfloat16
            stack.enter_context(torch.autocast("cpu"))
        else:
            image.requires_grad_()
        found = gk.mine(image, text, backend="reference", image_ids=torch.arange(20) // 2)
    if watch == "profiler":
        seen += [event.name for event in profile.events()]
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)
        assert not got.requires_grad
    assert any("goal_kernels" in name for name in seen) is (watch in ("mode", "profiler"))


@pytest.mark.skipif(not native.status()[0], reason="counts the calls of the native backend")
def test_a_plain_call_is_short() -> None:
    """Of a small batch Python takes most of the time; eager torch is a dozen calls."""
    image, text = (rows.float() for rows in paired_batch(8, 4))
    gk.mine(image, text)
    calls: list[str] = []

    def count(frame, event, argument) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        gk.mine(image, text)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 40, calls
