"""What captions say and how they say it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from goal_kernels.data import tokenize
from goal_kernels.data.goalworld.captions import Caption, Captioner
from goal_kernels.data.goalworld.config import PRESETS, GoalWorldConfig
from goal_kernels.data.goalworld.grammar import realise
from goal_kernels.data.goalworld.lexicon import ADJECTIVES, SHAPE_NOUNS, pick
from goal_kernels.data.goalworld.scenes import draw_family
from goal_kernels.data.goalworld.statements import Description, Relation, Statement, Tally
from goal_kernels.data.goalworld.truth import Evaluator, PackedScenes

FAMILIES = 100


def styled(detail: float, contrast: float, rarity: int) -> GoalWorldConfig:
    return replace(PRESETS["tiny"], detail=detail, contrast=contrast, rarity=rarity)


def write_captions(config: GoalWorldConfig, families: int = FAMILIES) -> list[Caption]:
    rng = np.random.default_rng(4)
    captioner = Captioner(config)
    return [
        caption
        for _ in range(families)
        for image in captioner.caption_family(draw_family(rng, 2, (3, 6)), [rng] * 3)
        for caption in image
    ]


@pytest.fixture(scope="module")
def captions() -> list[Caption]:
    return write_captions(styled(0.5, 0.5, 50))


def test_sentences_are_well_formed(captions: list[Caption]) -> None:
    for text in (caption.text for caption in captions):
        assert text[0].isupper() or text[0].isdigit()
        assert not re.search(r"\s\s|\s[.,;]|[{}]|\.\.|,,", text), text
        assert not re.search(r"\ba [aeio]|\ban [^aeio]", text, re.IGNORECASE), text
        assert text.count(".") <= 1
        assert 3 <= len(tokenize(text)) <= 45


def test_every_kind_of_claim_occurs(captions: list[Caption]) -> None:
    statements = [caption.statement for caption in captions]
    kinds = Counter()
    for statement in statements:
        kinds["relations", len(statement.relations)] += 1
        kinds["setting"] += statement.setting is not None
        kinds["light"] += statement.light is not None
        kinds["plural"] += len(set(statement.things)) < len(statement.things)
        kinds["place"] += any(thing.place for thing in statement.things)
        for tally in statement.tallies:
            kinds["nothing" if tally.count == 0 else "exactly"] += 1
    for kind in (("relations", 0), ("relations", 1), ("relations", 2)):
        assert kinds[kind] > 0.1 * len(captions)
    for kind in ("setting", "light", "plural", "place", "nothing", "exactly"):
        assert kinds[kind] > 0.02 * len(captions), kind
    named = Counter(claim.name for statement in statements for claim in statement.relations)
    assert set(named) == {
        "left", "right", "above", "below", "near", "far", "bigger", "smaller",
        "same colour", "same shape", "same texture",
    }  # fmt: skip


def said_by(words: set[str], table: dict[str, tuple[str, ...]]) -> set[str]:
    """The values of which some name occurs, all words of the name together."""
    return {
        value
        for value, names in table.items()
        if any(set(tokenize(name)) <= words for name in names)
    }


COLOUR_WORDS = {value: (*names, value) for value, names in ADJECTIVES["colour"].items()}
SHAPE_WORDS = {
    value: tuple(form for noun in nouns for form in noun) for value, nouns in SHAPE_NOUNS.items()
}


def test_text_names_exactly_the_colours_and_shapes_of_the_form(captions: list[Caption]) -> None:
    for caption in captions:
        statement = caption.statement
        described = [*statement.things, *(tally.description for tally in statement.tallies)]
        words = set(tokenize(caption.text))
        assert said_by(words, COLOUR_WORDS) == {d.colour for d in described if d.colour}
        assert said_by(words, SHAPE_WORDS) == {d.shape for d in described if d.shape}


def phrasings(statement: Statement, draws: int = 300) -> set[str]:
    rng = np.random.default_rng(6)
    return {realise(statement, rng).rstrip(".").lower() for _ in range(draws)}


def test_a_relation_is_said_either_way_round() -> None:
    statement = Statement(
        (Description("star", "red"), Description("ring", "blue")), (Relation(0, "left", 1),)
    )
    texts = phrasings(statement)
    assert len(texts) > 100
    assert any("left" in text for text in texts)
    assert any("right" in text for text in texts)
    star, ring = "star|pentagram", "ring|hoop|donut"
    for text in texts:
        first = re.search(f"({star}|{ring})", text)
        assert first is not None
        starts_with_star = first[0] in star
        inverted = re.match(r"(to the|on the|left|right)", text) is not None
        assert ("left" in text) == (starts_with_star != inverted), text


def test_numbers_and_negations() -> None:
    red, star = Description(colour="red"), Description("star")
    for text in phrasings(Statement((red, red, star))):
        assert re.search(r"\b(two|pair|couple)\b", text), text
        assert re.search(r"\b(things|objects|shapes|items|figures)\b", text), text
    for text in phrasings(Statement((star, star), tallies=(Tally(red, 3),))):
        assert re.search(r"\b(exactly|just|only|precisely) three\b", text), text
    for text in phrasings(Statement((star,), tallies=(Tally(red, 0),))):
        assert re.search(r"\b(no|not|without|nothing|absent)\b", text), text
    for text in phrasings(Statement((star, star), tallies=(Tally(Description(), 4),))):
        assert re.search(r"four \w+ (in all|in total|altogether)$", text), text


def test_verbs_agree() -> None:
    one, two = Description("star", "red"), Description("ring", "blue")
    for text in phrasings(Statement((one, two)), 600):
        if text.startswith(("there ", "here ")):
            assert text.split()[1] == "is", text
        if text.endswith("visible"):
            assert text.endswith("are visible"), text
    for text in phrasings(Statement((one, one, two)), 600):
        if text.startswith(("there ", "here ")):
            assert text.split()[1] == "are", text


def test_detail_lengthens_captions() -> None:
    lengths = [
        np.mean([len(tokenize(c.text)) for c in write_captions(styled(detail, 0.0, 0), 20)])
        for detail in (0.0, 0.5, 1.0)
    ]
    assert lengths[0] + 1 < lengths[1] < lengths[2] - 1


def exclusive_share(config: GoalWorldConfig) -> float:
    """The share of captions that are true of one scene of their family only."""
    rng = np.random.default_rng(4)
    captioner = Captioner(config)
    alone = []
    for _ in range(30):
        family = draw_family(rng, 2, (3, 6))
        evaluator = Evaluator(PackedScenes.pack(family))
        for image in captioner.caption_family(family, [rng] * 3):
            alone += [len(evaluator.true_rows(caption.statement)) == 1 for caption in image]
    return float(np.mean(alone))


def test_contrast_tells_siblings_apart() -> None:
    shares = [exclusive_share(styled(0.5, contrast, 0)) for contrast in (0.0, 1.0)]
    assert shares[0] < 0.5
    assert shares[1] > 0.85


def test_rarity_keeps_out_what_is_nearly_always_true() -> None:
    rng = np.random.default_rng(40)
    strangers = Evaluator(PackedScenes.pack([draw_family(rng, 0, (3, 6))[0] for _ in range(500)]))
    share = {
        rarity: np.mean(
            [
                len(strangers.true_rows(caption.statement)) > 5
                for caption in write_captions(styled(0.5, 0.0, rarity), 30)
            ]
        )
        for rarity in (0, 300)
    }
    assert share[300] < 0.02 < 0.08 < share[0]


def test_pick_prefers_what_comes_first() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(pick(rng, "abc") for _ in range(6000))
    weights = np.array([1 / 1.5, 1 / 2.5, 1 / 3.5])
    expected = 6000 * weights / weights.sum()
    np.testing.assert_allclose([counts[letter] for letter in "abc"], expected, rtol=0.06)
    assert pick(rng, "z") == "z"
