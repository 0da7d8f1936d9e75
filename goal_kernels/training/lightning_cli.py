"""`fit`, `validate` and `test`: Lightning's command line over our model, data and run folder."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from goal_kernels.training.callbacks import progress_callbacks
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.evaluation import read_oracle
from goal_kernels.training.finish import finish_run, print_outcome
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.recipes import CARD
from goal_kernels.training.run_folder import (
    RunFolder,
    create_run_folder,
    describe_environment,
    write_json,
)

TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": 1,
    "gradient_clip_val": 2.0,  # global norm over all parameters, VSE-infinity
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,  # ranking a part of the dev split says nothing
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # `ShuffledSampler` deals the batches out itself
}


class ConfigurationError(ValueError):
    """The configuration parses but names something that cannot be built."""


class RetrievalCLI(LightningCLI):
    """Lightning's command line with a run folder, a test after `fit`, and a report."""

    run: RunFolder | None = None
    started = 0.0
    epochs_done = 0
    arguments: list[str]
    best: ModelCheckpoint

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given arguments; `sys.argv` belongs to the command above this one.

        Raises: ConfigurationError when random weights would be evaluated.
        """
        self.arguments = list(args)
        self.config = parser.parse_args(args)
        if self.config.subcommand != "fit":
            self.options.verbose = False  # the table of `print_outcome` says it better
            if not self.options.ckpt_path:
                raise ConfigurationError(
                    "ckpt_path: expected a checkpoint to evaluate, got none; give "
                    "--ckpt_path runs/<name>/checkpoints/best.ckpt"
                )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name and place of the run; sizes of the model that follow from the data."""
        parser.add_argument("--run.name", type=str, default="run", help="name of the run folder")
        parser.add_argument("--run.root", type=str, default="runs", help="where run folders live")
        parser.add_argument(
            "--run.threads", type=int | None, default=None, help="CPU threads, torch's own if null"
        )
        parser.add_argument(
            f"--{CARD}",
            type=dict[str, Any] | None,
            default=None,
            help="what the configuration is and should reach; recorded, not read by training",
        )
        parser.link_arguments("data.sizes", "model.sizes", apply_on="instantiate")
        for part in ("data", "model"):
            parser.link_arguments("seed_everything", f"{part}.seed", compute_fn=int)

    @property
    def options(self) -> Any:
        """Namespace of the resolved configuration of the running command."""
        return self.config[self.config.subcommand]

    def instantiate_classes(self) -> None:
        """Build data, model and trainer. Raises: ConfigurationError when a value is unusable."""
        try:
            _set_threads(self.options.run.threads)
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            if self.run is not None:
                self.run.path.rmdir()  # made for this run, which will not be
            raise ConfigurationError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, writing into a new run folder for `fit` and `test`, else nowhere."""
        given = self._get(self.config_init, "trainer")
        callbacks = [*_as_list(given.callbacks)]
        if given.enable_progress_bar is not False:
            callbacks += progress_callbacks()
        kwargs["enable_progress_bar"] = any(isinstance(c, RichProgressBar) for c in callbacks)
        kwargs["logger"] = kwargs["enable_checkpointing"] = False
        if self.config.subcommand in ("fit", "test") and not given.fast_dev_run:
            self.run = create_run_folder(Path(self.options.run.root), self.options.run.name)
            kwargs["default_root_dir"] = str(self.run.path)
            if self.config.subcommand == "fit":
                self.best = _checkpoint(self.run, "best", monitor="val/rsum", mode="max")
                latest = _checkpoint(self.run, "last", every_n_epochs=1)
                callbacks += [self.best, latest, LearningRateMonitor()]
                kwargs["logger"] = [*_loggers(self.run), *_as_list(given.logger)]
                kwargs["enable_checkpointing"] = True
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        pairs, devices = self.datamodule.batch_size, trainer.world_size
        if pairs % devices:
            raise ValueError(
                f"data.batch_size: expected a multiple of the {devices} devices that share a "
                f"batch, got {pairs}"
            )
        return trainer

    def before_fit(self) -> None:
        """Record what is about to run."""
        self._record_start()

    def before_test(self) -> None:
        """Record what is about to run."""
        self._record_start()

    def after_fit(self) -> None:
        """Test the best checkpoint and report."""
        self.epochs_done = self.trainer.current_epoch
        if self.run is not None:
            best = self.best.best_model_path
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False)
            finish_run(self._outcome(self.datamodule.test_split), self.run)

    def after_test(self) -> None:
        """Report."""
        if self.run is not None:
            finish_run(self._outcome(self.datamodule.test_split), self.run)

    def after_validate(self) -> None:
        """Print the dev metrics."""
        print_outcome(self._outcome(self.datamodule.dev_split))

    def _record_start(self) -> None:
        self.started = time.monotonic()
        if self.run is None:
            return
        parser = self._parser(self.config.subcommand)
        parser.save(self.options, self.run.config, multifile=False)
        write_json(
            self.run.environment, describe_environment(self.options.seed_everything, self.arguments)
        )

    def _outcome(self, split_name: str) -> Outcome:
        split = self.datamodule.split(split_name)
        return Outcome(
            evaluation=self.model.evaluation,
            split=split,
            oracle=read_oracle(split.folder, split_name),
            objective=self.model.objective,
            seed=self.options.seed_everything,
            epochs=self.epochs_done,
            seconds=time.monotonic() - self.started,
            warmup_steps=self.model.loss.schedule.warmup_steps,
        )


def _set_threads(threads: int | None) -> None:
    """Limit torch's CPU threads; None leaves them as they are."""
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"run.threads: expected at least 1 thread or null, got {threads}")
    torch.set_num_threads(threads)


def _as_list(given: Any) -> list[Any]:
    """What a configuration gives as one thing, several or none (also as a switch)."""
    if given is None or isinstance(given, bool):
        return []
    return list(given) if isinstance(given, list) else [given]


def _loggers(run: RunFolder) -> list[Logger]:
    """The CSV that the report reads, and the same for TensorBoard."""
    return [
        CSVLogger(run.path, name=None, version="logs"),
        TensorBoardLogger(run.path, name=None, version="logs"),
    ]


def _checkpoint(run: RunFolder, name: str, **criterion: Any) -> ModelCheckpoint:
    """Keep one checkpoint of a run, `name`.ckpt, replaced by every better (or later) one."""
    return ModelCheckpoint(
        dirpath=run.checkpoints, filename=name, enable_version_counter=False, **criterion
    )


EXPECTED_WARNINGS = (
    # Features are small and mapped: loading in the main process is the measured optimum.
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated",
    # An evaluation writes no checkpoints, and a resumed run keeps its own in its own folder.
    ".*callbacks used to create the checkpoint.*",
    ".*The dirpath has changed.*",
)


def _quieten() -> None:
    """Leave out what Lightning says on every run and nobody can act on here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def run_training(command: str, arguments: Sequence[str]) -> None:
    """Run `fit`, `validate` or `test` with Lightning-style arguments.

    Args:
        command: "fit", "validate" or "test".
        arguments: `--config recipe.yaml` and dotted overrides, e.g. `--model.lr 0.001`.
    Raises: FileNotFoundError when data or a checkpoint is missing; SystemExit on bad options.
    """
    _quieten()
    RetrievalCLI(
        RetrievalModule,
        RetrievalDataModule,
        seed_everything_default=0,
        save_config_callback=None,  # the run folder records the configuration
        trainer_defaults=TRAINER_DEFAULTS,
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "goal-kernels"},
        args=[command, *arguments],
    )
