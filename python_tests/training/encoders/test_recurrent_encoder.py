"""GRU text encoders: padding that changes nothing, and the last state of VSE++."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.recurrent import OneWayEncoder, RecurrentEncoder
from goal_kernels.training.options import DataSizes, TextOptions
from goal_kernels.training.pooling import POOLINGS

LENGTHS = (3, 9, 5)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(kind: type[RecurrentEncoder] = RecurrentEncoder, **options) -> RecurrentEncoder:
    return kind(TextOptions(word_dim=12, **options), DataSizes(10, 50), 16)


def captions(tokens: torch.Tensor, lengths: tuple[int, ...]) -> TextBatch:
    rows = torch.arange(len(tokens))
    return TextBatch(tokens, torch.tensor(lengths), torch.full_like(tokens, -1), rows)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", [RecurrentEncoder, OneWayEncoder])
def test_caption_alone_equals_caption_in_a_padded_batch(
    kind: type[RecurrentEncoder], pooling: str
) -> None:
    encoder = make(kind, pooling=pooling).eval()
    tokens = torch.randint(4, 50, (3, 9))  # what is behind the end of a caption is never read
    together = encoder(captions(tokens, LENGTHS))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for row, length in enumerate(LENGTHS):
        alone = encoder(captions(tokens[row : row + 1, :length], (length,)))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_vsepp_takes_the_last_state_of_one_direction() -> None:
    encoder = make(OneWayEncoder, pooling="last")
    assert not encoder.gru.bidirectional
    tokens = torch.randint(4, 50, (3, 9))
    for row, length in enumerate(LENGTHS):
        _, last = encoder.gru(encoder.embedding(tokens[row : row + 1, :length]))
        expected = F.normalize(last[0], dim=1)
        got = encoder(captions(tokens, LENGTHS))[row : row + 1]
        torch.testing.assert_close(got, expected)


def test_published_start_of_word_vectors() -> None:
    weight = make(initialisation="published").embedding.weight
    assert 0.09 < weight.abs().max() <= 0.1
    assert not weight[0].any()
    assert make().embedding.weight.abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [RecurrentEncoder, OneWayEncoder])
def test_autocast_gives_finite_float32(kind: type[RecurrentEncoder], dtype: torch.dtype) -> None:
    encoder = make(kind)
    batch = captions(torch.randint(4, 50, (3, 9)), LENGTHS)
    exact = encoder(batch)
    with torch.autocast("cpu", dtype=dtype):
        embeddings = encoder(batch)
    assert embeddings.dtype == torch.float32
    assert (embeddings - exact).abs().max() < 0.1
    embeddings.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


WORDS = ("<pad>", "<start>", "<end>", "<unk>", "red", "ring", "of", "at")


def vectors_file(folder: Path, *lines: str) -> str:
    path = folder / "vectors.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def with_vectors(path: str, width: int = 3, **options) -> RecurrentEncoder:
    given = TextOptions(word_dim=width, word_vectors=path, **options)
    return RecurrentEncoder(given, DataSizes(10, len(WORDS)), 16)


def test_word_vectors_are_read_where_the_file_has_them(tmp_path: Path) -> None:
    path = vectors_file(
        tmp_path,
        "at name@example.org 7 7 7",
        "of 1 2 3",
        "red 0.5 -1e-2 0",
        "of 9 9 9",
        "<unk> 4 4 4",
        "blue 5 5 5",
    )
    encoder = with_vectors(path)
    before = encoder.embedding.weight.detach().clone()
    coverage = encoder.load_word_vectors(WORDS)
    assert coverage == (2, 4)
    assert "2 of 4 words found (50.0 %)" in str(coverage)
    weight = encoder.embedding.weight
    torch.testing.assert_close(weight[4], torch.tensor([0.5, -0.01, 0]))
    assert weight[6].tolist() == [1, 2, 3]
    others = [0, 1, 2, 3, 5, 7]
    assert torch.equal(weight[others], before[others])


def test_the_header_of_fasttext_is_skipped(tmp_path: Path) -> None:
    encoder = with_vectors(vectors_file(tmp_path, "2 3", "red 1 2 3", "ring 4 5 6"))
    assert encoder.load_word_vectors(WORDS).found == 2


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("red 1 2",), "line 1: expected 3 numbers .*--model.text.word_dim 2"),
        (("blue 1 2 3", "red 1 2 x"), "line 2: expected a word and numbers"),
        (("red 1 nan 3",), "line 1: expected finite"),
        (("blue 1 2 3",), "found none"),
    ],
)
def test_bad_files_of_word_vectors(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    encoder = with_vectors(vectors_file(tmp_path, *lines))
    with pytest.raises(ValueError, match=f"model.text.word_vectors: .*{words}"):
        encoder.load_word_vectors(WORDS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    encoder = with_vectors(str(tmp_path / "none.txt"))
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        encoder.load_word_vectors(WORDS)


def test_training_without_the_named_word_vectors_is_refused(tmp_path: Path) -> None:
    encoder = with_vectors(str(tmp_path / "vectors.txt"))
    batch = captions(torch.tensor([[4, 5]]), (2,))
    with pytest.raises(RuntimeError, match="never read"):
        encoder(batch)
    assert encoder.eval()(batch).isfinite().all()
    options = TextOptions(word_dim=3, word_vectors="gone.txt")
    restored = RecurrentEncoder(options, DataSizes(10, 8), 16, pretrained=False)
    assert restored(batch).isfinite().all()
