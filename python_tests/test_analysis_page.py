"""Maps, the page and the command `analyze`."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest
import torch

from goal_kernels.analysis import analyze
from goal_kernels.analysis.drawing import flow, full_colour, heat
from goal_kernels.analysis.page import landscapes_html, mean_path, sheet_svg, summary_table
from goal_kernels.cli import main

RUN = {"bins": 4, "range": [-1, 1]}


def pixels(image: str) -> list[bytes]:
    """The rows of the PNG in an SVG image, 4 bytes a pixel."""
    data = base64.b64decode(re.search('base64,([^"]+)', image).group(1))  # type: ignore[union-attr]
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    raw = zlib.decompress(data[start + 4 : start + 4 + length])
    crc = struct.unpack(">I", data[start + 4 + length : start + 8 + length])[0]
    assert crc == zlib.crc32(data[start : start + 4 + length])
    step = 1 + 4 * width
    return [raw[k * step + 1 : (k + 1) * step] for k in range(height)]


def test_a_map_has_p_to_the_right_and_n_upwards() -> None:
    values = torch.zeros(3, 3, dtype=torch.float64)
    values[2, 0], values[0, 2], values[1, 1] = 4.0, -1.0, torch.nan
    rows = pixels(heat(values, 4.0, 1.0))
    opacity = [[row[4 * k + 3] for k in range(3)] for row in rows]
    assert opacity == [[127, 0, 0], [0, 0, 0], [0, 0, 255]]  # square roots of 1/4 and 1
    blue, orange = rows[2][8:11], rows[0][0:3]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]


def test_the_full_colour_ignores_poles() -> None:
    values = torch.ones(1000, dtype=torch.float64)
    values[0], values[1] = torch.inf, 1e9
    assert full_colour(values) == 1.0


def test_lines_of_flow_follow_pull_and_push() -> None:
    drawn = flow(analyze("hinge/constant"))
    lines = re.findall('class="flow" points="([^"]+)"', drawn)
    dots = drawn.count('opacity=".5"')
    assert len(lines) + dots == 64
    assert dots == 28  # seeds with p - n > 0.2, which lie 0.25 apart
    for line in lines:
        first, *_, last = ([float(x) for x in point.split(",")] for point in line.split())
        assert last[0] > first[0]
        assert last[1] > first[1]  # downwards: n falls
        assert last[0] - first[0] == pytest.approx(last[1] - first[1], abs=0.21)


def test_the_table_says_what_the_landscapes_do() -> None:
    table = summary_table([analyze("constant/linear"), analyze("circle")])
    rest = ["0.50", "1 / 0", "0.1 / 0.1", "0 / 1"]
    assert table.rows[0] == ["constant/linear", "yes", "on a line", *rest]
    assert table.rows[1][:2] == ["circle", "none"]


def write_run(folder: Path, objective: str, epochs: list) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"model: {{objective: {objective}, objective_parameters: {{tau: 5.0, margin: 0.1}}}}"
    )
    (folder / "pairs.json").write_text(json.dumps({**RUN, "epochs": epochs}))
    return folder


def test_a_page_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    epochs = [{"epoch": 1, "cells": [[2, 1, 6]]}, {"epoch": 2, "cells": [[3, 1, 3], [3, 0, 3]]}]
    run = write_run(tmp_path / "a<b", "nca/linear", epochs)
    given = ["analyze", "circle", "nca/linear", "--run", str(run), "--output", str(tmp_path / "o")]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "nca/linear" in printed
    assert printed.index("nca/linear") < printed.index("circle")
    page = (tmp_path / "o" / "index.html").read_text()
    assert page.count("<h2>nca/linear</h2>") == 1
    assert "tau = 5" in page
    assert "a&lt;b" in page
    assert "<figcaption>Epoch 2</figcaption>" in page
    assert "src=" not in page
    assert 'href="http' not in page
    for svg in re.findall("<svg.*?</svg>", page):
        ET.fromstring(svg)
    assert len(re.findall("<svg", page)) == 2 + 2 + 8


def test_the_mean_moves_from_epoch_to_epoch() -> None:
    first, second = torch.zeros(2, 4, 4, dtype=torch.float64)
    first[2, 1] = 6
    second[3, 1], second[3, 0] = 3, 3
    assert mean_path({1: first, 2: torch.zeros(4, 4), 3: second}) == [[0.25, -0.25], [0.75, -0.5]]


def test_a_run_with_a_dense_loss(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "run", "info_nce", [])
    assert main(["analyze", "--run", str(run)]) == 0
    assert "info_nce" in capsys.readouterr().out
    assert main(["analyze", "--run", str(run), "--output", str(tmp_path)]) == 2
    assert "expected at least one epoch in" in capsys.readouterr().err
    (run / "pairs.json").unlink()
    assert main(["analyze", "--run", str(run), "--output", str(tmp_path)]) == 2
    assert "name the objective instead" in capsys.readouterr().err


def test_a_dense_objective_of_the_driver_is_the_loss_of_the_catalogue() -> None:
    make_objective = pytest.importorskip("goal_kernels.training.objectives").make_objective
    found = analyze(make_objective("info_nce", {"tau": 5.0}))
    assert found.name == "info_nce"
    assert found.push(0.0, 0.0) == 2.5


def test_a_sheet_is_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sheet = tmp_path / "sheet.svg"
    names = ["constant/sigmoid_ms", "siglip", "llave"]
    assert main(["analyze", *names, "--relative", "0.5", "0.5", "--sheet", str(sheet)]) == 0
    root = ET.fromstring(sheet.read_text())
    texts = [node.text for node in root.iter() if node.get("class") == "name"]
    assert texts == ["constant/sigmoid_ms", "siglip", "llave *"]
    assert sheet_svg([analyze("siglip")]) == sheet_svg([analyze("siglip")])


def test_settings_reach_the_losses_that_have_them(capsys: pytest.CaptureFixture) -> None:
    assert main(["analyze", "nca/constant", "hinge/constant", "--set", "tau=1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "0.31 / 0.31" in rows[2]
    wrong = {
        "gamma=2": "--set gamma: none of the losses has such a parameter",
        "tau": "--set: expected NAME=VALUE with a number, got 'tau'",
        "tau=-1": "tau: expected a finite number",
    }
    for setting, message in wrong.items():
        assert main(["analyze", "nca/constant", "--set", setting]) == 2
        assert message in capsys.readouterr().err


def test_what_cannot_be_analysed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for given, message in (
        ([], "LOSS: expected at least one, or --run"),
        (["siglop"], "did you mean siglip"),
        (["--run", str(tmp_path)], "expected the folder of a run"),
    ):
        assert main(["analyze", *given]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("[1, 2]")
    assert main(["analyze", "--run", str(tmp_path)]) == 2
    assert "expected the configuration of a run" in capsys.readouterr().err


def test_a_page_escapes_names() -> None:
    def odd(p, n):
        return n - p

    odd.__name__ = "<b>"
    page = landscapes_html([analyze(odd)])
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_the_options_are_listed_without_torch() -> None:
    code = (
        "import argparse, sys; from goal_kernels.analysis import cli;"
        "cli.add_analyze_arguments(argparse.ArgumentParser()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
