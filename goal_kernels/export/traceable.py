"""The encoders of a model in a form that `torch.export` can follow, of equal results.

What reads the lengths of a batch on the host cannot be traced: packed sequences, rows chosen by a
mask, checks of values. Here padding is computed too and masked out afterwards. Captions are padded
to one length, since a GRU is traced for one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels.training.data import ImageBatch, TextBatch
from goal_kernels.training.encoders.base import Encoder, Rows
from goal_kernels.training.encoders.grid import GridEncoder
from goal_kernels.training.encoders.recurrent import RecurrentEncoder
from goal_kernels.training.encoders.region import RegionEncoder, SetEncoder
from goal_kernels.training.model import VSE
from goal_kernels.training.pooling import GeneralizedPooling, Pooling

EXAMPLES = 2  # rows of the batch that is traced; the number is free


def export_images(model: VSE, shape: list[int]) -> torch.export.ExportedProgram:
    """(images [B, *shape] float32, mask [B, shape[0]] bool) to [B, embed_dim] float32."""
    mask = torch.ones(EXAMPLES, shape[0], dtype=torch.bool, device="cpu")
    return _exported(ImageSide(model, shape), (torch.rand(EXAMPLES, *shape), mask))


def export_texts(model: VSE, longest: int) -> torch.export.ExportedProgram:
    """(tokens [B, longest] int64, lengths [B] int64) to [B, embed_dim] float32."""
    tokens = torch.ones(EXAMPLES, longest, dtype=torch.int64, device="cpu")
    return _exported(TextSide(model, longest), (tokens, tokens.sum(dim=1)))


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("rows", min=1)
    shapes = ({0: rows},) * len(example)
    return torch.export.export(module.eval(), example, dynamic_shapes=shapes, strict=False)


class ImageSide(nn.Module):
    """`VSE.encode_images` of what `export_images` takes, padding computed too."""

    def __init__(self, model: VSE, shape: list[int]) -> None:
        super().__init__()
        encoder: Any = model.image_encoder
        regions = isinstance(encoder, RegionEncoder)
        most = shape[0] if regions else encoder.backbone.count_cells(*shape[1:])
        self.encoder = _with_pools(encoder, most)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        batch = ImageBatch(images, None)
        if isinstance(self.encoder, RegionEncoder):
            return self.encoder.pooled(_projected(self.encoder, images, mask))
        if isinstance(self.encoder, GridEncoder):
            cells = self.encoder.cells(batch)
            every = torch.ones(cells.shape[:2], dtype=torch.bool, device=cells.device)
            return self.encoder.pooled(_projected(self.encoder.head, cells, every))
        return self.encoder(batch)


class TextSide(nn.Module):
    """`VSE.encode_texts` of what `export_texts` takes: captions that are padded to one length."""

    def __init__(self, model: VSE, longest: int) -> None:
        super().__init__()
        self.encoder = _with_pools(model.text_encoder, longest)
        if isinstance(self.encoder, RecurrentEncoder):
            ends = ("", "_reverse") if self.encoder.bidirectional else ("",)
            self.ways = nn.ModuleList(_one_way(self.encoder.gru, end) for end in ends)
            del self.encoder.gru

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if not isinstance(self.encoder, RecurrentEncoder):
            return self.encoder(TextBatch(tokens, lengths, tokens, lengths))
        place = torch.arange(tokens.shape[1], device=tokens.device)
        mask = place < lengths[:, None]
        vectors = self.encoder.embedding(tokens)
        states = self.ways[0](vectors)[0]
        if len(self.ways) == 2:  # the other way reads each caption from its own end
            turned = (lengths[:, None] - 1 - place).clamp(min=0)[:, :, None]
            back = self.ways[1](vectors.gather(1, turned.expand_as(vectors)))[0]
            states = (states + back.gather(1, turned.expand_as(back))) / 2
        return self.encoder.pooled(Rows(states.masked_fill(~mask[:, :, None], 0), mask))


def _one_way(gru: nn.GRU, end: str) -> nn.GRU:
    """One direction of a GRU; end: of the names of its weights."""
    way = nn.GRU(gru.input_size, gru.hidden_size, batch_first=True)
    for name, parameter in way.named_parameters():
        parameter.data = getattr(gru, name + end).data.clone()
    return way


def _projected(head: SetEncoder, vectors: Tensor, mask: Tensor) -> Rows:
    """`SetEncoder.project` of all rows [B, K, width], those masked out as zeros."""
    rows = head._project(vectors.flatten(0, 1), mask).unflatten(0, mask.shape)
    return Rows(rows.masked_fill(~mask[:, :, None], 0), mask)


def _with_pools(encoder: Encoder, most: int) -> Any:
    """A copy of an encoder whose poolings, of at most so many rows, check nothing."""
    copied = copy.deepcopy(encoder)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, Pooling):
                setattr(module, name, _Pool(child, most))
    return copied


class _Pool(nn.Module):
    """A pooling of [B, L, D] and [B, L] bool to [B, D]."""

    def __init__(self, pooling: Pooling, most: int) -> None:
        super().__init__()
        if isinstance(pooling, GeneralizedPooling):
            pooling = _Tabled(pooling, most)
        self.pooling = pooling

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.pooling.pool(features, mask, mask.sum(dim=1))


class _Tabled(GeneralizedPooling):
    """Generalised pooling whose weights of every length, [most, most], are computed beforehand."""

    table: Tensor

    def __init__(self, pooling: GeneralizedPooling, most: int) -> None:
        super().__init__(pooling.width, pooling.temperature)
        del self.gru, self.score
        lengths = torch.arange(1, most + 1, device="cpu")
        with torch.no_grad():
            self.register_buffer("table", pooling.weights(lengths, most))

    def weights(self, lengths: Tensor, size: int) -> Tensor:
        return self.table[lengths - 1, :size]
