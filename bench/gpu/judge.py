"""The float64 judge of the benchmarks with its matrices on the device."""

from __future__ import annotations

import torch
from comparators import check_indices, check_values
from torch import Tensor

from bench.baselines import Hardest
from bench.cases import Case, Inputs
from bench.gate import Judge
from goal_kernels import Objective
from goal_kernels.backends.answers import Mined
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.reference import mine_similarity, negative_mask


class DeviceJudge(Judge):
    """Everything of size B x B happens on the device of the inputs; the rest is inherited.

    A processor needs seconds for what the GPU does with the [8192, 8192] float64 matrix at once.
    """

    def __init__(self, case: Case, inputs: Inputs) -> None:
        super().__init__(case, inputs)
        self.device = inputs.image.device
        self.similarity = self.similarity.to(self.device)
        batch = case.batch
        self.allowed = negative_mask(batch, batch, Pairing(), self.device)

    def check_product(self, found: Tensor) -> None:
        """As `Judge.check_product`."""
        check_values(found, self.similarity.cpu(), self.error(stored=True), "similarity")

    def check_hardest(self, found: Hardest, stored: bool) -> None:
        """As `Judge.check_hardest`."""
        error = self.error(stored)
        text, image = found.hardest_text, found.hardest_image
        with self.device:
            check_indices(self.similarity, self.allowed, text, error, "hardest_text")
            check_indices(self.similarity.T, self.allowed.T, image, error, "hardest_image")
        row = torch.arange(len(text), device=self.device)
        for name, value, expected in (
            ("positive", found.positive, self.positive),
            ("negative_text", found.negative_text, self.similarity[row, text].cpu()),
            ("negative_image", found.negative_image, self.similarity[image, row].cpu()),
        ):
            check_values(value, expected, error, name)

    def _mined(self, objective: Objective, given: tuple[Tensor, Tensor], shift: float) -> Mined:
        kind, threshold = objective.pair_element.relative, self.positive.min() - objective.epsilon
        query = RelativeQuery(kind, (threshold - shift).to(self.device), objective.beta)
        there = (given[0].to(self.device), given[1].to(self.device))
        mined = mine_similarity(self.similarity, Pairing(), query, there)
        return Mined(*(x.cpu() for x in mined))
