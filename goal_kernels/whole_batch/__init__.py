"""Losses over all negatives of a batch, in blocks of rows of the similarity matrix."""

from goal_kernels.whole_batch.call import WholeBatchStatistics
from goal_kernels.whole_batch.functional import (
    circle_loss,
    info_nce_loss,
    multi_similarity_loss,
    siglip_loss,
    soft_margin_loss,
    sum_of_hinges_loss,
)
from goal_kernels.whole_batch.modules import (
    CircleLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    SigLIPLoss,
    SoftMarginLoss,
    SumOfHingesLoss,
)

__all__ = [
    "CircleLoss",
    "InfoNCELoss",
    "MultiSimilarityLoss",
    "SigLIPLoss",
    "SoftMarginLoss",
    "SumOfHingesLoss",
    "WholeBatchStatistics",
    "circle_loss",
    "info_nce_loss",
    "multi_similarity_loss",
    "siglip_loss",
    "soft_margin_loss",
    "sum_of_hinges_loss",
]
