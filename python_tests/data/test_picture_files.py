"""Image files of any depth become the 8-bit picture that they show."""

from __future__ import annotations

import struct
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from strangers import put_picture

from goal_kernels.data.picture_files import PictureError, decode_picture, read_picture
from goal_kernels.data.split import PictureSplit
from goal_kernels.training.report.gallery import Exhibit

Image = pytest.importorskip("PIL.Image")


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_grey_palette_and_turned_pictures_are_read(tmp_path: Path) -> None:
    plain((9, 9, 9)).convert("L").save(tmp_path / "grey.png")
    plain((200, 0, 0)).convert("P").save(tmp_path / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    plain((1, 2, 3), (20, 10)).save(tmp_path / "turned.png", exif=exif)
    for name, size in (("grey.png", (8, 6)), ("palette.gif", (8, 6)), ("turned.png", (10, 20))):
        picture = read_picture(tmp_path / name)
        assert (picture.mode, picture.size) == ("RGB", size)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: no such image file.*inspect"):
        read_picture(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg: cannot be decoded.*inspect --all"):
        read_picture(tmp_path / "text.jpg")
    put_picture(tmp_path / "torn.png", 1, (64, 64))
    whole = (tmp_path / "torn.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"torn\.png: cannot be decoded"):
        read_picture(tmp_path / "torn.png")


RAMP = np.arange(256, dtype=np.uint8)[None].repeat(3, axis=0)  # every grey level, left to right


@pytest.mark.parametrize(
    ("name", "stored", "words"),
    [
        ("a.png", RAMP.astype(np.uint16) * 257, "integers of 0 to 65535"),
        ("a.tiff", RAMP.astype(np.uint16) * 257, "integers of 0 to 65535"),
        ("a.pgm", RAMP.astype(np.uint16) * 257, "integers of 0 to 65535"),
        ("bytes.tiff", RAMP.astype(np.int32), "integers of 0 to 255"),
        ("words.tiff", RAMP.astype(np.int32) * 257, "integers of 0 to 65535"),
        (
            "long.tiff",
            (RAMP * ((2**31 - 1) / 255)).astype(np.int32),
            "integers of 0 to 2.14748e+09",
        ),
        ("unit.tiff", (RAMP / 255).astype(np.float32), "floats of 0 to 1"),
        ("bytes_as_floats.tiff", RAMP.astype(np.float32), "floats of 0 to 255"),
        ("words_as_floats.tiff", RAMP.astype(np.float32) * 257, "floats of 0 to 65535"),
    ],
)
def test_every_depth_shows_the_same_ramp(
    tmp_path: Path, name: str, stored: np.ndarray, words: str
) -> None:
    Image.fromarray(stored).save(tmp_path / name)
    decoded = decode_picture(tmp_path / name)
    assert decoded.remark == f"{words} scaled to 8 bits"
    assert decoded.picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded.picture), RAMP[..., None].repeat(3, axis=2))


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert np.asarray(read_picture(tmp_path / "dark.png")).max() == 1


def test_resampling_beyond_black_and_white_is_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-0.05, 0.5, 1.2]], dtype=np.float32)).save(tmp_path / "a.tiff")
    assert np.asarray(read_picture(tmp_path / "a.tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_zero_may_be_white(tmp_path: Path) -> None:
    stored = Image.fromarray(RAMP.astype(np.uint16) * 257)
    stored.save(tmp_path / "a.tiff", tiffinfo={262: 0})
    np.testing.assert_array_equal(
        np.asarray(read_picture(tmp_path / "a.tiff"))[..., 0], RAMP[:, ::-1]
    )


def test_twelve_bits(tmp_path: Path) -> None:
    """A TIFF of one row, two pixels in three bytes: black and white."""
    tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (278, 1), (279, 3))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + bytes(4)
    assert len(head) == 110
    (tmp_path / "a.tiff").write_bytes(head + bytes([0x00, 0x0F, 0xFF]))
    assert np.asarray(read_picture(tmp_path / "a.tiff"))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ([0.5, np.nan], "its floats hold NaN or infinity"),
        ([0.5, np.inf], "its floats hold NaN or infinity"),
        ([-1.0, 1.0], "expected numbers from 0 to 1, found -1; scale them"),
        ([0.0, 1e6], r"expected numbers up to 65535, found 1e\+06"),
    ],
)
def test_floats_that_are_no_brightness_are_refused(
    tmp_path: Path, pixels: list[float], words: str
) -> None:
    Image.fromarray(np.array([pixels], dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=rf"a\.tiff: cannot be decoded: {words}"):
        read_picture(tmp_path / "a.tiff")


def test_whatever_a_decoder_raises_at_a_damaged_file_names_the_file(tmp_path: Path) -> None:
    plain((1, 2, 3)).save(tmp_path / "a.dds")
    damaged = bytearray((tmp_path / "a.dds").read_bytes())
    damaged[80:84] = bytes(4)  # flags of the pixel format: Pillow raises NotImplementedError
    (tmp_path / "a.dds").write_bytes(damaged)
    with pytest.raises(PictureError, match=r"a\.dds: cannot be decoded: .*inspect --all"):
        read_picture(tmp_path / "a.dds")


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    clear_red, half_blue, red = (255, 0, 0, 0), (0, 0, 255, 128), (255, 0, 0, 255)
    layered = Image.new("RGBA", (3, 1))
    layered.putdata([clear_red, half_blue, red])
    layered.save(tmp_path / "rgba.png")
    grey = Image.new("LA", (2, 1))
    grey.putdata([(0, 0), (90, 255)])
    grey.save(tmp_path / "la.png")
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    indexed.putdata([0, 1])
    indexed.save(tmp_path / "palette.png", transparency=0)
    keyed = plain((1, 2, 3), (1, 1))
    keyed.save(tmp_path / "key.png", transparency=(1, 2, 3))
    white = (255, 255, 255)
    for name, expected in (
        ("rgba.png", [white, (127, 127, 255), (255, 0, 0)]),
        ("la.png", [white, (90, 90, 90)]),
        ("palette.png", [white, (0, 0, 255)]),
        ("key.png", [white]),
    ):
        decoded = decode_picture(tmp_path / name)
        assert [tuple(p) for p in np.asarray(decoded.picture)[0].tolist()] == expected, name
        assert decoded.remark == "transparency laid over white"


def test_pictures_of_8_bits_go_without_a_remark(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    ink.save(tmp_path / "ink.jpg", quality=100)
    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    for name, colour in (("ink.jpg", (255, 0, 0)), ("bit.png", (255, 255, 255))):
        decoded = decode_picture(tmp_path / name)
        assert decoded.remark == ""
        np.testing.assert_allclose(np.asarray(decoded.picture)[0, 0], colour, atol=3)


def test_a_turned_picture_of_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "a.png"))[:, 0, 0], RAMP[0])


def test_reports_show_what_training_sees(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png")
    split = PictureSplit(
        folder=tmp_path,
        name="train",
        captions=["a ramp"],
        image_of_caption=np.zeros(1, dtype=np.int64),
        image_ids=np.zeros(1, dtype=np.int64),
        image_root=tmp_path,
        names=["a.png"],
    )
    uri = Exhibit(split).uri(0)
    shown = Image.open(BytesIO(b64decode(uri.split(",")[1]))).convert("L")
    assert 100 < np.asarray(shown).mean() < 150
