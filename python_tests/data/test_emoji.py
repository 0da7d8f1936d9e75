"""`goal-kernels data emoji` on small made-up packages of two vendors; no network."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from goal_kernels.cli import main
from goal_kernels.data import open_source
from goal_kernels.data.emoji import dataset, packages
from goal_kernels.data.emoji.packages import KEYWORDS, NAMES, Package, needed_packages
from goal_kernels.data.emoji.things import IconSet

SIZE = 16
# code: name, group of emojibase, keywords there. 1f40e is in test, 1f418 in dev, the others train.
THINGS = {
    "1F40E": ("horse", 3, ["animal", "equestrian", "racehorse"]),
    "1F418": ("elephant", 3, ["animal"]),
    "1F468-200D-1F692": ("man firefighter", 1, ["fire", "man", "truck"]),
    "1F469-200D-1F692": ("woman firefighter", 1, ["fire", "truck", "woman"]),
    "1F40D": ("snake", 3, ["animal", "bearer", "ophiuchus", "serpent", "zodiac"]),
    "2764-FE0F": ("red heart", 8, ["emotion", "love"]),
    "1F3C1": ("chequered flag", 9, ["racing"]),
    "1F9B0": ("red hair", 2, ["ginger"]),
}
SHADES = {
    "horse": "#100000",
    "elephant": "#200000",
    "man-firefighter": "#300000",
    "snake": "#500000",
    "red-heart": "#600000",
    "chequered-flag": "#700000",
}


def square(shade: str, side: int = 10) -> dict[str, str]:
    return {"body": f'<path fill="{shade}" d="M0 0h{side}v{side}h-{side}z"/>'}


def icon_set(prefix: str, chars: bool, **icons: str) -> dict[str, object]:
    """The files of a vendor whose drawings are squares; the two firefighters are one drawing."""
    shades = SHADES | {name.replace("_", "-"): shade for name, shade in icons.items()}
    names = {code.lower().replace("-fe0f", ""): THINGS[code][0] for code in THINGS}
    names = {code: name.replace(" ", "-") for code, name in names.items()}
    return {
        "icons.json": {
            "prefix": prefix,
            "icons": {name: square(shade) for name, shade in shades.items()},
            "aliases": {"woman-firefighter": {"parent": "man-firefighter"}},
            "width": 10,
            "height": 10,
        },
        "chars.json": {c: n for c, n in names.items() if n != "red-hair"} if chars else {},
        "info.json": {
            "name": f"Set {prefix}",
            "author": {"name": f"Author of {prefix}", "url": "https://a.example"},
            "license": {"title": "Free 1", "spdx": "Free-1", "url": "https://l.example"},
        },
    }


CONTENTS: dict[str, dict[str, object]] = {
    "@iconify-json/noto": icon_set("noto", True),
    # Its two firefighters are different; it has no code points, and no elephant.
    "@iconify-json/emojione": icon_set("emojione", False, woman_firefighter="#a00000"),
    NAMES.name: {
        "en/data.json": [
            {"label": name, "hexcode": code, "group": group, "tags": tags}
            for code, (name, group, tags) in THINGS.items()
        ]
        + [{"label": "regional indicator A", "hexcode": "1F1E6", "tags": ["A"]}],
        "LICENSE": "Names are given away.\n",
    },
    KEYWORDS.name: {
        "dist/emoji-en-US.json": {
            "\U0001f40d": [
                "snake",
                "evil",
                ":3",
                "100",
                "no\xa0legs",
                "Animal",
                "python",
                "hiss_s",
            ],
            "❤️": ["red_heart", "<3", "valentines"],
        },
        "LICENSE": "Keywords too.\n",
    },
}
del CONTENTS["@iconify-json/emojione"]["icons.json"]["aliases"]  # type: ignore[attr-defined]
del CONTENTS["@iconify-json/emojione"]["icons.json"]["icons"]["elephant"]  # type: ignore[index]


def archive(name: str, files: dict[str, object]) -> bytes:
    stated = {"name": name, "version": "1.0.0", "author": f"People of {name}", "license": "Free-2"}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as tar:
        for member, content in {"package.json": stated, **files}.items():
            text = content if isinstance(content, str) else json.dumps(content)
            entry = tarfile.TarInfo(f"package/{member}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Package]]:
    """A folder with the archives, and their packages."""
    folder = tmp_path_factory.mktemp("packages")
    found = []
    for name, files in CONTENTS.items():
        content = archive(name, files)
        found.append(Package(name, "1.0.0", hashlib.sha256(content).hexdigest()))
        (folder / found[-1].file).write_bytes(content)
    return folder, found


@pytest.fixture
def folder(made: tuple[Path, list[Package]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archives, taken for those that are pinned, and a rasteriser that knows squares only."""

    def rasterise(svg: str, size: int) -> bytes:
        png = io.BytesIO()
        Image.new("RGB", (size, size), svg.split('fill="')[1][:7]).save(png, "PNG")
        return png.getvalue()

    monkeypatch.setattr(dataset, "needed_packages", lambda share_alike: made[1])
    monkeypatch.setattr(dataset, "rasteriser", lambda: rasterise)
    return made[0]


