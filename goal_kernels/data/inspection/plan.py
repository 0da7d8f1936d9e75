"""What `goal-kernels fit` would do with a dataset, and the command line for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from goal_kernels.data.inspection.findings import Inspection
from goal_kernels.data.sources import Source, SourceOptions
from goal_kernels.data.sources.base import DEV_NAMES
from goal_kernels.data.split import PictureSplit, Split

BATCH_SIZE = 128  # of the recipes
DEV_IMAGES = 1000  # the checkpoints of VSE++, SCAN and VSE-infinity are chosen on so many


def make_plan(source: Source, splits: Mapping[str, Split], inspection: Inspection) -> None:
    """Fill in ``inspection.plan`` and ``inspection.command``."""
    given = [f"--data.folder {shlex.quote(str(source.path))}"]
    default = SourceOptions()
    for name in sorted(source.options.changed()):
        value = getattr(source.options, name)
        if name == "columns":
            given += [f"--data.columns.{key} {shlex.quote(v)}" for key, v in value.items()]
        else:
            written = str(value).lower() if isinstance(getattr(default, name), bool) else str(value)
            given.append(f"--data.{name} {shlex.quote(written)}")
    train = splits.get("train")
    dev = next((splits[name] for name in DEV_NAMES if name in splits), None)
    if train is None or dev is None:
        lacking = "train" if train is None else "dev"
        inspection.plan.append(
            f"Nothing can be trained: there is no usable split {lacking}"
            + ("" if train is None else ", on which the checkpoint is chosen (--data.dev_split)")
            + ". A checkpoint can be evaluated: goal-kernels test --data.test_split NAME"
        )
        return
    steps = len(train.captions) // BATCH_SIZE
    inspection.plan.append(
        f"Trains on {len(train.captions):,} pairs of {len(train.image_ids):,} images, {steps:,} "
        f"steps of {BATCH_SIZE} an epoch."
    )
    if isinstance(train, PictureSplit):
        given += ["--model.image.kind grid", "--data.num_workers 4"]
    text = f"Chooses the checkpoint on the {len(dev.image_ids):,} images of {dev.name}"
    if len(dev.image_ids) > DEV_IMAGES:
        text += f"; published figures choose on the first {DEV_IMAGES}"
        given.append(f"--data.dev_limit {DEV_IMAGES}")
    inspection.plan.append(text + ".")
    tested = [name for name in ("test", "testall") if name in splits]
    if tested:
        inspection.plan.append(f"Tests on {tested[0]}" + _other_test(tested) + ".")
    else:
        inspection.plan.append("Tests on dev, since there is no split test.")
        given.append(f"--data.test_split {dev.name}")
    inspection.command = " ".join(["goal-kernels fit --config RECIPE", *given])


def _other_test(tested: list[str]) -> str:
    if len(tested) == 1:
        return ""
    return "; COCO's figures are on testall (--data.test_split testall)"
