"""`goal-kernels analyze`: the command line of landscapes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from goal_kernels.analysis.catalogue import CatalogueLoss
    from goal_kernels.analysis.landscape import Analysis
    from goal_kernels.objective import Objective

PAGE = "index.html"
PAPER = tuple(
    f"{triplet}/{pair}"
    for triplet in ("constant", "nca", "circle")
    for pair in ("constant", "linear", "sigmoid", "linear_ms", "sigmoid_ms")
)
"""The combinations of the paper."""

DESCRIPTION = """\
What losses do to the gradients: pull and push of an anchor as functions of p, its similarity to the
positive, and n, to a negative. Prints a table; --output adds a page with maps.

LOSS is an objective such as nca/sigmoid, a loss of the catalogue such as circle or siglip, "paper"
for the paper's fifteen objectives, or "classics" for all of the catalogue.
"""

EPILOG = """\
Examples
  goal-kernels analyze nca/sigmoid hinge/constant info_nce
  goal-kernels analyze nca/sigmoid info_nce --set tau=20 --output landscapes
  goal-kernels analyze --run runs/goalworld --output landscapes
  goal-kernels analyze paper classics --relative 0.5 0.5 --sheet sheet.svg
"""


def add_analyze_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `analyze`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="what to look at")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="a run folder: its objective first, and its anchors over the landscape",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyper-parameter, of every LOSS that has it; may be repeated",
    )
    parser.add_argument(
        "--relative",
        nargs=2,
        type=float,
        default=(0.0, 0.0),
        metavar=("R+", "R-"),
        help="relative similarities that _ms objectives are shown with (default: 0 0)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"write DIR/{PAGE}")
    parser.add_argument("--sheet", type=Path, metavar="FILE.svg", help="write one picture of all")


def run_analyze(args: argparse.Namespace) -> int:
    """Print the table and write what is asked for; 0. Raises: ValueError, FileNotFoundError."""
    from goal_kernels.analysis.page import landscapes_html, sheet_svg, summary_table
    from goal_kernels.data.files import write_text
    from goal_kernels.terminal import show

    losses = _losses(args)
    show([summary_table(losses)])
    if args.output is not None:
        write_text(args.output / PAGE, landscapes_html(losses, args.run))
        print(f"page   {args.output / PAGE}")
    if args.sheet is not None:
        write_text(args.sheet, sheet_svg(losses))
        print(f"sheet  {args.sheet}")
    return 0


def _losses(args: argparse.Namespace) -> list[Analysis]:
    """What is asked for, in order, that of the run first, none twice."""
    from goal_kernels.analysis.catalogue import CatalogueLoss, as_loss, list_losses
    from goal_kernels.analysis.landscape import analyze
    from goal_kernels.analysis.nearest import declared
    from goal_kernels.objective import Objective

    sets = {"paper": PAPER, "classics": [loss.name for loss in list_losses()]}
    found: dict[str, Objective | CatalogueLoss] = {}
    if args.run is not None:
        loss = _of_run(args.run)
        found[loss.name] = loss
    for word in args.losses:
        for name in sets.get(word, [word]):
            found.setdefault(name, as_loss(name))
    if not found:
        raise ValueError("LOSS: expected at least one, or --run; `goal-kernels analyze --help`")
    settings, used, analyses = _settings(args.set), set(), []
    for loss in found.values():
        relative = (0.0, 0.0)
        known: Collection[str] = loss.values if isinstance(loss, CatalogueLoss) else declared(loss)
        if isinstance(loss, Objective) and loss.pair_element.relative != "none":
            relative = tuple(args.relative)
        own = {name: value for name, value in settings.items() if name in known}
        used |= set(own)
        analyses.append(analyze(loss.with_parameters(own), relative=relative))
    if unused := sorted(set(settings) - used):
        raise ValueError(f"--set {', '.join(unused)}: none of the losses has such a parameter")
    return analyses


def _settings(given: list[str]) -> dict[str, float]:
    settings = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            settings[name] = float(value)
        except ValueError:
            raise ValueError(f"--set: expected NAME=VALUE with a number, got {text!r}") from None
    return settings


def _of_run(run: Path) -> Objective | CatalogueLoss:
    """The loss that the configuration of a run names."""
    import yaml

    from goal_kernels.analysis.catalogue import CatalogueLoss, as_loss

    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"--run: expected the folder of a run (with a config.yaml): {run}")
    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        loss, given = as_loss(model["objective"]), model.get("objective_parameters") or {}
        if isinstance(loss, CatalogueLoss):  # the driver takes those of the hinge along
            given = {name: value for name, value in given.items() if name in loss.values}
        return loss.with_parameters(given)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the configuration of a run ({error})") from error
