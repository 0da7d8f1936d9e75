"""The words of GoalWorld: every way in which a caption may put an attribute or a relation.

Within a tuple the words are listed from the most to the least usual; ``pick`` follows that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Choice = TypeVar("Choice")


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of ``choices``, earlier ones more often: number k, from 0, with weight 1 / (k + 1.5)."""
    return choices[bisect_right(_ENDS[len(choices)], rng.random())]


def pick_evenly(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of ``choices``, all equally often."""
    return choices[int(rng.random() * len(choices))]


def _cumulative_weights(count: int) -> list[float]:
    """Upper ends of the intervals of [0, 1) that ``pick`` draws from, without the last end."""
    weights = 1 / (np.arange(count) + 1.5)
    return [float(end) for end in np.cumsum(weights / weights.sum())[:-1]]


_ENDS = [_cumulative_weights(count) for count in range(1, 33)]
_ENDS.insert(0, [])


class Noun(NamedTuple):
    """A noun in both numbers."""

    singular: str
    plural: str


def _nouns(*words: str) -> tuple[Noun, ...]:
    """Regular nouns, and irregular ones written ``singular/plural``."""
    pairs = (word.split("/") if "/" in word else [word, f"{word}s"] for word in words)
    return tuple(Noun(*pair) for pair in pairs)


SHAPE_NOUNS: Mapping[str, tuple[Noun, ...]] = {
    "disc": _nouns("disc", "circle"),
    "square": _nouns("square", "box/boxes"),
    "triangle": _nouns("triangle", "wedge"),
    "star": _nouns("star", "pentagram"),
    "ring": _nouns("ring", "hoop", "donut"),
    "cross": _nouns("cross/crosses", "plus sign"),
    "diamond": _nouns("diamond", "rhombus/rhombi", "lozenge"),
    "hexagon": _nouns("hexagon", "hexagonal tile"),
    "heart": _nouns("heart", "valentine"),
    "crescent": _nouns("crescent", "moon"),
    "arrow": _nouns("arrow", "pointer"),
    "drop": _nouns("drop", "teardrop", "droplet"),
}
ANY_NOUNS = _nouns("thing", "object", "shape", "item", "figure")

ADJECTIVES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium", "mid-sized", "medium-sized"),
        "large": ("large", "big", "huge"),
    },
    "texture": {
        "plain": ("plain", "solid", "filled"),
        "striped": ("striped", "stripy", "banded"),
        "dotted": ("dotted", "spotted", "speckled"),
        "checked": ("checked", "checkered"),
        "hollow": ("hollow", "outlined", "empty"),
    },
    "colour": {
        "red": ("red", "scarlet", "crimson"),
        "orange": ("orange", "amber", "tangerine"),
        "yellow": ("yellow", "golden", "lemon"),
        "green": ("green", "emerald", "lime"),
        "teal": ("teal", "turquoise", "cyan"),
        "blue": ("blue", "azure", "cobalt"),
        "purple": ("purple", "violet", "lilac"),
        "pink": ("pink", "rosy", "magenta"),
        "brown": ("brown", "chocolate", "chestnut"),
        "grey": ("grey", "gray", "silver"),
        "black": ("black", "ebony"),
        "white": ("white", "ivory"),
    },
}
# Said after the noun instead of before it.
TEXTURE_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "plain": ("without a pattern",),
    "striped": ("with stripes", "with bands"),
    "dotted": ("with dots", "with spots"),
    "checked": ("with checks", "with a checkerboard pattern"),
    "hollow": ("with nothing inside",),
}
COLOUR_ENDINGS = ("painted {}", "coloured {}", "in {}")

PLACE_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "left": ("on the left", "at the left edge", "on the left side"),
    "right": ("on the right", "at the right edge", "on the right side"),
    "top": ("at the top", "near the upper edge", "high up"),
    "bottom": ("at the bottom", "near the lower edge", "low down"),
    "middle": ("in the middle", "in the centre", "in the center"),
    "top left": ("in the top left corner", "in the upper left"),
    "top right": ("in the top right corner", "in the upper right"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}

# Spatial relations follow a noun or one of VERBS; "{}" is the other noun phrase.
SPATIAL: Mapping[str, tuple[str, ...]] = {
    "left": ("to the left of {}", "left of {}", "on the left side of {}"),
    "right": ("to the right of {}", "right of {}", "on the right side of {}"),
    "above": ("above {}", "over {}", "higher than {}"),
    "below": ("below {}", "under {}", "beneath {}", "underneath {}", "lower than {}"),
    "near": ("near {}", "close to {}", "next to {}", "beside {}"),
    "far": ("far from {}", "far away from {}", "a long way from {}"),
}
VERBS = ("is", "sits", "lies", "rests", "stands", "appears", "is placed", "hangs", "waits")
# Comparisons follow a noun or "is".
COMPARATIVE: Mapping[str, tuple[str, ...]] = {
    "bigger": ("bigger than {}", "larger than {}"),
    "smaller": ("smaller than {}",),
    "same colour": ("of the same colour as {}", "of the same hue as {}", "coloured like {}"),
    "same shape": ("of the same shape as {}", "of the same form as {}", "shaped like {}"),
    "same texture": ("of the same texture as {}", "patterned like {}", "decorated like {}"),
}
# The same claim with the two things exchanged; relations not listed are symmetric.
CONVERSES: Mapping[str, str] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "bigger": "smaller",
    "smaller": "bigger",
}

SETTING_PHRASES: Mapping[str, tuple[str, ...]] = {
    "beach": ("on a beach", "on the sand", "by the seaside", "on a sandy shore"),
    "meadow": ("in a meadow", "on a lawn", "on the grass", "in a grassy field"),
    "snow": ("in the snow", "on a snowy slope", "on a frozen lake", "on the ice"),
    "sea": ("on the water", "at sea", "among the waves", "on the ocean"),
    "desert": ("in the desert", "among the dunes", "on a dry plain"),
    "wall": ("on a brick wall", "against a wall", "in front of bricks"),
    "table": ("on a wooden table", "on a desk", "on wooden planks"),
    "paper": ("on a sheet of paper", "on a page", "in a notebook"),
    "sky": ("in the sky", "among the clouds", "up in the air"),
    "street": ("on a street", "on the pavement", "in the road"),
}
SETTING_NOUNS: Mapping[str, tuple[str, ...]] = {
    "beach": ("a beach", "a sandy coast"),
    "meadow": ("a meadow", "a grassy hill"),
    "snow": ("a snowy landscape", "a winter scene"),
    "sea": ("an ocean view", "a sea"),
    "desert": ("a desert", "a dry landscape"),
    "wall": ("a brick wall", "a wall"),
    "table": ("a wooden table", "a table"),
    "paper": ("a sheet of paper", "a notebook page"),
    "sky": ("a cloudy sky", "a sky"),
    "street": ("a street", "a city road"),
}
LIGHT_PHRASES: Mapping[str, tuple[str, ...]] = {
    "dawn": ("at dawn", "in the morning", "at sunrise", "early in the day"),
    "noon": ("at noon", "in bright daylight", "at midday", "in full sun"),
    "dusk": ("at dusk", "in the evening", "at sunset", "late in the day"),
    "night": ("at night", "in the dark", "by moonlight", "after midnight"),
}

# Frames around a noun phrase or a list of them; "{be}" agrees with the first, "{are}" with all.
FRAMES = (
    "there {be} {}",
    "{}",
    "a picture of {}",
    "the picture shows {}",
    "you can see {}",
    "an image of {}",
    "we see {}",
    "the scene contains {}",
    "a drawing with {}",
    "here {be} {}",
    "someone has drawn {}",
    "this view includes {}",
    "an illustration of {}",
    "notice {}",
)
# Frames whose verb comes last, for noun phrases without commas.
SHORT_FRAMES = (*FRAMES[:4], "{} can be seen", "somebody put {} here", "{} {are} visible")
SETTING_FRAMES = ("{place} with {}", "a picture of {place} with {}", "{place} that holds {}")

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
GROUPS: Mapping[int, tuple[str, ...]] = {
    2: ("two", "a pair of", "a couple of"),
    3: ("three", "a trio of", "a group of three"),
    4: ("four", "a group of four"),
    5: ("five", "a group of five"),
    6: ("six", "a group of six"),
}
EXACT = ("exactly {}", "just {}", "only {}", "precisely {}")
TOTALS = (
    "{} things in all",
    "{} objects in total",
    "{} items altogether",
)

# What adds loose things to related ones, after a noun phrase and after a clause.
LINKS = (", along with {}", ", together with {}", ", as well as {}", ", and also {}")
CLAUSE_LINKS = (", and there {be} {}", ", while {} {are} there too", "; there {be} also {}")


class Denial(NamedTuple):
    """A way to deny that something is there, and the number its noun takes."""

    text: str
    plural: bool


DENIALS = (
    Denial(", but no {}", False),
    Denial(", without any {}", True),
    Denial(", but there are no {}", True),
    Denial(", and not a single {}", False),
    Denial(", yet {} are absent", True),
)
RESTRICTED_DENIALS = (", but nothing {}", ", without anything {}", ", and nothing at all is {}")
