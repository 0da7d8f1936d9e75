"""The training section of the report: a figure for everything the run logged."""

from __future__ import annotations

from goal_kernels.constants import COLLAPSE_GAP
from goal_kernels.retrieval.metrics import RECALLS
from goal_kernels.training.history import DATA_WAIT, PAIRS_PER_SECOND, History
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.report.charts import Chart, Series, chart_html
from goal_kernels.training.report.style import number_cells, table_html

STEP = "optimiser step"
RATES = "lr-"  # what the learning rates are logged under
MOST_LINES = 4  # of a chart
GAP = "mining/mean_absolute_gap"
DIRECTIONS = {"t2i": "text → image", "i2t": "image → text"}


def curves_section(history: History, outcome: Outcome) -> str:
    """Figures and the numbers of each epoch; "" for a run without a log (an evaluation)."""
    charts = [
        *_loss_charts(history, outcome),
        *_mining_charts(history, outcome.warmup_steps),
        *_dev_charts(history, outcome.warmup_steps),
        _rate_chart(history),
        *_pace_charts(history),
    ]
    figures = "".join(chart_html(chart) for chart in charts)
    if not figures:
        return ""
    return (
        f'<section><h2>Training</h2><div class="charts">{figures}</div>'
        f"{_epoch_table(history)}</section>"
    )


def _rate_chart(history: History) -> Chart:
    """The learning rate of each group of parameters; groups that share it share a line."""
    lines = {tuple(history.by_step(name)): name for name in reversed(history.names(RATES))}
    series = [Series(name.removeprefix(RATES), line) for line, name in reversed(lines.items())]
    return Chart("Learning rate", STEP, "log scale", series[:MOST_LINES], logarithmic=True)


def _pace_charts(history: History) -> list[Chart]:
    """How fast training went, validation not counted."""
    return [
        Chart(
            "Pace", STEP, "pairs a second", [Series("pairs/s", history.by_step(PAIRS_PER_SECOND))]
        ),
        Chart(
            "Waiting for data",
            STEP,
            "fraction of the time",
            [Series("waiting for batches", history.by_step(DATA_WAIT))],
            note="Above 0.3, more --data.num_workers or features in half precision pay off.",
            y_range=(0.0, 1.0),
        ),
    ]


def _loss_charts(history: History, outcome: Outcome) -> list[Chart]:
    """Two figures: the warm-up sums over all negatives and is on another scale."""
    loss, switch = history.by_step("train/loss"), outcome.warmup_steps
    return [
        Chart(
            "Warm-up: hinges over all negatives",
            STEP,
            "loss, log scale",
            [Series("loss", [point for point in loss if point[0] < switch])],
            logarithmic=True,
        ),
        Chart(
            f"Objective {outcome.objective.name}",
            STEP,
            "value over the batch",
            [Series("value", [point for point in loss if point[0] >= switch])],
        ),
    ]


def _mining_charts(history: History, switch: int) -> list[Chart]:
    """What mining found, in the warm-up too."""
    band = (0.0, float(switch), "warm-up") if switch else None
    gaps, collapsed = history.by_step(GAP), collapsed_steps(history)
    ends = [*gaps[:1], *gaps[-1:]]

    def logged(name: str, label: str) -> Series:
        """The line of one mining statistic."""
        return Series(label, history.by_step(f"mining/{name}"))

    return [
        Chart(
            "Positives and hardest negatives",
            STEP,
            "mean cosine",
            [
                logged("mean_positive", "positives"),
                logged("mean_hardest_negative", "hardest negatives"),
            ],
            note="Learning pulls the lines apart. If they meet when the warm-up ends, the "
            "embeddings are collapsing: warm up longer.",
            band=band,
        ),
        Chart(
            "Active anchors",
            STEP,
            "fraction",
            [logged("active_fraction", "anchors with a weight other than zero")],
            y_range=(0.0, 1.0),
            band=band,
        ),
        Chart(
            "Distance from collapse",
            STEP,
            "similarity, log scale",
            [
                Series("distance", gaps),
                Series("collapsed below this", [(step, COLLAPSE_GAP) for step, _ in ends]),
            ],
            note="Mean distance of positives from hardest negatives. Where it is nearly 0, nothing "
            f"is learnt. Collapsed: {len(collapsed):,} of {len(gaps):,} logged steps.",
            logarithmic=True,
            band=band,
        ),
    ]


def collapsed_steps(history: History) -> list[float]:
    """The logged steps at which all similarities were nearly equal."""
    return [step for step, gap in history.by_step(GAP) if gap < COLLAPSE_GAP]


def _dev_charts(history: History, switch: int) -> list[Chart]:
    """Recalls and rsum of each epoch; the epochs that end inside the warm-up are shaded."""
    warm = sum(1 for step, _ in history.by_step("val/rsum") if step < switch)
    charts = []
    for key, label in DIRECTIONS.items():
        recalls = [Series(r, history.by_epoch(f"val/{key}_{r}")) for r in RECALLS]
        charts.append(
            Chart(f"Dev recall, {label}", "epoch", "percent", recalls, y_range=(0.0, 100.0))
        )
    rsum = Chart(
        "Dev rsum",
        "epoch",
        "rsum",
        [Series("rsum", history.by_epoch("val/rsum"))],
        band=(1.0, float(warm), "warm-up") if warm > 1 else None,
        note="The epoch with the highest rsum is the one that is tested.",
    )
    return [*charts, rsum]


def _epoch_table(history: History) -> str:
    """The dev metrics of every epoch, folded away; also what the charts say in words."""
    names = [f"{k}_{r}" for k in DIRECTIONS for r in RECALLS] + ["rsum"]
    columns = [[value for _, value in history.by_step(f"val/{name}")] for name in names]
    rows = [
        [str(epoch), *number_cells(cells)]  # a damaged log may have lost columns: then no row
        for epoch, cells in enumerate(zip(*columns, strict=False), start=1)
    ]
    heads = ["epoch", *(name.replace("_", " ") for name in names)]
    table = table_html(heads, rows, label="Metrics of every epoch")
    return f"<details><summary>Every epoch in numbers</summary>{table}</details>"
