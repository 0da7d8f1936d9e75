"""An inspection as plain text."""

from __future__ import annotations

from textwrap import fill

from goal_kernels.data.inspection.findings import Finding, Inspection, SplitFacts

WIDTH = 96
HISTOGRAM_BAR = 40  # characters of the longest bar
HISTOGRAM_ROWS = 12


def describe(inspection: Inspection) -> str:
    """The whole report: what it is, its splits, the vocabulary, problems, notes, what to do."""
    parts = [f"{inspection.path}: {inspection.format}\n  {inspection.summary}"]
    if inspection.splits:
        parts.append(_table(inspection.splits))
        parts.append(_paragraph("layout", [f"{s.name}: {s.layout}" for s in inspection.splits]))
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