def run(*arguments: object) -> int:
    return main(["data", "emoji", *map(str, arguments)])


def test_the_dataset(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data" / "emoji"
    assert run("--output", out, "--packages", folder, "--size", SIZE) == 0
    printed = capsys.readouterr()
    assert "train       4 things      6 images" in printed.out
    assert "not captions" in printed.out
    assert printed.err == "pictures: 8\n"
    lists = {split: json.loads((out / f"{split}.json").read_text()) for split in dataset.SPLITS}
    shown = {split: [(e["image"], e["group"]) for e in lists[split]] for split in lists}
    assert shown["train"] == [
        # Noto draws both firefighters alike, so neither is shown by that drawing.
        ("images/emojione/1f468-200d-1f692.png", 2),
        ("images/emojione/1f469-200d-1f692.png", 3),
        ("images/noto/1f40d.png", 4),
        ("images/emojione/1f40d.png", 4),
        ("images/noto/2764.png", 5),
        ("images/emojione/2764.png", 5),
    ]
    assert shown["dev"] == [("images/noto/1f418.png", 1)]
    assert [group for _, group in shown["test"]] == [0]
    texts = {e["group"]: e["caption"] for entries in lists.values() for e in entries}
    assert texts == {
        0: ["horse", "animal, equestrian, racehorse"],
        1: ["elephant"],
        2: ["man firefighter", "fire, man, truck"],
        3: ["woman firefighter", "fire, truck, woman"],
        4: [
            "snake",
            "animal, serpent, no legs",
            "bearer, zodiac, python",
            "ophiuchus, evil, hiss s",
        ],
        5: ["red heart", "emotion, love, valentines"],
    }
    ids = [e["image_id"] for entries in lists.values() for e in entries]
    assert sorted(ids) == list(range(8))
    for split in dataset.SPLITS:
        read = open_source(out).open(split)
        assert len(set(read.groups.tolist())) == len({e["group"] for e in lists[split]})
        assert read.captions == [text for e in lists[split] for text in e["caption"]]
        assert all(
            Image.open(read.file(row)).size == (SIZE, SIZE) for row in range(len(read.names))
        )
    assert Image.open(out / "images/emojione/1f469-200d-1f692.png").getpixel((0, 0)) == (160, 0, 0)


def test_licences(folder: Path, tmp_path: Path) -> None:
    assert run("--output", tmp_path / "out", "--packages", folder, "--size", SIZE) == 0
    text = (tmp_path / "out" / "LICENSES.txt").read_text()
    for part in (
        "not captions",
        "rasterised to 16 x 16",
        "@iconify-json/emojione 1.0.0\n  drawings: Set emojione, by Author of emojione, https://a.",
        "licence: Free 1 (Free-1), https://l.example",
        f"by People of {NAMES.name}\n  licence: Free-2\n\nNames are given away.",
        "Keywords too.",
    ):
        assert part in text


def test_all_or_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"

    def full(archives: object, size: int) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "licences", full)
        assert run("--output", out, "--packages", folder) == 2
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    assert run("--output", out, "--packages", folder) == 2
    assert "expected a new folder, found something; name another" in capsys.readouterr().err


