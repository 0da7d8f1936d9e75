"""Tables as people have them: every row is read as it stands, or one sentence says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from goal_kernels.data import open_source
from goal_kernels.data.inspection import inspect_source
from goal_kernels.data.sources import Source, SourceOptions

ALL_TRAIN = SourceOptions(dev_share=0, test_share=0)


def table(folder: Path, text: str | bytes, name: str = "captions.csv") -> Source:
    """A source of one table, all of whose images train."""
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    return open_source(folder, options=ALL_TRAIN)


def pairs(source: Source) -> list[tuple[str, str]]:
    """(image, caption) of each row that was read."""
    split = source.open("train")
    names = split.image_names or ()
    return [(names[i], c) for i, c in zip(split.image_of_caption, split.captions, strict=True)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_marks_within_a_text_are_text(tmp_path: Path, delimiter: str, ends: str) -> None:
    """Before, the second and the fourth row went into captions of the first and the third."""
    rows = [
        ("a.png", '"Exit" above a door'),
        ("b.png", "a horse"),
        ("c.png", '"Joe\'s" diner'),
        ("d.png", 'never closed: "'),
        ("e.png", '"never closed either'),
        ("f.png", 'the 5" disk'),
        ("g.png", 'a sign reads "open"'),
    ]
    lines = ["image" + delimiter + "caption", *(delimiter.join(row) for row in rows)]
    source = table(tmp_path, ends.join(lines) + ends)
    assert pairs(source) == rows
    assert "rows read: 7, from 8 lines with the header" in source.remarks()


@pytest.mark.parametrize(
    ("cell", "caption"),
    [
        ('"red, green, and blue"', "red, green, and blue"),
        ('"he said ""no"", twice"', 'he said "no", twice'),
        ('"""Stop"""', '"Stop"'),
        ('"stop"', "stop"),
        ('""""', '"'),
        ('""', ""),
        ("  padded  ", "padded"),
        ("one\u2028two\x85three\x0cfour", "one\u2028two\x85three\x0cfour"),
    ],
)
def test_quoted_cells(tmp_path: Path, cell: str, caption: str) -> None:
    text = f"\ufeffImage,CAPTION\na.png,{cell}\n\nb.png,plain\n,\n"
    assert pairs(table(tmp_path, text)) == [("a.png", caption), ("b.png", "plain")]


def test_there_is_no_quoting_between_tabs(tmp_path: Path) -> None:
    text = 'image\tcaption\na.png\t"one"\nb.png\t"two\nc.png\tthree"\n'
    expected = [("a.png", '"one"'), ("b.png", '"two'), ("c.png", 'three"')]
    assert pairs(table(tmp_path, text, "captions.tsv")) == expected
    with pytest.raises(ValueError, match=r"line 2: expected 2 columns, found 3; tab-separated"):
        pairs(table(tmp_path, 'image\tcaption\na.png\t"one\ttwo"\n', "captions.tsv"))


@pytest.mark.parametrize(
    "text",
    [
        'image,caption\na.png,"a man\non, or near, a boat"\nb.png,c\n',
        'caption,image\r\n"a man\r\non, or near, a boat",a.png\r\nc,b.png\r\n',
        'image,caption\na.png,"a man\non, or near, a boat"\nb.png,c\n'.replace(".png", ""),
    ],
)
def test_a_caption_of_two_lines_is_read_and_told(tmp_path: Path, text: str) -> None:
    source = table(tmp_path, text)
    assert [caption for _, caption in pairs(source)] == ["a man\non, or near, a boat", "c"]
    assert "captions with a line break: 1, the first in line 2" in source.problems()[0]
    inspection = inspect_source(source)
    assert inspection.status == 1
    assert any("line break" in found.text for found in inspection.of_level("problem"))


def test_two_cells_of_several_lines(tmp_path: Path) -> None:
    text = 'image,caption,note\na.png,"one\ntwo","x\ny"\nb.png,c,z\n'
    assert pairs(table(tmp_path, text)) == [("a.png", "one\ntwo"), ("b.png", "c")]


