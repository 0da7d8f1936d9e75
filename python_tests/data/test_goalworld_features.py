"""The simulated detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from goal_kernels.data.goalworld.config import PRESETS
from goal_kernels.data.goalworld.features import Detector
from goal_kernels.data.goalworld.scenes import Scene, Thing, draw_family
from goal_kernels.data.goalworld.world import COLOURS, RADIUS, SHAPES, SIZES, TEXTURES

CONFIG = PRESETS["tiny"]
WHOLE = (0.0, 0.0, 1.0, 1.0, 1.0)


def draw_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(1)
    return [draw_family(rng, 0, (3, 6))[0] for _ in range(count)]


def boxes_of(features: np.ndarray, thing: Thing) -> np.ndarray:
    """The rows whose box is about that of the thing."""
    centres = (features[:, -5:-3] + features[:, -3:-1]) / 2
    sides = features[:, -3:-1] - features[:, -5:-3]
    near = np.hypot(*(centres - (thing.x, thing.y)).T) < 0.07
    return near & (abs(sides / 2 / RADIUS[thing.size] - 1) < 0.3).all(axis=1)


def whole_picture(features: np.ndarray) -> np.ndarray:
    return (features[:, -5:] == WHOLE).all(axis=1)


@pytest.mark.parametrize(("regions", "dim"), [(12, 64), (36, 200), (7, 16)])
def test_shape_and_range(regions: int, dim: int) -> None:
    detector = Detector(replace(CONFIG, regions=regions, dim=dim))
    rng = np.random.default_rng(0)
    for scene in draw_scenes(20):
        features = detector.detect(scene, rng)
        assert features.shape == (regions, dim)
        assert features.min() >= 0
        assert features.max() < 2
        x1, y1, x2, y2, area = features[:, -5:].T
        np.testing.assert_allclose(area, (x2 - x1) * (y2 - y1), atol=1e-12)
        assert (x1 <= x2).all()
        assert (y1 <= y2).all()
        assert whole_picture(features).sum() == 1


@pytest.mark.parametrize("regions", [7, 12])
def test_every_thing_is_seen_when_none_is_missed(regions: int) -> None:
    detector = Detector(replace(CONFIG, miss=0.0, regions=regions))
    rng = np.random.default_rng(0)
    for scene in draw_scenes(60):
        features = detector.detect(scene, rng)
        for thing in scene.things:
            assert boxes_of(features, thing).any()


def test_share_of_missed_things() -> None:
    detector = Detector(replace(CONFIG, miss=0.2, regions=19))
    rng = np.random.default_rng(0)
    # Clutter boxes may hide a miss by lying where the thing is, but seldom with its size.
    seen: list[bool] = []
    for scene in draw_scenes(250):
        features = detector.detect(scene, rng)
        seen += [boxes_of(features, thing).any() for thing in scene.things]
    assert 0.12 < 1 - np.mean(seen) < 0.22


def test_order_of_boxes_is_random() -> None:
    detector = Detector(CONFIG)
    rng = np.random.default_rng(0)
    rows = [whole_picture(detector.detect(scene, rng)).argmax() for scene in draw_scenes(120)]
    assert set(rows) == set(range(CONFIG.regions))


def test_same_state_same_features_and_the_map_is_fixed() -> None:
    scene = draw_scenes(1)[0]
    first, second = (Detector(CONFIG).detect(scene, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = Detector(CONFIG).detect(scene, np.random.default_rng(4))
    assert not np.array_equal(first, other)


def test_setting_and_light_show() -> None:
    detector = Detector(replace(CONFIG, noise=0.0))
    scene = Scene((Thing("disc", "red", "small", "plain", 0.5, 0.5),) * 2, "beach", "noon")
    rows = []
    for changed in (scene, replace(scene, setting="snow"), replace(scene, light="night")):
        features = detector.detect(changed, np.random.default_rng(0))
        rows.append(features[whole_picture(features)][0])
    assert np.linalg.norm(rows[0] - rows[1]) > 0.5
    assert np.linalg.norm(rows[0] - rows[2]) > 0.5


def sample_boxes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, D] of single boxes and the attribute indices [count, 4] behind them."""
    rng = np.random.default_rng(7)
    detector = Detector(replace(CONFIG, miss=0.0, regions=5, max_objects=4))
    features, labels = [], []
    while len(labels) < count:
        codes = [int(rng.integers(len(names))) for names in (SHAPES, COLOURS, SIZES, TEXTURES)]
        values = (SHAPES[codes[0]], COLOURS[codes[1]], SIZES[codes[2]], TEXTURES[codes[3]])
        thing = Thing(*values, *rng.uniform(0.15, 0.85, size=2))
        found = detector.detect(Scene((thing,), "beach", "noon"), rng)
        features.append(found[boxes_of(found, thing).argmax()])
        labels.append(codes)
    return np.array(features), np.array(labels)


def accuracy(inputs: np.ndarray, labels: np.ndarray, train: int) -> float:
    """Held-out accuracy of one-hot ridge regression on ``inputs``."""
    design = np.column_stack([inputs, np.ones(len(inputs))])
    targets = np.eye(labels.max() + 1)[labels]
    gram = design[:train].T @ design[:train] + 0.3 * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design[:train].T @ targets[:train])
    return float(np.mean((design[train:] @ weights).argmax(axis=1) == labels[train:]))


def test_attributes_are_entangled_but_recoverable() -> None:
    """A linear map misreads many; one layer of random units before it reads clearly more."""
    features, labels = sample_boxes(5000)
    hidden = np.random.default_rng(0).standard_normal((features.shape[1], 600)) * 0.5
    lifted = np.maximum(features @ hidden + 0.3 * hidden[0], 0.0)
    linear = [accuracy(features, column, 4000) for column in labels.T]
    nonlinear = [accuracy(lifted, column, 4000) for column in labels.T]
    for column, gain in ((0, 0.08), (1, 0.05), (3, 0.02)):
        assert linear[column] < 0.93
        assert nonlinear[column] > linear[column] + gain
    assert linear[0] < 0.8
    # Size shows in the box itself.
    assert linear[2] > 0.9
    assert min(nonlinear) > 0.8
