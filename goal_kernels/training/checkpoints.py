"""Checkpoint files: whole or not there, with a checksum inside, and read without unpickling code.

A checkpoint is what `torch.save` writes, a zip archive, with the SHA-256 of that archive as the
archive's comment, so that any tool that reads torch files reads these too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from goal_kernels.data.files import replacing
from goal_kernels.terminal import some
from goal_kernels.training.local_weights import first_line

LABEL = b"sha256:"
COMMENT_BYTES = len(LABEL) + 2 * hashlib.sha256().digest_size
LENGTH_BYTES = 2  # of the comment, little endian, the last field of a zip archive
CHUNK_BYTES = 1 << 22
RESIZED = "of another size"
NAMED_MISMATCHES = 5  # parameters that a message lists; the rest are counted


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, is damaged, or belongs to another model."""


class _Hashed:
    """A file opened for writing that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes, in order; torch never seeks back in a file it cannot seek in."""
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self.file.flush()


def save_checkpoint(
    checkpoint: Mapping[str, Any], path: Path, previous: Path | None = None
) -> None:
    """Write a checkpoint that is on the disk in full when it appears under its name.

    Args:
        checkpoint: tensors and plain values (numbers, text, None, lists, tuples, dicts).
        path: the file; what it held is replaced only when everything else has worked.
        previous: where the file it replaces is kept; None keeps nothing.
    Raises: CheckpointError when the disk is full or cannot be written; `path` is as it was.
    """
    try:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                _write(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                path.replace(previous)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_why_not_written(path, error)) from error


def _write(checkpoint: Mapping[str, Any], file: BinaryIO) -> None:
    """The archive, its length-of-comment field turned from zero to the comment's, the comment."""
    hashed = _Hashed(file)
    torch.save(dict(checkpoint), cast(BinaryIO, hashed))
    file.flush()
    file.seek(-LENGTH_BYTES, os.SEEK_END)
    comment = LABEL + hashed.hash.hexdigest().encode("ascii")
    file.write(len(comment).to_bytes(LENGTH_BYTES, "little") + comment)


def _why_not_written(path: Path, error: Exception) -> str:
    """The message of a failed save; torch hides the error of the file behind its own."""
    cause = error if isinstance(error, OSError) else error.__context__
    what = cause.strerror if isinstance(cause, OSError) else str(error)
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space on it" if full else "see that the folder can be written"
    return f"{path}: could not be saved ({what}); what was saved before is untouched; {remedy}"


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk too; a system that cannot open folders does so by itself."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum_matches(path: Path) -> bool | None:
    """Whether a file is what was written: True, False, or None where it has no checksum."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        body = size - COMMENT_BYTES - LENGTH_BYTES
        if body < 0:
            return None
        file.seek(body + LENGTH_BYTES)
        comment = file.read(COMMENT_BYTES)
        if not comment.startswith(LABEL):
            return None
        file.seek(0)
        hashed = hashlib.sha256()
        for start in range(0, body, CHUNK_BYTES):
            hashed.update(file.read(min(CHUNK_BYTES, body - start)))
    hashed.update(bytes(LENGTH_BYTES))  # the archive was hashed before it had a comment
    return hashed.hexdigest().encode("ascii") == comment[len(LABEL) :]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, on the CPU, after its checksum has been compared.

    A checkpoint without a checksum (written by another program) is read as it is.
    Raises: FileNotFoundError when there is none; CheckpointError when it is torn, damaged, or
        holds objects that only unpickling could make.
    """
    _check_is_file(path)
    if checksum_matches(path) is False:
        raise CheckpointError(
            f"{path}: is damaged (its checksum does not match); use another checkpoint"
        )
    return _read(path, mapped=False)


def look_into_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint but leave its tensors on the disk, unchecked; see `load_checkpoint`."""
    _check_is_file(path)
    return _read(path, mapped=True)


def _check_is_file(path: Path) -> None:
    """Raises: FileNotFoundError; CheckpointError when it cannot be what torch writes."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a checkpoint, found no file {path}; check the path")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: is torn or not a checkpoint; use another checkpoint")


def _read(path: Path, mapped: bool) -> dict[str, Any]:
    """The content of a file. Raises: CheckpointError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: expected tensors and plain values only, found objects that are not loaded "
            "because unpickling them could run code; use a checkpoint written by goal-kernels"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path}: is torn or not a checkpoint ({first_line(error)}); use another checkpoint"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("record", {}), dict):
        raise CheckpointError(
            f"{path}: expected names with values, and so in its `record`, found something else; "
            "use a checkpoint of `goal-kernels fit`"
        )
    return content


def check_weights(
    expected: Mapping[str, Any], checkpoint: Mapping[str, Any], argument: str = "ckpt_path"
) -> None:
    """See that a checkpoint has exactly the weights of a model, before they are loaded.

    Args:
        expected: state of the model: parameters and buffers by name.
        checkpoint: as `load_checkpoint` returns it; its weights are under "state_dict".
        argument: the option it was given with, for the message.
    Raises: CheckpointError that names what differs and the likely reason.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            f"{argument}: expected weights under 'state_dict', found {sorted(checkpoint)[:9]}; "
            "use a checkpoint of `goal-kernels fit`"
        )
    if differing := differences(expected, weights):
        raise CheckpointError(
            f"{argument}: is a checkpoint of another model: {describe(differing)}. "
            f"{_likely_reason(differing)}"
        )


def check_tokenizer(identity: str, checkpoint: Mapping[str, Any]) -> None:
    """See that the token ids of the data mean the words that a checkpoint learnt.

    Args:
        identity: of the tokenizer of the data.
        checkpoint: as `load_checkpoint` returns it; one that does not name its own passes.
    Raises: CheckpointError when they are two.
    """
    learnt = checkpoint.get("record", {}).get("tokenizer", identity)
    if learnt != identity:
        raise CheckpointError(
            f"data.vocabulary, data.tokenizer: expected those of the checkpoint, {learnt}, got "
            f"{identity}; its token ids would mean other words. Give the vocabulary that it was "
            "trained with"
        )


def differences(
    expected: Mapping[str, Any], weights: Mapping[str, Any], optional: str = "\0"
) -> dict[str, list[str]]:
    """Names of the weights of a model that others do not fit, by what is wrong with them.

    Args:
        expected: state of the model.
        weights: what is to be loaded into it.
        optional: end of names that may be missing.
    """
    found = {
        "missing": [n for n in expected if n not in weights and not n.endswith(optional)],
        "not of this model": [name for name in weights if name not in expected],
        RESIZED: [
            f"{name} {_size(weights[name])} instead of {_size(value)}"
            for name, value in expected.items()
            if name in weights and _size(weights[name]) != _size(value)
        ],
    }
    return {what: names for what, names in found.items() if names}


def describe(differing: Mapping[str, list[str]]) -> str:
    """The result of `differences` in words."""
    return "; ".join(f"{what}: {some(n, NAMED_MISMATCHES)}" for what, n in differing.items())


def _likely_reason(differing: Mapping[str, list[str]]) -> str:
    """What usually makes weights differ, and the remedy."""
    if set(differing) == {RESIZED} and all("embedding" in name for name in differing[RESIZED]):
        return (
            "The vocabulary has another size than the one it was trained with: give that one "
            "with --data.vocabulary"
        )
    return (
        "Give the --model and --data options it was trained with: --config of its run folder "
        "(config.yaml)"
    )


def _size(value: Any) -> Any:
    """Shape of a tensor; type of anything else, which no weight is."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
