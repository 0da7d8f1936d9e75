"""What an inspection finds, facts about splits and findings, and all of it as plain text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from textwrap import fill
from typing import Any, Literal

import numpy as np

from goal_kernels.data.layout import FEATURES, INDEX
from goal_kernels.data.precomputed import open_features
from goal_kernels.data.split import PictureSplit, PrecomputedSplit, Split

Level = Literal["problem", "note"]
WIDTH = 96
HISTOGRAM_BAR = 40  # characters of the longest bar
HISTOGRAM_ROWS = 12


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
        groups: how many groups the images make, None where they have none.
    """

    name: str
    images: int
    captions: int
    captions_per_image: dict[int, int]
    layout: str
    ids: str
    groups: int | None = None


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


def facts_of(split: Split) -> SplitFacts:
    """The split in figures and words."""
    times, images = np.unique(split.captions_per_image(), return_counts=True)
    return SplitFacts(
        name=split.name,
        images=len(split.image_ids),
        captions=len(split.captions),
        captions_per_image=dict(zip(times.tolist(), images.tolist(), strict=True)),
        layout=_layout(split),
        ids=_ids(split),
        groups=None if split.groups is None else int(split.groups.max()) + 1,
    )


def _layout(split: Split) -> str:
    """How images and captions lie in the files; of features, what the ratio of rows means."""
    if not isinstance(split, PrecomputedSplit):
        assert isinstance(split, PictureSplit)
        return f"{len(split.names):,} image files below {split.image_root}"
    path = split.folder / f"{split.name}{FEATURES}"
    rows, regions, width = open_features(path).shape
    megabytes = path.stat().st_size / 1e6
    images, captions = len(split.image_ids), len(split.captions)
    if (split.folder / f"{split.name}{INDEX}").is_file():
        ratio = f"{split.name}{INDEX} says which of {captions:,} captions is whose"
    elif rows != images:
        most = "" if captions % images else f" {captions // images} times"
        ratio = f"rows are repeated{most}: {rows:,} rows are {images:,} images"
    else:
        each = captions // rows
        ratio = f"{captions:,} captions for {rows:,} rows: {each} a row"
    regions_text = f"{regions} regions of " if regions > 1 else ""
    dtype = split.features.dtype
    return f"{ratio}; {regions_text}{width} numbers, {dtype}, {megabytes:,.0f} MB"


def _ids(split: Split) -> str:
    if split.numbered:
        return "none, images count as 0, 1, 2, ..."
    return f"{split.image_ids.min()} to {split.image_ids.max()}"


def describe(inspection: Inspection) -> str:
    """The whole report: what it is, its splits, the vocabulary, problems, notes, what to do."""
    parts = [f"{inspection.path}: {inspection.format}\n  {inspection.summary}"]
    if inspection.splits:
        parts.append(_table(inspection.splits))
        parts.append(_paragraph("layout", [f"{s.name}: {s.layout}" for s in inspection.splits]))
    if grouped := [s for s in inspection.splits if s.groups is not None]:
        lines = [f"{s.name}: {s.images:,} images of {s.groups:,} groups" for s in grouped]
        parts.append(_paragraph("groups", lines))
    for split in inspection.splits:
        if len(split.captions_per_image) > 1:
            parts.append(_histogram(split))
    if inspection.vocabulary:
        parts.append(_paragraph("vocabulary", [inspection.vocabulary]))
    problems, notes = inspection.of_level("problem"), inspection.of_level("note")
    if problems:
        parts.append(_findings(f"PROBLEMS ({len(problems)})", problems))
    if notes:
        parts.append(_findings("notes", notes))
    if inspection.plan:
        parts.append(_paragraph("fit", inspection.plan))
    if inspection.command:
        parts.append(f"command\n  {inspection.command}")
    parts.append("problems found" if problems else "no problems found")
    return "\n\n".join(parts)


def _table(splits: list[SplitFacts]) -> str:
    lines = [f"{'split':<12}{'images':>10}{'captions':>12}  {'captions an image':<20}image ids"]
    for split in splits:
        times = sorted(split.captions_per_image)
        each = str(times[0]) if len(times) == 1 else f"{times[0]} to {times[-1]}"
        figures = f"{split.images:>10,}{split.captions:>12,}"
        lines.append(f"{split.name:<12}{figures}  {each:<20}{split.ids}")
    return "\n".join(lines)


def _histogram(split: SplitFacts) -> str:
    """Images by number of captions, the most frequent numbers, as bars."""
    counts = split.captions_per_image
    shown = sorted(sorted(counts, key=lambda times: -counts[times])[:HISTOGRAM_ROWS])
    most = max(counts.values())
    lines = [f"captions an image in {split.name}"]
    for times in shown:
        bar = "#" * max(1, round(HISTOGRAM_BAR * counts[times] / most))
        lines.append(f"  {times:>5}  {counts[times]:>9,} images  {bar}")
    if len(shown) < len(counts):
        rest = sum(counts.values()) - sum(counts[times] for times in shown)
        lines.append(f"  other  {rest:>9,} images")
    return "\n".join(lines)


def _findings(title: str, findings: list[Finding]) -> str:
    return _paragraph(title, [f"{f.split}: {f.text}" if f.split else f.text for f in findings])


def _paragraph(title: str, sentences: list[str]) -> str:
    """A title and its sentences, each from a line of its own, wrapped."""
    wrapped = [
        fill(
            sentence,
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for sentence in sentences
    ]
    return "\n".join([title, *wrapped])