def test_archives_are_checked(
    folder: Path, made: tuple[Path, list[Package]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = [package.file for package in made[1]]
    for name in names[:2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes()[:-1])
    out = tmp_path / "out"
    assert run("--output", out, "--packages", tmp_path) == 2
    line = capsys.readouterr().err
    assert f"expected {names[2]}, {names[3]} there, found no such files" in line
    assert "`npm pack emojibase-data@1.0.0 emojilib@1.0.0` in that folder makes them" in line
    for name in names[2:]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert run("--output", out, "--packages", tmp_path) == 2
    line = capsys.readouterr().err
    assert f"{names[0]}: expected SHA-256 {made[1][0].sha256}, found " in line
    assert "fetch it again with `npm pack @iconify-json/noto@1.0.0`" in line
    assert not out.exists()
    assert run("--output", out, "--packages", folder, "--size", "8") == 2
    assert "size: expected 16 to 1024 pixels, got 8" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="the client is a script")
def test_the_client_fetches(
    folder: Path,
    made: tuple[Path, list[Package]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """A client that has all archives but, the second time, one."""
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    monkeypatch.setenv("PATH", str(client.parent))
    assert run("--output", tmp_path / "out") == 2
    line = capsys.readouterr().err
    assert "npm: expected this package client, found none; install it, or give --packages" in line
    assert "`npm pack @iconify-json/noto@1.0.0 @iconify-json/emojione@1.0.0 emoji" in line
    cases = "".join(f"  '{p.spec}') file={p.file} ;;\n" for p in made[1])
    client.write_text(
        '#!/bin/sh\ncase "$3" in\n' + cases + "esac\n"
        f"/bin/cp {folder}/$file . || {{ echo 'npm error code E404' >&2; exit 3; }}\n"
    )
    client.chmod(0o755)
    assert run("--output", tmp_path / "out", "--size", SIZE) == 0
    assert capsys.readouterr().err == "packages: 4\npictures: 8\n"
    client.write_text(client.read_text().replace(f"file={made[1][1].file}", "file=none"))
    assert run("--output", tmp_path / "other") == 2
    line = capsys.readouterr().err
    assert "`npm pack @iconify-json/emojione@1.0.0` failed, exit status 3: " in line
    assert "npm error code E404; see to the network and the registry that npm is" in line
    assert not (tmp_path / "other").exists()


def test_mirrored_and_oblong_drawings(made: tuple[Path, list[Package]]) -> None:
    """Aliases may be mirrored, and a drawing may have a height of its own."""
    left, low = square("#010203", 4), {**square("#040506"), "height": 4}
    icons = {
        "prefix": "made",
        "icons": {"left": left, "low": low},
        "aliases": {"right": {"parent": "left", "hFlip": True}, "again": {"parent": "right"}},
        "width": 10,
        "height": 10,
    }
    files: dict[str, object] = {"icons.json": icons, "chars.json": {"1": "left", "2": "again"}}
    drawn = IconSet(packages.Archive(made[1][0], archive("made", files)))
    body = left["body"]
    assert f'viewBox="0 0 10 10">{body}</svg>' in str(drawn.find("1", ""))
    mirrored = f'<g transform="translate(10 0) scale(-1 1)">{body}</g>'
    assert mirrored in str(drawn.find("2", "left"))
    assert 'viewBox="0 0 10 4"' in str(drawn.find("3", "low"))
    assert drawn.find("3", "nothing") is None


def test_real_rasteriser() -> None:
    """The whole drawing fits into the square, on white."""
    pytest.importorskip("resvg_py")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100" viewBox="0 0 10 5">'
        '<path fill="#ff0000" d="M0 0h5v5h-5z"/></svg>'
    )
    picture = Image.open(io.BytesIO(dataset.rasteriser()(svg, 20)))
    assert (picture.mode, picture.size) == ("RGB", (20, 20))
    red, white = (255, 0, 0), (255, 255, 255)
    places = {(5, 10): red, (15, 10): white, (5, 2): white, (5, 17): white}
    assert {place: picture.getpixel(place) for place in places} == places


def test_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It says so before anything is fetched."""
    monkeypatch.setattr("goal_kernels.extras.find_spec", lambda name: None)
    assert run("--output", tmp_path / "out") == 2
    assert "data emoji needs resvg_py, PIL: pip install" in capsys.readouterr().err


def test_share_alike_is_asked_for() -> None:
    plain, more = needed_packages(), needed_packages(share_alike=True)
    assert [p.name for p in more if p not in plain] == ["@iconify-json/openmoji"]
    assert len({p.file for p in more}) == 7
    assert all(len(bytes.fromhex(p.sha256)) == 32 for p in more)
