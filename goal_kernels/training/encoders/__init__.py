"""Image and text encoders: batches in, embeddings out. A new one is a class and a row here."""

from __future__ import annotations

from collections.abc import Callable

from goal_kernels.training.encoders.base import Encoder, ImageEncoder
from goal_kernels.training.encoders.bert import BertEncoder
from goal_kernels.training.encoders.convolution import ConvolutionEncoder
from goal_kernels.training.encoders.grid import GlobalEncoder, GridEncoder
from goal_kernels.training.encoders.recurrent import OneWayEncoder, RecurrentEncoder
from goal_kernels.training.encoders.region import RegionEncoder
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions

IMAGE_ENCODERS: dict[str, Callable[[ImageOptions, DataSizes, int, bool], ImageEncoder]] = {
    "region": RegionEncoder,
    "grid": GridEncoder,
    "global": GlobalEncoder,
}
TEXT_ENCODERS: dict[str, Callable[[TextOptions, DataSizes, int, bool], Encoder]] = {
    "bigru": RecurrentEncoder,
    "gru": OneWayEncoder,
    "bert": BertEncoder,
    "conv": ConvolutionEncoder,
}
"""By name: from options, sizes of the data, width of the joint space, whether to read weights."""
