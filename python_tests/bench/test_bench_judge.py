"""The judge at every size and option: blocks, samples, ids, normalised rows; faults are caught."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import goal_kernels as gk
from bench import judge as judging
from bench import methods
from bench.cases import (
    DATA,
    FORWARD_BACKWARD,
    GOAL_LOSS,
    HUB_COUNT,
    HUBS,
    MINE,
    NO_OBJECTIVE,
    PLAIN,
    RELATIVE,
    Case,
    Effort,
    Suite,
    make_inputs,
)
from bench.contest import CACHE_BYTES, ContestResult, copies_of, hold_contest
from bench.eager import Outcome
from bench.judge import Judge
from bench.lineup import WAYS, has_programs, line_up, make_method, strategies, using
from bench.methods import Gemm, Gradients, Loss
from goal_kernels import BackendUnavailableError
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.backends.choice import find_backend
from goal_kernels.reference import mine_similarity

STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, RELATIVE, 40, 24, "float32")


class WrongGradient(Loss):
    """One row of one gradient flipped."""

    def run(self) -> torch.Tensor:
        loss = super().run()
        self.text.grad[self.text.grad.abs().sum(1).argmax()] *= -1
        return loss


@pytest.fixture
def blocks_of_seven(monkeypatch) -> None:
    """No matrix in full: seven anchors at a time."""
    monkeypatch.setattr(judging, "WHOLE_BATCH", 0)
    monkeypatch.setattr(judging, "BLOCK_ELEMENTS", 7 * 40)


@pytest.mark.parametrize("objective", [PLAIN, RELATIVE, "circle/linear_ms"])
def test_blocks_say_what_the_matrix_says(objective, blocks_of_seven) -> None:
    case = replace(STEP, objective=objective, ids="groups")
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    assert judge._whole is None
    Loss(case, inputs, "reference").verify(judge)
    with pytest.raises(AssertionError, match="grad_text"):
        WrongGradient(case, inputs, "reference").verify(judge)
    hardest = Loss(case, inputs, "reference").hardest()
    given = (hardest.hardest_text, hardest.hardest_image)
    goal = gk.Objective.parse(objective)
    found = judge._mined(given, goal, 0.0)
    query = RelativeQuery(
        goal.pair_element.relative, judge.positive.min() - goal.epsilon, goal.beta
    )
    whole = judge.image @ judge.text.T
    expected = mine_similarity(whole, Pairing(None, inputs.ids, inputs.ids), query, given)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_a_wrong_index_and_a_wrong_product_are_seen_in_blocks(blocks_of_seven) -> None:
    inputs = make_inputs(STEP)
    judge = Judge(STEP, inputs)
    hardest = Loss(STEP, inputs, "reference").hardest()
    judge.check_hardest(hardest, stored=False)
    index = hardest.hardest_image.clone()
    index[7] = (index[7] + 1) % 7
    with pytest.raises(AssertionError, match="hardest_image"):
        judge.check_hardest(hardest._replace(hardest_image=index), stored=False)
    similarity = inputs.image @ inputs.text.T
    judge.check_product(similarity)
    similarity[39, 5] += 1e-3
    with pytest.raises(AssertionError, match="similarity"):
        judge.check_product(similarity)


def test_above_its_limit_it_compares_some_anchors_and_no_sums(monkeypatch) -> None:
    monkeypatch.setattr(judging, "LARGEST_COMPLETE", 39)
    monkeypatch.setattr(judging, "SAMPLED", 10)
    case = replace(STEP, objective=PLAIN)
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    assert judge.step == 4
    method = Loss(case, inputs, "reference")
    method.verify(judge)
    outcome = method.outcome()
    for row, caught in ((8, True), (9, False)):
        grads = [grad.clone() for grad in outcome.gradients]
        grads[0][row] += 1.0
        spoilt = Outcome(outcome.hardest, outcome.value, tuple(grads))
        if caught:
            with pytest.raises(AssertionError, match="grad_image"):
                judge.check_objective(method.objective, spoilt, stored=False)
        else:
            judge.check_objective(method.objective, spoilt, stored=False)
    with pytest.raises(NotImplementedError, match="relative sums are not checked"):
        Loss(STEP, inputs, "reference").verify(judge)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("option", [{"ids": "groups"}, {"normalize": True}], ids=str)
def test_an_option_passes_and_a_missing_one_is_caught(dtype, option, monkeypatch) -> None:
    case = replace(STEP, dtype=dtype, **option)
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    Loss(case, inputs, "reference").verify(judge)
    Gemm(case, inputs).verify(judge)
    mining = replace(case, op=MINE, objective=NO_OBJECTIVE)
    make_method("reference", mining, inputs).verify(judge)
    forgetful = Loss(case, inputs, "reference")
    del forgetful.options[{"ids": "image_ids"}.get(*option, "normalize")]
    with pytest.raises(AssertionError):
        forgetful.verify(judge)
    flipped = WrongGradient(case, inputs, "reference")
    with pytest.raises(AssertionError, match="grad_text"):
        flipped.verify(judge)


def test_a_method_of_gradients_alone_is_checked() -> None:
    inputs = make_inputs(STEP)
    judge = Judge(STEP, inputs)
    method = Gradients(STEP, inputs, "reference")
    method.verify(judge)
    method.run()  # once more from the same forward
    method.kept = 1.01 * method.kept
    with pytest.raises(AssertionError, match="value"):
        method.verify(judge)


def test_inputs_have_hubs_ids_and_lengths() -> None:
    case = replace(STEP, batch=200, width=64)
    image, text, _ = make_inputs(replace(case, data=HUBS))
    similarity = (image @ text.T).fill_diagonal_(-9)
    hubs = set(range(200 - HUB_COUNT, 200))
    for hardest in (similarity.argmax(1), similarity.argmax(0)):
        assert sum(k in hubs for k in hardest.tolist()) > 150
        assert hardest.bincount().max() > 200 / HUB_COUNT / 2
    for data in DATA:
        rows = make_inputs(replace(case, data=data))
        assert torch.allclose(rows.image.norm(dim=1), torch.ones(200), atol=1e-5)
    lengths = make_inputs(replace(case, normalize=True)).text.norm(dim=1)
    assert 0.2 < lengths.min() < 1 < lengths.max() < 4.3
    ordered, shuffled = (make_inputs(replace(case, ids=i)).ids for i in ("sorted", "shuffled"))
    assert torch.equal(ordered, shuffled.sort().values)
    assert not torch.equal(ordered, shuffled)
    assert len(make_inputs(replace(case, ids="groups")).ids.unique()) < 100


def test_copies_outgrow_the_cache_of_a_gpu() -> None:
    class OnDevice(torch.Tensor):
        is_cuda = True

    rows = torch.ones(1000, 1000).as_subclass(OnDevice)
    inputs = make_inputs(STEP)._replace(image=rows, text=rows)
    assert len(copies_of(inputs)) == -(-CACHE_BYTES // 8_000_000)
    assert len(copies_of(inputs, most=3)) == 3
    assert copies_of(make_inputs(STEP))[0].image is not rows


def test_out_of_memory_and_refusals_are_no_failures() -> None:
    result = ContestResult()
    for name, error in (
        ("large", torch.OutOfMemoryError("no memory\nand more")),
        ("other", BackendUnavailableError("not this one")),
        ("wrong", AssertionError("it is wrong")),
        ("broken", RuntimeError("it broke")),
    ):
        with result.attempt(name):
            raise error
    assert result.oom == {"large": "no memory"}
    assert result.refused == {"other": "not this one"}
    assert result.failures["wrong"] == "it is wrong"
    assert result.failures["broken"].startswith("RuntimeError: it broke (test_bench_judge.py")


def test_a_suite_for_checks_takes_every_strategy_of_every_backend(monkeypatch) -> None:
    from goal_kernels.backends import reference

    seen = []

    @contextlib.contextmanager
    def use(value):
        seen.append(value)
        yield

    monkeypatch.setattr(find_backend("reference"), "strategies", ("dense", "tiled"), raising=False)
    monkeypatch.setattr(reference, "use_strategy", use, raising=False)
    assert strategies("reference") == ("dense", "tiled")
    assert strategies("cpu") == ()
    assert not has_programs("reference:tiled")
    monkeypatch.setattr(reference, "use_programs", use, raising=False)
    assert has_programs("reference:tiled@graph")
    with using("reference:tiled", 17):
        assert seen == ["tiled", 17]
    suite = Suite((), (), (), Effort(0.0, 1, 1), compiling=False, strategies=True, ways=WAYS)
    names = {name for name, verdict in line_up(STEP, suite) if verdict.ok}
    # A way that needs a GPU is not offered on a processor.
    assert {"reference:dense", "reference:tiled", "auto", "auto@fullgraph"} <= names
    assert not any(name.endswith(("@graph", "@graphed_loss")) for name in names)
    assert "reference" not in names
    found = hold_contest(STEP, suite, without=[n for n in names if "tiled" not in n])
    assert list(found.lanes) == ["reference:tiled"]


class FakeCuda:
    """As much of torch.cuda as a capture needs; what a graph replays is for the test to say."""

    def __getattr__(self, name: str):
        return lambda *_, **__: self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("stale", [False, True])
def test_a_graph_that_does_not_read_its_inputs_is_caught(stale, monkeypatch) -> None:
    monkeypatch.setattr(methods, "torch", FakeTorch())
    inputs = make_inputs(STEP)
    inner = Loss(STEP, inputs, "reference")
    captured = methods.Captured(inner, None)
    assert len(captured.results) == 3

    def replay() -> None:
        for static, value in zip(captured.results, [inner.step(), *grads(inner)], strict=True):
            static.detach().copy_(value.detach())

    captured.graph = SimpleNamespace(replay=(lambda: None) if stale else replay)
    if not stale:
        captured.verify(Judge(STEP, inputs))
        assert torch.equal(inner.image, inputs.image)
        return
    with pytest.raises(AssertionError, match="of the replay differs"):
        captured.verify(Judge(STEP, inputs))


def grads(method: Loss) -> tuple[torch.Tensor, torch.Tensor]:
    return method.image.grad, method.text.grad


class FakeTorch:
    """torch with a GPU that is none."""

    cuda = FakeCuda()

    def __getattr__(self, name: str):
        return getattr(torch, name)
