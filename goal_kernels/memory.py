"""`NegativeMemory`: embeddings of earlier batches as extra negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels.checks import Index, Mask, check_embeddings, check_mask
from goal_kernels.modules import GOALLoss
from goal_kernels.pairing_checks import check_pairing
from goal_kernels.statistics import MiningStatistics


class NegativeMemory(nn.Module):
    """The last images and texts that were seen, as negatives of the batches to come.

        memory = gk.NegativeMemory(4096)
        loss = memory(criterion, image, text, image_ids=ids)

    A call computes the criterion with the stored rows behind those of the batch, as images of no
    text and texts of no image, and stores the batch. Stored rows have no gradient, and what they
    were is out of date by the steps since: the memory suits encoders that change slowly.

    Give `image_ids` wherever an image may come again while it is stored, since only ids say that
    it is no negative of its own texts. They are given in every call or in none.

    The rows are saved with the module's state, so a resumed run goes on with the same negatives.

    Args:
        size: rows of each side that are kept, >= 1; the oldest go first.
    Raises: TypeError, ValueError naming the argument.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size: expected a number of rows, got {size!r}.")
        if size < 1:
            raise ValueError(f"size: expected at least 1 row, got {size}.")
        self.size = size
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Stored rows of the side that has more."""
        return max((len(rows) for rows in self._rows.values()), default=0)

    def forward(
        self,
        criterion: GOALLoss[Any],
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        image_ids: Index | None = None,
        text_ids: Index | None = None,
        *,
        text_to_image: Index | None = None,
        exempt_texts: Mask | None = None,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, MiningStatistics]:
        """The criterion of [N, D], [M, D] with what is stored; then the batch is stored.

        Args:
            criterion: a `GOALLoss`, or a `DistributedGOALLoss`, which gathers the memories of all
                processes too.
            exempt_texts: as in `goal_loss`; of the batch, stored texts are never exempt.
            stored: [N, D] and [M, D], what is stored of the batch instead of the embeddings: those
                by a slowly moving average of the encoders (MoCo), for instance.
            Others: as in `goal_loss`.
        Returns: as the criterion. Indices of statistics from N, or M, on are stored rows.
        Raises: as the criterion, and ValueError when ids come in some calls only.
        """
        image, text = check_embeddings(image_embeddings, text_embeddings)
        owner, ids = check_pairing(image, text, text_to_image, image_ids, text_ids)
        if owner is None:
            owner = torch.arange(len(text), device=text.device)
        given = {"image": image, "text": text}
        if ids[0] is not None and ids[1] is not None:
            given |= {"image_ids": ids[0], "text_ids": ids[1]}
        if self._rows and self._rows.keys() != given.keys():
            expected = "ids" if "image_ids" in self._rows else "no ids"
            raise ValueError(
                f"image_ids: expected {expected} as in the calls before; give them in every call, "
                "or call clear()."
            )
        before = {name: self._like(name, rows) for name, rows in given.items()}
        both = {name: torch.cat([rows, before[name]]) for name, rows in given.items()}
        exempt = check_mask("exempt_texts", exempt_texts, len(text), text.device)
        if exempt is not None:
            exempt = torch.cat([exempt, exempt.new_zeros(len(before["text"]))])
        no_image = owner.new_full((len(before["text"]),), -1)
        result = criterion(
            both["image"],
            both["text"],
            both.get("image_ids"),
            both.get("text_ids"),
            text_to_image=torch.cat([owner, no_image]),
            exempt_texts=exempt,
        )
        if stored is not None:
            given |= {"image": _replacing(stored[0], image), "text": _replacing(stored[1], text)}
        for name, rows in given.items():
            self._rows[name] = torch.cat([before[name], rows.detach()])[-self.size :].clone()
        return result

    def _like(self, name: str, rows: Tensor) -> Tensor:
        """What is stored of one side, [0, ...] at first, with the dtype and device of the batch."""
        stored = self._rows.get(name)
        if stored is None:
            return rows.detach()[:0]
        if stored.shape[1:] != rows.shape[1:]:
            raise ValueError(
                f"{name}_embeddings: expected width {stored.shape[1]} as what is stored, got "
                f"{rows.shape[1]}; call clear()."
            )
        return stored.to(rows.device, rows.dtype)

    def clear(self) -> None:
        """Forget every row."""
        self._rows = {}

    def get_extra_state(self) -> dict[str, Tensor]:
        """The stored rows by name, for `state_dict`."""
        return dict(self._rows)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up the rows of a `state_dict`; the newest where they are more than `size`."""
        self._rows = {name: rows[-self.size :].clone() for name, rows in state.items()}

    def extra_repr(self) -> str:
        """What print() shows."""
        return f"size={self.size}, stored={len(self)}"


def _replacing(stored: Tensor, rows: Tensor) -> Tensor:
    """What is stored of one side, as the rows are. Raises: ValueError for another shape."""
    if stored.shape != rows.shape:
        raise ValueError(
            f"stored: expected the shapes of the embeddings, {list(rows.shape)}, got "
            f"{list(stored.shape)}."
        )
    return stored.to(rows.device, rows.dtype)
