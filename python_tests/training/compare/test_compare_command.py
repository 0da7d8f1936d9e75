"""`goal-kernels compare` on run folders: grouping, pairing, what it warns of and what it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from fresh_process import run_fresh
from made_runs import metrics, write_run

from goal_kernels.cli import main

A, B = "nca/sigmoid_ms", "hinge/constant"
RSUMS = {A: [310.0, 332.0, 318.0], B: [300.0, 310.0, 317.0]}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two objectives, three seeds."""
    for objective, values in RSUMS.items():
        for seed, value in enumerate(values):
            name = f"{objective.replace('/', '-')}-{seed}"
            write_run(tmp_path / "runs" / name, objective, seed, value)
    return tmp_path / "runs"


def compared(runs: Path, *options: str) -> list[dict]:
    """The records that --json writes."""
    out = runs.parent / "out.json"
    assert main(["compare", str(runs), *options, "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_means_deviations_and_tests(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, chance, oracle = compared(runs)
    assert capsys.readouterr().err == ""
    assert [row["label"] for row in (first, second, chance, oracle)] == [A, B, "chance", "oracle"]
    assert (first["seeds"], first["rsum"]) == (3, 320.0)
    assert first["rsum std"] == pytest.approx(124**0.5)
    assert first["i2t R@1"] == pytest.approx(32.0)
    assert first["t2i R@10"] == pytest.approx(80.0)
    assert first["difference"] is None  # the best is what the others are tested against
    assert second["pairs"] == 3
    assert second["difference"] == pytest.approx(-11.0)
    assert second["p exact"] == 0.25  # all three differences of one sign: 2 / 2^3
    # Differences within seeds -10, -22, -1; Student's t for two degrees of freedom is 4.3027.
    reach = 4.3027 * (111 / 3) ** 0.5  # their variance is 111
    assert second["interval low"] == pytest.approx(-11 - reach, abs=1e-3)
    assert second["interval high"] == pytest.approx(-11 + reach, abs=1e-3)
    assert (chance["rsum"], chance["i2t R@5"], oracle["rsum"]) == (12.0, 2.0, 500.0)


def test_the_baseline_can_be_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = compared(runs, "--baseline", B)
    assert first["difference"] == pytest.approx(11.0)
    assert second["difference"] is None
    assert main(["compare", str(runs), "--baseline", "no/such"]) == 2
    assert f"--baseline: expected one of '{A}', '{B}', got 'no/such'" in capsys.readouterr().err


def test_holm_is_over_the_family(runs: Path) -> None:
    for seed in range(3):
        write_run(runs / f"third-{seed}", "circle/linear", seed, 250.0 + seed)
    rows = {row["label"]: row for row in compared(runs)}
    p_values = [rows[label]["p t-test"] for label in (B, "circle/linear")]
    assert p_values[0] > p_values[1]
    assert rows["circle/linear"]["p t-test, Holm"] == pytest.approx(2 * p_values[1])
    assert rows[B]["p t-test, Holm"] == pytest.approx(max(p_values[0], 2 * p_values[1]))


def test_labels_name_what_differs(runs: Path) -> None:
    write_run(runs / "other", A, 0, 100.0, model={"lr": 0.5})
    labels = [row["label"] for row in compared(runs)]
    assert f"{A}, model.lr=0.5" in labels
    assert f"{A}, model.lr=0.1" in labels


def test_runs_that_differ_in_much_are_called_by_their_folders(runs: Path) -> None:
    write_run(runs / "odd", A, 0, 100.0, model={"lr": 0.5, "a": 1, "b": 2}, data={"c": 3})
    labels = [row["label"] for row in compared(runs)]
    assert f"{A}, odd" in labels


def test_a_seed_that_was_run_again_counts_once(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs / "again", A, 1, 335.0, started="2026-02-01T00:00:00+00:00")
    rows = {row["label"]: row for row in compared(runs)}
    assert (rows[A]["seeds"], rows[A]["rsum"]) == (3, 321.0)
    assert "seed 1 was run again in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("difference", "warning"),
    [
        ({"data": {"folder": "data/there"}}, "data sets differ: there (two); here (one)"),
        ({"data": {"batch_size": 16}}, "budgets differ"),
        ({"torch": "2.12.0"}, "versions differ"),
        ({"split": "dev"}, "splits differ"),
        ({"selected": "last"}, "tested checkpoints differ"),
    ],
)
def test_what_is_unfair_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], difference: dict, warning: str
) -> None:
    write_run(tmp_path / "runs" / "one", A, 0, 300.0)
    write_run(tmp_path / "runs" / "two", B, 0, 310.0, **difference)
    compared(tmp_path / "runs")
    assert warning in capsys.readouterr().err


