"""From a set of vectors of any size to one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from goal_kernels.training.options import choose

POSITION_WIDTH = 32  # width of the position code and of the GRU that reads it, as in VSE-infinity
SOFTMAX_TEMPERATURE = 0.1  # VSE-infinity; below 1 so that sharp weights (max pooling) are reachable
POSITION_PERIOD = 10000.0  # longest wavelength of the sinusoidal code, the usual transformer value


def position_code(length: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Sinusoidal code of positions 0..length-1.

    Args:
        length: number of positions, >= 1.
        width: even number of channels: sines in the even ones, cosines in the odd ones.
        device: torch's default when None.
    Returns: [length, width] float32 in [-1, 1].
    Raises: ValueError if `width` is odd.
    """
    if width % 2:
        raise ValueError(
            f"width: expected an even number of channels, got {width}; use {width + 1}"
        )
    position = torch.arange(length, dtype=torch.float32, device=device)[:, None]
    channel = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    rate = torch.exp(channel * (-math.log(POSITION_PERIOD) / width))
    angle = position * rate  # [length, width / 2]
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def gru_states(gru: nn.GRU, sequences: Tensor, lengths: Tensor) -> Tensor:
    """States of a GRU, padding never read; of two directions, their mean.

    Args:
        gru: one layer, batch_first, hidden width H.
        sequences: [B, L, C].
        lengths: [B] int64 on the CPU, 1 <= length <= L.
    Returns: [B, L, H]; zeros at padded positions.
    """
    packed = pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(
        gru(packed)[0], batch_first=True, total_length=sequences.shape[1]
    )
    return states.unflatten(2, (2, -1)).mean(dim=2) if gru.bidirectional else states


class Pooling(nn.Module):
    """Pools [B, L, D] to [B, D] over the valid rows of every sample.

    Whatever precision the features come in, sums are made in float32 at least, outside autocast.

    Attributes:
        ordered: the order of rows matters, so it says nothing about a set.
    """

    ordered = False

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Pool the valid rows of every sample.

        Args:
            features: [B, L, D] floating point; values at masked-out rows are never read.
            mask: [B, L] bool, True for valid rows, in any order, at least one a sample.
        Returns: [B, D] float32, or float64 for float64.
        Raises: ValueError if the mask has another shape or leaves a sample empty.
        """
        if mask.shape != features.shape[:2]:
            raise ValueError(
                f"mask: expected shape {tuple(features.shape[:2])} to match features "
                f"{tuple(features.shape)}, got {tuple(mask.shape)}; pass one flag for each row"
            )
        lengths = mask.sum(dim=1)
        # Compiled, a look at a value would cut the graph; batches of this library pass the check.
        if not torch.compiler.is_compiling() and int(lengths.min()) < 1:
            raise ValueError(
                f"mask: expected at least one valid row a sample, got none in sample "
                f"{int(lengths.argmin())}; keep one row or drop the sample"
            )
        with torch.autocast(features.device.type, enabled=False):
            return self.pool(widened(features), mask, lengths)

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """[B, L, D] float32 or float64, [B, L] bool, [B] int64 to [B, D]."""
        raise NotImplementedError


class MeanPooling(Pooling):
    """The mean of the valid rows."""

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        return features.masked_fill(~mask[:, :, None], 0).sum(dim=1) / lengths[:, None]


class MaxPooling(Pooling):
    """The largest value of each feature among the valid rows."""

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        return features.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)


class FirstPooling(Pooling):
    """The first valid row: [CLS] of a BERT."""

    ordered = True

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        return _row(features, mask.int().argmax(dim=1))


class LastPooling(Pooling):
    """The last valid row: the final state of a GRU that reads in one direction, VSE++."""

    ordered = True

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        return _row(features, mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1))


class GeneralizedPooling(Pooling):
    """Pools [B, L, D] to [B, D] by a weighted mean of each feature's values in descending order.

    The weight of rank r depends on r and on the size of the set alone, so mean pooling, max
    pooling and everything between are points of one family, and the choice is learned.

    Equals, for each sample with n valid rows and each feature d:
        theta = softmax(linear(mean of BiGRU directions(position_code(n))) / temperature)  # [n]
        pooled[d] = sum_r theta[r] * (r-th largest of the n values of feature d)
    Source: VSE-infinity (Chen et al., CVPR 2021), Generalized Pooling Operator.
    """

    code: Tensor

    def __init__(
        self, width: int = POSITION_WIDTH, temperature: float = SOFTMAX_TEMPERATURE
    ) -> None:
        super().__init__()
        self.width = width
        self.temperature = temperature
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.score = nn.Linear(width, 1, bias=False)
        self.register_buffer("code", position_code(1, width), persistent=False)

    def _code(self, length: int) -> Tensor:
        """[length, width] position code; kept between calls and grown when a longer set comes."""
        if self.code.shape[0] < length:
            self.code = position_code(length, self.width, self.code.device).to(self.code)
        return self.code[:length]

    def weights(self, lengths: Tensor, size: int) -> Tensor:
        """Pooling weights of sets of the given sizes.

        Args:
            lengths: [B] int64, 1 <= length <= size.
            size: L, the padded size.
        Returns: [B, L] float32, or float64 for float64 parameters; each row sums to 1 over its
            first `length` ranks, 0 beyond.
        """
        # Weights depend on the length alone: one GRU row for each distinct length, not each sample.
        distinct, row = torch.unique(lengths, return_inverse=True)  # [U], [B]
        code = self._code(size).expand(distinct.shape[0], -1, -1)  # [U, L, width]
        states = gru_states(self.gru, code, distinct.cpu())
        # The low temperature would overflow half precision.
        scores = widened(self.score(states).squeeze(2)) / self.temperature  # [U, L]
        padded = torch.arange(size, device=lengths.device) >= distinct[:, None]
        return scores.masked_fill(padded, -torch.inf).softmax(dim=1)[row]

    def pool(self, features: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        weights = self.weights(lengths, features.shape[1]).to(features.dtype)  # [B, L]
        ranked = features.masked_fill(~mask[:, :, None], -torch.inf).sort(dim=1, descending=True)
        beyond = torch.arange(mask.shape[1], device=mask.device) >= lengths[:, None]  # [B, L]
        values = ranked.values.masked_fill(beyond[:, :, None], 0)  # [B, L, D]
        return torch.einsum("bld,bl->bd", values, weights)


POOLINGS: dict[str, type[Pooling]] = {
    "gpo": GeneralizedPooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "first": FirstPooling,
    "last": LastPooling,
}
"""Every pooling by the name that options give it."""


def make_pooling(argument: str, name: str, ordered: bool) -> Pooling:
    """The pooling of that name.

    Args:
        argument: what the name was given as, for the message.
        name: a key of `POOLINGS`.
        ordered: the rows to pool have an order, so that its first and last mean something.
    Raises: ValueError listing what there is.
    """
    offered = {key: kind for key, kind in POOLINGS.items() if ordered or not kind.ordered}
    return choose(argument, name, offered)()


def widened(values: Tensor) -> Tensor:
    """The values in float32, or float64 where they are that already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _row(features: Tensor, index: Tensor) -> Tensor:
    """[B, L, D] and [B] to [B, D]: one row of each sample."""
    return features[torch.arange(features.shape[0], device=features.device), index]
