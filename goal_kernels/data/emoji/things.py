"""Which things there are, what people call them, and who has drawn them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from goal_kernels.data.emoji.packages import Archive
from goal_kernels.data.sources.table import place_of, split_at

DEV_SHARE, TEST_SHARE = 0.1, 0.21  # of the base code points; people, 120 things, are in train
MAX_KEYWORD_TEXTS = 4
MIN_KEYWORDS, MAX_KEYWORDS = 3, 5  # in a text
# Groups of emojibase: parts of other emoji (2) and flags (9), whose names cannot be seen in them.
_LEFT_OUT = (None, 2, 9)
# Variants of one thing that have code points of their own, by the one that stands for them all.
_BASE_OF = {
    variant: base
    for base, variants in {
        # Man, woman; families and couples, which are drawn as men and women too; Santa, Mrs Claus.
        "1f9d1": "1f468 1f469 1f46a 1f46b 1f46c 1f46d 1f48f 1f491 1f385 1f936",
        "1f9d2": "1f466 1f467",  # boy, girl
        "1f9d3": "1f474 1f475",  # old man, old woman
        "1fac5": "1f478 1f934",  # princess, prince
        "1f57a": "1f483",  # dancing
        "1f930": "1fac3 1fac4",  # pregnant
        "1f935": "1f470",  # in wedding clothes
    }.items()
    for variant in variants.split()
}


class Thing(NamedTuple):
    """A thing that an emoji stands for.

    number: from 0, the same whoever drew it. code: its code points, lower-case hexadecimal,
    without variation selectors. texts: its name, then lists of keywords. split: of all variants.
    """

    number: int
    code: str
    texts: list[str]
    split: str


class IconSet:
    """The drawings of one vendor, as iconify has them."""

    def __init__(self, archive: Archive) -> None:
        icons = archive.json("icons.json")
        self.name: str = icons["prefix"]
        self.names: Mapping[str, str] = archive.json("chars.json")
        self._icons: Mapping[str, Mapping[str, Any]] = icons["icons"]
        self._aliases: Mapping[str, Mapping[str, Any]] = icons.get("aliases", {})
        self._width, self._height = icons["width"], icons["height"]

    def find(self, code: str, name: str) -> str | None:
        """The drawing of code points, else of that ``name``: a square SVG; None where is none."""
        name = self.names.get(code, name)
        mirrored = False
        while name in self._aliases:
            alias = self._aliases[name]
            mirrored ^= alias.get("hFlip", False)
            name = alias["parent"]
        if name not in self._icons:
            return None
        icon = self._icons[name]
        body = icon["body"]
        width, height = icon.get("width", self._width), icon.get("height", self._height)
        if mirrored:
            body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100" '
            f'viewBox="0 0 {width} {height}">{body}</svg>'
        )


def read_things(names: Archive, keywords: Archive) -> list[Thing]:
    """All things but flags, in emojibase's order, with 1 to 5 texts each."""
    more = {
        _code([ord(character) for character in emoji]): words
        for emoji, words in keywords.json("dist/emoji-en-US.json").items()
    }
    known = [e for e in names.json("en/data.json") if e.get("group") not in _LEFT_OUT]
    things = []
    for number, entry in enumerate(known):
        code = _code([int(point, 16) for point in entry["hexcode"].split("-")])
        texts = _texts(entry["label"], [*entry["tags"], *more.get(code, ())])
        things.append(Thing(number, code, texts, _split(code)))
    return things


def find_drawings(things: Sequence[Thing], sets: Sequence[IconSet]) -> list[dict[str, str]]:
    """For each thing the SVG of its drawings, by the vendor's name.

    Some sets do not say which code points a drawing is for; there it is found by the name that
    the first one, Noto's, has for them. What one vendor draws alike for several things shows none
    of them and is left out.
    """
    drawings: list[dict[str, str]] = [{} for _ in things]
    for icons in sets:
        found = [icons.find(thing.code, sets[0].names.get(thing.code, "")) for thing in things]
        uses = Counter(found)
        for drawn, svg in zip(drawings, found, strict=True):
            if svg is not None and uses[svg] == 1:
                drawn[icons.name] = svg
    return drawings


def _code(points: Sequence[int]) -> str:
    """Code points as iconify writes them: hexadecimal, dashes between, no U+FE0F."""
    return "-".join(f"{point:04x}" for point in points if point != 0xFE0F)


def _split(code: str) -> str:
    """The split of a base code point, which gender and role variants share."""
    first = code.partition("-")[0]
    return split_at(place_of(_BASE_OF.get(first, first), 0), DEV_SHARE, TEST_SHARE)


def _texts(name: str, keywords: Sequence[str]) -> list[str]:
    """The name, then up to four texts of three to five keywords.

    Keywords are dealt out to the texts in turn. Repeated ones are left out, and so are numbers and
    emoticons: those without a letter or that begin with a mark.
    """
    tidy = (" ".join(word.replace("_", " ").split()) for word in keywords)
    distinct: dict[str, str] = {}
    for word in filter(_is_word, tidy):
        distinct.setdefault(word.casefold(), word)
    distinct.pop(name.casefold(), None)
    kept = list(distinct.values())[: MAX_KEYWORD_TEXTS * MAX_KEYWORDS]
    count = min(MAX_KEYWORD_TEXTS, len(kept) // MIN_KEYWORDS)
    return [name, *(", ".join(kept[text::count]) for text in range(count))]


def _is_word(text: str) -> bool:
    """Whether it begins with a letter or digit and has a letter."""
    return text[:1].isalnum() and any(map(str.isalpha, text))
