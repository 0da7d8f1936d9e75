"""Rendered pictures."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from goal_kernels.data.goalworld import generate_goalworld
from goal_kernels.data.goalworld.scenes import Scene, Thing
from goal_kernels.data.goalworld.world import ATTRIBUTES, LIGHTS, SETTINGS

Image = pytest.importorskip("PIL.Image")

from goal_kernels.data.goalworld.rendering import render_scene  # noqa: E402

THING = Thing("square", "red", "large", "plain", 0.3, 0.6)


def pixels(thing: Thing, setting: str = "paper", light: str = "noon") -> np.ndarray:
    picture = render_scene(Scene((thing,), setting, light), 64, np.random.default_rng(0))
    return np.asarray(picture, dtype=float)


def test_a_thing_is_where_and_what_it_should_be() -> None:
    picture = pixels(THING)
    assert picture.shape == (64, 64, 3)
    middle = picture[round(0.6 * 64), round(0.3 * 64)]
    assert middle[0] > 180
    assert max(middle[1:]) < 90
    away = picture[round(0.2 * 64), round(0.8 * 64)]
    assert min(away) > 150


def test_every_value_looks_different() -> None:
    """All pairs of values of an attribute, of settings and of lights."""
    views = {
        name: [pixels(replace(THING, **{name: value})) for value in values]
        for name, values in ATTRIBUTES.items()
    }
    views["setting"] = [pixels(THING, setting=setting) for setting in SETTINGS]
    views["light"] = [pixels(THING, light=light) for light in LIGHTS]
    for name, pictures in views.items():
        for one, other in combinations(pictures, 2):
            assert (abs(one - other).max(axis=2) > 40).sum() >= 12, name


def test_pictures_are_part_of_the_data_set(tmp_path: Path) -> None:
    sizes = {"train": 3, "dev": 2, "test": 1}
    folder = tmp_path / "seen"
    arguments = {"preset": "tiny", **sizes, "image_size": 40}
    generate_goalworld(folder, images=True, **arguments)
    for split, count in sizes.items():
        names = {path.stem for path in (folder / "images" / split).iterdir()}
        assert names == set((folder / f"{split}_ids.txt").read_text().split())
        assert len(names) == count
    with Image.open(folder / "images" / "test" / "20000000.png") as picture:
        assert picture.size == (40, 40)
    assert not generate_goalworld(folder, images=True, **arguments).created
    (folder / "images" / "train" / "0.png").unlink()
    with pytest.raises(FileExistsError, match="images/train"):
        generate_goalworld(folder, images=True, **arguments)
