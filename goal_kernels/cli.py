"""The `goal-kernels` command. Each command imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from textwrap import fill
from typing import Any, NamedTuple, NoReturn

from goal_kernels.extras import importing, install, require
from goal_kernels.parser import Parser
from goal_kernels.terminal import spell_out

DESCRIPTION = """\
Image-text retrieval with gradient-space objectives (GOAL).

Start here, nothing is downloaded:
  goal-kernels data synth --help        make the built-in dataset GoalWorld
  goal-kernels fit --config goalworld   train on it, test, write a report (minutes on a laptop)
"""

EPILOG = """\
`goal-kernels COMMAND --help` explains each command.
Training needs the extra: {install}
Exit status: 0; 2 when something given is wrong or missing; 1 after an error that is ours, whose
traceback is kept in a file (GOAL_KERNELS_TRACEBACK=1 prints it); 130 after Ctrl-C.
"""

FIT_EPILOG = """\
Recipes that come with the package (goal-kernels recipes says more)
  {recipes}

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
{checkpoints}
  goal-kernels {command} --help-all     every option, the trainer's included
  goal-kernels {command} --config goalworld --print_config     the resolved configuration
"""

FIT_CHECKPOINTS = """\
  --run.save_every_minutes X    between resume points, besides one an epoch; 10 unless given
  --run.save_every_steps N      the same in optimiser steps
  --run.weights FILE            start from the weights of a checkpoint, such as best.ckpt

Going on with a run that was stopped or killed, exactly where it was
  goal-kernels fit --resume runs/goalworld     with its own configuration, in its own folder
  goal-kernels fit --resume latest             the run that was written to last
  goal-kernels fit --resume runs/goalworld --trainer.max_epochs 30     train a finished one longer
  goal-kernels fit --config goalworld --run.resume auto     go on if it was begun, begin otherwise
  Ctrl-C and SIGTERM finish the step, save it and say how to go on; a second one stops at once.

What a run folder holds
  metrics.json  report.html     results of the best and the last checkpoint; the page for people
  metrics.csv   logs/           everything logged: as a table, for TensorBoard (--run.loggers)
  pairs.json  hardest.json      similarities and examples of each epoch, what the page draws
  config.yaml   environment.json    what to repeat it with: options; versions, code, machine, seed
  checkpoints/  best.ckpt       weights with the highest rsum on dev, for test, validate and eval
                last.ckpt  previous.ckpt    resume points
"""
EVALUATION_CHECKPOINTS = """\
  --ckpt_path FILE              the checkpoint to evaluate, its --model options included
"""

MEMORY_OPTION = """\
  --fits 24GB                   also tell the largest batch whose step needs no more
