"""Relations between the regions of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RegionReasoning(nn.Module):
    """Every region takes up what it is related to: v + BatchNorm(W R (G v)).

    R = (A v)(B v)' / K relates the K valid regions of an image. The BatchNorm starts with scale
    zero, so a new layer changes nothing. Source: VSRN (Li et al., ICCV 2019), equations 2 and 3;
    A, B and G are half as wide as v, as in the authors' code.

    Args: width: of a region, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 2)
        self.queries, self.keys, self.carried = (nn.Linear(width, hidden) for _ in range(3))
        self.back = nn.Linear(hidden, width)
        self.norm = nn.BatchNorm1d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, regions: Tensor, mask: Tensor) -> Tensor:
        """[B, K, D] regions with zeros where `mask` [B, K] bool is False; the same again."""
        related = self.queries(regions) @ self.keys(regions).transpose(1, 2)
        related = related * mask[:, None] / mask.sum(dim=1)[:, None, None]
        found = self.back(related @ self.carried(regions))[mask]  # no padding in the statistics
        taken = torch.zeros_like(regions)
        taken[mask] = self.norm(found).to(taken.dtype)
        return regions + taken
