"""Models of the transformers package from a local folder, or random; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from goal_kernels.extras import load_package

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
SHOWN = 4  # names of parameters in a message


def transformers(argument: str) -> Any:
    """The transformers package. Raises: MissingPackageError."""
    return load_package("transformers", "bert", argument)


def read_config(folder: str, argument: str) -> Any:
    """The configuration in a folder.

    Raises: ValueError naming the argument when there is no folder or no readable config.json.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        found = "no config.json in it" if path.is_dir() else "no such folder"
        raise ValueError(
            f"{argument}: expected a local folder with config.json and the weights, got {folder} "
            f"({found}); nothing is downloaded, put the files of the model there yourself"
        )
    try:
        return transformers(argument).AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{argument}: {path / 'config.json'} is unusable: {error}") from error


def has_weights(folder: str) -> bool:
    """Whether a folder holds weights beside its configuration."""
    return any(any(Path(folder).glob(pattern)) for pattern in WEIGHT_FILES)


def load_folder(
    kind: Any, folder: str, config: Any, argument: str, unused: tuple[str, ...], **options: Any
) -> nn.Module:
    """A model with the weights of a folder, every one of them.

    Args:
        kind: class with `from_pretrained`.
        folder: holds the weights.
        config: of the model.
        argument: what named the folder.
        unused: beginnings of names of parameters that may be missing, since nothing reads them.
        options: for the constructor of the model.
    Raises: ValueError when weights are missing or of another shape.
    """
    with _quiet(argument):
        try:
            model, report = kind.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True, **options
            )
        except Exception as error:  # on a torn file the readers raise almost anything
            raise ValueError(
                f"{argument}: the weights in {folder} are unusable: {error}"
            ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if missing:
        raise ValueError(
            f"{argument}: the weights in {folder} lack {len(missing)} of "
            f"{len(model.state_dict())} parameters of a {config.model_type}, such as "
            f"{', '.join(missing[:SHOWN])}; config.json and weights belong to different models"
        )
    return model.train()  # the package hands models out in evaluation mode, without dropout


@contextmanager
def _quiet(argument: str) -> Iterator[None]:
    """Loading draws no bars and prints no tables: what is wrong is raised."""
    logging = transformers(argument).utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
