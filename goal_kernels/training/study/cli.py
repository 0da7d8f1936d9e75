"""`goal-kernels study`: the command line of studies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from goal_kernels.extras import importing
from goal_kernels.recipes import STUDIES, recipe_names
from goal_kernels.terminal import duration

if TYPE_CHECKING:
    from goal_kernels.training.study.recipe import Cell, StudyRecipe

DESCRIPTION = """\
Train a grid of objectives and seeds on the same budget, and write a page of results.

Every cell of the grid is a run of `goal-kernels fit`. Cells with equal warm-ups train it once and
go on from there, which changes no bit of the result. A finished cell is never run again: stop the
command whenever you like, and give it again to go on.
"""

EPILOG = """\
Studies that come with the package: {studies}

Files, in --folder
  results/CELL.jsonl    one a finished cell: configuration, environment, history, test metrics
  evaluations/*.json    of `eval RUN --rerank K --json FILE`, where you put them: the
                        page then shows what k does
  page.md, *.png        the results page, made from those files; --page-only makes it again
  work/                 warm-up checkpoints; delete it whenever you like

Examples
  goal-kernels study --config objectives                 all objectives x 5 seeds on GoalWorld
  goal-kernels study --config objectives --jobs 2        two cells at a time
  goal-kernels study --config my_study.yaml --seeds 0 1  a part of the grid
  goal-kernels compare studies/objectives/results        the table alone
"""


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options and the help of `study`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG.format(studies=", ".join(recipe_names(STUDIES)))
    parser.add_argument(
        "--config", required=True, metavar="STUDY", help="a packaged study or a YAML file"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where to (default studies/NAME)"
    )
    parser.add_argument(
        "--jobs", type=_count, default=1, metavar="N", help="cells at a time (default 1)"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="run only these of the study's seeds"
    )
    parser.add_argument("--data-folder", metavar="DIR", help="instead of the study's data.folder")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="the page (default page.md in the folder); text around its generated part is kept",
    )
    parser.add_argument(
        "--page-only", action="store_true", help="train nothing, make the page of what there is"
    )


def run_study(args: argparse.Namespace) -> int:
    """Run what is left of a study; 0, or 130 after Ctrl-C.

    Raises: ValueError, FileNotFoundError, MissingExtraError for what cannot be run; WorkFailed.
    """
    from goal_kernels.training.study.gathered import Trials, choose, gather, read_trials
    from goal_kernels.training.study.page import write_page
    from goal_kernels.training.study.recipe import read_study

    recipe = read_study(args.config)
    folder = args.folder or Path("studies") / recipe.name
    results = folder / "results"
    overrides = {"data": {"folder": args.data_folder}} if args.data_folder else {}
    trials: Trials = {}
    try:
        if recipe.tuning is not None:
            if not args.page_only:
                _train(recipe, recipe.trial_cells(overrides), folder, args.jobs)
            trials = read_trials(recipe, results, overrides)
            recipe = recipe.finals(choose(recipe, trials))
        cells = recipe.cells(overrides)
        if not args.page_only:
            _train(recipe, _chosen(recipe, cells, args.seeds), folder, args.jobs)
    except KeyboardInterrupt:
        print("goal-kernels study: stopped; the same command goes on", file=sys.stderr)
        return 130
    page = args.page or folder / "page.md"
    write_page(gather(recipe, cells, results, trials), folder, page)
    print(f"page  {page}")
    return 0


def _chosen(recipe: StudyRecipe, cells: list[Cell], seeds: list[int] | None) -> list[Cell]:
    """The cells of the given seeds, all when None."""
    if seeds is None:
        return cells
    chosen = [cell for cell in cells if cell.seed in seeds]
    if not chosen:
        known = " ".join(map(str, recipe.seeds))
        raise ValueError(f"--seeds: expected some of {known}, got {' '.join(map(str, seeds))}")
    return chosen


def _train(recipe: StudyRecipe, cells: list[Cell], folder: Path, jobs: int) -> None:
    """Make the data set where the study makes its own, then run what is left."""
    with importing():
        from goal_kernels.data.goalworld import generate_goalworld
        from goal_kernels.training.study.jobs import plan
        from goal_kernels.training.study.workers import run_stages

    if recipe.dataset:
        for place in sorted({cell.config["data"]["folder"] for cell in cells}):
            try:
                generate_goalworld(place, **recipe.dataset)
            except (TypeError, ValueError) as error:
                raise ValueError(f"dataset: {error}") from error
    # Seed by seed, so that what an interrupted study has is paired.
    cells = sorted(cells, key=lambda cell: cell.seed)
    stages = plan(recipe.name, cells, folder / "results", folder / "work")
    left = len(stages[-1])
    print(f"{recipe.name}: {len(cells)} cells, {len(cells) - left} finished", flush=True)
    run_stages(stages, jobs, _report)


def _report(done: int, total: int, what: str, left: float) -> None:
    """Progress in lines, for terminals and logs alike: a job takes long enough for its own."""
    print(f"[{done}/{total}] {what}  ({duration(left)} left)", flush=True)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number
