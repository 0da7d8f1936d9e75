"""Truth of logical forms: the vectorised evaluator against a literal one, and against English."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from literal_truth import holds

from goal_kernels.data.goalworld.captions import Caption, Captioner
from goal_kernels.data.goalworld.config import PRESETS
from goal_kernels.data.goalworld.scenes import Scene, Thing, draw_family
from goal_kernels.data.goalworld.statements import Description, Relation, Statement, Tally
from goal_kernels.data.goalworld.truth import Evaluator, PackedScenes
from goal_kernels.data.goalworld.world import (
    ATTRIBUTES,
    COMPARISONS,
    DIRECTIONS,
    DISTANCES,
    LIGHTS,
    PLACES,
    SETTINGS,
)

RELATIONS = (*DIRECTIONS, *DISTANCES, *COMPARISONS)

RED_DISC = Thing("disc", "red", "small", "plain", 0.2, 0.5)
RED_DISC_FAR = Thing("disc", "red", "large", "dotted", 0.8, 0.5)
BLUE_STAR = Thing("star", "blue", "medium", "striped", 0.5, 0.5)
RED, DISC, RED_ONE = Description(colour="red"), Description("disc"), Description("disc", "red")


def scene_of(*things: Thing) -> Scene:
    return Scene(things, "beach", "noon")


def is_true(statement: Statement, *things: Thing) -> bool:
    """By both evaluators, which must agree."""
    scene = scene_of(*things)
    answer = len(Evaluator(PackedScenes.pack([scene])).true_rows(statement)) == 1
    assert answer == holds(statement.to_json(), scene.to_json())
    return answer


def beside(subject: Description, name: str, other: Description) -> Statement:
    return Statement((subject, other), (Relation(0, name, 1),))


@pytest.mark.parametrize(
    ("statement", "things", "expected"),
    [
        (Statement((RED, RED)), (RED_DISC, BLUE_STAR), False),
        (Statement((RED, RED)), (RED_DISC, BLUE_STAR, RED_DISC_FAR), True),
        (Statement((RED, DISC)), (RED_DISC, BLUE_STAR), False),
        (Statement((DISC, RED, Description("star"))), (RED_DISC, RED_DISC_FAR, BLUE_STAR), True),
        (beside(RED_ONE, "left", DISC), (RED_DISC, BLUE_STAR), False),
        (beside(RED_ONE, "left", DISC), (RED_DISC, RED_DISC_FAR), True),
        (beside(RED_ONE, "right", DISC), (RED_DISC, RED_DISC_FAR), True),
        (beside(Description("star"), "left", DISC), (RED_DISC, BLUE_STAR), False),
        (beside(RED_ONE, "near", Description("star")), (RED_DISC, BLUE_STAR), True),
        (beside(RED_ONE, "near", DISC), (RED_DISC, RED_DISC_FAR), False),
        (beside(DISC, "bigger", DISC), (RED_DISC, RED_DISC_FAR), True),
        (beside(Description(size="small"), "bigger", DISC), (RED_DISC, RED_DISC_FAR), False),
        (beside(DISC, "same colour", Description("star")), (RED_DISC, BLUE_STAR), False),
        (Statement(tallies=(Tally(RED, 2),)), (RED_DISC, RED_DISC_FAR, BLUE_STAR), True),
        (Statement(tallies=(Tally(RED, 1),)), (RED_DISC, RED_DISC_FAR), False),
        (Statement(tallies=(Tally(Description(), 2),)), (RED_DISC, BLUE_STAR), True),
        (Statement(tallies=(Tally(Description("star", "red"), 0),)), (RED_DISC, BLUE_STAR), True),
        (Statement(tallies=(Tally(RED, 0),)), (RED_DISC, BLUE_STAR), False),
        (Statement((replace(DISC, place="left"),)), (RED_DISC, BLUE_STAR), True),
        (Statement((replace(DISC, place="top left"),)), (RED_DISC, BLUE_STAR), False),
        (Statement((Description("star", place="middle"),)), (RED_DISC, BLUE_STAR), True),
        (Statement((DISC,), setting="beach", light="noon"), (RED_DISC,), True),
        (Statement((DISC,), setting="snow"), (RED_DISC,), False),
        (Statement((DISC,), light="night"), (RED_DISC,), False),
    ],
)
def test_hand_made_scenes(statement: Statement, things: tuple[Thing, ...], expected: bool) -> None:
    assert is_true(statement, *things) is expected


def random_description(rng: np.random.Generator) -> Description:
    said = {
        name: values[rng.integers(len(values))]
        for name, values in {**ATTRIBUTES, "place": tuple(PLACES)}.items()
        if rng.random() < 0.22
    }
    return Description(**said)


def random_statement(rng: np.random.Generator) -> Statement:
    """Any statement, most of them false; relations between any things, in any number."""
    count = int(rng.integers(0, 5))
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    picked = rng.permutation(len(pairs))[: rng.integers(0, 4)]
    return Statement(
        tuple(random_description(rng) for _ in range(count)),
        tuple(
            Relation(pairs[k][0], RELATIONS[rng.integers(len(RELATIONS))], pairs[k][1])
            for k in picked
        ),
        tuple(
            Tally(random_description(rng), int(rng.integers(0, 4)))
            for _ in range(rng.integers(0, 2))
        ),
        SETTINGS[rng.integers(len(SETTINGS))] if rng.random() < 0.1 else None,
        LIGHTS[rng.integers(len(LIGHTS))] if rng.random() < 0.1 else None,
    )


def draw_scenes(families: int) -> list[tuple[Scene, ...]]:
    rng = np.random.default_rng(8)
    return [draw_family(rng, 2, (3, 6)) for _ in range(families)]


def test_arbitrary_statements_against_the_literal_evaluator() -> None:
    rng = np.random.default_rng(3)
    scenes = [scene for family in draw_scenes(14) for scene in family]
    evaluator, records = Evaluator(PackedScenes.pack(scenes)), [s.to_json() for s in scenes]
    found = 0
    for _ in range(400):
        statement = random_statement(rng)
        expected = [row for row, scene in enumerate(records) if holds(statement.to_json(), scene)]
        assert evaluator.true_rows(statement).tolist() == expected
        found += len(expected)
    # The comparison means little unless both answers are common.
    assert 0.1 < found / (400 * len(scenes)) < 0.9


@pytest.fixture(scope="module")
def captioned() -> tuple[list[Scene], list[Caption]]:
    """300 scenes with their 1,500 captions."""
    families = draw_scenes(100)
    captioner = Captioner(replace(PRESETS["tiny"], rarity=50))
    rng = np.random.default_rng(9)
    captions = [
        caption
        for family in families
        for image in captioner.caption_family(family, [rng] * len(family))
        for caption in image
    ]
    return [scene for family in families for scene in family], captions


def test_captions_are_true_of_their_own_image(
    captioned: tuple[list[Scene], list[Caption]],
) -> None:
    scenes, captions = captioned
    records = [scene.to_json() for scene in scenes]
    assert len(captions) == 5 * len(scenes)
    for index, caption in enumerate(captions):
        assert holds(caption.statement.to_json(), records[index // 5]), caption.text


def test_captions_against_the_literal_evaluator(
    captioned: tuple[list[Scene], list[Caption]],
) -> None:
    scenes, captions = captioned
    evaluator, records = Evaluator(PackedScenes.pack(scenes)), [s.to_json() for s in scenes]
    for caption in captions[::20]:
        form = caption.statement.to_json()
        expected = [row for row, scene in enumerate(records) if holds(form, scene)]
        assert evaluator.true_rows(caption.statement).tolist() == expected, caption.text


def test_a_thousand_images_take_seconds(captioned: tuple[list[Scene], list[Caption]]) -> None:
    scenes, captions = captioned
    evaluator = Evaluator(PackedScenes.pack(3 * scenes))
    started = time.process_time()
    for caption in 3 * captions:
        evaluator.true_rows(caption.statement)
    assert time.process_time() - started < 4


def test_remembered_descriptions_do_not_change_answers(
    monkeypatch: pytest.MonkeyPatch, captioned: tuple[list[Scene], list[Caption]]
) -> None:
    scenes, captions = captioned
    packed = PackedScenes.pack(scenes)
    statements = [caption.statement for caption in captions[:100]]
    remembering = Evaluator(packed)
    answers = [remembering.true_rows(statement) for statement in statements]
    monkeypatch.setattr("goal_kernels.data.goalworld.truth._REMEMBERED_BYTES", 0)
    forgetful = Evaluator(packed)
    for statement, answer in zip(statements, answers, strict=True):
        np.testing.assert_array_equal(forgetful.true_rows(statement), answer)
