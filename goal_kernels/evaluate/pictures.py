"""The histogram of ranks as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from goal_kernels.data.files import replacing
from goal_kernels.evaluate.results import DIRECTIONS, shares
from goal_kernels.extras import require

NAMES = {"i2t": "image to text", "t2i": "text to image"}
COLOURS = {"i2t": "#0072b2", "t2i": "#d55e00"}  # told apart by readers with any colour vision


def write_histogram(path: Path, record: dict[str, Any]) -> None:
    """Write a PNG: share of queries by rank, one panel a protocol, both directions.

    Raises: MissingExtraError when matplotlib is missing.
    """
    require("a plot", "plots", "matplotlib")
    from matplotlib.figure import Figure

    protocols = record["protocols"]
    figure = Figure(figsize=(7.2, 3.4 * len(protocols)), dpi=150, layout="constrained")
    panels = figure.subplots(len(protocols), squeeze=False)[:, 0]
    for panel, (name, part) in zip(panels, protocols.items(), strict=True):
        labels, found = shares(part["histogram"])
        for offset, direction in zip((-0.2, 0.2), DIRECTIONS, strict=True):
            recall = part["mean"][direction]["R@1"]
            label = f"{NAMES[direction]}, R@1 {recall:.1f} %"
            places = np.arange(len(labels)) + offset
            panel.bar(places, found[direction], 0.4, color=COLOURS[direction], label=label)
        panel.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=8)
        panel.set_xlabel("rank of the best match")
        panel.set_ylabel("queries in percent")
        panel.set_title(f"{name}: {part['meaning']}", fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
