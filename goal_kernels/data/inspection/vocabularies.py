"""Which vocabulary a dataset would train with, and how many words it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from goal_kernels.data.inspection.findings import Finding, Inspection, Level
from goal_kernels.data.sources import Source
from goal_kernels.data.split import Split
from goal_kernels.data.vocabulary import MIN_COUNT, PICKLE_SUFFIXES, Vocabulary

MANY_UNKNOWN = 0.05  # share of unknown words in a split above which a note says so


def check_vocabulary(
    source: Source, splits: Mapping[str, Split], inspection: Inspection
) -> Iterator[Finding]:
    """Say in ``inspection.vocabulary`` which it is; findings about it."""
    vocabulary, text = None, ""
    reason = "is it of another dataset or tokenizer?"
    for path in source.vocabulary_files():
        try:
            vocabulary = Vocabulary.load(path)
            text = f"{path}, {len(vocabulary):,} words"
            break
        except ValueError as error:
            level: Level = "note" if path.suffix in PICKLE_SUFFIXES else "problem"
            yield Finding(level, None, f"vocabulary {error}")
    if vocabulary is None and "train" in splits:
        vocabulary = Vocabulary.from_captions(splits["train"].captions, MIN_COUNT)
        reason = "train captions use them too seldom; --data.min_count 1 keeps every word of train"
        text = (
            f"none is here; `fit` builds one from the words that train captions use {MIN_COUNT} "
            f"times or more ({len(vocabulary):,} words) and writes it into the run folder"
        )
    if vocabulary is None:
        inspection.vocabulary = "none is here, and no train split to build one from"
        return
    shares = {name: vocabulary.unknown_share(split.captions) for name, split in splits.items()}
    known = ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares.items())
    inspection.vocabulary = f"{text}; unknown words: {known}"
    for name, share in shares.items():
        if share > MANY_UNKNOWN:
            yield Finding(
                "note",
                name,
                f"{100 * share:.1f}% of the words are unknown to the vocabulary: {reason}",
            )
