"""Options, defaults and loggers of the training commands, beyond those of model and data."""

from __future__ import annotations

import logging
import re
import warnings
from difflib import get_close_matches
from typing import Any, NoReturn

import torch
from pytorch_lightning.cli import LightningArgumentParser

from goal_kernels.training.loggers import TENSORBOARD, check_loggers

TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 2.0,  # global norm over all parameters, VSE-infinity
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # ranking a part of the dev split says nothing
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # the sampler deals its order out to the processes itself
}

RUN_OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "name": (str, "run", "name of the run folder"),
    "root": (str, "runs", "where run folders live"),
    "threads": (int | None, None, "CPU threads, torch's own if null"),
    "resume": (str | None, None, "`auto` goes on with the run of this name if there is one"),
    "weights": (str | None, None, "checkpoint to take the first weights from"),
    "loggers": (
        str | list[str] | None,
        TENSORBOARD,
        "besides metrics.csv: tensorboard, wandb, trackio, a list of them, or null",
    ),
    "save_every_minutes": (float | None, 10.0, "resume points, besides one an epoch"),
    "save_every_steps": (int | None, None, "resume points, counted in optimiser steps"),
    "compile": (bool, False, "train encoders that torch.compile has compiled"),
    "ridge": (
        bool,
        False,
        "measure ridge regression from image features to words beside the result",
    ),
    "not_finite_losses": (int, 10, "steps in a row whose loss may be NaN before the run fails"),
}
"""Type, default and help of the options of a run."""

EXPECTED_WARNINGS = (
    # Features are small and mapped: loading in the main process is the measured optimum.
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated",
    # An evaluation writes no checkpoints, and a resumed run keeps its own in its own folder.
    ".*callbacks used to create the checkpoint.*",
    ".*The dirpath has changed.*",
    # BatchNorm of a backbone, and blocks that are frozen.
    ".*in eval mode at the start of training.*",
)


UNKNOWN_OPTION = re.compile(
    r"(--|option '|(?<!parser )key \")([a-z_]+(?:\.[\w-]+)*)", re.IGNORECASE
)
_NULL = r"(?:- Expected a <class 'NoneType'>.*\n\s*)?"
OR_NULL = re.compile(
    r"Does not validate against any of the Union subtypes\s+Subtypes: .*\s+Errors:\s+"
    rf"{_NULL}- (.*)\n\s*{_NULL}Given value type: .*\s+Given value: (.*)"
)
"""jsonargparse of a value that is neither of the one type nor null."""
OF_SEVERAL = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: (\[.*?\]) "
    r"Errors:(?: - Expected a <class '\w+'>)+ Given value type: .*? Given value: (.*)"
)
NESTED = re.compile(r'^Parser key "([^"]+)": Parser key "')
"""An option of a record, which its own parser named by its last part."""
ALL_OPTIONS = " (all options: goal-kernels fit --help-all)"


class ConfigurationError(ValueError):
    """The configuration does not parse, or names something that cannot be built."""


SEEDS = 2**32  # that numpy has


class OneLineParser(LightningArgumentParser):
    """Tells a wrong option in one sentence with the nearest name, without the list of all."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises: ConfigurationError."""
        text = " ".join(without_null(message).split()).replace(ALL_OPTIONS, "")
        text = NESTED.sub(r'Parser key "\1.', text)
        text = OF_SEVERAL.sub(r"Expected one of \1. Got value: \2", text)
        known = sorted({name for parser in self._all_parsers() for name in parser._option_names()})
        for prefix, name in UNKNOWN_OPTION.findall(text):
            near = None if name in known or "did you mean" in text else _nearest(name, known)
            if near:
                text += f"; did you mean {prefix if prefix == '--' else ''}{near}?"
                break
        raise ConfigurationError(text + ALL_OPTIONS) from ex

    def _all_parsers(self) -> list[OneLineParser]:
        """This one and those of its commands."""
        commands = self._subcommands_action
        return [self, *(commands.choices.values() if commands is not None else ())]

    def _option_names(self) -> set[str]:
        return {text[2:] for action in self._actions for text in action.option_strings}


def without_null(message: str) -> str:
    """A message of jsonargparse without what it adds where a value could have been null."""

    def alone(found: re.Match[str]) -> str:
        said, given = found.groups()
        bare = re.fullmatch(r"Expected a <class '\w+'>", said)
        return f"{said}. Got value: {given}" if bare else said

    return OR_NULL.sub(alone, message)


def _nearest(name: str, known: list[str]) -> str | None:
    """The option that was probably meant: one spelled alike, or of the same last part elsewhere."""
    same_end = [option for option in known if option.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter(get_close_matches(name, known, 1, 0.8) or same_end), None)


def add_run_options(parser: LightningArgumentParser) -> None:
    """Add `--run.NAME` for every run option."""
    for name, (kind, default, text) in RUN_OPTIONS.items():
        parser.add_argument(f"--run.{name}", type=kind, default=default, help=text)


def config_text(parser: LightningArgumentParser, options: Any) -> str:
    """A resolved configuration as YAML, nulls included; not checked again, parsing did that.

    An option set to null where its default is not has to be null again when the file is read.
    """
    # Their names until jsonargparse 4.49, which work until 5: skip_unset, skip_validation.
    return parser.dump(options, skip_none=False, skip_check=True)


def check_options(options: Any) -> None:
    """Raises: ConfigurationError for a number that would end a run with a traceback."""
    seed, trainer = options.seed_everything, options.trainer
    if not isinstance(seed, bool) and not 0 <= seed < SEEDS:
        raise ConfigurationError(f"seed_everything: expected 0 to {SEEDS - 1}, got {seed}")
    if trainer.check_val_every_n_epoch == 0:
        raise ConfigurationError("trainer.check_val_every_n_epoch: expected at least 1, got 0")
    if trainer.limit_train_batches == 0:
        raise ConfigurationError("trainer.limit_train_batches: expected more than 0, got 0")
    every = options.run.get("save_every_steps")
    if every is not None and every < 1:
        raise ConfigurationError(f"run.save_every_steps: expected at least 1 or null, got {every}")
    try:
        check_loggers(as_list(options.run.get("loggers")))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def set_threads(threads: int | None) -> None:
    """Limit torch's CPU threads; None leaves them as they are."""
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"run.threads: expected at least 1 thread or null, got {threads}")
    torch.set_num_threads(threads)


def quieten() -> None:
    """Silence messages of Lightning that appear on every run and ask for no action."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def as_list(given: Any) -> list[Any]:
    """What a configuration gives as one thing, several or none (also as a switch)."""
    if given is None or isinstance(given, bool):
        return []
    return list(given) if isinstance(given, list) else [given]
