"""Losses over all negatives of a batch: the warm-up's, and baselines beside the objectives.

Dense and plain torch: [B, B] is stored, which at the batch sizes of training is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from goal_kernels import Objective, constants


def same_image(image_ids: Tensor | None, like: Tensor) -> Tensor:
    """[B, B] bool, which pairs are no negatives of each other: the diagonal, and equal ids."""
    if image_ids is None:
        return torch.eye(len(like), dtype=torch.bool, device=like.device)
    return image_ids[:, None] == image_ids[None, :]


def sum_of_hinges(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_ids: Tensor | None = None,
    margin: float = constants.MARGIN,
    text_to_image: Tensor | None = None,
) -> Tensor:
    """Triplet loss over all negatives of the batch, both directions, summed.

    Equals: sum over i, j with j not a positive of i of
        relu(margin + S[i, j] - S[i, i]) + relu(margin + S[j, i] - S[i, i]),  S = X Y^T.
    Args:
        image_embeddings: [B, D] floating point, X.
        text_embeddings: [B, D] of the same dtype, Y; row i matches image row i.
        image_ids: [B] integers or None; pairs of equal ids are never negatives of each other.
        margin: in units of similarity.
        text_to_image: [M] integers in 0..N-1, the image [N, D] of each text [M, D]; every text is
            then a pair with its image. Its image has the texts of other images for negatives, and
            the text has the other images. None: text i is that of image i. Ids are of images.
    Returns: 0-d tensor, dtype of the embeddings.
    Source: VSE++ (Faghri et al., BMVC 2018), eq. 5; dense, [B, B] ([M, M]) is stored.
    """
    similarity = image_embeddings @ text_embeddings.T  # [B, B]
    if text_to_image is not None:
        rows, positive, same_text, own_image = _captioned(similarity, image_ids, text_to_image)
        i2t = (margin + rows - positive[:, None]).clamp(min=0).masked_fill(same_text, 0)
        t2i = (margin + similarity - positive).clamp(min=0).masked_fill(own_image, 0)
        return i2t.sum() + t2i.sum()
    positive = similarity.diagonal()  # [B]
    i2t = (margin + similarity - positive[:, None]).clamp(min=0)
    t2i = (margin + similarity - positive[None, :]).clamp(min=0)
    return (i2t + t2i).masked_fill(same_image(image_ids, similarity), 0).sum()


def _captioned(
    similarity: Tensor, image_ids: Tensor | None, text_to_image: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[N, M] seen from M pairs, each a text and its image.

    Returns: similarity of the image of each pair and each text [M, M]; that of the pair [M]; bool
        [M, M] and [N, M], which texts are no negatives of the image, which images none of the text.
    """
    rows = similarity[text_to_image]
    if image_ids is None:
        image_ids = torch.arange(len(similarity), device=similarity.device)
    of_text = image_ids[text_to_image]
    return rows, rows.diagonal(), of_text[:, None] == of_text, image_ids[:, None] == of_text


def info_nce(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_ids: Tensor | None = None,
    scale: float = constants.TAU,
    text_to_image: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each pair against all negatives of the batch, both directions, summed.

    Equals: sum over i of
        logsumexp over j of scale S[i, j]  +  logsumexp over j of scale S[j, i]  -  2 scale S[i, i],
        j running over i itself and its negatives.
    Args:
        image_embeddings, text_embeddings, image_ids, text_to_image: as in `sum_of_hinges`.
        scale: factor of the similarities, the inverse of the temperature, > 0.
    Returns: 0-d tensor, dtype of the embeddings. CLIP's loss is this over 2 B.
    Source: van den Oord et al. 2018; symmetric as in CLIP (Radford et al., ICML 2021).
    """
    logits = scale * (image_embeddings @ text_embeddings.T)  # [B, B]
    if text_to_image is not None:
        rows, positive, same_text, own_image = _captioned(logits, image_ids, text_to_image)
        pair = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        of_pair = torch.arange(len(logits), device=rows.device)[:, None] == text_to_image
        i2t = rows.masked_fill(same_text & ~pair, -torch.inf).logsumexp(dim=1)
        t2i = logits.masked_fill(own_image & ~of_pair, -torch.inf).logsumexp(dim=0)
        return (i2t + t2i - 2 * positive).sum()
    positive = logits.diagonal()  # [B]
    hidden = same_image(image_ids, logits)
    hidden = hidden & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(hidden, -torch.inf)
    return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - 2 * positive).sum()


DenseLoss = Callable[[Tensor, Tensor, "Tensor | None", Objective, "Tensor | None"], Tensor]

DENSE_LOSSES: dict[str, DenseLoss] = {
    "sum_of_hinges": lambda images, texts, ids, objective, owner: sum_of_hinges(
        images, texts, ids, objective.margin, owner
    ),
    "info_nce": lambda images, texts, ids, objective, owner: info_nce(
        images, texts, ids, objective.tau, owner
    ),
}
"""Baselines by the name that `model.objective` takes. `sum_of_hinges` is VSE0's; `tau` scales the
similarities of `info_nce`."""


@dataclass(frozen=True)
class DenseObjective(Objective):
    """An objective that is a dense loss: mining serves its statistics only.

    Attributes: dense, a name in `DENSE_LOSSES`.
    """

    dense: str = "sum_of_hinges"

    @property
    def name(self) -> str:
        """The name in `DENSE_LOSSES`."""
        return self.dense

    def loss(
        self,
        images: Tensor,
        texts: Tensor,
        image_ids: Tensor | None,
        text_to_image: Tensor | None = None,
    ) -> Tensor:
        """[B, D], [B, D], ids [B] or None -> 0-d; with text_to_image [M]: [N, D], [M, D], [N]."""
        return DENSE_LOSSES[self.dense](images, texts, image_ids, self, text_to_image)


def make_objective(name: str, parameters: dict[str, float] | None = None) -> Objective:
    """The objective that `model.objective` and `model.objective_parameters` name.

    Args:
        name: "triplet/pair", or a name in `DENSE_LOSSES`.
        parameters: hyper-parameters by name; defaults for the others.
    Raises: ValueError when the name or a parameter is unknown, TypeError when one is no number.
    """
    options = dict(parameters or {})
    try:
        if name in DENSE_LOSSES:
            # The mining statistics are those of the hinge: they follow from embeddings and margin.
            return DenseObjective("hinge", "constant", dense=name, **options)  # type: ignore[arg-type]
        triplet, slash, pair = name.partition("/")
        if not slash:
            raise ValueError(
                f"objective: expected 'triplet/pair' such as 'nca/sigmoid_ms' (`goal-kernels "
                f"objectives` lists them), or one of {', '.join(DENSE_LOSSES)}; got {name!r}"
            )
        return Objective(triplet, pair, **options)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"objective_parameters: {error}") from error
