"""Tokenizers: ids, which token belongs to which word, and folders that hold none."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest

from goal_kernels.data import Vocabulary
from goal_kernels.data.vocabulary import MAX_WORDS, MOST_COUNTED
from goal_kernels.training.tokenizers import (
    LONGEST,
    NO_WORD,
    WordPieceTokenizer,
    WordTokenizer,
)

PIECES = (
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"),
    *("!", "a", "play", "##ing", "##er", "red", "Red", "["),
)


def wordpiece_folder(folder: Path, pieces: tuple[str, ...] = PIECES) -> Path:
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder


def test_words() -> None:
    tokenizer = WordTokenizer(Vocabulary(["red", "disc"]))
    assert tokenizer.encode("Red, red disc? Blue.") == (
        [1, 4, 4, 5, 3, 2],
        [NO_WORD, 0, 1, 2, 3, NO_WORD],
    )
    assert (len(tokenizer), tokenizer.mask_id, tokenizer.first_word_id) == (6, 3, 4)


@pytest.fixture
def wordpieces(tmp_path: Path) -> WordPieceTokenizer:
    pytest.importorskip("tokenizers")
    return WordPieceTokenizer(wordpiece_folder(tmp_path))


def test_pieces_share_the_number_of_their_word(wordpieces: WordPieceTokenizer) -> None:
    ids, words = wordpieces.encode("A player playing red!")
    assert [PIECES[index] for index in ids] == [
        *("[CLS]", "a", "play", "##er", "play", "##ing", "red", "!", "[SEP]")
    ]
    assert words == [NO_WORD, 0, 1, 1, 2, 2, 3, 4, NO_WORD]
    assert wordpieces.encode("") == ([3, 4], [NO_WORD, NO_WORD])


def test_what_augmentation_needs_of_wordpieces(wordpieces: WordPieceTokenizer) -> None:
    assert len(wordpieces) == len(PIECES)
    assert PIECES[wordpieces.mask_id] == "[MASK]"
    assert PIECES[wordpieces.first_word_id] == "!"  # the first that is neither special nor unused


def test_words_beyond_the_limit_are_left_out(wordpieces: WordPieceTokenizer) -> None:
    assert WordTokenizer(Vocabulary(["red"]), 2).encode("Red, red and red") == (
        [1, 4, 4, 2],
        [-1, 0, 1, -1],
    )
    pieces = WordPieceTokenizer(wordpieces.folder, max_words=2)
    ids, words = pieces.encode("player playing red")
    assert [PIECES[index] for index in ids] == [
        *("[CLS]", "play", "##er", "play", "##ing", "[SEP]")
    ]
    assert words == [NO_WORD, 0, 0, 1, 1, NO_WORD]
    assert pieces.count_words("player playing, red!") == 5
    for make in (
        lambda words: WordTokenizer(Vocabulary(["red"]), words),
        lambda words: WordPieceTokenizer(wordpieces.folder, words),
    ):
        with pytest.raises(ValueError, match=r"data\.max_words: expected at least 1 word"):
            make(0)


@pytest.mark.parametrize("text", ["red " * 10**6, "!" * 4 * 10**6, "r" * 4 * 10**6])
def test_a_file_that_is_no_caption_costs_little(wordpieces: WordPieceTokenizer, text: str) -> None:
    """4 MB in one line: memory is not spent on its words."""
    words = [WordTokenizer(Vocabulary(["red"], rule)) for rule in ("letters", "treebank")]
    tracemalloc.start()
    for tokenizer in (*words, wordpieces):
        assert len(tokenizer.encode(text).ids) <= MAX_WORDS + 2
        assert tokenizer.count_words(text) in (0, 1, MOST_COUNTED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_captions_are_cut_to_what_bert_reads(wordpieces: WordPieceTokenizer) -> None:
    ids, words = WordPieceTokenizer(wordpieces.folder, 10_000).encode("red " * 600)
    assert len(ids) == len(words) == LONGEST
    assert PIECES[ids[-1]] == "[SEP]"


def test_wordpieces_travel_to_loader_processes(wordpieces: WordPieceTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(wordpieces))
    assert copy.encode("a player") == wordpieces.encode("a player")
    assert copy.identity == wordpieces.identity


def test_identity_tells_vocabularies_apart(wordpieces: WordPieceTokenizer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = WordPieceTokenizer(wordpiece_folder(tmp_path / "other", (*PIECES[:-1], "]")))
    assert len(other) == len(wordpieces)
    assert other.identity != wordpieces.identity


def test_case_is_what_the_folder_says(wordpieces: WordPieceTokenizer, tmp_path: Path) -> None:
    assert PIECES[wordpieces.encode("Red").ids[1]] == "red"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert PIECES[WordPieceTokenizer(tmp_path).encode("Red").ids[1]] == "Red"
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config.json: expected a JSON object"):
        WordPieceTokenizer(tmp_path)


def test_a_piece_may_be_a_separator_of_lines(tmp_path: Path) -> None:
    """Multilingual vocabularies have some: only line feeds end a line."""
    pytest.importorskip("tokenizers")
    pieces = (*PIECES, "\x85", "\u2028", "dog")
    tokenizer = WordPieceTokenizer(wordpiece_folder(tmp_path, pieces))
    assert tokenizer.encode("dog").ids[1] == len(pieces) - 1


def test_tokenizer_json_comes_first(wordpieces: WordPieceTokenizer, tmp_path: Path) -> None:
    wordpieces._tokenizer.enable_padding(length=20)
    wordpieces._tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").write_text("nothing of use")
    again = WordPieceTokenizer(tmp_path)
    assert again.encode("a player") == wordpieces.encode("a player")._replace(
        ids=[3, 8, 9, 11, 4], words=[-1, 0, 1, 1, -1]
    )
    assert again.identity == wordpieces.identity


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (("[PAD]", "[UNK]", "[CLS]", "[MASK]", "a"), r"found no \[SEP\]"),
        ((*PIECES, "a"), "found one of them twice"),
        (("a", *PIECES[:5], *PIECES[5:7]), r"expected a BERT vocabulary with \[PAD\] as id 0"),
        (("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"), r"no \[MASK\]"),
    ],
)
def test_vocabularies_of_something_else(
    tmp_path: Path, pieces: tuple[str, ...], words: str
) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match=f"data.tokenizer: .*{words}"):
        WordPieceTokenizer(wordpiece_folder(tmp_path, pieces))


@pytest.mark.parametrize(("name", "words"), [("", "neither is in it"), ("gone", "no such folder")])
def test_nothing_is_downloaded(tmp_path: Path, name: str, words: str) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(FileNotFoundError, match=f"{words}.*nothing is downloaded"):
        WordPieceTokenizer(tmp_path / name)


def test_a_torn_tokenizer_json(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}})[:-5])
    with pytest.raises(ValueError, match="no tokenizer can be read"):
        WordPieceTokenizer(tmp_path)
