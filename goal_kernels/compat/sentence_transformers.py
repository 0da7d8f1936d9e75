"""A GOAL objective as a loss of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels import modules
from goal_kernels.checks import check_index_vector
from goal_kernels.distributed import DistributedGOALLoss
from goal_kernels.objective import Objective


class GOALLoss(nn.Module):
    """GOAL on (anchor, positive) or (anchor, positive, negative, ...) columns.

    The positives of other rows and all negative columns are the negatives of an anchor, the other
    anchors those of a positive; explicit negatives are anchors of nothing.

    Args:
        model: gives a dict with "sentence_embedding" [B, D] for the features of a column, as
            SentenceTransformer does.
        objective: as in `goal_loss`.
        gather_across_devices: whether negatives come from every process.
        normalize: True compares by cosines, False by inner products.
        reduction: "mean" over the pairs, or "sum".
        options: of `gk.GOALLoss` but return_stats. False-negative limits spare explicit negatives.

    Raises: as `gk.GOALLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective | str = "nca/sigmoid_ms",
        *,
        gather_across_devices: bool = False,
        normalize: bool = True,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__()
        self.model = model
        self.gather_across_devices = gather_across_devices
        kind = DistributedGOALLoss if gather_across_devices else modules.GOALLoss
        self.criterion = kind(objective, normalize=normalize, reduction=reduction, **options)

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """Features of two or more columns -> 0-d loss.

        labels: [B] integers or None; pairs of equal labels are never negatives of each other.
        """
        embeddings = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | None = None
    ) -> Tensor:
        """Columns, [B, D] each -> 0-d loss. Raises: ValueError for a single column; TypeError."""
        if len(embeddings) < 2:
            raise ValueError(
                "sentence_features: expected the columns (anchor, positive) and maybe negatives, "
                f"got {len(embeddings)}; classes of single texts are for "
                "goal_kernels.compat.metric_learning."
            )
        anchors, *texts = embeddings
        batch, device = len(anchors), anchors.device
        if labels is not None:
            labels = check_index_vector("labels", labels, batch, device)
        if len(texts) == 1:
            return self.criterion(anchors, texts[0], labels)
        candidates = torch.cat(texts)
        owner = torch.arange(len(candidates), device=device)
        owner = torch.where(owner < batch, owner, -1)
        return self.criterion(
            anchors, candidates, labels, text_to_image=owner, exempt_texts=owner < 0
        )

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the loss."""
        criterion = self.criterion
        objective = criterion.objective
        return {
            "objective": objective.name,
            **objective.scalars._asdict(),
            **dict(objective.parameters),
            "negatives": str(criterion.negatives),
            "false_negative_margin": criterion.false_negative_margin,
            "false_negative_ratio": criterion.false_negative_ratio,
            "direction": criterion.direction,
            "normalize": criterion.normalize,
            "reduction": criterion.reduction,
            "gather_across_devices": self.gather_across_devices,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the paper, for a model card."""
        return """
@inproceedings{xuan2023dissecting,
    title = "Dissecting Deep Metric Learning Losses for Image-Text Retrieval",
    author = "Xuan, Hong and Chen, Xi",
    booktitle = "IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)",
    year = "2023",
    eprint = "2210.13188",
    archivePrefix = "arXiv",
}
"""
