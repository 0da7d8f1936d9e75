"""The tokenizer and the vocabulary file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goal_kernels.data import Vocabulary, tokenize
from goal_kernels.data.vocabulary import SPECIAL_WORDS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red disc.", ["a", "red", "disc"]),
        ("mid-sized, isn't it?", ["mid", "sized", "isn't", "it"]),
        ("the dog’s 2nd ball", ["the", "dog's", "2nd", "ball"]),
        ("'quoted' snake_case", ["quoted", "snake", "case"]),
        ("Crème BRÛLÉE 3 €", ["crème", "brûlée", "3"]),
        ("  \t ... ", []),
    ],
)
def test_tokenize_examples(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60))
def test_tokenize_is_stable_under_rejoining(text: str) -> None:
    words = tokenize(text)
    assert tokenize(" ".join(words)) == words


def test_special_words_come_first_and_frequent_words_next() -> None:
    vocabulary = Vocabulary.from_captions(["b b a", "c b a", "d"])
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "b", "a", "c", "d")
    assert vocabulary.encode("") == [1, 2]
    assert vocabulary.encode("A zebra, b!") == [1, 5, 3, 4, 2]
    assert vocabulary.decode([1, 5, 3, 4, 2, 0, 0]) == "a <unk> b"


def test_min_count_drops_rare_words() -> None:
    vocabulary = Vocabulary.from_captions(["b b a", "c b a", "d"], min_count=2)
    assert vocabulary.words[4:] == ("b", "a")
    with pytest.raises(ValueError, match="min_count"):
        Vocabulary.from_captions([], min_count=0)


def test_order_of_captions_does_not_matter() -> None:
    captions = ["one two", "two three", "three three zebra"]
    assert Vocabulary.from_captions(captions) == Vocabulary.from_captions(captions[::-1])


def test_save_writes_the_scan_layout(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["disc", "rosé"])
    vocabulary.save(tmp_path / "vocab.json")
    table = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert table["word2idx"] == {
        "<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "disc": 4, "rosé": 5
    }  # fmt: skip
    assert table["idx2word"]["5"] == "rosé"
    assert table["idx"] == 6
    assert Vocabulary.load(tmp_path / "vocab.json") == vocabulary
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.json"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"words": []}, "word2idx"),
        ({"word2idx": {"<pad>": 0, "<start>": 2}}, "ids 0 .. 1"),
        ({"word2idx": {"<pad>": 0, "<start>": 1, "<unk>": 2, "<end>": 3}}, "first four words"),
    ],
)
def test_load_refuses_other_files(tmp_path: Path, table: dict[str, object], message: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(path)


def test_missing_file_and_bad_ids(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        Vocabulary.load(tmp_path / "none.json")
    vocabulary = Vocabulary(["disc"])
    for index in (5, -1):
        with pytest.raises(ValueError, match=r"0 \.\. 4"):
            vocabulary.decode([index])
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(["disc", "disc"])
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(["<unk>"])


def test_a_vocabulary_knows_how_captions_are_split(tmp_path: Path) -> None:
    """A file keeps its rule; one of other programs with the word "." follows the Treebank's."""
    path = tmp_path / "vocab.json"
    for words, fallback, expected in (
        (["a", "."], None, "treebank"),
        (["a", "b"], None, "letters"),
        (["a", "b"], "treebank", "treebank"),
    ):
        ids = {word: index for index, word in enumerate((*SPECIAL_WORDS, *words))}
        path.write_text(json.dumps({"word2idx": ids}))
        loaded = Vocabulary.load(path, fallback)
        assert loaded.rule == expected
        loaded.save(path)
        assert Vocabulary.load(path, "letters") == loaded
    assert Vocabulary(["a", "."], "treebank").encode("a.") == [1, 4, 5, 2]
    assert Vocabulary(["a", "."], "letters").encode("a.") == [1, 4, 2]
    path.write_text(json.dumps({"word2idx": ids, "rule": "spaces"}))
    with pytest.raises(ValueError, match=r"vocab\.json: rule: expected one of .*'spaces'"):
        Vocabulary.load(path)