def test_seeds_that_are_not_shared_are_said_and_not_paired(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs / "more", A, 7, 320.0)
    rows = {row["label"]: row for row in compared(runs)}
    assert rows[A]["seeds"] == 4
    assert rows[B]["pairs"] == 3
    assert "tests pair only those in common: 0 1 2 7" in capsys.readouterr().err


def test_unfinished_runs_and_evaluations_are_listed_and_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = write_run(runs / "cut", A, 3, None)
    (cut / "metrics.csv").write_text("step,train/loss\n0,5.0\n39,4.0\n")
    (cut / "logs").mkdir()
    (cut / "logs" / "metrics.csv").write_text("step,train/loss\n0,5.0\n39,4.0\n")
    write_run(runs / "tested", A, 4, 320.0, command="test")
    assert compared(runs)[0]["seeds"] == 3
    printed = capsys.readouterr().out
    assert f"not finished: {cut} (40 steps logged)" in printed
    assert f"left out, an evaluation: {runs / 'tested'}" in printed


def test_the_checkpoint_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"selected": "best", "best": metrics(300.0), "last": metrics(290.0)}
    write_run(tmp_path / "runs" / "one", A, 0, 300.0, **both)
    assert compared(tmp_path / "runs")[0]["rsum"] == 300.0
    assert compared(tmp_path / "runs", "--checkpoint", "last")[0]["rsum"] == 290.0
    write_run(tmp_path / "runs" / "two", A, 1, 300.0, selected="best")
    assert main(["compare", str(tmp_path / "runs"), "--checkpoint", "last"]) == 2
    assert "--checkpoint: expected results of the last checkpoint" in capsys.readouterr().err


def test_what_is_written(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: runs.parent / f"out.{kind}" for kind in ("markdown", "csv", "png")}
    options = [text for kind, path in files.items() for text in (f"--{kind}", str(path))]
    compared(runs, *options)
    printed = capsys.readouterr().out
    assert all(f"{kind}  {path}" in printed for kind, path in files.items())
    assert "320.0 ± 11.1" in printed
    lines = files["markdown"].read_text().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith(f"| {A} | 3 |")
    with files["csv"].open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [float(row["rsum"]) for row in rows] == pytest.approx([320, 309, 12, 500])
    assert rows[0]["difference"] == ""
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("config.yaml", "config.yaml, got while parsing"),
        ("metrics.json", "metrics.json: expected JSON"),
    ],
)
def test_a_damaged_file_is_named(
    runs: Path, capsys: pytest.CaptureFixture[str], damage: str, message: str
) -> None:
    (runs / "hinge-constant-0" / damage).write_text("{[")
    assert main(["compare", str(runs)]) == 2
    assert message in capsys.readouterr().err


def test_the_table_needs_no_extra_and_no_sign_beyond_ascii(runs: Path) -> None:
    program = f"""
import sys
sys.stdout.reconfigure(encoding="ascii")
sys.stderr.reconfigure(encoding="ascii")
for extra in ("rich", "pytorch_lightning", "jsonargparse", "matplotlib", "PIL", "tensorboard"):
    sys.modules[extra] = None  # as if it were not installed
from goal_kernels.cli import main
assert main(["compare", {str(runs)!r}]) == 0
sys.exit(main(["compare", {str(runs)!r}, "--png", "x.png"]))
"""
    done = run_fresh(program)
    assert done.returncode == 2
    assert "320.0 +- 11.1" in done.stdout
    assert "d rsum" in done.stdout
    [line] = done.stderr.splitlines()
    assert "--png needs matplotlib: pip install" in line
    assert "[plots]" in line


def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert f"{tmp_path}: expected a run folder" in capsys.readouterr().err
    write_run(tmp_path / "cut", A, 0, None)
    assert main(["compare", str(tmp_path)]) == 2
    assert "at least one finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "content", "message"),
    [
        ("config.yaml", "a: " + "[" * 50_000, "more than 64 levels"),
        ("environment.json", "[" * 100_000, "environment.json: expected JSON"),
        ("metrics.json", '{"a":' * 100_000, "metrics.json: expected JSON"),
        ("metrics.json", "{}", "metrics.json: expected i2t, t2i and rsum"),
    ],
)
def test_a_deep_or_empty_file_is_named(
    runs: Path, capsys: pytest.CaptureFixture[str], damage: str, content: str, message: str
) -> None:
    (runs / "hinge-constant-0" / damage).write_text(content)
    assert main(["compare", str(runs)]) == 2
    assert message in capsys.readouterr().err


def test_what_a_killed_start_left_behind_is_not_compared(runs: Path) -> None:
    hidden = runs / ".hinge.x1.partial"
    hidden.mkdir()
    (hidden / "config.yaml").write_text("{[")
    assert main(["compare", str(runs)]) == 0
