"""`goal-kernels completion SHELL`: what completes commands, options and files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from goal_kernels.cli import COMMANDS, GROUPS, TRAINING_COMMANDS, training_help
from goal_kernels.extras import require
from goal_kernels.parser import Parser
from goal_kernels.recipes import recipe_names

SHELLS = ("bash", "zsh", "tcsh")


def add_completion_arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")
    parser.epilog = (
        "Examples\n"
        "  goal-kernels completion bash > ~/.local/share/bash-completion/completions/goal-kernels\n"
        "  goal-kernels completion zsh > ~/.zfunc/_goal-kernels"
    )


def run_completion(chosen: argparse.Namespace) -> int:
    """Print the script. Raises: MissingExtraError without shtab."""
    require("completion", "completion", "shtab")
    shtab = import_module("shtab")
    parser = whole_parser()
    for action in actions_of(parser):
        if action.choices is None and (action.type is Path or action.metavar in ("FILE", "DIR")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it there
    print(shtab.complete(parser, chosen.shell))
    return 0


def whole_parser() -> Parser:
    """All commands in one parser, which the command line itself makes one at a time."""
    parser = Parser("goal-kernels")
    parser.add_argument("--version", action="store_true", help="print it and end")
    listed = {"": parser.add_subparsers()}
    for name, summary in GROUPS.items():
        listed[name] = listed[""].add_parser(name, help=summary).add_subparsers()
    for command in COMMANDS:
        above, _, name = command.words.rpartition(" ")
        inner = listed[above].add_parser(name, help=command.summary)
        if command.takes_arguments:
            command.add_arguments(inner)
    for name, summary in TRAINING_COMMANDS.items():
        inner = listed[""].add_parser(name, help=summary)
        # Lightning has hundreds of options and takes seconds to tell them: those of the help text.
        for option in sorted(set(re.findall(r"(--[\w.]+)", training_help(name)))):
            if option == "--config":
                inner.add_argument(option, choices=recipe_names(), help="a recipe")
            elif option != "--help":
                inner.add_argument(option, help="see --help")
    return parser


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option and argument of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions_of(inner)
