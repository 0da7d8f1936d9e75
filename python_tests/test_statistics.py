"""The statistics that come free, and the collapse flag."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import OBJECTIVES, paired_batch

import goal_kernels as gk
from goal_kernels import functional, notices
from goal_kernels.distributed import distributed_goal_loss


def statistics(image, text, objective="hinge/constant", **options) -> gk.MiningStatistics:
    return gk.goal_loss(image, text, objective, return_stats=True, **options)[1]


def test_summaries_are_what_they_say() -> None:
    image, text = paired_batch(30, 8)
    stats = statistics(image, text)
    similarity = image @ text.T
    off = similarity.clone().fill_diagonal_(float("-inf"))
    positive, row, column = similarity.diagonal(), off.max(1).values, off.max(0).values
    assert stats.mean_positive.item() == pytest.approx(positive.mean().item())
    both = torch.cat([row, column])
    assert stats.mean_hardest_negative.item() == pytest.approx(both.mean().item())
    gap = both - torch.cat([positive, positive])
    assert stats.active_fraction.item() == pytest.approx((gap + 0.2 > 0).double().mean().item())
    assert stats.mean_absolute_gap.item() == pytest.approx(gap.abs().mean().item())
    assert stats.value.item() == pytest.approx(torch.relu(0.2 + gap).sum().item())
    assert stats.plateau_ratio.item() == pytest.approx(stats.value.item() / (2 * 30 * 0.2))
    assert not stats.collapsed
    assert torch.equal(stats.hardest_text, off.argmax(1))
    summary = stats.summary()
    assert summary["rows_without_negative"] == 0
    assert summary["mean_positive"] == pytest.approx(positive.mean().item())


def test_the_plateau_is_flagged() -> None:
    """All similarities equal: the hinge loss is exactly 2 B margin, 51.2 at B = 128."""
    rows = torch.nn.functional.normalize(torch.randn(1, 16), dim=1).repeat(128, 1)
    loss, stats = gk.goal_loss(rows, rows, "hinge/constant", return_stats=True)
    assert loss.item() == pytest.approx(51.2, rel=1e-5)
    assert stats.collapsed
    assert stats.plateau_ratio.item() == pytest.approx(1.0, rel=1e-5)
    nearly = rows + 1e-3 * torch.randn(128, 16)
    assert statistics(nearly, rows).collapsed


@pytest.mark.parametrize("noise", [0.05, 0.7, 3.0, 50.0])
def test_training_that_works_is_never_flagged(noise) -> None:
    """From random to solved, through the point where mean negative and mean positive cross."""
    image, text = paired_batch(128, 64, noise=noise)
    assert not statistics(image, text).collapsed


def test_rows_without_negative_are_counted_and_left_out() -> None:
    image, text = paired_batch(4, 6)
    ids = torch.tensor([1, 1, 1, 1])
    stats = statistics(image, text, image_ids=ids)
    assert stats.rows_without_negative == 8
    assert stats.active_fraction == 0
    assert stats.mean_hardest_negative.isnan()
    ids = torch.tensor([1, 1, 2, 2])
    assert statistics(image, text, image_ids=ids).rows_without_negative == 0


def test_value_does_not_depend_on_the_reduction() -> None:
    image, text = paired_batch(10, 4)
    assert statistics(image, text).value == statistics(image, text, reduction="mean").value


def test_one_direction_has_no_active_anchor_in_the_other() -> None:
    image, text = paired_batch(10, 4)
    stats = statistics(image, text, "nca/sigmoid", direction="i2t")
    assert stats.active_text.all()
    assert not stats.active_image.any()


@pytest.fixture
def _fresh_notices(monkeypatch) -> None:
    """As if the process had just begun."""
    monkeypatch.setattr(notices, "_given", set())
    monkeypatch.setattr(functional, "similarity_watch", notices.SimilarityWatch())


ONE_PAIR = {
    "goal_loss": lambda x, y, objective: gk.goal_loss(x, y, objective),
    "mean": lambda x, y, objective: gk.goal_loss(x, y, objective, reduction="mean", normalize=True),
    "module": lambda x, y, objective: gk.GOALLoss(objective)(x, y),
    "similarity": lambda x, y, objective: gk.goal_loss_from_similarity(x @ y.T, objective),
    "distributed": lambda x, y, objective: distributed_goal_loss(x, y, objective),
}


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.parametrize("call", ONE_PAIR)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
def test_a_pair_alone_has_a_loss_of_zero_that_keeps_the_graph(objective, call) -> None:
    """The rest of an epoch must not end a training run."""
    image, text = (x[:1].requires_grad_() for x in paired_batch(2, 5))
    with pytest.warns(RuntimeWarning, match="got a batch of one pair.*drop_last=True") as caught:
        loss = ONE_PAIR[call](image, text, objective)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(image.grad, torch.zeros(1, 5, dtype=torch.float64))
    assert torch.equal(text.grad, image.grad)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once per process
        ONE_PAIR[call](image, text, objective)


@pytest.mark.usefixtures("_fresh_notices")
def test_statistics_of_a_pair_alone() -> None:
    with pytest.warns(RuntimeWarning, match="one pair"):
        stats = statistics(*(x[:1] for x in paired_batch(2, 5)))
    assert stats.rows_without_negative == 2
    assert stats.summary()["active_fraction"] == 0
    assert not stats.collapsed


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.parametrize("objective", ["hinge/constant", gk.Objective("nca", lambda p, n: (p, n))])
def test_rows_that_are_not_of_unit_length_are_named_once(objective) -> None:
    image, text = torch.randn(2, 12, 40)
    positive = (image * text).sum(1)
    negative = (image @ text.T).fill_diagonal_(float("-inf")).amax
    seen = torch.cat([positive, negative(0), negative(1)]).abs().max().item()
    with pytest.warns(RuntimeWarning, match="normalize=True") as caught:
        gk.goal_loss(image, text, objective)
    assert f"similarity of {seen:.4g} in" in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gk.goal_loss(image, text, objective)


@pytest.mark.usefixtures("_fresh_notices")
def test_rows_that_grow_long_later_are_noticed() -> None:
    image, text = paired_batch(12, 8)
    for _ in range(3):
        gk.goal_loss(image, text, "nca/linear")
    with pytest.warns(RuntimeWarning, match="not of unit length"):  # calls 1, 2, 4, 8 ... count
        gk.goal_loss(3 * image, text, "nca/linear")


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_unit_rows_are_never_named(dtype) -> None:
    """Equal pairs have the largest cosine there is; only one row is left without a negative."""
    for width in (1, 3, 64, 500):
        rows = torch.randn(64, width).to(dtype)
        rows = rows / rows.norm(dim=1, keepdim=True)  # rounded three times in its dtype
        ids = torch.zeros(64, dtype=torch.int64)
        for _ in range(2):
            gk.goal_loss(rows, rows, "nca/linear", image_ids=ids)
            gk.goal_loss(rows, rows, "nca/linear")
            gk.goal_loss(30 * rows.float(), rows.float(), "nca/linear", normalize=True)
    rows[0] = float("nan")
    for _ in range(8):
        gk.goal_loss(rows, rows, "nca/linear")


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.filterwarnings("error:goal_loss:RuntimeWarning")
def test_what_has_no_numbers_is_not_looked_at() -> None:
    image, text = torch.randn(2, 12, 40)

    def loss(x):
        return gk.goal_loss(x, text.to(x.device), "nca/linear")

    torch._dynamo.reset()
    torch.compile(loss, fullgraph=True, backend="eager")(image)
    torch.func.grad(loss)(image)
    torch.func.vmap(loss)(image[None])
    loss(image.to("meta"))
    with torch._subclasses.FakeTensorMode():
        gk.goal_loss(torch.empty(4, 3), torch.empty(4, 3), "nca/linear")
    with pytest.raises(RuntimeWarning, match="normalize=True"):
        loss(image)


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.filterwarnings("error")
def test_the_warnings_can_be_filtered() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "goal_loss: ", RuntimeWarning)
        gk.goal_loss(*torch.randn(2, 4, 30), "nca/linear")
        gk.goal_loss(*torch.randn(2, 1, 30), "nca/linear")


@pytest.mark.usefixtures("_fresh_notices")
@pytest.mark.filterwarnings("error")
def test_a_number_that_has_not_arrived_is_not_waited_for(monkeypatch) -> None:
    """As on a GPU: the third call would not look, but finds what the first one sent for."""
    arrived = False
    monkeypatch.setattr(notices, "_query_of", lambda _: lambda: arrived)
    image, text = paired_batch(12, 8)
    gk.goal_loss(9 * image, text, "nca/linear")
    gk.goal_loss(image, text, "nca/linear")
    arrived = True
    with pytest.warns(RuntimeWarning, match="normalize=True"):
        gk.goal_loss(image, text, "nca/linear")


@pytest.mark.gpu
@pytest.mark.usefixtures("_fresh_notices")
def test_on_a_gpu_the_warning_comes_when_the_number_has_arrived() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    image, text = torch.randn(2, 12, 40, device="cuda")
    gk.goal_loss(image, text, "nca/linear", normalize=True)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.cuda._sleep(100_000_000)
            gk.goal_loss(image, text, "nca/linear")
            gk.goal_loss(image, text, "nca/linear")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    with pytest.warns(RuntimeWarning, match="normalize=True"):
        gk.goal_loss(image, text, "nca/linear")
