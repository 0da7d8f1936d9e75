"""What an inspection finds: facts about splits, and findings in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["problem", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing worth saying.

    Attributes:
        level: "problem" for what makes results wrong or stops a run, "note" for anything else.
        split: the split it is about, None for the whole dataset.
        text: what is the matter and what to do, one sentence or two.
    """

    level: Level
    split: str | None
    text: str


@dataclass(frozen=True)
class SplitFacts:
    """A split in figures.

    Attributes:
        name: of the split.
        images, captions: how many.
        captions_per_image: images by number of captions, ``{5: 29000}``.
        layout: how images and captions lie in the files, a sentence.
        ids: the range of the image ids, or that there are none.
    """

    name: str
    images: int
    captions: int
    captions_per_image: dict[int, int]
    layout: str
    ids: str


@dataclass
class Inspection:
    """All that is known of a dataset.

    Attributes:
        path: where it is.
        format: key of `goal_kernels.data.sources.FORMATS`.
        summary: the format in a few words.
        splits: those that could be read.
        findings: problems and notes.
        vocabulary: the vocabulary that `fit` would use, a sentence or two.
        plan: what `fit` would do, in sentences.
        command: the command line that does it; empty when it cannot.
    """

    path: str
    format: str
    summary: str
    splits: list[SplitFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    vocabulary: str = ""
    plan: list[str] = field(default_factory=list)
    command: str = ""

    def of_level(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def status(self) -> int:
        """Exit status: 0 fine, 1 problems found."""
        return 1 if self.of_level("problem") else 0

    def record(self) -> dict[str, Any]:
        """The same for machines, with ``status``."""
        return {"status": self.status, **asdict(self)}
