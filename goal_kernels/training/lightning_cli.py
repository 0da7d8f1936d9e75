"""`fit`, `validate` and `test`: Lightning's command line over our model, data and run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import LearningRateMonitor, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from goal_kernels.data.files import write_text
from goal_kernels.recipes import CARD
from goal_kernels.training.best_checkpoint import BestCheckpoint, CheckedFiles
from goal_kernels.training.callbacks import PairRecorder, Stopwatch, progress_callbacks
from goal_kernels.training.checkpoints import (
    CheckpointError,
    check_tokenizer,
    check_weights,
    load_checkpoint,
    look_into_checkpoint,
)
from goal_kernels.training.environment import (
    begin_session,
    describe_environment,
    end_session,
    read_environment,
)
from goal_kernels.training.evaluation import Evaluation, read_oracle
from goal_kernels.training.finish import finish_run, print_outcome, test_last_and_best
from goal_kernels.training.finite import FiniteLoss, NotFiniteError
from goal_kernels.training.hardest_examples import HardestExamples
from goal_kernels.training.lightning_options import (
    ConfigurationError,
    add_run_options,
    as_list,
    check_options,
    config_text,
    set_threads,
    without_null,
)
from goal_kernels.training.local_weights import checkpoint_loading
from goal_kernels.training.loggers import make_loggers
from goal_kernels.training.outcome import Outcome
from goal_kernels.training.resume import (
    AUTO,
    Resumption,
    choose_run,
    prepare_folder,
)
from goal_kernels.training.resume_loop import use_exact_epoch_loop
from goal_kernels.training.resume_points import ResumePoints
from goal_kernels.training.ridge import ridge_metrics
from goal_kernels.training.run_folder import RunFolder, create_run_folder, write_json
from goal_kernels.training.stopping import Stopped, stopping_at_once

ENDINGS = (Stopped, NotFiniteError)
"""Exceptions that say how a training ended, as opposed to faults."""


class RetrievalCLI(LightningCLI):
    """Lightning's command line with a run folder, resuming, a test after `fit`, and a report.

    Args:
        resume: folder of the run to resume, None for another one.
        held: keeps the lock of the run's folder.
        typed: command and arguments as the user wrote them, for the record.
        args, kwargs: see `LightningCLI`.
    """

    run: RunFolder | None = None
    resumption: Resumption | None = None
    started = 0.0
    best: BestCheckpoint
    points: ResumePoints

    def __init__(
        self,
        *args: Any,
        resume: RunFolder | None,
        held: ExitStack,
        typed: Sequence[str],
        **kwargs: Any,
    ) -> None:
        self.resume, self.held, self.typed = resume, held, typed
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """Only the running command: to declare the options of one takes a quarter of a second."""
        command = self.typed[0]
        return {command: super().subcommands()[command]}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given arguments; `sys.argv` belongs to the command above this one.

        Raises: ConfigurationError when random weights would be evaluated, or weights alone be
            resumed; ResumeError when the run cannot be resumed; RunFinished when there is nothing
            left to do; FileNotFoundError, CheckpointError for an unusable checkpoint.
        """
        self.config = parser.parse_args(args)
        check_options(self.options)
        path, fitting = self.options.ckpt_path, self.config.subcommand == "fit"
        if fitting:
            held = self.held if self._is_first else None
            self.resumption = choose_run(self.resume, self.options.run, self._resolved, held)
        else:
            self.options.verbose = False  # the table of `print_outcome` says it better
            if not path:
                raise ConfigurationError(
                    "ckpt_path: expected a checkpoint to evaluate, got none; give "
                    "--ckpt_path runs/<name>/checkpoints/best.ckpt"
                )
        # Lightning takes the options of the model from it next.
        if path and "optimizer_states" not in look_into_checkpoint(Path(path)) and fitting:
            raise ConfigurationError(
                f"ckpt_path: expected a resume point, got weights alone ({path}); give it with "
                "--run.weights to start from these weights, or go on with a run: --resume"
            )

    def _config_text(self) -> str:
        """The whole configuration of the running command as YAML, nulls included."""
        return config_text(self._parser(self.config.subcommand), self.options)

    def _resolved(self) -> dict[str, Any]:
        """The whole configuration of the running command as plain values."""
        return yaml.safe_load(self._config_text())

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name, place and saving of the run; sizes of the model that follow from the data."""
        add_run_options(parser)
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
        """Build data, model and trainer. Raises: ConfigurationError when a value is unusable;
        CheckpointError when a checkpoint does not fit them."""
        try:
            set_threads(self.options.run.threads)
            self.config_dump: dict[str, Any] = {}  # hyperparameters are saved by the modules
            with checkpoint_loading() if any(self._checkpoints().values()) else nullcontext():
                super().instantiate_classes()
            self.datamodule.make_ready(self.config.subcommand)
            self._check_checkpoints()
        except BaseException as error:
            self._discard()
            if isinstance(error, MisconfigurationException):
                raise ConfigurationError(f"trainer: {error}; see --trainer.accelerator") from error
            if isinstance(error, ValueError | TypeError):
                raise ConfigurationError(without_null(str(error))) from error
            raise
        use_exact_epoch_loop(self.trainer)

    def _checkpoints(self) -> dict[str, Any]:
        """The checkpoints that the weights come from, if any, by the option that names them."""
        if self.resumption is not None:
            return {"--resume": self.resumption.checkpoint}
        given = {"ckpt_path": self.options.ckpt_path}
        if self.config.subcommand == "fit":
            given["run.weights"] = self.options.run.weights
        return given

    def _check_checkpoints(self) -> None:
        """See that checkpoints fit the model and the data; start from `run.weights`, if given."""
        given = self._checkpoints()
        for argument, path in given.items():
            if path is not None:
                held = look_into_checkpoint(Path(path))
                check_tokenizer(self.datamodule.tokenizer.identity, held)
                check_weights(self.model.state_dict(), held, argument)
        if given.get("run.weights") is not None:
            start = load_checkpoint(Path(self.options.run.weights))
            self.model.load_state_dict(start["state_dict"])

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, writing into a run folder for `fit` and `test`, else nowhere."""
        self.started = time.monotonic()
        given = self._get(self.config_init, "trainer")
        fitting = self.config.subcommand == "fit"
        callbacks = [*as_list(given.callbacks)]
        stopwatch = Stopwatch()
        if given.enable_progress_bar is not False:
            callbacks += progress_callbacks(stopwatch)
        if fitting:
            callbacks = [stopwatch, *callbacks]
        kwargs["plugins"] = [CheckedFiles(), *as_list(given.plugins)]
        kwargs["enable_progress_bar"] = any(isinstance(c, RichProgressBar) for c in callbacks)
        kwargs["logger"] = kwargs["enable_checkpointing"] = False
        if self.config.subcommand in ("fit", "test") and not given.fast_dev_run:
            self.run = self._run_folder()
            kwargs["default_root_dir"] = str(self.run.path)
            if fitting:
                chosen, resumed = self.options.run, self.resumption
                self.points = ResumePoints(
                    *(self.run, chosen.save_every_steps, chosen.save_every_minutes),
                    longer=resumed is not None and resumed.longer,
                )
                self.best, finite = BestCheckpoint(self.run), FiniteLoss(chosen.not_finite_losses)
                examples = HardestExamples(self.run.hardest)
                recorders = [finite, PairRecorder(self.run.pairs), examples, self.points]
                callbacks = [*recorders, *callbacks, self.best, LearningRateMonitor()]
                named = as_list(chosen.loggers)
                loggers = make_loggers(self.run, named, resumed.step if resumed else None)
                kwargs["logger"] = [*loggers, *as_list(given.logger)]
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        self.datamodule.pairs_per_device(trainer.world_size)  # refused before a process is started
        return trainer

    def _run_folder(self) -> RunFolder:
        """The folder of the resumed run, or a new one.

        Of several processes only the first makes it; it tells the others when they can talk.
        """
        if self.resumption is not None:
            return self.resumption.run
        root, name = Path(self.options.run.root), self.options.run.name
        if not self._is_first:
            return RunFolder(root / name)
        adopt = self.config.subcommand == "fit" and self.options.run.resume == AUTO
        return create_run_folder(root, name, self._record_start, self.held, adopt)

    def _discard(self) -> None:
        """Remove the folder of a run that trained nothing."""
        if self.run is not None and self.resumption is None and self._is_first:
            self.run.discard()

    @property
    def _is_first(self) -> bool:
        """Whether this is the process that writes."""
        return getattr(rank_zero_only, "rank", 0) == 0

    def before_fit(self) -> None:
        """Compile the model where that was asked for, and record the session that begins."""
        if self.options.run.compile:
            self.model.model.compile()
        if self.run is None or not self._is_first:
            return
        if self.resumption is not None:
            prepare_folder(self.resumption)
            if read_environment(self.run):
                write_text(self.run.config, self._config_text())
            else:
                self._record_start(self.run)
            print(f"{self.run.path}: resumed at step {self.resumption.step:,}")
        begin_session(self.run, self.typed, self.resumption.step if self.resumption else 0)

    def fit(self, **kwargs: Any) -> None:
        """Train; record an early end, and say how to resume.

        A resume point takes the place of `ckpt_path`.
        Raises: ConfigurationError for a value that turned out to be unusable before the first step.
        """
        resumed = self.resumption.checkpoint if self.resumption is not None else None
        if resumed is not None:
            kwargs["ckpt_path"] = str(resumed)
        try:
            self.trainer.fit(**kwargs)
        except BaseException as error:
            if self.run is not None and self._is_first:
                how = str(error) if isinstance(error, ENDINGS) else type(error).__name__
                end_session(self.run, max(self.points.saved_step, 0), how)
                self.points.say_how_to_resume()
                if self.trainer.global_step == 0 and not isinstance(error, ENDINGS):
                    self._discard()
            structural = isinstance(error, LookupError | TypeError | AttributeError)
            if resumed is not None and structural and not self.points.restored:
                raise CheckpointError(
                    f"{resumed}: could not be restored ({type(error).__name__}: {error}); move it "
                    "away, and --resume takes the resume point before it"
                ) from error
            if isinstance(error, ValueError) and self.trainer.fit_loop.total_batch_idx < 0:
                raise ConfigurationError(str(error)) from error
            raise

    def after_fit(self) -> None:
        """Test the last and the best checkpoint and report."""
        if self.run is None:
            return
        self.run = self.points.run
        with stopping_at_once():
            evaluation, results = test_last_and_best(
                self.trainer, self.model, self.datamodule, self.run, self.best.record
            )
        if self._is_first:
            end_session(self.run, results["last"].step, "finished")
            outcome = self._outcome(
                evaluation,
                epochs=results["last"].epoch,
                seconds=self.points.seconds,
                checkpoints=results,
                selected="best" if "best" in results else "last",
                dev=self.datamodule.split(self.datamodule.dev_split),
                ridge=ridge_metrics(self.datamodule) if self.options.run.ridge else None,
            )
            finish_run(outcome, self.run)

    def after_test(self) -> None:
        """Report."""
        if self.run is not None and self._is_first:
            finish_run(self._outcome(self.model.evaluation), self.run)

    def after_validate(self) -> None:
        """Print the dev metrics."""
        if self._is_first:
            print_outcome(self._outcome(self.model.evaluation, self.datamodule.dev_split))

    def _record_start(self, run: RunFolder) -> None:
        """Write what the run is made of into its folder; the configuration last, so that a folder
        with one has the rest too."""
        self.datamodule.write_vocabulary(run.path)
        text = self._config_text()
        write_json(
            run.environment,
            describe_environment(self.options.seed_everything, self.typed, yaml.safe_load(text)),
        )
        write_text(run.config, text)

    def _outcome(
        self, evaluation: Evaluation, split_name: str | None = None, **training: Any
    ) -> Outcome:
        split = self.datamodule.split(split_name or self.datamodule.test_split)
        facts = {"epochs": 0, "seconds": time.monotonic() - self.started, **training}
        # As in metrics.json, from which the page may be made again.
        facts["seconds"] = round(facts["seconds"], 1)
        return Outcome(
            evaluation=evaluation,
            split=split,
            oracle=read_oracle(split),
            objective=self.model.objective,
            seed=self.options.seed_everything,
            warmup_steps=self.model.loss.schedule.warmup_steps,
            **facts,
        )
