"""The sum of hinges against a double loop, and the schedule counted in steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from goal_kernels import GOALLoss, NegativeMemory, Objective, Sampled, sum_of_hinges_loss
from goal_kernels.distributed import gather_pairs
from goal_kernels.training.objectives import make_objective
from goal_kernels.training.warmup import CollapseHold, WarmedLoss, WarmupSchedule

MARGIN = 0.2


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        (WarmupSchedule(), [1, 1, 1, 1, 1, 1]),
        (WarmupSchedule(3), [0, 0, 0, 1, 1, 1]),
        (WarmupSchedule(2, 3), [0, 0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_schedule_counts_steps(schedule: WarmupSchedule, weights: list[float]) -> None:
    assert [schedule.weight(step) for step in range(6)] == pytest.approx(weights)


@pytest.mark.parametrize("name", ["warmup_steps", "blend_steps"])
def test_schedule_refuses_negative_steps(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        WarmupSchedule(**{name: -1})


def test_warmed_loss_switches_loss_and_gradient_by_step() -> None:
    texts, ids = unit_rows(8, 5, 2), torch.arange(8) // 2
    objective = Objective("nca", "sigmoid_ms")
    loss = WarmedLoss(objective, WarmupSchedule(10, 1), backend="reference")

    def value_and_gradient(function):
        images = unit_rows(8, 5, 1).requires_grad_()
        value = function(images)
        value.backward()
        return torch.cat([value.detach()[None], images.grad.flatten()])

    hinges = value_and_gradient(
        lambda images: sum_of_hinges_loss(images, texts, image_ids=ids, margin=MARGIN)
    )
    goal = value_and_gradient(
        lambda images: GOALLoss(objective, backend="reference")(images, texts, ids, ids)
    )
    expected = {0: hinges, 9: hinges, 10: (hinges + goal) / 2, 11: goal, 500: goal}
    for step, wanted in expected.items():
        got = value_and_gradient(
            lambda images, step=step: loss(gather_pairs(images, texts, ids), step)[0]
        )
        torch.testing.assert_close(got, wanted)


def test_the_warm_up_can_have_a_margin_of_its_own() -> None:
    images, texts = unit_rows(8, 5, 1), unit_rows(8, 5, 2)
    objective = Objective("hinge", "constant", margin=0.5)
    loss = WarmedLoss(objective, WarmupSchedule(1, margin=MARGIN), backend="reference")
    hinges = sum_of_hinges_loss(images, texts, margin=MARGIN)
    torch.testing.assert_close(loss(gather_pairs(images, texts), 0)[0], hinges)
    goal = GOALLoss(objective, backend="reference")(images, texts)
    torch.testing.assert_close(loss(gather_pairs(images, texts), 1)[0], goal)
    with pytest.raises(ValueError, match=r"warmup_margin: expected a number >= 0, got -0\.1"):
        WarmupSchedule(margin=-0.1)


def test_the_share_of_pairs_with_a_weight_is_told_of_losses_over_all_negatives() -> None:
    images, texts = unit_rows(8, 5, 1).requires_grad_(), unit_rows(8, 5, 2)
    loss = WarmedLoss(Objective("hinge", "constant"), WarmupSchedule(1), backend="reference")
    loss(gather_pairs(images, texts), 0)
    _, found = sum_of_hinges_loss(images, texts, margin=MARGIN, return_stats=True)
    assert 0 < found.active_fraction < 1
    assert loss.active_pairs == found.active_fraction
    loss(gather_pairs(images, texts), 1)
    assert loss.active_pairs is None
    whole = WarmedLoss(make_objective("sum_of_hinges"), WarmupSchedule(), backend="reference")
    whole(gather_pairs(images, texts), 0)
    assert whole.active_pairs == found.active_fraction


def test_mining_is_reported_during_the_warm_up() -> None:
    images, texts = unit_rows(8, 5, 1), unit_rows(8, 5, 2)
    loss = WarmedLoss(Objective("hinge", "constant"), WarmupSchedule(10), backend="reference")
    _, statistics = loss(gather_pairs(images, texts), 0)
    torch.testing.assert_close(statistics.mean_positive, (images * texts).sum(dim=1).mean())


def run_hold(hold: CollapseHold, schedule: WarmupSchedule, collapsed: str) -> list[float]:
    """Weights of the objective over steps of which those marked "x" are collapsed."""
    loss = WarmedLoss(Objective("hinge", "constant"), schedule, "reference", hold)
    weights = []
    for step, mark in enumerate(collapsed):
        weights.append(loss.weight(step))
        hold.observe(mark == "x", step, schedule)
    return weights


@pytest.mark.parametrize(
    ("collapsed", "weights"),
    [
        ("........", [0, 0, 0.5, 1, 1, 1, 1, 1]),
        # One collapsed step is an accident.
        ("....x...", [0, 0, 0.5, 1, 1, 1, 1, 1]),
        # Two hold; two healthy ones release, and the blend starts anew.
        ("...xx.......", [0, 0, 0.5, 1, 1, 0, 0, 0.5, 1, 1, 1, 1]),
        # Held within the warm-up: its second step is still to come.
        ("xx......", [0, 0, 0, 0, 0, 0.5, 1, 1]),
        ("...xxxx.x....", [0, 0, 0.5, 1, 1, 0, 0, 0, 0, 0, 0, 0.5, 1]),
    ],
)
def test_hold_stops_the_schedule_while_training_is_collapsed(
    collapsed: str, weights: list[float]
) -> None:
    hold, schedule = CollapseHold(patience=2), WarmupSchedule(2, 1)
    assert run_hold(hold, schedule, collapsed) == pytest.approx(weights)


def test_hold_continues_from_its_state() -> None:
    schedule, marks = WarmupSchedule(2, 1), "...xx.x...xxx...."
    whole = CollapseHold(patience=2)
    run_hold(whole, schedule, marks)
    for cut in range(len(marks)):
        first, second = CollapseHold(patience=2), CollapseHold(patience=2)
        run_hold(first, schedule, marks[:cut])
        second.load_state_dict(first.state_dict())
        for step in range(cut, len(marks)):
            second.observe(marks[step] == "x", step, schedule)
        assert second == whole


def test_loss_watches_what_mining_found() -> None:
    hold = CollapseHold(patience=1)
    loss = WarmedLoss(Objective("hinge", "constant"), WarmupSchedule(), "reference", hold)
    same = unit_rows(1, 5, 1).expand(6, -1)
    value, _ = loss(gather_pairs(same, same), 0)
    assert hold.held
    assert value.item() == pytest.approx(2 * 6 * MARGIN)
    value, _ = loss(gather_pairs(same, same), 1)
    assert value.item() == pytest.approx(2 * 6 * 5 * MARGIN)  # the sum of hinges
    loss(gather_pairs(unit_rows(6, 5, 1), unit_rows(6, 5, 2)), 2)
    assert not hold.held


def test_negatives_are_drawn_anew_each_step_and_those_of_the_objective_alone() -> None:
    images, texts, ids = unit_rows(12, 5, 1), unit_rows(12, 5, 2), torch.arange(12) // 2
    pairs, objective = gather_pairs(images, texts, ids), Objective("nca", "sigmoid_ms")
    given = {"negatives": Sampled(1.0), "false_negative_margin": 0.1}
    loss = WarmedLoss(objective, WarmupSchedule(1), "reference", **given)
    value, statistics = loss(pairs, 0, seed=3)
    torch.testing.assert_close(
        value, sum_of_hinges_loss(images, texts, image_ids=ids, margin=MARGIN)
    )
    assert statistics.skipped_negatives > 0
    drawn = [loss(pairs, 1, seed=seed)[1].hardest_text for seed in (3, 4, 3)]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    given["negatives"] = Sampled(1.0, 4)
    expected = GOALLoss(objective, backend="reference", **given)(images, texts, ids, ids)
    assert loss(pairs, 1, seed=4)[0] == expected


def test_the_memory_is_of_the_objective_and_fills_up_in_the_warm_up() -> None:
    objective = Objective("nca", "sigmoid_ms")
    loss = WarmedLoss(objective, WarmupSchedule(1), "reference", memory=10)
    memory, criterion = NegativeMemory(10), GOALLoss(objective, backend="reference")
    batches = [(unit_rows(6, 5, seed), unit_rows(6, 5, seed + 9)) for seed in range(4)]
    for step, (images, texts) in enumerate(batches):
        ids = torch.arange(6) + step
        value, _ = loss(gather_pairs(images, texts, ids), step)
        expected = memory(criterion, images, texts, ids)
        if step == 0:
            expected = sum_of_hinges_loss(images, texts, image_ids=ids, margin=MARGIN)
        assert value == expected
        if step == 1:
            state = loss.resume_state(with_memory=True)
    assert not loss.state_dict()
    resumed = WarmedLoss(objective, WarmupSchedule(1), "reference", memory=10)
    resumed.load_resume_state(state)
    ids = torch.arange(6) + 2
    resumed(gather_pairs(*batches[2], ids), 2)
    assert resumed(gather_pairs(*batches[3], ids + 1), 3)[0] == value
    smaller = WarmedLoss(objective, WarmupSchedule(), "reference", memory=4)
    smaller.load_resume_state(state)
    assert len(smaller.memory) == 4
    smaller.load_resume_state(loss.resume_state(with_memory=False))
    assert len(smaller.memory) == 0


@pytest.mark.parametrize("step", [0, 5])
def test_repeated_images_with_ids_are_images_with_several_texts(step: int) -> None:
    """Without relative sums. In the warm-up a text then meets every other image once, not often."""
    owner = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    loss = WarmedLoss(Objective("nca", "sigmoid"), WarmupSchedule(1), "reference")
    images, texts = unit_rows(4, 5, 1).requires_grad_(), unit_rows(7, 5, 2).requires_grad_()
    several, statistics = loss(gather_pairs(images, texts, text_to_image=owner), step)
    repeated, _ = loss(gather_pairs(images[owner], texts, owner), step)
    assert (statistics.hardest_image >= 0).all()
    if step == 0:
        assert several < repeated
        return
    torch.testing.assert_close(several, repeated)
    wanted = torch.autograd.grad(repeated, (images, texts))
    for got, gradient in zip(torch.autograd.grad(several, (images, texts)), wanted, strict=True):
        torch.testing.assert_close(got, gradient)


def test_negatives_that_were_chosen() -> None:
    """They are never left out as false ones, nor negatives of their own image."""
    images, texts = unit_rows(4, 5, 1), unit_rows(8, 5, 2)
    owner = torch.tensor([0, 0, -1, 1, -1, 2, 3, -1])
    ids, text_ids = torch.arange(4), torch.tensor([0, 0, 2, 1, 0, 2, 3, 8])
    texts[2], texts[7] = images[0], images[1]  # above every positive
    objective = Objective("nca", "sigmoid_ms")
    loss = WarmedLoss(
        objective, WarmupSchedule(1), "reference", negatives="hardest", false_negative_margin=0.0
    )
    pairs = gather_pairs(images, texts, ids, text_ids, text_to_image=owner)
    value, statistics = loss(pairs, 1)
    expected, _ = GOALLoss(
        objective, backend="reference", false_negative_margin=0.0, return_stats=True
    )(images, texts, ids, text_ids, text_to_image=owner, exempt_texts=owner < 0)
    assert value == expected
    assert statistics.hardest_text[[0, 1, 3]].tolist() == [2, 2, 7]
    assert 4 not in statistics.hardest_text[:2]
    similarity, hinges = images @ texts.T, 0.0
    for text, image in enumerate(owner.tolist()):
        if image >= 0:
            over = MARGIN + torch.cat(
                [similarity[image, text_ids != image], similarity[ids != image, text]]
            )
            hinges += (over - similarity[image, text]).clamp(min=0).sum()
    torch.testing.assert_close(loss(pairs, 0)[0], hinges)
