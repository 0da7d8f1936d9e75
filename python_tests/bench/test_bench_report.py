"""Reports from a small made-up run: CSV, tables, picture, README markers, busy machines."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import headline, startup, whole_batch_page
from bench.report import BENCH_PART, main, markers, replace_between, update_readme
from bench.results import Record, busy_warning, processor_share, read_run
from bench.tables import (
    job_table,
    render,
    render_short,
    run_command,
    select_short,
    target_table,
)
from bench.targets import judge_targets
from tools import matrix

BEGIN, END = markers(BENCH_PART)

MACHINE = {
    "device": "Test CPU",
    "target": "cpu",
    "cores": 4,
    "threads": 2,
    "isa": "avx2",
    "torch": "2.13.0",
    "triton": "3.9.0",
    "python": "3.11.7",
    "precisions": ["highest", "high"],
    "suite": "quick",
    "selected": "",
}
TIMES = {"gemm": 10.0, "gemm_out": 8.0, "eager": 40.0, "cpu": 12.0}


def measurement(unit: str, value: float) -> dict:
    return {"unit": unit, "p20": 0.9 * value, "p50": value, "p80": 1.25 * value}


def benchmark(backend: str, batch: int, share: float = 1.0) -> dict:
    time = TIMES[backend] * batch / 1024
    return {
        "extra_info": {
            "op": "goal_loss",
            "mode": "forward_backward",
            "objective": "hinge/constant",
            "batch": batch,
            "width": 1024,
            "dtype": "float32",
            "precision": "highest",
            "device": "cpu",
            "backend": backend,
            "threads": 2,
            "measurements": {
                "wall_time": measurement("ms", time),
                "cpu_time": measurement("ms", 2 * time * share),
            },
            "ratios": {to: TIMES[backend] / TIMES[to] for to in ("gemm", "gemm_out", "eager")},
        }
    }


def memory(backend: str, mib: float) -> dict:
    found = benchmark(backend, 4096)
    found["extra_info"]["measurements"] = {"peak_memory": measurement("MiB", mib)}
    found["extra_info"]["ratios"] = {}
    return found


def write_run(path, share: float = 1.0, **changes):
    content = {
        "machine_info": {"goal_kernels": MACHINE},
        "commit_info": {"id": "0123456789abcdef", "dirty": True},
        "datetime": "2026-05-21T10:00:00+00:00",
        "benchmarks": [
            *(benchmark(name, batch, share) for batch in (512, 1024, 4096) for name in TIMES),
            memory("eager", 268.0),
            memory("cpu", 7.5),
            {"name": "skipped", "extra_info": {}},
        ],
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.fixture
def run_file(tmp_path):
    return write_run(tmp_path / "run.json")


def test_csv_is_tidy(run_file, tmp_path) -> None:
    assert main([str(run_file), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [f.name for f in fields(Record)]
    assert len(rows) == 3 * 4 * 2 + 2
    wanted = ("cpu", "1024", "wall_time")
    chosen = [r for r in rows if (r["backend"], r["B"], r["metric"]) == wanted]
    assert len(chosen) == 1
    expected = {
        "p20": "10.8",
        "p50": "12",
        "p80": "15",
        "unit": "ms",
        "D": "1024",
        "ratio_to_gemm": "1.2",
        "ratio_to_gemm_out": "1.5",
        "ratio_to_eager": "0.3",
        "device": "Test CPU",
        "commit": "0123456789ab-dirty",
        "date": "2026-05-21",
    }
    assert {k: chosen[0][k] for k in expected} == expected
    assert all(r["ratio_to_gemm"] == "" for r in rows if r["metric"] != "wall_time")


def test_report_writes_all_files_and_no_leftovers(run_file, tmp_path) -> None:
    folder = tmp_path / "out"
    assert main([str(run_file), "--out", str(folder)]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["plot.png", "results.csv", "table.md"]
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_table_holds_every_case_and_the_short_one_the_largest(run_file) -> None:
    run = read_run(run_file)
    full, short = render(run), render_short(run)
    job = "| `hinge/constant`, forward + backward | float32 `highest` |"
    row = f"{job} 4096 × 1024 | 40 | 32 | 160 | 48 | 1.20 | 0.30 | 268 | 7.5 |"
    small = f"{job} 512 × 1024 | 5 | 4 | 20 | 6 | 1.20 | 0.30 | – | – |"
    assert row in full
    assert small in full
    assert row in short
    assert small not in short
    assert f"{job} 1024 × 1024 |" in short
    assert "compiled ms" not in full


def test_provenance_names_machine_versions_date_and_command(run_file) -> None:
    run = read_run(run_file)
    text = render(run)
    for word in ("2026-05-21", "Test CPU", "2 threads", "avx2", "2.13.0", "0123456789ab-dirty"):
        assert word in text
    assert "`python -m bench --threads 2`" in text


def test_the_command_repeats_every_choice(tmp_path) -> None:
    changed = {"suite": "full", "target": "cuda", "selected": "4096x1024"}
    changed["precisions"] = ["high"]
    machine = {"goal_kernels": {**MACHINE, **changed}}
    run = read_run(write_run(tmp_path / "run.json", machine_info=machine))
    expected = "python -m bench --full --device cuda --precision high -k '4096x1024' --threads 2"
    assert run_command(run) == expected


def test_a_busy_machine_is_pointed_out(tmp_path) -> None:
    quiet = read_run(write_run(tmp_path / "quiet.json"))
    busy = read_run(write_run(tmp_path / "busy.json", share=0.5))
    assert processor_share(quiet) == pytest.approx(1.0)
    assert busy_warning(quiet) == ""
    assert "only 50%" in busy_warning(busy)
    assert "Not to be quoted" in render(busy)
    assert "Not to be quoted" not in render(quiet)


def test_readme_is_updated_between_its_markers(run_file, tmp_path, capsys) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = [str(run_file), "--out", str(tmp_path / "out"), "--update-readme", str(readme)]
    assert main(arguments) == 0
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\nMeasured on 2026-05-21")
    assert text.endswith(f"the full table names the others.\n{END}\nafter\n")
    assert "old" not in text
    assert main(arguments) == 0
    assert readme.read_text() == text
    assert "already up to date" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_missing_or_doubled_markers_are_refused(text, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"README\.md: expected one line <!-- bench:begin -->"):
        replace_between(text, "new", "README.md")
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="add them where the table belongs"):
        update_readme(path, "new")
    assert path.read_text() == text


def test_a_file_that_is_no_run_is_refused(tmp_path, capsys) -> None:
    empty = write_run(tmp_path / "empty.json", benchmarks=[])
    assert main([str(empty), "--out", str(tmp_path / "out")]) == 2
    assert "found 0 results" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.json")]) == 2
    assert not (tmp_path / "out").exists()


ROOT = Path(__file__).parent.parent.parent
COMMITTED = ROOT / "bench" / "results" / "intel-r-xeon-r-processor"


def committed_records() -> list[Record]:
    """Of the results that lie beside the harness."""
    kinds = {"B": int, "D": int, "threads": int, **dict.fromkeys(("p20", "p50", "p80"), float)}

    def value(name: str, text: str):
        if name.startswith("ratio"):
            return float(text) if text else None
        return kinds.get(name, str)(text)

    with (COMMITTED / "results.csv").open() as stream:
        return [
            Record(**{k: value(k, v) for k, v in row.items()}) for row in csv.DictReader(stream)
        ]


def test_committed_tables_are_what_the_committed_figures_render_to() -> None:
    records = committed_records()
    for op in ("mine", "goal_loss"):
        assert job_table(select_short(records), op) in (ROOT / "docs/speed.md").read_text()
    table = COMMITTED / "table.md"
    assert target_table(judge_targets(records)) in table.read_text()


def test_the_readme_has_the_number_and_the_picture_of_the_committed_figures() -> None:
    folder = COMMITTED
    rows = headline.read_case(folder / "results.csv")
    times = headline.figures(rows, "wall_time")
    assert set(times) == set(headline.NAMES)
    assert times["cpu"] < min(times["eager"], times["compiled"])
    assert headline.sentence(rows) in (ROOT / "README.md").read_text()
    assert headline.picture(rows) == (folder / "headline.svg").read_text()
    ElementTree.fromstring(headline.picture(rows))


def test_committed_tables_of_pages_come_from_their_results() -> None:
    results = ROOT / "bench" / "results"
    (over_all,) = results.glob("*/whole_batch.json")
    table = whole_batch_page.render(json.loads(over_all.read_text()))
    assert table in (ROOT / "docs/whole_batch.md").read_text()
    started = json.loads((results / "startup.json").read_text())
    assert startup.render(started) in (ROOT / "docs/speed.md").read_text()
    cells = json.loads((results / "matrix.json").read_text())
    assert matrix.render(cells) in (ROOT / "docs/install.md").read_text()
    assert {row["result"] for row in cells.values()} == {"passes"}
    assert set(cells) <= {cell.name for cell in matrix.CELLS}


def test_start_up_is_measured_in_a_process_of_its_own() -> None:
    _, small = startup.measure(["-S", "-c", "print('not to be seen')"])
    seconds, mib = startup.measure(["-S", "-c", "x = b'1' * (50 << 20)"])
    assert seconds > 0
    assert small + 45 < mib < small + 60
    with pytest.raises(RuntimeError, match="ended with 3"):
        startup.measure(["-c", "raise SystemExit(3)"])
