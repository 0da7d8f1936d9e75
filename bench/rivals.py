"""pytorch-metric-learning as a method: the same hinge, put together from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import SumReducer
from torch import Tensor

from bench.cases import Case, Inputs
from bench.methods import Training
from goal_kernels import MinedPairs

if TYPE_CHECKING:
    from bench.judge import Judge


class MetricLearning(Training):
    """BatchHardMiner and TripletMarginLoss, once with images and once with texts as anchors.

    Dot products as they are (the embeddings have unit length already), the objective's margin, no
    swap, and a sum over anchors make it hinge/constant to the letter. Each label occurs once on
    either side, so the hardest positive is the only one.
    """

    def __init__(self, case: Case, inputs: Inputs) -> None:
        super().__init__(case, inputs)
        self.distance = DotProductSimilarity(normalize_embeddings=False)
        self.miner = BatchHardMiner(distance=self.distance)
        self.triplet_loss = TripletMarginLoss(
            margin=self.objective.margin, distance=self.distance, reducer=SumReducer()
        )
        self.labels = torch.arange(case.batch, device=self.image.device)
        # A second tensor: one and the same would tell the library to leave the diagonal out.
        self.reference_labels = self.labels.clone()

    def _mine(self, anchors: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and hardest negatives, int64 [B] each."""
        found: tuple[Tensor, Tensor, Tensor] = self.miner(
            anchors, self.labels, others, self.reference_labels
        )
        return found

    def _direction(self, anchors: Tensor, others: Tensor) -> Tensor:
        triplets = self._mine(anchors, others)
        loss: Tensor = self.triplet_loss(
            anchors, self.labels, triplets, others, self.reference_labels
        )
        return loss

    def loss(self) -> Tensor:
        return self._direction(self.image, self.text) + self._direction(self.text, self.image)

    def hardest(self) -> MinedPairs:
        image, text = self.image.detach(), self.text.detach()
        hardest_text, hardest_image = self._mine(image, text)[2], self._mine(text, image)[2]
        similarity = self.distance(image, text).float()
        row = torch.arange(self.case.batch, device=image.device)
        return MinedPairs(
            similarity.diagonal(),
            similarity[row, hardest_text],
            hardest_text,
            similarity[hardest_image, row],
            hardest_image,
        )

    def verify(self, judge: Judge) -> None:
        judge.check_objective(self.objective, self.outcome(), stored=True)
