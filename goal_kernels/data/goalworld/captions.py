"""Captions: true, partial, independent of each other, with the logical form kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from goal_kernels.data.goalworld.config import GoalWorldConfig
from goal_kernels.data.goalworld.describing import Describer, SceneFacts, collect_facts
from goal_kernels.data.goalworld.grammar import realise
from goal_kernels.data.goalworld.scenes import Scene, draw_family
from goal_kernels.data.goalworld.statements import Statement
from goal_kernels.data.goalworld.truth import Evaluator, PackedScenes

CAPTIONS_PER_IMAGE = 5
_TRIES = 20
# Random scenes that "rare" is judged by are the same for every seed.
_REFERENCE_SEED = 20_221_024


@dataclass(frozen=True)
class Caption:
    """An English caption and what it claims."""

    text: str
    statement: Statement


class Captioner:
    """Writes the captions of families of scenes.

    Args:
        config: of which ``detail``, ``contrast`` and ``rarity`` say how much captions give away.
    """

    def __init__(self, config: GoalWorldConfig) -> None:
        self._describer = Describer(config.detail)
        self._contrast = config.contrast
        self._others = None
        if config.rarity:
            self._others = Evaluator(_reference(config.rarity, config.objects))

    def caption_family(
        self, family: Sequence[Scene], rngs: Sequence[np.random.Generator]
    ) -> list[list[Caption]]:
        """``CAPTIONS_PER_IMAGE`` captions for each scene, drawn from the scene's own generator.

        Args:
            family: all scenes of one family.
            rngs: a generator for each scene to caption; with fewer than there are scenes, only
                the first ones get captions.
        """
        packed = PackedScenes.pack(family)
        siblings = Evaluator(packed)
        return [
            [self._caption(fact, rng, siblings) for _ in range(CAPTIONS_PER_IMAGE)]
            for fact, rng in zip(collect_facts(family, packed), rngs, strict=False)
        ]

    def _caption(self, facts: SceneFacts, rng: np.random.Generator, family: Evaluator) -> Caption:
        """One caption: the first of a few that is as exclusive as wanted, or the most so."""
        siblings = family if rng.random() < self._contrast else None
        chosen = self._describer.draw(facts, rng)
        least = self._also_true_of(chosen, siblings)
        for _ in range(_TRIES - 1):
            if least == (0, 0):
                break
            statement = self._describer.draw(facts, rng)
            others = self._also_true_of(statement, siblings)
            if others < least:
                chosen, least = statement, others
        return Caption(realise(chosen, rng), chosen)

    def _also_true_of(self, statement: Statement, family: Evaluator | None) -> tuple[int, int]:
        """How many siblings, and how many unrelated scenes, a true statement also fits."""
        # It is true of one scene of the family, its own, in any case.
        siblings = 0 if family is None else len(family.true_rows(statement)) - 1
        strangers = 0 if self._others is None else len(self._others.true_rows(statement))
        return siblings, strangers


@lru_cache(maxsize=4)
def _reference(count: int, objects: tuple[int, int]) -> PackedScenes:
    """``count`` random scenes without siblings."""
    rng = np.random.default_rng(_REFERENCE_SEED)
    return PackedScenes.pack([draw_family(rng, 0, objects)[0] for _ in range(count)])
