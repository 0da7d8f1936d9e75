"""Every number the objective depends on, in one place: value, unit, reason, source.

Similarities are dimensionless; for rows of unit length they are cosines in [-1, 1]. "Paper" is
*Dissecting Deep Metric Learning Losses for Image-Text Retrieval*, arXiv 2210.13188.
"""

from __future__ import annotations

TAU = 10.0
"""Sharpness of the NCA and circle triplet weights, 1 / similarity. Paper, experiments."""

ALPHA = 2.0
"""Slope of the sigmoid pair weight of the positive, 1 / similarity. Paper, experiments."""

BETA = 10.0
"""Slope of the sigmoid pair weight of the negative, 1 / similarity. Paper, experiments."""

LAM = 0.5
"""Midpoint of both sigmoid pair weights, a similarity. Paper, experiments."""

EPSILON = 0.1
"""Slack that decides which pairs count as relatively similar, a similarity. Paper, `_ms`."""

MARGIN = 0.2
"""Margin of the hinge, a similarity. VSE++ and VSE-infinity."""

CIRCLE_OFFSET = 0.5
"""Constant in the circle triplet weight, a squared similarity. Paper."""

SHORTEST_LENGTH = 1e-12
"""Shorter rows are divided by this instead of their length, as F.normalize of torch does."""

LARGEST_COSINE = 1.05
"""Largest |similarity| of rows that count as of unit length.

Rows divided by their length in bfloat16 reach 1.02: each element is rounded three times by 2**-9.
"""

NO_INDEX = -1
"""Index of a hardest negative that does not exist (every candidate is masked)."""

NO_ID = -(1 << 63)
"""Id of a text that belongs to no image where ids of the images alone are given; none of those."""

COLLAPSE_GAP = 0.01
"""Mean |hardest negative - positive| below which training has collapsed, a similarity.

At the plateau all similarities are equal, so every gap is 0 and the hinge loss is 2 * B * margin.
A healthy batch spreads its gaps by several hundredths of a cosine, at any stage of training.
"""

RESCORE_ELEMENTS = 1 << 22
"""Elements of one temporary when similarities of given pairs are computed: 16 MiB in fp32."""

CACHED_ELEMENTS = 1 << 18
"""The same on a CPU, where what stays in the cache is made and read again several times faster."""

ARGSORT = "argsort"
TIE_RULES = ("expected", "optimistic", "pessimistic", ARGSORT)
"""What the rank among equal scores may be, see docs/evaluation.md."""

RELATIVE_KINDS = ("none", "linear", "exponential")
"""What the similarities of an anchor's other pairs may enter a weight as. Paper, `_ms`."""
