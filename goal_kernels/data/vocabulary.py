"""Words and their numbers: the JSON vocabulary that VSE++ and SCAN style text encoders read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from goal_kernels.data.files import read_json, write_text
from goal_kernels.data.words import LETTERS, RULES, TREEBANK, WORD, letter_words

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL_WORDS = (PAD, START, END, UNKNOWN)
PICKLE_SUFFIXES = (".pkl", ".pickle")
MIN_COUNT = 4  # times a word has to occur to get a number of its own; VSE++, SCAN
MAX_WORDS = 256  # read of a caption; COCO's and Flickr30K's longest have fewer than 100
CHARACTERS_A_WORD = 64  # on average at most, of a caption that is read
MOST_COUNTED = 100_000  # words of a caption; what has more is no caption

_WORD_OR_MARK = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def tokenize(text: str) -> list[str]:
    """Split ``text`` into lower-case words.

    A word is a run of letters and digits, apostrophes inside it included; punctuation and hyphens
    separate words and are dropped. Needs no downloaded model. Any string is accepted, and one
    without words gives an empty list.

    >>> tokenize("A mid-sized disc, isn't it?")
    ['a', 'mid', 'sized', 'disc', "isn't", 'it']
    """
    return list(letter_words(text))


def first_characters(caption: str, max_words: int) -> str:
    """The part of a caption that can hold its first ``max_words`` words."""
    return caption[: CHARACTERS_A_WORD * max_words]


def count_words(caption: str, marks: bool = False) -> int:
    """The words of a caption, with ``marks`` its punctuation too; at most ``MOST_COUNTED``."""
    found = (_WORD_OR_MARK if marks else WORD).finditer(caption)
    return sum(1 for _ in islice(found, MOST_COUNTED))


def number_said(words: int) -> str:
    """A result of `count_words` in a message."""
    return f"{words:,}{' or more' if words == MOST_COUNTED else ''}"


class Vocabulary:
    """A two-way table between words and ids ``0 .. len - 1``.

    The first four ids are always ``<pad>`` 0, ``<start>`` 1, ``<end>`` 2 and ``<unk>`` 3. On disk
    it is the JSON layout of SCAN: ``{"word2idx": {word: id}, "idx2word": {"id": word}, "idx": n}``
    and ``"rule"``, a key of ``RULES``: how captions are split into these words.
    """

    def __init__(self, words: Iterable[str], rule: str = LETTERS) -> None:
        """Number ``words`` (the four special ones excluded) from 4 on, in the order given.

        Raises ``ValueError`` when a word comes twice or is one of the special words, or there is no
        such rule.
        """
        if rule not in RULES:
            raise ValueError(f"rule: expected one of {sorted(RULES)}, got {rule!r}")
        self.rule = rule
        self._words = (*SPECIAL_WORDS, *words)
        self._ids = {word: index for index, word in enumerate(self._words)}
        if len(self._ids) != len(self._words):
            repeated = [word for word, times in Counter(self._words).items() if times > 1]
            raise ValueError(
                f"words: expected distinct words other than {SPECIAL_WORDS}, got {repeated[:5]} "
                "more than once; count the words first (Vocabulary.from_captions does)"
            )

    @classmethod
    def from_captions(
        cls, captions: Iterable[str], min_count: int = 1, max_words: int = MAX_WORDS
    ) -> Vocabulary:
        """Collect the words that ``captions`` use at least ``min_count`` times.

        Frequent words come first and words of equal frequency in alphabetical order, so the ids
        do not depend on the order of the captions. Pass training captions only: words counted on
        evaluation data leak it.

        Of each caption the first ``max_words`` words count.

        Raises ``ValueError`` when ``min_count`` is below 1.
        """
        if min_count < 1:
            raise ValueError(f"min_count: expected 1 or more, got {min_count}")
        none = cls(())
        counts = Counter(w for caption in captions for w in none.split(caption, max_words))
        kept = [word for word, times in counts.items() if times >= min_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    @classmethod
    def load(cls, path: str | Path, rule: str | None = None) -> Vocabulary:
        """Read a vocabulary JSON file, also one written by SCAN or VSE-infinity.

        ``rule`` is that of a file that does not name its own; when None, a file with the word "."
        follows the Treebank's, since no other makes words of punctuation.

        Raises ``FileNotFoundError`` when there is none and ``ValueError`` when the file is a pickle
        or no JSON, the ids are not ``0 .. n - 1`` or the four special words are not the first.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"vocabulary: no file {path}; expected the JSON vocabulary")
        if path.suffix in PICKLE_SUFFIXES:
            raise ValueError(
                f"{path}: a pickle can run any code when it is opened, so this one is not; "
                "`goal-kernels data convert` writes a JSON vocabulary from the captions"
            )
        table = read_json(path)
        if not isinstance(table, Mapping) or not isinstance(table.get("word2idx"), Mapping):
            raise ValueError(
                f"{path}: expected a JSON object with 'word2idx', found none; build the file with "
                "Vocabulary.from_captions"
            )
        ids = table["word2idx"]
        if any(type(index) is not int for index in ids.values()):
            raise ValueError(
                f"{path}: expected an integer id of each word in 'word2idx', found others; build "
                "the file again with Vocabulary.from_captions"
            )
        ordered = sorted(ids.items(), key=lambda item: item[1])
        if [index for _, index in ordered] != list(range(len(ordered))):
            raise ValueError(
                f"{path}: expected the ids 0 .. {len(ordered) - 1}, each once; "
                "build the file again with Vocabulary.from_captions"
            )
        words = [word for word, _ in ordered]
        if tuple(words[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
            raise ValueError(
                f"{path}: expected the first four words {SPECIAL_WORDS}, found {words[:4]}; "
                "build the file again with Vocabulary.from_captions"
            )
        rule = table.get("rule", rule) or (TREEBANK if "." in table["word2idx"] else LETTERS)
        try:
            return cls(words[len(SPECIAL_WORDS) :], rule)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the JSON file, in full or not at all."""
        table = {
            "word2idx": self._ids,
            "idx2word": {str(index): word for index, word in enumerate(self._words)},
            "idx": len(self._words),
            "rule": self.rule,
        }
        write_text(Path(path), json.dumps(table, ensure_ascii=False, indent=1) + "\n")

    def split(self, caption: str, max_words: int = MAX_WORDS) -> list[str]:
        """The first ``max_words`` words of a caption, in lower case, known or not."""
        words = RULES[self.rule](first_characters(caption, max_words))
        return list(islice(words, max_words))

    def encode(self, caption: str, max_words: int = MAX_WORDS) -> list[int]:
        """``<start>``, the ids of the first ``max_words`` words of ``caption``, and ``<end>``.

        Words not in the vocabulary become ``<unk>``; the list is never shorter than two.
        """
        unknown = self._ids[UNKNOWN]
        inner = [self._ids.get(word, unknown) for word in self.split(caption, max_words)]
        return [self._ids[START], *inner, self._ids[END]]

    def unknown_share(self, captions: Iterable[str]) -> float:
        """The share of the words of ``captions`` that become ``<unk>``, in [0, 1]; 0 of none."""
        words = [word for caption in captions for word in self.split(caption)]
        return sum(word not in self._ids for word in words) / max(1, len(words))

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ``ids`` joined by spaces, without ``<pad>``, ``<start>`` and ``<end>``.

        Raises ``ValueError`` when an id is outside ``0 .. len - 1``.
        """
        words = []
        for index in ids:
            if not 0 <= index < len(self._words):
                raise ValueError(
                    f"ids: expected ids in 0 .. {len(self._words) - 1}, got {index}; "
                    "were they encoded with another vocabulary?"
                )
            if self._words[index] not in (PAD, START, END):
                words.append(self._words[index])
        return " ".join(words)

    @property
    def words(self) -> tuple[str, ...]:
        """All words in id order, the four special ones first."""
        return self._words

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self._words, self.rule) == (
            other._words,
            other.rule,
        )

    def __hash__(self) -> int:
        return hash((self._words, self.rule))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"
