"""Dataset folders as other projects leave them, written without the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("red", "blue", "green", "pink", "grey", "gold", "black", "white")
THINGS = ("dog", "cat", "car", "tree", "boat", "house")


def captions_of(image: int, times: int = 5) -> list[str]:
    """Captions of one image; no two images of a split of up to 48 share one."""
    colour, thing = COLOURS[image % 8], THINGS[image // 8 % 6]
    forms = ("A {} {}.", "There is a {} {} here.", "one {} {}", "the {}  {}", "That's a {} {}!")
    return [forms[k % 5].format(colour, thing) for k in range(times)]


def features_of(images: int, seed: int, dtype: str = "float32") -> np.ndarray:
    """[images, 3, 4] random features."""
    return np.random.default_rng(seed).random((images, 3, 4)).astype(dtype)


def put_precomputed(
    folder: Path, split: str, images: int, seed: int, times: int = 5, repeated: bool = False
) -> Path:
    """The three files of a split; with ``repeated`` a feature row for each caption."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = times if repeated else 1
    np.save(folder / f"{split}_ims.npy", features_of(images, seed).repeat(rows, axis=0))
    lines = [text for image in range(images) for text in captions_of(image + seed, times)]
    (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ids = np.arange(1000 * seed, 1000 * seed + images).repeat(rows)
    (folder / f"{split}_ids.txt").write_text("\n".join(map(str, ids)) + "\n", encoding="utf-8")
    return folder


def put_scan_vocabulary(path: Path, words: tuple[str, ...] = ("a", *COLOURS, *THINGS)) -> Path:
    """The JSON of SCAN's vocab.py, VSE-infinity's <mask> at the end."""
    table = ("<pad>", "<start>", "<end>", "<unk>", *words, "<mask>")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "word2idx": {word: index for index, word in enumerate(table)},
        "idx2word": {str(index): word for index, word in enumerate(table)},
        "idx": len(table),
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def put_picture(path: Path, seed: int, size: tuple[int, int] = (24, 16)) -> None:
    """A small random picture, in the format of the suffix."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def karpathy(dataset: str, splits: dict[str, int], times: int = 5) -> dict[str, Any]:
    """The content of dataset_{dataset}.json with so many images in each split."""
    images = []
    for split, count in splits.items():
        for _ in range(count):
            number = len(images)
            folder = "val2014" if split in ("val", "test", "restval") else "train2014"
            entry = {
                "split": split,
                "filename": f"{dataset}_{number:012d}.jpg",
                "imgid": number,
                "sentids": [10 * number + k for k in range(times)],
                "sentences": [
                    {
                        "raw": text,
                        "tokens": text.split(),
                        "imgid": number,
                        "sentid": 10 * number + k,
                    }
                    for k, text in enumerate(captions_of(number, times))
                ],
            }
            if dataset == "coco":
                entry |= {"filepath": folder, "cocoid": 500 + number}
            images.append(entry)
    return {"images": images, "dataset": dataset}
