"""The Lightning side of checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins import CheckpointIO

from goal_kernels.training.checkpoints import load_checkpoint, save_checkpoint


class CheckedFiles(CheckpointIO):
    """Has Lightning write whole checkpoints with a checksum and read them without unpickling."""

    def save_checkpoint(
        self,
        checkpoint: Mapping[str, Any],
        path: str | Path,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint in full or not at all.

        Args:
            checkpoint: tensors and plain values.
            path: the file.
            storage_options: "previous": where the file it replaces is kept; "record": plain values
                that are added to the checkpoint under that name.
        """
        options = dict(storage_options or {})
        added = {name: options[name] for name in ("record",) if name in options}
        save_checkpoint({**checkpoint, **added}, Path(path), options.get("previous"))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, checked; whatever Lightning asks, never unpickling."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file, if it is there."""
        Path(path).unlink(missing_ok=True)
