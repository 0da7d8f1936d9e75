"""Criteria of VSE++, SCAN, VSE-infinity and VSE_Gradient, by their names and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from goal_kernels.checks import Index
from goal_kernels.functional import goal_loss
from goal_kernels.objective import Objective, as_objective
from goal_kernels.whole_batch.functional import sum_of_hinges_loss


class ContrastiveLoss(nn.Module):
    """`ContrastiveLoss` of VSE++, SCAN and VSE-infinity: hinges over the hardest or all negatives.

    Equals, with S = im @ s.T and p = diag(S), both directions summed:
        max_violation on: sum over i of relu(margin + max over j != i of S[i, j] - p_i);
        off: sum over i and j != i of relu(margin + S[i, j] - p_i).

    Args:
        opt: taken and left alone, as theirs does.
        margin: >= 0, a similarity.
        max_violation: whether only the hardest negative counts; VSE-infinity's training switches
            it by `max_violation_on` and `max_violation_off`.
        measure: what VSE++ passes; "cosine" or nothing.
        objective: what replaces the hinge while max_violation is on, as in `goal_loss`; `margin`
            is given to it.
        options: of `goal_loss`, while max_violation is on: `negatives`, `backend` and others.

    Raises: ValueError for VSE++'s order embeddings; as `goal_loss`.
    Source: VSE++ (Faghri et al., BMVC 2018), eq. 5 and 6.
    """

    def __init__(
        self,
        opt: Any = None,
        margin: float = 0.0,
        max_violation: bool = False,
        *,
        measure: str | bool | None = None,
        objective: Objective | str = "hinge/constant",
        **options: Any,
    ) -> None:
        super().__init__()
        if measure == "order":
            raise ValueError(
                "measure: expected 'cosine', got 'order'; order embeddings are not compared by "
                "inner products. Give their similarities to gk.goal_loss_from_similarity."
            )
        self.opt = opt
        self.objective = as_objective(objective, {"margin": margin})
        self.margin = self.objective.margin
        self.max_violation = max_violation
        self.options = options

    def max_violation_on(self) -> None:
        """Count the hardest negative of each anchor."""
        self.max_violation = True

    def max_violation_off(self) -> None:
        """Count all negatives: the sum of hinges that training warms up with."""
        self.max_violation = False

    def forward(self, im: Tensor, s: Tensor, image_ids: Index | None = None) -> Tensor:
        """Images [B, D], texts [B, D] -> 0-d loss, summed over the batch.

        image_ids: [B] integers; pairs of equal ids are never negatives of each other.
        """
        if self.max_violation:
            return goal_loss(im, s, self.objective, image_ids=image_ids, **self.options)
        return sum_of_hinges_loss(im, s, image_ids=image_ids, margin=self.margin)


class TripletGrad(nn.Module):
    """`TripletGrad` of microsoft/VSE_Gradient, the published code of the objectives.

    Args:
        gmode: (triplet, pair, direction) in its words: "con", "nca" or "cir"; "con", "lin",
            "lin_ms", "sig" or "sig_ms"; "cos". Other registered elements go too.
        tau: sharpness of the triplet weight, 1 / similarity. Its class has 1; the paper's
            experiments and `gk.Objective` have 10.
        ms_a, ms_b, ms_l: alpha, beta and lam of the sigmoid pair weights.
        options: of `goal_loss`: `negatives`, `reduction`, `backend` and others.

    Unlike the published class its backward multiplies by the incoming gradient.
    Raises: ValueError for another direction; as `gk.Objective`.
    """

    def __init__(
        self,
        gmode: Sequence[str],
        tau: float = 1.0,
        ms_a: float = 2.0,
        ms_b: float = 10.0,
        ms_l: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__()
        if len(gmode) != 3 or gmode[2] != "cos":
            raise ValueError(
                "gmode: expected (triplet, pair, 'cos') such as ('nca', 'sig_ms', 'cos'), got "
                f"{tuple(gmode)}."
            )
        triplet, pair, _ = gmode
        self.objective = Objective(triplet, pair, tau=tau, alpha=ms_a, beta=ms_b, lam=ms_l)
        self.options = options

    def forward(
        self, input_img: Tensor, input_txt: Tensor, image_ids: Index | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images [B, D], texts [B, D] -> 0-d loss, and its log.

        The log, without gradient: loss_it and loss_ti, 0-d, the sums of n - p over the images and
        over the texts that have a negative; positive, negative_txt and negative_img, [B].
        """
        loss, found = goal_loss(
            input_img,
            input_txt,
            self.objective,
            image_ids=image_ids,
            return_stats=True,
            **self.options,
        )
        image_gap = (found.negative_text - found.positive)[found.hardest_text >= 0]
        text_gap = (found.negative_image - found.positive)[found.hardest_image >= 0]
        return loss, {
            "loss_it": image_gap.sum(),
            "loss_ti": text_gap.sum(),
            "positive": found.positive,
            "negative_txt": found.negative_text,
            "negative_img": found.negative_image,
        }
