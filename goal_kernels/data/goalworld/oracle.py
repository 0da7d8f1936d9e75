"""The retrieval figures of somebody who knows exactly which captions are true of which images."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from goal_kernels.data.truth_relation import TruthRelation

CUTOFFS = (1, 5, 10)


class OracleFigures(TypedDict):
    """Expected recalls in percent, by direction and ``"R@K"``, and their sum."""

    i2t: dict[str, float]
    t2i: dict[str, float]
    rsum: float


def oracle_recalls(truth: TruthRelation, image_of_caption: NDArray[np.integer]) -> OracleFigures:
    """What ranking by truth alone gives, in expectation, in the field's retrieval protocol.

    For a caption the oracle puts the images that it is true of first, in random order; for an
    image the captions that are true of it. The figures are exact expectations over that order,
    not samples. A ranker that also knows which true things the captions' writer is *likely* to
    say can do better, so this is the ceiling of understanding the captions, not of guessing.

    - t2i R@K: the caption's own image is among the first K of T with probability min(K / T, 1).
    - i2t R@K: of C true captions, c are the image's own; none of them is among the first K with
      probability (C - c choose K) / (C choose K).

    Args:
        truth: relation of M captions and N images.
        image_of_caption: integers [M], the image that each caption was written for.

    Raises:
        ValueError: a caption is not true of its own image, or an image has no caption.
    """
    captions, images = truth.shape
    owners = np.repeat(image_of_caption, truth.images_per_caption())
    own = truth.indices == owners
    if own.sum() != captions:
        raise ValueError(
            f"truth: expected each of the {captions} captions to be true of its own image, "
            f"holds for {own.sum()}; generate the captions again"
        )
    true_images = truth.images_per_caption()
    true_captions = truth.captions_per_image()
    own_captions = np.bincount(image_of_caption, minlength=images)
    if own_captions.min() == 0:
        raise ValueError(
            f"image_of_caption: expected captions for all {images} images, "
            f"image {own_captions.argmin()} has none; drop it"
        )
    t2i = {k: np.minimum(k / true_images, 1.0).mean() for k in CUTOFFS}
    i2t = {k: _any_within(k, true_captions, own_captions).mean() for k in CUTOFFS}
    return {
        "i2t": {f"R@{k}": _percent(value) for k, value in i2t.items()},
        "t2i": {f"R@{k}": _percent(value) for k, value in t2i.items()},
        "rsum": _percent(sum(i2t.values()) + sum(t2i.values())),
    }


def _any_within(
    cutoff: int, total: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability that ``cutoff`` draws without replacement out of ``total`` meet a wanted one."""
    missed = np.ones(len(total))
    for drawn in range(cutoff):
        unwanted = np.maximum(total - wanted - drawn, 0)
        missed *= unwanted / np.maximum(total - drawn, 1)
    return 1.0 - missed


def _percent(share: float) -> float:
    """A share as a percentage with four decimals, which is all that a report needs."""
    return round(100.0 * float(share), 4)
