"""Weights in the safetensors format, which every framework reads without running code.

Source: the format's description, https://github.com/huggingface/safetensors: the length of a JSON
header as 8 bytes, little endian; the header, name by name dtype, shape and place; the bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from goal_kernels.data.files import replacing

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name; the file is whole or not there. Raises: ValueError for a dtype."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or sys.byteorder != "little":
            raise ValueError(
                f"{name}: expected a dtype of {[*DTYPES.values()]}, got {tensor.dtype}"
            )
        end = start + tensor.numel() * tensor.element_size()
        place = {"shape": list(tensor.shape), "data_offsets": [start, end]}
        header[name] = {"dtype": DTYPES[tensor.dtype], **place}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the bytes begin at a multiple of 8
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().flatten()
            file.write(flat.view(torch.uint8).numpy().tobytes())
