"""Region features in the TSV files of bottom-up attention (Anderson et al., 2018).

A line is ``image_id, image_w, image_h, num_boxes, boxes, features``, tabs between them, the last
two base64 of float32 arrays [num_boxes, 4] and [num_boxes, D].
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.files import read_head, reading
from goal_kernels.data.foreign import mistaken_for
from goal_kernels.data.progress import Progress, no_progress

FIELDS = 6
_ID, _BOXES_COUNT, _FEATURES = 0, 3, 5


@dataclass
class RegionTsv:
    """Where the features of each image lie in some TSV files.

    Attributes:
        paths: the files.
        places: for each image id the file's number, the offset of its line, and its boxes.
    """

    paths: Sequence[Path]
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def index(cls, paths: Sequence[Path], progress: Progress = no_progress) -> RegionTsv:
        """Read through the files once and note where each image is; the first line of an id counts.

        Raises ``ValueError`` naming file and line when a line is not of this kind.
        """
        found = cls(paths)
        for number, path in enumerate(paths):
            other = mistaken_for(read_head(path))
            if other is not None:
                raise ValueError(f"{path}: expected a TSV of region features, found {other}")
            size = path.stat().st_size
            with reading(path) as stream:
                for line_number, line in enumerate(iter(stream.readline, b""), 1):
                    cells = line.split(b"\t", FIELDS)
                    try:
                        key, boxes = int(cells[_ID]), int(cells[_BOXES_COUNT])
                        if not 0 < boxes <= len(cells[_FEATURES]) * 3 // 16:  # base64 of float32
                            raise ValueError("more boxes than features")
                    except (ValueError, IndexError) as error:
                        raise ValueError(
                            f"{path}: line {line_number}: expected {FIELDS} columns from image_id "
                            f"to base64 features of num_boxes boxes, found {line[:60]!r}; "
                            "fetch the file again"
                        ) from error
                    offset = stream.tell() - len(line)
                    found.places.setdefault(key, (number, offset, boxes))
                    progress(f"index of {path.name}", stream.tell(), size)
        return found

    def read(self, image_id: int) -> NDArray[np.float32]:
        """The features [K, D] of one image; raises ValueError when they are torn."""
        number, offset, boxes = self.places[image_id]
        with reading(self.paths[number]) as stream:
            stream.seek(offset)
            encoded = stream.readline().split(b"\t", FIELDS)[_FEATURES]
        try:
            numbers = np.frombuffer(base64.b64decode(encoded.strip(), validate=True), dtype="<f4")
            return numbers.reshape(boxes, -1)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                f"{self.paths[number]}: image {image_id}: expected base64 of float32 features of "
                f"{boxes} boxes; {error}; fetch the file again"
            ) from error

    @property
    def most_boxes(self) -> int:
        """The most boxes of any image."""
        return max((boxes for _, _, boxes in self.places.values()), default=0)
