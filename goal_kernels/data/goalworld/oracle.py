"""Retrieval figures of the best ranking that uses the truth alone: the ceiling of a data set."""

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


def oracle_recalls(
    truth: TruthRelation,
    image_of_caption: NDArray[np.integer],
    groups: NDArray[np.integer] | None = None,
) -> OracleFigures:
    """What ranking by truth alone gives, in expectation, in the field's retrieval protocol.

    The oracle knows which captions are true of which images and nothing else. A caption that is
    true of T images was written for each of them with the same probability, 1 / T. So for a caption
    it puts the true images first, in random order; for an image the true captions first, those
    true of the fewest images before the others, equal ones in random order. Knowing the truth
    alone, no ranking has a higher expected R@1. The figures are exact expectations, not samples.

    - t2i R@K: none of the t right ones of a caption's T true images is among the first K with
      probability (T - t choose K) / (T choose K). Its own image is right, so t = 1 and R@K is
      min(K / T, 1); with groups, so are those of the same group that it is true of.
    - i2t R@K: of the C true captions as specific as the most specific own one, c are own, and B
      captions are more specific; with q = K - B places left none of the c is among the first q
      with probability (C - c choose q) / (C choose q). With groups, those of the group are own.

    Args:
        truth: relation of M captions and N images.
        image_of_caption: integers [M], the image that each caption was written for.
        groups: integers [N], equal ones for images of one thing, which evaluation then counts as
            right; the oracle itself does not know them. None: every image is a thing of its own.

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
    own_captions = np.bincount(image_of_caption, minlength=images)
    if own_captions.min() == 0:
        raise ValueError(
            f"image_of_caption: expected captions for all {images} images, "
            f"image {own_captions.argmin()} has none; drop it"
        )
    right = own if groups is None else groups[truth.indices] == groups[owners]
    true_images = truth.images_per_caption()
    right_images = np.add.reduceat(right, truth.indptr[:-1], dtype=np.int64)
    better, tied, wanted = _best_own_caption(truth, right)
    t2i = {k: _any_within(np.full(captions, k), true_images, right_images).mean() for k in CUTOFFS}
    i2t = {k: _any_within(k - better, tied, wanted).mean() for k in CUTOFFS}
    return {
        "i2t": {f"R@{k}": _percent(value) for k, value in i2t.items()},
        "t2i": {f"R@{k}": _percent(value) for k, value in t2i.items()},
        "rsum": _percent(sum(i2t.values()) + sum(t2i.values())),
    }


def _best_own_caption(
    truth: TruthRelation, own: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where each image's most specific own caption stands among the captions true of the image.

    own: bool [pairs], whether the pair's caption was written for its image. Returns int64 [N] each:
    captions that are more specific, that are as specific (its own included), and own ones of those.
    """
    images = truth.shape[1]
    counts = truth.images_per_caption()
    vagueness = np.repeat(counts, counts)  # [pairs]
    best = np.full(images, np.iinfo(np.int64).max)
    np.minimum.at(best, truth.indices[own], vagueness[own])
    of_best = best[truth.indices]
    chosen = (vagueness < of_best, vagueness == of_best, own & (vagueness == of_best))
    better, tied, wanted = (
        np.bincount(truth.indices[mask], minlength=images).astype(np.int64) for mask in chosen
    )
    return better, tied, wanted


def _any_within(
    places: NDArray[np.int64], total: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability that ``places`` draws without replacement out of ``total`` meet a wanted one."""
    missed = np.ones(len(total))
    for drawn in range(max(CUTOFFS)):
        unwanted = np.maximum(total - wanted - drawn, 0)
        share = unwanted / np.maximum(total - drawn, 1)
        missed *= np.where(drawn < places, share, 1.0)
    return 1.0 - missed


def _percent(share: float) -> float:
    """A share as a percentage with four decimals, which is all that a report needs."""
    return round(100.0 * float(share), 4)
