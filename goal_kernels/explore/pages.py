"""The pages of `goal-kernels explore`: HTML without scripts, everything from data escaped."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

import torch

from goal_kernels.explore.collection import Collection
from goal_kernels.parser import nearest
from goal_kernels.training.report.gallery import Exhibit
from goal_kernels.training.report.style import STYLE, page_html

HITS = 12  # images shown for a caption
SENTENCES = 10  # captions shown for an image
NEGATIVES = 5
SAMPLE = 18  # images on the first page
SUGGESTED = 4  # captions on the first page
SIDE = 320  # pixels of the picture that a page is about
LONGEST = 2000  # characters of a typed caption

EXPLORE_STYLE = (
    STYLE
    + """
form{display:flex;gap:10px;margin:18px 0 6px}
input,button{font:inherit;padding:10px 14px;border-radius:10px;border:1px solid var(--rule)}
input{flex:1;min-width:0;background:var(--card);color:var(--ink)}
button{background:var(--s0);border-color:var(--s0);color:var(--paper);font-weight:600;
cursor:pointer}
.hits a,.asked a,.text a{color:inherit;text-decoration:none}
.text a:hover,.asked a:hover{text-decoration:underline}
.hits a:hover img,.hits a:hover .card{border-color:var(--s0)}
.sentences.large{grid-template-columns:minmax(0,320px) 1fr}
.confused{display:grid;grid-template-columns:1fr repeat(2,124px);gap:6px 16px;align-items:center;
padding:10px 0;border-bottom:1px solid var(--rule)}
.confused:last-child{border-bottom:0}.confused .hits{display:block;margin:0}
@media(max-width:620px){.sentences.large{grid-template-columns:1fr}
.sentences.large>:first-child{max-width:none}.confused{grid-template-columns:repeat(2,124px)}
.confused>:first-child{grid-column:1/-1}}
"""
)


class Missing(LookupError):
    """There is no such page; the message says what there is."""


class _Linked(Exhibit):
    """Images and captions that lead to their own pages."""

    def picture(self, image: int) -> str:
        return f'<a href="/image/{image}">{super().picture(image)}</a>'

    def said(self, caption: int) -> str:
        return f'<a href="/caption/{caption}">{super().said(caption)}</a>'


class Pages:
    """Renders what is asked for.

    Args:
        collection: that is explored.
        name: of the run, for titles.
    """

    def __init__(self, collection: Collection, name: str) -> None:
        self.collection, self.name = collection, name
        self.small = _Linked(collection.split)
        self.large = Exhibit(collection.split, SIDE)

    def home(self, seed: int = 0) -> str:
        """Images and captions drawn at random, another sample for each seed."""
        generator = torch.Generator("cpu").manual_seed(seed)
        found = self.collection
        images, captions = (
            torch.randperm(total, generator=generator, device="cpu")[:count].tolist()
            for total, count in ((found.images, SAMPLE), (found.captions, SUGGESTED))
        )
        shown = "".join(f"<li>{self.small.picture(image)}</li>" for image in images)
        said = "".join(f'<p class="text">{self.small.said(caption)}</p>' for caption in captions)
        return self._page(
            self.name,
            f"<h1>{escape(self.name)}</h1><p>{found.images:,} images and {found.captions:,} "
            f"captions of the {escape(found.split.name)} split, ranked by the model of this run. "
            "Type a caption to see the images it finds; choose an image to see the captions it "
            "finds and what it is confused with.</p>"
            f'<h2>Some captions</h2><div class="query">{said}</div>'
            f'<h2>Some images</h2><ol class="hits">{shown}</ol>'
            f'<p><a href="/?seed={seed + 1}">Others</a></p>',
        )

    def search(self, caption: str) -> str:
        """What a typed caption finds."""
        caption = caption[:LONGEST].strip()
        if not caption:
            return self.home()
        reading = self.collection.read(caption)
        notes = []
        if reading.cut < reading.words:
            notes.append(f"Only the first {reading.cut} of {reading.words:,} words are read.")
        if reading.unknown:
            words = self.collection.run.data.vocabulary.words
            told = ", ".join(f"“{w}”{nearest(w, words)}" for w in reading.unknown[:NEGATIVES])
            notes.append(f"Not in the vocabulary of {len(words):,} words: {told}.")
        body = "<p>None of its words is known, so nothing can be found.</p>"
        if not reading.words:
            body = "<p>There is no word in it, so nothing can be found.</p>"
        elif len(reading.unknown) < reading.words:
            hits = self.collection.images_for(caption).first(HITS)
            shown = "".join(self.small.hit(image, score) for image, score in hits)
            body = f'<ol class="hits">{shown}</ol>'
        said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
        return self._page(
            caption,
            f"<h1>“{escape(caption)}”</h1>{said}<h2>Images it finds</h2>{body}",
            caption,
        )

    def caption(self, number: int) -> str:
        """What a caption of the split finds, its own image among them."""
        found = self.collection
        self._check("caption", number, found.captions)
        ranking = found.images_of(number)
        owner = int(found.split.image_of_caption[number])
        place = ranking.place(_one(owner))
        hits = ranking.first(HITS)
        shown = [self.small.hit(i, score, self.small.verdict(number, i)) for i, score in hits]
        if place > HITS:
            score = float(ranking.scores[place - 1])
            shown.append(self.small.hit(owner, score, "missed"))
        text = found.split.captions[number]
        again = urlencode({"caption": text[:LONGEST]})
        return self._page(
            text,
            f"<h1>“{Exhibit.said(self.small, number)}”</h1>"
            f'<p class="note">Its image is at place {place:,} of {found.images:,}. '
            f'<a href="/search?{escape(again)}">Change the words</a></p>'
            f'<h2>Images it finds</h2><ol class="hits">{"".join(shown)}</ol>',
            text,
        )

    def image(self, number: int) -> str:
        """Captions that an image finds, and the hardest negatives of it and of its captions."""
        found = self.collection
        self._check("image", number, found.images)
        ranking, own = found.captions_of(number), found.own(number)
        names = found.split.image_names
        name = f"image {found.split.image_ids[number]}" if names is None else names[number]
        ranked = "".join(
            self.small.sentence(c, score, number) for c, score in ranking.first(SENTENCES)
        )
        negatives = "".join(
            self._confused(
                c, f'<ul class="ranked">{self.small.sentence(c, score, number)}</ul>', []
            )
            for c, score in ranking.first(NEGATIVES, without=found.related(number)[1])
        )
        return self._page(
            name,
            f'<h1>{escape(name)}</h1><div class="sentences large"><div>'
            f"{self.large.picture(number)}</div><div><h2>Captions it finds</h2>"
            f'<p class="note">The first of its own is at place {ranking.place(own):,} of '
            f'{found.captions:,}.</p><ol class="ranked">{ranked}</ol></div></div>'
            "<h2>Its captions and their hardest negatives</h2><p>Beside each caption its image and "
            "the image it is most easily confused with, with their similarities. The objective "
            "pulls the first and pushes the second.</p>"
            f'<div class="query">{"".join(self._triplet(int(c), number) for c in own)}</div>'
            "<h2>Its hardest negatives</h2><p>Captions of other images that are most similar to "
            "it, beside the image they were written for."
            f'</p><div class="query">{negatives}</div>',
        )

    def _triplet(self, caption: int, image: int) -> str:
        """A caption, its image and its hardest negative."""
        ranking = self.collection.images_of(caption)
        positive = float(ranking.scores[ranking.place(_one(image)) - 1])
        hardest = ranking.first(1, without=self.collection.related(image)[0])
        hits = [self.small.hit(image, positive, "match")]
        hits += [self.small.hit(i, score, self.small.verdict(caption, i)) for i, score in hardest]
        return self._confused(caption, f'<p class="text">{self.small.said(caption)}</p>', hits)

    def _confused(self, caption: int, said: str, hits: list[str]) -> str:
        """A row: a caption, and images beside it, its own when none are given."""
        owner = int(self.collection.split.image_of_caption[caption])
        shown = hits or [f"<li>{self.small.picture(owner)}</li>"]
        columns = "".join(f'<ol class="hits">{hit}</ol>' for hit in shown)
        return f'<div class="confused">{said}{columns}</div>'

    def _check(self, what: str, number: int, total: int) -> None:
        if not 0 <= number < total:
            split = self.collection.split.name
            raise Missing(
                f"There is no {what} {number}: the {split} split has {what}s 0 to {total - 1:,}."
            )

    def error(self, sentence: str) -> str:
        """A page that says what went wrong."""
        return self._page("Not found", f"<h1>Sorry</h1><p>{escape(sentence)}</p>")

    def _page(self, title: str, body: str, typed: str = "") -> str:
        return page_html(
            title,
            '<main><form action="/search" role="search"><input name="caption" type="search" '
            f'maxlength="{LONGEST}" aria-label="Caption" placeholder="Type a caption" '
            f'value="{escape(typed)}"><button>Find images</button></form>'
            f'<p class="kicker"><a href="/">{escape(self.name)}</a> · '
            f"{escape(self.collection.split.name)} split</p>{body}</main>"
            "<footer>Similarities are those of the model. Written by goal_kernels.</footer>",
            EXPLORE_STYLE,
        )


def _one(row: int) -> torch.Tensor:
    """[1] int64."""
    return torch.tensor([row], dtype=torch.int64, device="cpu")
