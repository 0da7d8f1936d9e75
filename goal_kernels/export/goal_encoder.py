"""Embeds images and captions with a model that `goal-kernels export` wrote. Needs torch alone.

This file and `goal_words.py` lie in the folder of the model:

    sys.path.insert(0, "FOLDER")
    from goal_encoder import load
    model = load("FOLDER")
    similarity = model.embed_images(features) @ model.embed_texts(["a red disc"]).T

WordPiece captions need the package tokenizers, picture files Pillow and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load(folder: str | Path) -> Encoder:
    """The model of a folder, on the CPU. Raises: FileNotFoundError."""
    return Encoder(Path(folder))


class Encoder:
    """A dual encoder; rows of embeddings have unit length unless the model was trained without.

    Attributes:
        facts: what the model is: `model.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
        self._images, self._texts = (
            torch.export.load(folder / f"{side}.pt2").module() for side in ("images", "texts")
        )
        self._tokenize = _tokenizer(self.facts["tokenizer"], folder)

    @torch.no_grad()
    def embed_images(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N, embed_dim] float32.

        Args:
            images: float32 [N, *facts["images"]["shape"]]: features of K regions, or pictures as
                `read_pictures` makes them.
            mask: bool [N, K], True for regions that hold something; all when None.
        Raises: ValueError for another shape.
        """
        shape = self.facts["images"]["shape"]
        if list(images.shape[1:]) != shape:
            raise ValueError(f"images: expected [N, {shape}], got {list(images.shape)}")
        if mask is None:
            mask = torch.ones(len(images), shape[0], dtype=torch.bool, device="cpu")
        return self._images(images, mask)

    @torch.no_grad()
    def embed_texts(self, captions: Sequence[str]) -> Tensor:
        """[M, embed_dim] float32 of captions; what is longer than the model reads is cut."""
        longest = self.facts["tokenizer"]["longest"]
        tokens = torch.zeros(len(captions), longest, dtype=torch.int64, device="cpu")
        lengths = torch.zeros(len(captions), dtype=torch.int64, device="cpu")
        for row, caption in enumerate(captions):
            ids = self._tokenize(caption)
            tokens[row, : len(ids)] = torch.tensor(ids, device="cpu")
            lengths[row] = len(ids)
        return self._texts(tokens, lengths)

    def read_pictures(self, paths: Sequence[str | Path]) -> Tensor:
        """Picture files as the model sees them: float32 [N, 3, S, S]. Needs Pillow and numpy."""
        import numpy as np
        from PIL import Image, ImageOps

        kind = self.facts["images"]
        pictures = []
        for path in paths:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file).convert("RGB")
            side = kind["shape"][1]
            box = None
            if kind["centre"] is not None:  # this share of the shorter side, in the middle
                half = min(picture.size) * kind["centre"] / 2
                x, y = picture.width / 2, picture.height / 2
                box = (x - half, y - half, x + half, y + half)
            small = picture.resize((side, side), Image.Resampling.BILINEAR, box)
            pictures.append(torch.from_numpy(np.array(small)))
        pixels = torch.stack(pictures).permute(0, 3, 1, 2)
        if kind["blue_first"]:
            pixels = pixels.flip(1)
        mean, deviation = (
            torch.tensor(kind[name], device="cpu")[:, None, None] for name in ("mean", "deviation")
        )
        return (pixels * kind["scale"] - mean) / deviation


def _tokenizer(facts: dict[str, Any], folder: Path) -> Any:
    """From a caption to at most `longest` token ids."""
    longest = facts["longest"]
    if facts["kind"] == "words":
        from goal_words import RULES  # type: ignore[import-not-found]  # the file beside this

        ids, split = facts["ids"], RULES[facts["rule"]]
        start, end, unknown = (ids[word] for word in ("<start>", "<end>", "<unk>"))

        def by_words(caption: str) -> list[int]:
            words = list(split(caption))[: longest - 2]
            return [start, *(ids.get(word, unknown) for word in words), end]

        return by_words
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces.enable_truncation(longest)
    return lambda caption: pieces.encode(caption).ids
