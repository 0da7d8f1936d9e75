"""The `goal-kernels` command. Each command imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

DESCRIPTION = """\
Image-text retrieval with gradient-space objectives (GOAL).

Start here, nothing is downloaded:
  goal-kernels data synth --help        make the built-in dataset GoalWorld
  goal-kernels fit --config goalworld   train on it, test, write a report (minutes on a laptop)
"""

EPILOG = """\
`goal-kernels COMMAND --help` explains each command.
Training needs the extra: pip install 'goal-kernels[train]'
"""

FIT_EPILOG = """\
Recipes that come with the package: {recipes}

Examples
  goal-kernels {command} --config goalworld{checkpoint}
  goal-kernels {command} --config goalworld{checkpoint} --data.folder my/precomp
  goal-kernels {command} --config runs/goalworld/config.yaml{checkpoint}

Options most often changed (any option of a configuration can be given, with dots)
  --data.folder DIR             folder in the precomputed layout (train_ims.npy and so on)
  --data.batch_size N           pairs a batch
  --model.objective T/P         "hinge/constant", "nca/sigmoid_ms", ...: goal-kernels objectives
  --model.objective_parameters.margin X     likewise tau, alpha, beta, lam, epsilon
  --model.embed_dim N           width of the joint space
  --model.warmup_steps N        steps on all negatives before the hardest ones
  --model.lr X                  learning rate
  --trainer.max_epochs N        length of training
  --trainer.accelerator NAME    cpu, gpu or auto
  --seed_everything N           seed of initialisation, order and augmentation
  --run.threads N               CPU threads; the recipes take 1, null leaves it to torch
  --run.name NAME               the run goes to runs/NAME, or runs/NAME-2 if that exists
  --ckpt_path FILE              {ckpt_help}

  goal-kernels {command} --help-all     every option, the trainer's included
  goal-kernels {command} --config goalworld --print_config     the resolved configuration
"""

TRAINING_COMMANDS = {
    "fit": "train, test the best checkpoint, write metrics.json and report.html",
    "validate": "evaluate a checkpoint on the dev split",
    "test": "evaluate a checkpoint on the test split, write metrics.json and report.html",
}
TRAINING_MODULES = ("pytorch_lightning", "jsonargparse", "rich", "tensorboard", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process when None.
    Returns: the exit status: 0, or 2 when files or extras are missing. Bad options exit with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in TRAINING_COMMANDS:
            return _train(given[0], given[1:])
        chosen = _parser().parse_args(given)
        return chosen.run(chosen)
    except (FileNotFoundError, FileExistsError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    """Say what went wrong in one line and return the exit status for it."""
    print(f"goal-kernels: error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    """The parser of every command; those of training are listed here and parsed by Lightning."""
    from goal_kernels import __version__
    from goal_kernels.data.goalworld.cli import add_synth_arguments, run_synth
    from goal_kernels.training.compare.cli import add_compare_arguments, run_compare
    from goal_kernels.training.study.cli import add_study_arguments, run_study_command

    parser = argparse.ArgumentParser(
        "goal-kernels",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"goal-kernels {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in TRAINING_COMMANDS.items():
        commands.add_parser(name, help=summary)
    data = commands.add_parser("data", help="make datasets", description="Make datasets.")
    kinds = data.add_subparsers(metavar="KIND", required=True)
    synth = kinds.add_parser(
        "synth",
        help="the built-in dataset GoalWorld: scenes, captions, features, exact truth",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_synth_arguments(synth)
    synth.set_defaults(run=run_synth)
    compare = commands.add_parser("compare", help="table of runs: mean ± std over seeds, tests")
    add_compare_arguments(compare)
    compare.set_defaults(run=_with_training("compare", run_compare))
    study = commands.add_parser("study", help="train a grid of objectives and seeds, with a page")
    add_study_arguments(study)
    study.set_defaults(run=_with_training("study", run_study_command))
    _add_simple(commands, "objectives", "list objective elements with their equations", _objectives)
    _add_simple(commands, "backends", "say which backends can run here, and why not", _backends)
    return parser


def _add_simple(
    commands: argparse._SubParsersAction,
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> None:
    """A command without options."""
    commands.add_parser(name, help=summary, description=summary).set_defaults(run=run)


def _train(command: str, arguments: list[str]) -> int:
    """`fit`, `validate`, `test`."""
    if {"-h", "--help"} & set(arguments):
        print(_training_help(command))
        return 0
    if missing := _missing_extra(command):
        return _fail(missing)
    from goal_kernels.training.recipes import resolve_recipes

    resolved = ["--help" if a == "--help-all" else a for a in resolve_recipes(arguments)]
    from goal_kernels.training.lightning_cli import ConfigurationError, run_training

    try:
        run_training(command, resolved)
    except ConfigurationError as error:
        return _fail(str(error))
    return 0


def _missing_extra(command: str) -> str | None:
    """What to install before a command that trains can run; None when all is there."""
    missing = [module for module in TRAINING_MODULES if find_spec(module) is None]
    if not missing:
        return None
    return f"{command} needs {', '.join(missing)}: pip install 'goal-kernels[train]'"


def _with_training(
    command: str, run: Callable[[argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    """`run`, unless the training extra is missing."""

    def checked(chosen: argparse.Namespace) -> int:
        missing = _missing_extra(command)
        return _fail(missing) if missing else run(chosen)

    return checked


def _training_help(command: str) -> str:
    """What `--help` of a training command prints; instant, since Lightning is not imported."""
    from goal_kernels.training.recipes import recipe_names

    fitting = command == "fit"
    return f"goal-kernels {command}: {TRAINING_COMMANDS[command]}\n\n" + FIT_EPILOG.format(
        command=command,
        recipes=", ".join(recipe_names()),
        checkpoint="" if fitting else " --ckpt_path runs/goalworld/checkpoints/best.ckpt",
        ckpt_help=("resume from" if fitting else "evaluate")
        + " this checkpoint, with its --model options",
    )


def _objectives(_: argparse.Namespace) -> int:
    """Print the registered elements: name, alias, equation, hyper-parameters."""
    from goal_kernels import list_elements
    from goal_kernels.registry import PARAMETERS

    print("An objective is TRIPLET/PAIR, for instance nca/sigmoid_ms. It pulls an anchor to its")
    print("positive with weight T P+ and pushes it from its hardest negative with weight T P-.")
    print("p, n: similarity to the positive, to the hardest negative.")
    print("R+, R-: relative similarity of p and n among the other pairs of the batch.")
    for kind in ("triplet", "pair"):
        print(f"\n{kind} weights")
        for element in list_elements(kind):
            alias = f" (or {element.alias})" if element.alias else ""
            taken = ", ".join(element.hyper_parameters) or "none"
            print(f"  {element.name}{alias}\n    {element.equation}\n    parameters: {taken}")
    print("\nparameters (--model.objective_parameters.NAME VALUE)")
    for name, declared in PARAMETERS.items():
        default = f"default {declared.default:g}, in {declared.range_text()}"
        print(f"  {name:8} {declared.meaning}; {default}")
    return 0


def _backends(_: argparse.Namespace) -> int:
    """Print what `auto` would choose here, and why the others cannot run."""
    from goal_kernels import explain_backend

    print(explain_backend())
    return 0
