"""The checks of a GPU session let the reference through and catch planted faults."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

import pytest
import torch

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, PLAIN, RELATIVE, Case, make_inputs
from bench.contestants import Loss
from bench.gate import Judge
from bench.gpu import (
    exactness,
    samples,
    stability,
    worker,
)
from bench.gpu.inputs import (
    HALF_TRAINED,
    busy_pairing,
    whole_numbers,
)
from bench.gpu.judge import DeviceJudge
from bench.gpu.kinds import BFLOAT16, HIGH
from goal_kernels import ops
from goal_kernels.backends import BACKENDS
from goal_kernels.backends.base import RELATIVE_KINDS, Pairing
from goal_kernels.backends.gpu import CudaBackend
from goal_kernels.backends.reference import ReferenceBackend

STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, RELATIVE, 40, 24, "float32")


def quiet(name: str) -> None:
    """Nobody watches."""


class Wrong(ReferenceBackend):
    """The reference with one answer spoilt, for some relative kinds."""

    part = ""
    relatives: tuple[str, ...] = RELATIVE_KINDS

    def search(self, image, text, pairing, query):
        found = super().search(image, text, pairing, query)
        if query.relative not in self.relatives:
            return found
        place, change = {
            "index": (found.indices, -1),
            "value": (found.values, 1.0),
            "sum": (found.sums, 1.0),
            "count": (found.counts, 3),
        }[self.part]
        if len(place):
            place[len(place) // 2] += change
        return found


def spoil(monkeypatch, part: str, relatives: tuple[str, ...] = RELATIVE_KINDS) -> None:
    """Let the operator answer through `Wrong`."""
    wrong = Wrong()
    wrong.part, wrong.relatives = part, relatives

    def search(name, image, text, pairing, query):
        return wrong.search(image, text, pairing, query)

    monkeypatch.setattr(ops, "search", search)


SHAPES = [[19, 26, 24], [1, 2, 8], [26, 19, 24]]


@pytest.mark.parametrize("kind", [BFLOAT16, HIGH], ids=str)
def test_exact_integers_pass(kind) -> None:
    found = exactness.check_exact(quiet, ["reference"], list(kind), SHAPES, "cpu")
    assert found["passed"] == ["reference"], found


@pytest.mark.parametrize(
    ("part", "relative"),
    [
        *product(("index", "value"), RELATIVE_KINDS),
        *product(("sum", "count"), ("linear", "exponential")),
    ],
)
def test_an_answer_that_is_not_exact_is_caught(part, relative, monkeypatch) -> None:
    spoil(monkeypatch, part, (relative,))
    found = exactness.check_exact(quiet, ["reference"], list(BFLOAT16), SHAPES, "cpu")
    assert part in found["failures"]["reference"]
    assert f"{relative}:" in found["failures"]["reference"]


def test_exact_integers_have_ties_and_absent_negatives() -> None:
    image, text = whole_numbers(26, 24, 1), whole_numbers(19, 24, 2)
    scores = image @ text.T
    assert torch.equal(scores, scores.round())
    assert (scores == scores.max(dim=1, keepdim=True).values).sum(dim=1).max() > 1
    pairing = busy_pairing(26, 19, "cpu")
    assert pairing.target.min() < 0
    assert pairing.target.max() >= 19
    _, mined = exactness.truth(whole_numbers(1, 8, 1), whole_numbers(2, 8, 2), Pairing(), "none")
    assert -1 in mined.column_index.tolist()


@pytest.mark.parametrize("part", ["", "index", "value", "sum", "count"])
def test_sampled_anchors_catch_what_is_wrong(part, monkeypatch) -> None:
    monkeypatch.setattr(samples, "ANCHORS", 41)  # the spoilt one is among them
    if part:
        spoil(monkeypatch, part)
    case = asdict(replace(STEP, batch=41))
    found = samples.check_sampled(quiet, ["reference"], case, HALF_TRAINED)
    assert found["passed"] == ([] if part else ["reference"])
    if part:
        assert part in found["failures"]["reference"] or "gap" in found["failures"]["reference"]


@pytest.mark.parametrize("objective", [PLAIN, RELATIVE])
def test_the_judge_on_the_device_says_what_the_other_says(objective) -> None:
    case = replace(STEP, objective=objective)
    inputs = make_inputs(case)
    Loss(case, inputs, "reference").verify(DeviceJudge(case, inputs))

    class WrongGradient(Loss):
        def run(self) -> torch.Tensor:
            loss = super().run()
            self.text.grad[self.text.grad.abs().sum(1).argmax()] *= -1
            return loss

    for judge in (Judge, DeviceJudge):
        with pytest.raises(AssertionError, match="grad_text"):
            WrongGradient(case, inputs, "reference").verify(judge(case, inputs))


def test_the_judge_on_the_device_sees_a_wrong_index_and_a_wrong_product() -> None:
    inputs = make_inputs(STEP)
    judge = DeviceJudge(STEP, inputs)
    hardest = Loss(STEP, inputs, "reference").hardest()
    judge.check_hardest(hardest, stored=False)
    index = hardest.hardest_image.clone()
    index[7] = (index[7] + 1) % 7
    with pytest.raises(AssertionError, match="hardest_image"):
        judge.check_hardest(hardest._replace(hardest_image=index), stored=False)
    similarity = inputs.image @ inputs.text.T
    judge.check_product(similarity)
    similarity[3, 5] += 1e-3
    with pytest.raises(AssertionError, match="similarity"):
        judge.check_product(similarity)


@pytest.mark.parametrize("kind", ["ids", "normalized"])
def test_options_of_the_loss_pass_and_a_missing_one_is_caught(kind, monkeypatch) -> None:
    check = worker.load_function(kind)
    arguments = {"names": ["reference"], "kind": list(BFLOAT16), "batch": 24, "width": 16}
    assert check(quiet, **arguments, device="cpu")["passed"] == ["reference"]
    import goal_kernels as gk

    loss = gk.goal_loss

    def forgetful(*given, **options):
        options.pop("image_ids", None)
        options.pop("normalize", None)
        return loss(*given, **options)

    monkeypatch.setattr(gk, "goal_loss", forgetful)
    assert "reference" in check(quiet, **arguments, device="cpu")["failures"]


def test_reruns_that_differ_are_caught(monkeypatch) -> None:
    case = asdict(replace(STEP, batch=24))
    assert stability.check_repeated(quiet, ["reference"], case, 3)["passed"] == ["reference"]
    take, taken = stability.take_step, []

    def unsteady(*arguments, **options):
        taken.append(take(*arguments, **options))
        if len(taken) == 3:
            taken[-1].grads[0][0, 0] += 1e-7
        return taken[-1]

    monkeypatch.setattr(stability, "take_step", unsteady)
    found = stability.check_repeated(quiet, ["reference"], case, 3)
    assert "rerun 2: grad_image differ" in found["failures"]["reference"]


def test_ranks_that_differ_are_caught(monkeypatch) -> None:
    import goal_kernels as gk

    check, ranks = worker.load_function("ranks"), gk.retrieval_ranks
    assert check(quiet, ["reference"], 9, 8, "cpu")["passed"] == ["reference"]

    def off_by_one(*arguments, backend):
        found = ranks(*arguments, backend="reference")
        return found._replace(t2i=found.t2i + (backend == "wrong"))

    monkeypatch.setattr(gk, "retrieval_ranks", off_by_one)
    assert "t2i" in check(quiet, ["wrong"], 9, 8, "cpu")["failures"]["wrong"]


def test_ranks_in_cuda_are_checked_and_timed_beside_the_others(monkeypatch) -> None:
    """Emulated, as a session on a GPU would."""
    backend = CudaBackend(emulated=True)
    if not backend.availability().ok:
        pytest.skip(backend.availability().reason)
    registered = (backend, *(b for b in BACKENDS if b.name != backend.name))
    monkeypatch.setattr("goal_kernels.backends.BACKENDS", registered)
    names = ["reference", "cuda"]
    found = worker.load_function("ranks")(quiet, names, 9, 8, "cpu")
    assert found["passed"] == names, found
    times = worker.load_function("rank times")
    found = times(quiet, names, 9, 8, "float32", "cpu", 0.0)
    assert set(found["lanes"]) == {"gemm", *names}
    assert all(figures["tflops"] > 0 for figures in found["lanes"].values())
    count = backend.rank
    monkeypatch.setattr(backend, "rank", lambda *i: count(*i)._replace(text_ties=-count(*i)[4] - 1))
    found = times(quiet, names, 9, 8, "bfloat16", "cpu", 0.0)
    assert found["passed"] == ["reference"]
    assert "text_ties differ" in found["failures"]["cuda"]
    assert "cuda" not in found["lanes"]
