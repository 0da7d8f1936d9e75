"""`goal-kernels fit`, `validate`, `test` and `memory` as one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import yaml

from goal_kernels.recipes import check_extent
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_cli import RetrievalCLI
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.lightning_options import (
    TRAINER_DEFAULTS,
    ConfigurationError,
    OneLineParser,
    quieten,
)
from goal_kernels.training.resume import resumed_arguments
from goal_kernels.training.step_memory import MemoryCLI


def _check_values(arguments: Sequence[str]) -> None:
    """Raises: ConfigurationError for a value so deep or large that parsing it ends the process."""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        try:
            check_extent(value if equals and option.startswith("--") else argument)
        except yaml.YAMLError:
            continue  # no YAML: the option itself refuses or takes it
        except ValueError as error:
            raise ConfigurationError(f"{argument[:30]}...: {error}") from error


def run_training(
    command: str, arguments: Sequence[str], typed: Sequence[str] | None = None
) -> None:
    """Run `fit`, `validate`, `test` or `memory` with Lightning-style arguments.

    Args:
        command: "fit", "validate", "test", or "memory", which takes the options of "fit".
        arguments: `--config recipe.yaml` and dotted overrides, e.g. `--model.lr 0.001`.
        typed: the arguments as the user wrote them, for the record; `arguments` when None.
    Raises: FileNotFoundError when data or a checkpoint is missing; ResumeError, RunFinished, see
        `goal_kernels.training.resume`; Stopped when a signal ended it; CheckpointError when a
        checkpoint cannot be read or written; SystemExit on bad options.
    """
    quieten()
    _check_values(arguments)
    resume, given = resumed_arguments(command, arguments)
    kind, word = (MemoryCLI, "fit") if command == "memory" else (RetrievalCLI, command)
    with ExitStack() as held:
        kind(
            RetrievalModule,
            RetrievalDataModule,
            resume=resume,
            held=held,
            typed=[word, *(arguments if typed is None else typed)],
            seed_everything_default=0,
            save_config_callback=None,  # the run folder records the configuration
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
            parser_class=OneLineParser,
            parser_kwargs={"prog": "goal-kernels"},
            args=[word, *given],
        )