"""

TRAINING_COMMANDS = {
    "fit": "train or go on training, test the best and the last checkpoint, write a report",
    "validate": "evaluate a checkpoint on the dev split",
    "test": "evaluate a checkpoint on the test split, write metrics.json and report.html",
    "memory": "what a step of `fit` needs, and which batch fits a given memory",
}
TRAINING_MODULES = ("pytorch_lightning", "jsonargparse", "rich", "tensorboard", "PIL")
UNUSABLE_FILES = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process when None.
    Returns: the exit status: 0; 2 when options, files or extras are not there or cannot be used;
        130 after Ctrl-C; 1 after an unexpected error. Bad options exit with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    spell_out()
    try:
        return _dispatch(given)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who was reading, `head` for instance, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from goal_kernels.failures import explain, reason_of

        if _is_explained(error):
            return _fail(reason_of(error))
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return _fail(f"{error}: a file could not be written; make room, then run this again")
        return _fail(explain(given, error), 1)


def _fail(message: str, status: int = 2, command: str = "") -> int:
    """Say what went wrong in one line and return the exit status for it."""
    print(f"{f'goal-kernels {command}'.rstrip()}: error: {message}", file=sys.stderr)
    return status


def _is_explained(error: Exception) -> bool:
    """Whether the message of an error is meant for who gave the arguments: our own errors."""
    return isinstance(error, UNUSABLE_FILES) or type(error).__module__.startswith("goal_kernels.")


class Command(NamedTuple):
    """A command with a parser of its own; nothing is imported before it is needed.

    words: "eval", or "data synth" for a command of a group. summary: for the list of commands.
    module: has `run_NAME`, NAME being the last word up to a dash. options: has
    `add_NAME_arguments`; the same module when empty, and none for the commands of this one.
    trains: needs the training extra.
    """

    words: str
    summary: str
    module: str
    options: str = ""
    trains: bool = False

    @property
    def takes_arguments(self) -> bool:
        """Whether there is anything to say beside the words."""
        return self.module != "cli"

    def add_arguments(self, parser: Parser) -> None:
        """Give the parser the options and the help of the command."""
        self._function(self.options or self.module, "add_{}_arguments")(parser)

    def run(self, chosen: argparse.Namespace) -> int:
        """Run it; the exit status."""
        return self._function(self.module, "run_{}")(chosen)

    def _function(self, module: str, pattern: str) -> Callable[..., Any]:
        name = self.words.rpartition(" ")[2].partition("-")[0]
        return getattr(import_module(f"goal_kernels.{module}"), pattern.format(name))


COMMANDS = (
    Command("eval", "evaluate models, embeddings, scores", "evaluate.cli", "evaluate.arguments"),
    Command("explore", "a page that shows what a model finds", "explore.cli", trains=True),
    Command(
        "mine",
        "the hardest negatives of a whole dataset, as a file",
        "dataset_mining.cli",
        "dataset_mining.arguments",
    ),
    Command(
        "data synth",
        "the built-in dataset GoalWorld: scenes, captions, features, exact truth",
        "data.goalworld.cli",
    ),
    Command("data emoji", "drawings of things, with names and keywords", "data.emoji.cli"),
    Command("data inspect", "look at a dataset: what it is, what is wrong", "data.commands"),
    Command("data convert", "bring a dataset into one layout, in half the place", "data.commands"),
    Command(
        "data features", "pooled features of pictures", "training.pooled_features", trains=True
    ),
    Command(
        "compare", "table of runs: mean ± std over seeds, paired tests", "training.compare.cli"
    ),
    Command("report", "the page of a run, others beside it", "evaluate.report", trains=True),
    Command("analyze", "what losses do to the gradients, with maps", "analysis.cli"),
    Command("study", "train a grid of objectives and seeds", "training.study.cli", trains=True),
    Command("export", "write a model for torch alone", "export.cli", trains=True),
    Command("recipes", "list recipes and what they should reach", "recipes"),
    Command("import-checkpoint", "take over a published model", "training.import_command"),
    Command("objectives", "list objective elements with their equations", "cli"),
    Command("backends", "say which backends can run here, and why not", "cli"),
    Command("completion", "print what completes commands in a shell", "completion"),
)
GROUPS = {"data": "make, inspect and convert datasets"}


def _dispatch(given: list[str]) -> int:
    """Run the command that the arguments begin with, or list what there is."""
    if given and given[0] in TRAINING_COMMANDS:
        return _train(given[0], given[1:])
    for command in COMMANDS:
        words = command.words.split(" ")
        if given[: len(words)] == words:
            return _run(command, given[len(words) :])
    return _list_commands(given)


def _list_commands(given: list[str]) -> NoReturn:
    """Help, version, or what is wrong with arguments that name no command."""
    from goal_kernels import __version__

    group = given[0] if given and given[0] in GROUPS else ""
    summaries = {**TRAINING_COMMANDS, **{c.words: c.summary for c in COMMANDS}, **GROUPS}
    parser = Parser(
        f"goal-kernels {group}".rstrip(),
        description=GROUPS[group] if group else DESCRIPTION,
        epilog=None if group else EPILOG.format(install=install("train")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if not group:
        parser.add_argument("--version", action="version", version=f"goal-kernels {__version__}")
    listed = parser.add_subparsers(metavar="KIND" if group else "COMMAND", required=True)
    for words, summary in summaries.items():
        above, _, name = words.rpartition(" ")
        if above == group:
            listed.add_parser(name, help=summary, add_help=False)
    rest = given[1:] if group else given
    if rest and rest[0].startswith("-"):  # an option of this parser, or one that is mistyped
        listed.required = False
    parser.parse_all(rest)
    parser.error("expected the command first")


def _run(command: Command, arguments: list[str]) -> int:
    """Parse the arguments of a command and run it; what is wrong with them is said in one line.

    Commands check what they are given and raise ValueError or OSError. Raises: MissingExtraError
    when the training extra is not there; any other error.
    """
    parser = Parser(
        f"goal-kernels {command.words}",
        description=command.summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command.takes_arguments:
        command.add_arguments(parser)
    chosen = parser.parse_all(arguments)
    if command.trains:
        require(command.words, "train", *TRAINING_MODULES)
    try:
        return command.run(chosen)
    except Exception as error:
        wrong = command.takes_arguments and isinstance(error, ValueError | OSError)
        passed_on = isinstance(error, BrokenPipeError) or getattr(error, "errno", None) in NO_ROOM
        if passed_on or not (wrong or _is_explained(error)):
            raise
        from goal_kernels.failures import reason_of

        return _fail(reason_of(error), command=command.words)


def _train(command: str, arguments: list[str]) -> int:
    """`fit`, `validate`, `test`, `memory`."""
    if {"-h", "--help"} & set(arguments):
        print(training_help(command))
        return 0
    require(command, "train", *TRAINING_MODULES)
    from goal_kernels.recipes import resolve_recipes

    resolved = ["--help" if a == "--help-all" else a for a in resolve_recipes(arguments)]
    with importing():
        from goal_kernels.training.finite import NotFiniteError
        from goal_kernels.training.resume import RunFinished
        from goal_kernels.training.run_training import run_training
        from goal_kernels.training.stopping import Stopped

    try:
        run_training(command, resolved, typed=arguments)
    except NotFiniteError as error:
        return _fail(str(error), 1)
    except RunFinished as finished:
        print(finished)
    except Stopped as stopped:
        return stopped.exit_status
    return 0


def training_help(command: str) -> str:
    """What `--help` of a training command prints; instant, since Lightning is not imported."""
    from goal_kernels.recipes import recipe_names

    more = {"fit": FIT_CHECKPOINTS, "memory": MEMORY_OPTION}
    evaluating = command not in more
    return f"goal-kernels {command}: {TRAINING_COMMANDS[command]}\n\n" + FIT_EPILOG.format(
        command=command,
        recipes=fill(", ".join(recipe_names()), 96, subsequent_indent="  ", break_on_hyphens=False),
        checkpoint=" --ckpt_path runs/goalworld/checkpoints/best.ckpt" if evaluating else "",
        checkpoints=more.get(command, EVALUATION_CHECKPOINTS),
    )


def run_objectives(_: argparse.Namespace) -> int:
    """Print the registered elements: name, alias, equation, hyper-parameters."""
    from goal_kernels.registry import KINDS, PARAMETERS, list_elements

    print("An objective is TRIPLET/PAIR, for instance nca/sigmoid_ms. It pulls an anchor to its")
    print("positive with weight T P+ and pushes it from its hardest negative with weight T P-.")
    print("p, n: similarity to the positive, to the hardest negative.")
    print("R+, R-: relative similarity of p and n among the other pairs of the batch.")
    print("TRIPLET/PAIR/DIRECTION, for instance nca/sigmoid/tangent, moves a row x by a row y")
    print("along y - kappa x; without a DIRECTION along y. Where rows are normalised, all do the")
    print("same.")
    for kind in KINDS:
        print(f"\n{kind}s" if kind == "direction" else f"\n{kind} weights")
        for element in list_elements(kind):
            alias = f" (or {element.alias})" if element.alias else ""
            taken = ", ".join(element.hyper_parameters) or "none"
            print(f"  {element.name}{alias}\n    {element.equation}\n    parameters: {taken}")
    print("\nparameters (--model.objective_parameters.NAME VALUE)")
    for name, declared in PARAMETERS.items():
        default = f"default {declared.default:g}, in {declared.range_text()}"
        print(f"  {name:8} {declared.meaning}; {default}")
    return 0


def run_backends(_: argparse.Namespace) -> int:
    """Print what `auto` would choose here, and why the others cannot run."""
    from goal_kernels import explain_backend

    print(explain_backend())
    return 0
