"""Images and captions as HTML, and queries of a run with what they retrieve."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from goal_kernels.data.picture_files import read_picture
from goal_kernels.data.split import Split
from goal_kernels.training.outcome import Outcome

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 5  # results of a query
SHOWN_CHARACTERS = 1000  # of a caption
TEXT_QUERIES = 6
IMAGE_QUERIES = 4
MARKS = {
    "match": "✓ match",
    "also": "≈ also true",
    "wrong": "✗ wrong",
    "other": "other image",
    "missed": "its image",
}
THUMBNAIL_PIXELS = 144  # side of the square a picture is fitted into
JPEG_QUALITY = 85


class Exhibit:
    """Renders images and captions of a split as HTML.

    The picture of an image is its file (see `Split.picture`), or is drawn where its scene is known;
    for anything else there is none.

    Args: pixels: side of the square that a picture is fitted into.
    """

    def __init__(self, split: Split, pixels: int = THUMBNAIL_PIXELS) -> None:
        self.split, self.pixels = split, pixels
        self.uri = lru_cache(maxsize=None)(self._uri)

    def verdict(self, caption: int, image: int) -> str:
        """Key of MARKS; without truth a miss is only known to be another image."""
        owner, groups = self.split.image_of_caption[caption], self.split.groups
        if owner == image:
            return "match"
        if groups is not None and groups[owner] == groups[image]:
            return "also"
        if self.split.truth is None:
            return "other"
        return "also" if image in self.split.truth.images_of(caption) else "wrong"

    def hit(self, image: int, score: float, verdict: str = "", before: str = "") -> str:
        """One image as a list item, with its mark, if any, and similarity, HTML before that."""
        mark = f'<span class="mark">{MARKS[verdict]}</span> ' if verdict else ""
        return (
            f'<li class="{verdict}">{self.picture(image)}{mark}'
            f'<span class="score">{before}{score:.2f}</span></li>'
        )

    def sentence(self, caption: int, score: float, image: int, before: str = "") -> str:
        """One caption as a list item, with its mark for an image, and similarity as in `hit`."""
        verdict = self.verdict(caption, image)
        return (
            f'<li class="{verdict}"><span class="mark">{MARKS[verdict]}</span>'
            f'<span class="text">{self.said(caption)}</span>'
            f'<span class="score">{before}{score:.2f}</span></li>'
        )

    def said(self, caption: int) -> str:
        """A caption as pages show it."""
        whole = self.split.captions[caption]
        return escape(whole[:SHOWN_CHARACTERS] + ("…" if len(whole) > SHOWN_CHARACTERS else ""))

    def picture(self, image: int) -> str:
        """The picture of an image, or a card with its id where there is none."""
        described = Exhibit.said(self, int(np.searchsorted(self.split.image_of_caption, image)))
        uri, side = self.uri(image), self.pixels
        if uri is None:
            return f'<div class="card">image {self.split.image_ids[image]}: {described}</div>'
        return f'<img src="{uri}" alt="{described}" width="{side}" height="{side}">'

    def _uri(self, row: int) -> str | None:
        """`data:image/jpeg;base64,...` of image `row`, or None where there is no picture."""
        picture = self._open(row)
        if picture is None:
            return None
        picture.thumbnail((self.pixels, self.pixels))
        stored = BytesIO()
        picture.save(stored, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode("ascii")

    def _open(self, row: int) -> Image | None:
        path = self.split.picture(row)
        if path is not None:
            return read_picture(path)
        if self.split.scenes is None:
            return None
        from goal_kernels.data.goalworld.rendering import render_scene
        from goal_kernels.data.goalworld.scenes import Scene

        scene = Scene.from_json(self.split.scenes[row])
        return render_scene(scene, 2 * self.pixels, np.random.default_rng(row))


class Gallery(Exhibit):
    """Queries of a finished run, drawn at random with a fixed seed, never hand-picked."""

    def __init__(self, outcome: Outcome, seed: int = 0) -> None:
        super().__init__(outcome.split)
        self.evaluation = outcome.evaluation
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def text_queries(self) -> str:
        """Captions, each with the five images ranked first."""
        captions = len(self.evaluation.text_embeddings)
        return "".join(self._text_query(c) for c in self._draw(TEXT_QUERIES, captions))

    def image_queries(self) -> str:
        """Images, each with the five captions ranked first."""
        images = len(self.evaluation.image_embeddings)
        return "".join(self._image_query(i) for i in self._draw(IMAGE_QUERIES, images))

    def _draw(self, count: int, size: int) -> list[int]:
        order = torch.randperm(size, generator=self.generator, device="cpu")
        return order[:count].tolist()

    def _text_query(self, caption: int) -> str:
        scores = self.evaluation.scores_of_caption(caption)  # [N]
        owner = int(self.evaluation.image_of_caption[caption])
        best = _best(scores)
        hits = [self.hit(image, score, self.verdict(caption, image)) for image, score in best]
        if owner not in dict(best):
            hits.append(self.hit(owner, float(scores[owner]), "missed"))
        return (
            f'<article class="query"><p class="asked">“{self.said(caption)}”</p>'
            f'<p class="note">{_placed("its image", scores, [owner])}</p>'
            f'<ol class="hits">{"".join(hits)}</ol></article>'
        )

    def _image_query(self, image: int) -> str:
        scores = self.evaluation.scores_of_image(image)  # [M]
        own = (self.evaluation.image_of_caption == image).nonzero().flatten()
        hits = "".join(self.sentence(caption, score, image) for caption, score in _best(scores))
        return (
            f'<article class="query"><p class="note">'
            f"{_placed('the first of its captions', scores, own)}</p>"
            f'<div class="sentences"><div>{self.picture(image)}</div>'
            f'<ol class="ranked">{hits}</ol></div></article>'
        )


def _best(scores: Tensor) -> Sequence[tuple[int, float]]:
    """(index, score) of the SHOWN highest scores [any size], best first."""
    best = scores.topk(min(SHOWN, len(scores)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _placed(what: str, scores: Tensor, right: Tensor | list[int]) -> str:
    """Where the best of the right answers [R] stands among all scores [N]."""
    place = 1 + int((scores > scores[right].max()).sum())
    return f"{what} is at place {place:,} of {len(scores):,}".capitalize()
