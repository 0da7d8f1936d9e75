"""Look at a dataset before training on it: is it what it seems, and what would `fit` do with it."""

from __future__ import annotations

from goal_kernels.data.inspection.checks import check_names, check_split, find_leakage
from goal_kernels.data.inspection.findings import Finding, Inspection, SplitFacts, facts_of
from goal_kernels.data.inspection.plan import check_vocabulary, make_plan
from goal_kernels.data.progress import Progress, no_progress
from goal_kernels.data.sources import Source
from goal_kernels.data.split import Split

__all__ = ["Finding", "Inspection", "SplitFacts", "inspect_source"]


def inspect_source(
    source: Source, *, everything: bool = False, progress: Progress = no_progress
) -> Inspection:
    """Open every split, check it, and compare the splits.

    Args:
        source: from `goal_kernels.data.open_source`.
        everything: decode every picture, not a sample of many.
        progress: called with (stage, done, total).

    Returns: the inspection; what is wrong with the data is a finding in it, not an exception.
    """
    inspection = Inspection(str(source.path), source.format, source.summary)
    splits: dict[str, Split] = {}
    try:
        names = source.names()
    except ValueError as error:
        inspection.findings.append(Finding("problem", None, str(error)))
        return inspection
    for name in names:
        try:
            split = source.open(name)
            inspection.splits.append(facts_of(split))
            inspection.findings += check_split(split, everything, progress)
        except (ValueError, OSError) as error:
            inspection.findings.append(Finding("problem", name, str(error)))
        else:
            splits[name] = split
    inspection.findings += check_names(source)
    inspection.findings += [Finding("problem", None, text) for text in source.problems()]
    inspection.findings += [Finding("note", None, remark) for remark in source.remarks()]
    inspection.findings += check_vocabulary(source, splits, inspection)
    inspection.findings += find_leakage(splits)
    make_plan(source, splits, inspection)
    return inspection
