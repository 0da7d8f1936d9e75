"""All that decides what a GoalWorld data set holds, except its seed, and ready-made choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SPLITS = ("train", "dev", "test")
DTYPES = ("float32", "float16")
_MIN_DIM = 16
_MAX_OBJECTS = 6


@dataclass(frozen=True)
class GoalWorldConfig:
    """Sizes, difficulty and feature layout.

    Attributes:
        train, dev, test: images in each split.
        siblings: scenes a family has beside its base scene, 0 to 4. They hold the same bag of
            attributes with one exchange, so only captions taken word by word in context, not bags
            of words, tell them apart.
        min_objects, max_objects: things in a scene, 2 to 6.
        detail: 0 to 1, how much a caption says.
        contrast: 0 to 1, the share of captions whose writer saw the siblings of the scene and
            tried to say something that is true of none of them.
        rarity: 0 to 5,000, how many unrelated random scenes a caption should be false of, all of
            them; it keeps out captions that are true of nearly everything. All three dials raise
            the oracle's recall.
        regions: K, boxes an image; room for every thing and the whole picture.
        dim: D, numbers a box, at least 16; the last five are x1, y1, x2, y2 and area, fractions of
            the picture.
        dtype: ``"float32"`` or ``"float16"`` on disk.
        noise: standard deviation of the noise on appearance, which is within [-1, 1].
        miss: probability that a thing gets no box.
        images: whether to render pictures.
        image_size: their side in pixels.
    """

    train: int
    dev: int
    test: int
    siblings: int = 2
    min_objects: int = 3
    max_objects: int = 6
    detail: float = 0.5
    contrast: float = 0.5
    rarity: int = 500
    regions: int = 12
    dim: int = 64
    dtype: str = "float32"
    noise: float = 0.08
    miss: float = 0.03
    images: bool = False
    image_size: int = 160

    def __post_init__(self) -> None:
        for split in SPLITS:
            _expect(split, getattr(self, split), 1, 10_000_000)
        _expect("siblings", self.siblings, 0, 4)
        _expect("min_objects", self.min_objects, 2, _MAX_OBJECTS)
        _expect("max_objects", self.max_objects, self.min_objects, _MAX_OBJECTS)
        _expect("regions", self.regions, self.max_objects + 1, 1000)
        _expect("dim", self.dim, _MIN_DIM, 65_536)
        _expect("image_size", self.image_size, 32, 2048)
        for name in ("detail", "contrast", "miss"):
            _expect(name, getattr(self, name), 0.0, 1.0)
        _expect("rarity", self.rarity, 0, 5_000)
        _expect("noise", self.noise, 0.0, 10.0)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {DTYPES}, got {self.dtype!r}")

    @property
    def objects(self) -> tuple[int, int]:
        """Fewest and most things in a scene."""
        return self.min_objects, self.max_objects

    def images_in(self, split: str) -> int:
        """N of a split of ``SPLITS``."""
        return int(getattr(self, split))


def _expect(name: str, value: float, low: float, high: float) -> None:
    """Raise unless ``low <= value <= high``, with an integer where ``low`` is one."""
    if isinstance(value, bool) or not isinstance(value, (int, type(low))):
        raise TypeError(f"{name}: expected {type(low).__name__}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}")


PRESETS: Mapping[str, GoalWorldConfig] = {
    "tiny": GoalWorldConfig(train=64, dev=32, test=32),
    "demo": GoalWorldConfig(train=4_000, dev=1_000, test=1_000),
    "medium": GoalWorldConfig(train=29_000, dev=1_014, test=1_000),
}


def make_config(preset: str, changes: Mapping[str, Any]) -> GoalWorldConfig:
    """A preset with some of its parameters changed.

    Raises:
        ValueError: unknown preset, or a value out of its range.
        TypeError: unknown parameter, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {sorted(PRESETS)}, got {preset!r}")
    known = [field.name for field in fields(GoalWorldConfig)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise TypeError(f"generate_goalworld has no parameters {unknown}; it has {known}")
    return replace(PRESETS[preset], **changes)