def test_rows_between_two_marks_are_rows(tmp_path: Path) -> None:
    """By the letter of RFC 4180 the first caption would swallow the next two rows."""
    text = 'image,caption,split\na.png,"go,train\nb.png,c,train\nd.png,on",train\ne.png,f,train\n'
    expected = [("a.png", '"go'), ("b.png", "c"), ("d.png", 'on"'), ("e.png", "f")]
    assert pairs(table(tmp_path, text)) == expected
    text = 'caption,image\n"go,a.png\nc,b.png\non",d.png\n'
    assert pairs(table(tmp_path, text)) == [("a.png", '"go'), ("b.png", "c"), ("d.png", 'on"')]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'image,caption\n1,"go\n2,c\n3,on"\n',
            "line 2: .* closed in line 4, with what may be rows",
        ),
        ('image,caption\na.png,"go\nx\nb.png,c\ny"\n', "line 2: .* closed in line 5, with what"),
        (
            "image,caption\na.png,one,\n",
            "line 2: expected 2 columns, found 3; take ',' off the end",
        ),
        ("image,caption\na.png,one, two\n", "line 2: expected 2 columns, found 3; put a text"),
        ("image,caption\na.png,x\nb.png\n", "line 3: expected 2 columns, found 1"),
        ("image,caption,caption\na,b,c\n", "line 1: expected one column 'caption', found several"),
        ("image,caption\n,b\n", "line 2: expected the name of an image, found none"),
        ("image,caption\na,b\rc,d\ne,f\n", "line 2: expected one kind of line ends"),
        ("image,caption\na,b\nc,\0\n", "found a NUL byte in line 3"),
        ("image,caption,split\na,b,train\nc,d, \n", "line 3: expected a split .* found ' '"),
        ("image,caption,image_id\na,b,9223372036854775808\n", "line 2: image_id: expected an int"),
        ("image,caption,image_id\na,b,--5\n", "line 2: image_id: expected an int"),
        ("image,caption,image_id\na,b,5.0\n", "line 2: image_id: expected an int"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    source = table(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        source.open("train")
    inspection = inspect_source(source)
    assert inspection.status == 1
    assert str(tmp_path / "captions.csv") in inspection.findings[0].text


def test_words_for_splits_are_folded_and_said(tmp_path: Path) -> None:
    text = "image,caption,split\na,b,Train\nc,d,TRAIN \ne,f,train\ng,h,Val\ni,j,validation\n"
    source = table(tmp_path, text)
    assert source.names() == ["train", "dev"]
    assert source.open("train").image_names == ["a", "c", "e"]
    assert source.open("val").image_names == ["g", "i"]
    assert "splits 'TRAIN ', 'Train', 'Val' are read in lower case" in " ".join(source.remarks())


def test_splits_that_nothing_would_find(tmp_path: Path) -> None:
    inspection = inspect_source(table(tmp_path, "image,caption,split\na,b,one\nc,d,two\n"))
    assert any("found ['one', 'two']" in found.text for found in inspection.of_level("problem"))


def test_a_table_without_rows(tmp_path: Path) -> None:
    source = table(tmp_path, "image,caption\n")
    assert source.names() == []
    inspection = inspect_source(source)
    assert inspection.status == 1
    assert "no image with a caption" in inspection.findings[0].text
    for split in ("train", "val"):
        with pytest.raises(FileNotFoundError, match=f"no split '{split}'; .*no image with a"):
            source.open(split)


@pytest.mark.parametrize(
    ("images", "expected"), [(30, (26, 2, 2)), (100, (90, 5, 5)), (200, (180, 10, 10))]
)
def test_few_images_are_dealt_out_by_quota(
    tmp_path: Path, images: int, expected: tuple[int, ...]
) -> None:
    """A hash alone left the test split of 30 images empty."""
    lines = ["image,caption", *(f"{i}.png,text" for i in range(images))]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    source = open_source(tmp_path)
    sizes = [len(source.open(split).image_ids) for split in ("train", "dev", "test")]
    assert sizes == list(expected)
    assert source.problems() == []
    other = open_source(tmp_path, options=SourceOptions(split_seed=1)).open("dev").image_names
    assert other != source.open("dev").image_names


def test_a_split_too_small_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(
        "\n".join(["image,caption", *(f"{i}.png,text" for i in range(8))])
    )
    source = open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no split 'dev'.*--data\.dev_share"):
        source.open("dev")
    texts = [found.text for found in inspect_source(source).of_level("problem")]
    assert any("dev has 0 of 8 images" in text and "--dev-share" in text for text in texts)
    assert any("test has 0 of 8 images" in text and "--test-share" in text for text in texts)
    options = SourceOptions(dev_share=0.25, test_share=0.25)
    assert len(open_source(tmp_path, options=options).open("dev").image_ids) == 2
    assert open_source(tmp_path, options=options).problems() == []
    assert open_source(tmp_path, options=ALL_TRAIN).problems() == []


def test_a_line_may_be_long(tmp_path: Path) -> None:
    long = "word, " * 200_000
    assert pairs(table(tmp_path, f'image,caption\na.png,"{long}"\n'))[0][1] == long.strip()


def test_many_open_marks_take_no_longer(tmp_path: Path) -> None:
    """Each mark looks for its end as far as the next one only."""
    rows = [(f"{i}.png", f'"open {i}' if i % 2 else "plain") for i in range(20_000)]
    text = "image,caption\n" + "".join(f"{name},{caption}\n" for name, caption in rows)
    assert pairs(table(tmp_path, text)) == rows


def test_shares_are_numbers() -> None:
    with pytest.raises(ValueError, match="dev_share, test_share"):
        SourceOptions(dev_share=float("nan"))


@pytest.mark.parametrize(("times", "said"), [(1, True), (4, False)])
def test_the_command_makes_rare_words_known(tmp_path: Path, times: int, said: bool) -> None:
    """`fit` refuses a vocabulary without a word, as few captions have it by default."""
    names = [f"{split}{i}" for split in ("train", "dev") for i in range(4)]
    rows = [f"{name}.png,{name if times == 1 else 'same'},{name[:-1]}" for name in names]
    source = table(tmp_path, "\n".join(["image,caption,split", *rows]))
    assert ("--data.min_count 1" in inspect_source(source).command) == said
