"""How captions are split into words. Nothing but Python: exported models take this file along.

By letters and digits, or as the Penn Treebank splits them, which is what VSE++, SCAN and
VSE-infinity trained on: punctuation marks and clitics (``'s``, ``n't``) are words, hyphens stay
inside them. These rules are those of the Treebank's tokenizer (R. MacIntyre, 1995) as NLTK's
``word_tokenize`` applies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# Letters or digits, with apostrophes kept inside a word ("don't", "o'clock").
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

# Abbreviations whose period does not end a sentence; that of a single letter does not either.
_SHORT = (
    "mr mrs ms dr st jr sr prof gen col lt maj sen rep adm messrs vs inc corp co cos ltd bros ft "
    "jan feb aug sept oct nov dec tues wed fri u.s u.k u.n a.m p.m d.c n.y l.a n.c n.j ph.d"
)
ABBREVIATIONS = frozenset(_SHORT.split())

_PIECE = re.compile(
    r"""
    (?P<double> " | '' )
  | (?P<mark> \.{2,} | (?<=\.)'(?!\w) | `+ | -- | [:,](?!\d)
        | [;@\#$%&?!*()\[\]{}<>«»“”„‘’\u2012-\u2015] )
  | (?P<chunk> (?: [:,](?=\d) | (?! \.\. | -- | '' | (?<=\.)'(?!\w) )
        [^\s"`;@\#$%&?!*()\[\]{}<>«»“”„‘’\u2012-\u2015:,] )+ )
    """,
    re.VERBOSE,
)
_TEXT_ENDS = re.compile(r"[\])}>\"'»”’\s]*\Z")
_SENTENCE_CLOSES = re.compile(r"[\"')\]}]+(?:\s|--|\Z)")
_AFTER_PERIOD = frozenset(")\";}]*:@'({[!?")  # besides white space, what a sentence may end before
_OPENING_QUOTE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")
_CLITICS = tuple(re.compile(rf"(?<=[^'])(?:{end})$") for end in ("'", "'[smd]", "'ll|'re|'ve|n't"))
_CONTRACTION = re.compile(
    r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(more)('n)\b"
)
_INITIAL_OR_NUMBER = re.compile(r"[^\W\d]\.|-?[.,]?\d[\d,.-]*")


def letter_words(text: str) -> Iterator[str]:
    """Yield the runs of letters and digits in ``text``, in lower case."""
    return (found.group().replace("’", "'") for found in WORD.finditer(text.lower()))


def treebank_words(text: str) -> Iterator[str]:
    """Yield the words of ``text`` in lower case, in order. Any string is accepted.

    >>> list(treebank_words('A man\\'s hi-fi, isn\\'t it? He said "no."'))
    ['a', 'man', "'s", 'hi-fi', ',', 'is', "n't", 'it', '?', 'he', 'said', '``', 'no', '.', "''"]
    """
    text = text.lower()
    ended = False  # a sentence, with the piece before
    for piece in _PIECE.finditer(text):
        if piece["chunk"]:
            chunk, ended = piece["chunk"], _ends_sentence(text, piece)
            yield from _words_of_chunk(chunk[:-1] if ended else chunk)
            if ended:
                yield "."
            continue
        if piece["double"]:
            begins = ended and not _SENTENCE_CLOSES.match(text, piece.start())
            yield "``" if begins or _before(text, piece) in ("", *" ([{<") else "''"
        else:
            yield piece["mark"]
        ended = piece["mark"] in ("!", "?")


def _before(text: str, piece: re.Match[str]) -> str:
    """The character before a piece, empty at the beginning."""
    return text[max(0, piece.start() - 1) : piece.start()]


def _ends_sentence(text: str, piece: re.Match[str]) -> bool:
    """Whether a chunk ends with the period of a sentence, which is a word of its own."""
    chunk, end = piece["chunk"], piece.end()
    if not chunk.endswith(".") or len(chunk) == 1:
        return False
    if _TEXT_ENDS.match(text, end):
        return True
    spaced = text[end].isspace()
    if not spaced and text[end] not in _AFTER_PERIOD:
        return False
    if chunk[:-1].rpartition("-")[2] in ABBREVIATIONS:
        return False
    alone = spaced and _before(text, piece).strip() in ("", *'([{"')
    goes_on = alone and text[end:].lstrip()[:1].islower()
    return not (goes_on and _INITIAL_OR_NUMBER.fullmatch(chunk))


def _words_of_chunk(chunk: str) -> Iterator[str]:
    """What is left between white space and marks, cut at quotes, clitics and contractions."""
    for part in _OPENING_QUOTE.sub("' ", chunk).split():
        ends = []
        for clitic in _CLITICS if "'" in part else ():
            found = clitic.search(part)
            if found:
                ends.append(found.group())
                part = part[: found.start()]
        yield from _CONTRACTION.sub(_spaced, part).split()
        yield from reversed(ends)


def _spaced(contraction: re.Match[str]) -> str:
    """The two words of a contraction, with spaces around them."""
    return f" {' '.join(filter(None, contraction.groups()))} "


LETTERS, TREEBANK = "letters", "treebank"
RULES: Mapping[str, Callable[[str], Iterator[str]]] = {
    LETTERS: letter_words,
    TREEBANK: treebank_words,
}
"""How captions are split into words, by the name that vocabularies give it."""
