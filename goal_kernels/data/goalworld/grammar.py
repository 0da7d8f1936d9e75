"""Putting a statement into English, in one of many ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from goal_kernels.data.goalworld.lexicon import (
    ADJECTIVES,
    ANY_NOUNS,
    CLAUSE_LINKS,
    COLOUR_ENDINGS,
    COMPARATIVE,
    CONVERSES,
    DENIALS,
    EXACT,
    FRAMES,
    GROUPS,
    LIGHT_PHRASES,
    LINKS,
    NUMBERS,
    PLACE_ENDINGS,
    RESTRICTED_DENIALS,
    SETTING_FRAMES,
    SETTING_NOUNS,
    SETTING_PHRASES,
    SHAPE_NOUNS,
    SHORT_FRAMES,
    SPATIAL,
    TEXTURE_ENDINGS,
    TOTALS,
    VERBS,
    pick,
)
from goal_kernels.data.goalworld.statements import Description, Statement, Tally

# How often each optional turn of phrase is taken.
_TEXTURE_ENDING = 0.25
_COLOUR_ENDING = 0.08
_CONVERSE = 0.3
_CLAUSE = 0.5
_INVERSION = 0.3
_ADVERB_FIRST = 0.3
_SETTING_FRAME = 0.3
_FULL_STOP = 0.6


class _Phrase(NamedTuple):
    """A noun phrase, whether a verb before it is plural, and whether one after it is."""

    text: str
    plural: bool
    plural_after: bool


def realise(statement: Statement, rng: np.random.Generator) -> str:
    """One English sentence or title that says just what ``statement`` says.

    It is a function of the statement and of the state of ``rng``. The relations of a statement
    are expected as ``describing.Describer`` makes them: none, one from thing 0 to 1, or a second
    one from thing 0 or 1 to 2.
    """
    return _Speaker(rng).caption(statement)


class _Speaker:
    """Chooses words and turns of phrase with one source of randomness."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def caption(self, statement: Statement) -> str:
        """The whole caption."""
        denied = [tally.description for tally in statement.tallies if tally.count == 0]
        totals = [tally.count for tally in statement.tallies if tally.description == Description()]
        text = self._core(statement)
        for total in totals:
            text += f", {pick(self._rng, TOTALS).format(NUMBERS[total])}"
        for description in denied:
            text += self._denial(description)
        stop = "." if self._chance(_FULL_STOP) else ""
        return f"{text[0].upper()}{text[1:]}{stop}"

    def _core(self, statement: Statement) -> str:
        """What is there, with the setting and the light."""
        loose = self._loose(statement)
        if statement.relations and self._chance(_CLAUSE):
            text = self._clause(statement)
            if loose:
                link = pick(self._rng, CLAUSE_LINKS)
                text += _fill(link, _listed(loose))
            return self._with_adverbs(text, statement.setting, statement.light)
        subject = self._subject(statement, loose)
        setting = statement.setting
        if setting is not None and self._chance(_SETTING_FRAME):
            place = pick(self._rng, SETTING_NOUNS[setting])
            text = pick(self._rng, SETTING_FRAMES).format(subject.text, place=place)
            return self._with_adverbs(text, None, statement.light)
        frames = FRAMES if "," in subject.text or self._chance(0.5) else SHORT_FRAMES
        text = _fill(pick(self._rng, frames), subject)
        return self._with_adverbs(text, setting, statement.light)

    def _loose(self, statement: Statement) -> list[_Phrase]:
        """Phrases for what stands in no relation: groups of like things, and exact numbers."""
        related = {
            index for claim in statement.relations for index in (claim.subject, claim.object)
        }
        alone = Counter(
            thing for index, thing in enumerate(statement.things) if index not in related
        )
        counted = [
            self._exactly(tally)
            for tally in statement.tallies
            if tally.count and tally.description != Description()
        ]
        return counted + [self._group(thing, count) for thing, count in alone.items()]

    def _subject(self, statement: Statement, loose: Sequence[_Phrase]) -> _Phrase:
        """All that is there as one noun phrase."""
        if not statement.relations:
            return _listed(loose)
        names = [claim.name for claim in statement.relations]
        first, *others = self._related(statement)
        if len(names) == 1:
            text = self._pair(first, names[0], others[0])
        else:
            ends = [self._relation(name, other) for name, other in zip(names, others, strict=True)]
            joint = " and " if statement.relations[1].subject == 0 else pick(self._rng, _WHICH)
            text = f"{first} {ends[0]}{joint}{ends[1]}"
        if loose:
            text += pick(self._rng, LINKS).format(_listed(loose).text)
        return _Phrase(text, False, False)

    def _related(self, statement: Statement) -> list[str]:
        """Noun phrases for the things that stand in relations: two or three."""
        things = statement.things[: len(statement.relations) + 1]
        return [self._group(thing, 1).text for thing in things]

    def _pair(self, first: str, name: str, second: str) -> str:
        """Two noun phrases in relation, either of them first."""
        if self._chance(_CONVERSE):
            return f"{second} {self._relation(CONVERSES.get(name, name), first)}"
        return f"{first} {self._relation(name, second)}"

    def _clause(self, statement: Statement) -> str:
        """The related things as a clause with a verb of its own."""
        names = [claim.name for claim in statement.relations]
        first, *others = self._related(statement)
        end = self._relation(names[0], others[0])
        verb = self._verb(names[0])
        if len(names) == 1:
            if names[0] in SPATIAL and self._chance(_INVERSION):
                return f"{end} {verb} {first}"
            return f"{first} {verb} {end}"
        second_end = self._relation(names[1], others[1])
        if statement.relations[1].subject == 0:
            both_spatial = names[0] in SPATIAL and names[1] in SPATIAL
            return f"{first} {verb if both_spatial else 'is'} {end} and {second_end}"
        return f"{first} {verb} {end}, which {self._verb(names[1])} {second_end}"

    def _verb(self, name: str) -> str:
        """A verb that can carry the relation."""
        return pick(self._rng, VERBS) if name in SPATIAL else "is"

    def _relation(self, name: str, other: str) -> str:
        """The relation to ``other`` as a phrase."""
        table = SPATIAL if name in SPATIAL else COMPARATIVE
        return pick(self._rng, table[name]).format(other)

    def _exactly(self, tally: Tally) -> _Phrase:
        """Exactly so many things."""
        number = pick(self._rng, EXACT).format(NUMBERS[tally.count])
        return _Phrase(f"{number} {self._named(tally.description, True)}", True, True)

    def _group(self, description: Description, count: int) -> _Phrase:
        """One thing with its article, or several alike with their number."""
        if count > 1:
            number = pick(self._rng, GROUPS[count])
            return _Phrase(f"{number} {self._named(description, True)}", True, True)
        name = self._named(description, False)
        return _Phrase(f"{'an' if name[0] in 'aeio' else 'a'} {name}", False, False)

    def _named(self, description: Description, plural: bool) -> str:
        """Adjectives, noun and endings, without article."""
        before = []
        after = []
        if description.size is not None:
            before.append(pick(self._rng, ADJECTIVES["size"][description.size]))
        if description.texture is not None:
            if self._chance(_TEXTURE_ENDING):
                after.append(pick(self._rng, TEXTURE_ENDINGS[description.texture]))
            else:
                before.append(pick(self._rng, ADJECTIVES["texture"][description.texture]))
        if description.colour is not None:
            if not after and self._chance(_COLOUR_ENDING):
                after.append(pick(self._rng, COLOUR_ENDINGS).format(description.colour))
            else:
                before.append(pick(self._rng, ADJECTIVES["colour"][description.colour]))
        if description.place is not None:
            after.append(pick(self._rng, PLACE_ENDINGS[description.place]))
        nouns = ANY_NOUNS if description.shape is None else SHAPE_NOUNS[description.shape]
        noun = pick(self._rng, nouns)
        return " ".join([*before, noun.plural if plural else noun.singular, *after])

    def _denial(self, description: Description) -> str:
        """That nothing fits the description, to be added at the end."""
        if description.shape is None and description.colour is not None:
            colour = pick(self._rng, ADJECTIVES["colour"][description.colour])
            return pick(self._rng, RESTRICTED_DENIALS).format(colour)
        template = pick(self._rng, DENIALS)
        return template.text.format(self._named(description, template.plural))

    def _with_adverbs(self, text: str, setting: str | None, light: str | None) -> str:
        """Add the setting and the light, before or after."""
        tables = (SETTING_PHRASES, setting), (LIGHT_PHRASES, light)
        adverbs = [
            pick(self._rng, phrases[value]) for phrases, value in tables if value is not None
        ]
        if not adverbs:
            return text
        adverb = " ".join(adverbs)
        if self._chance(_ADVERB_FIRST):
            return f"{adverb}, {text}"
        return f"{text} {adverb}"

    def _chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._rng.random() < probability)


_WHICH = (", which is ", " that is ")


def _fill(frame: str, phrase: _Phrase) -> str:
    """The phrase in a frame, whose verbs are made to agree with it."""
    return frame.format(
        phrase.text,
        be="are" if phrase.plural else "is",
        are="are" if phrase.plural_after else "is",
    )


def _listed(phrases: Sequence[_Phrase]) -> _Phrase:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(phrases) == 1:
        return phrases[0]
    texts = [phrase.text for phrase in phrases]
    return _Phrase(f"{', '.join(texts[:-1])} and {texts[-1]}", phrases[0].plural, True)
