"""Recipes of studies: what they expand to, and what is wrong with a bad one, in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from goal_kernels import list_elements
from goal_kernels.recipes import STUDIES, find_recipe, overlaid, recipe_names
from goal_kernels.training.study.recipe import all_objectives, read_study

GOOD = {"name": "a", "base": "goalworld", "seeds": [0], "groups": [{"name": "g"}]}


def write(tmp_path: Path, study: object) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return str(path)


def test_all_objectives_are_those_of_the_registry() -> None:
    objectives = all_objectives()
    counts = [
        len([element for element in list_elements(kind) if element.built_in])
        for kind in ("triplet", "pair")
    ]
    assert len(set(objectives)) == counts[0] * counts[1] >= 20
    assert "hinge/constant" in objectives


def test_the_packaged_study_of_objectives() -> None:
    assert "objectives" in recipe_names(STUDIES)
    recipe = read_study("objectives")
    cells = recipe.cells()
    number = len(all_objectives())
    assert len(cells) == number * 5 + 5 + number
    assert len({cell.name for cell in cells}) == len(cells)
    warmed = [cell for cell in cells if cell.group == "after warm-up"]
    assert len({cell.warmup_key for cell in warmed}) == 5
    budgets = {
        (cell.config["trainer"]["max_epochs"], cell.config["data"]["batch_size"]) for cell in cells
    }
    assert len(budgets) == 1
    assert recipe.baseline in {cell.label for cell in cells}


def test_the_packaged_study_of_drawings() -> None:
    cells = read_study("emoji").cells()
    assert len(cells) == (len(all_objectives()) + 1) * 5
    assert all(cell.config["run"]["ridge"] for cell in cells)
    assert {cell.config["data"]["folder"] for cell in cells} == {"data/emoji/lite0"}


def test_layers_of_a_configuration(tmp_path: Path) -> None:
    base = {
        "seed_everything": 9,
        "run": {"name": "x", "threads": 2},
        "data": {"folder": "d", "batch_size": 4},
        "model": {"lr": 0.1, "text": {"kind": "bigru", "word_dim": 8}},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    study = {
        **GOOD,
        "base": str(tmp_path / "base.yaml"),
        "seeds": [3, 4],
        "set": {"model": {"text": {"word_dim": 16}, "lr": 0.2}},
        "groups": [
            {"name": "first", "objectives": ["nca/linear"]},
            {
                "name": "other",
                "objectives": ["nca/linear"],
                "seeds": [3],
                "set": {"model": {"lr": 1}},
            },
        ],
    }
    first, second, other = read_study(write(tmp_path, study)).cells({"data": {"folder": "mine"}})
    assert first.config == {
        "data": {"folder": "mine", "batch_size": 4},
        "model": {
            "lr": 0.2,
            "text": {"kind": "bigru", "word_dim": 16},
            "objective": "nca/linear",
        },
        "trainer": {},
        "run": {"threads": 2},
    }
    assert (first.label, first.seed, second.seed) == ("nca/linear", 3, 4)
    assert (other.label, other.seed, other.config["model"]["lr"]) == ("nca/linear, other", 3, 1)
    assert first.name == "nca-linear-seed3"


def test_merging_modifies_nothing() -> None:
    base = {"a": {"b": 1, "c": 2}}
    assert overlaid(base, {"a": {"b": {"x": 3}}, "d": 4}) == {"a": {"b": {"x": 3}, "c": 2}, "d": 4}
    assert base == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [0]}, r"sedes: expected one of name, base"),
        ({"seeds": []}, r"seeds: expected a list of different whole numbers"),
        ({"seeds": [0, 0]}, r"seeds: .* got \[0, 0\]"),
        ({"seeds": "0"}, r"seeds: "),
        ({"groups": []}, r"groups: expected at least one"),
        ({"groups": ["g"]}, r"groups\[0\]: expected names with values"),
        ({"groups": [{"name": "g", "sets": {}}]}, r"groups\[0\]\.sets: expected one of"),
        ({"groups": [{"name": "g", "seeds": [-1]}]}, r"groups\[0\]\.seeds: "),
        ({"groups": [{"name": "g"}, {"name": "g"}]}, r"groups: expected different names"),
        ({"groups": [{"name": "g", "objectives": "nca"}]}, r"groups\[0\]\.objectives: expected"),
        ({"set": {"modle": {}}}, r"set\.modle: expected one of data, model"),
        ({"set": {"model": 5}}, r"set\.model: expected names with values, got 5"),
        ({"set": ["model"]}, r"set: expected names with values, got \['model'\]"),
        ({"dataset": "tiny"}, r"dataset: expected names with values, got 'tiny'"),
        ({"groups": 3}, r"groups: expected a list of groups, got 3"),
        ({"groups": [{"name": "g", "objectives": 5}]}, r"groups\[0\]\.objectives: .* list"),
        ({"groups": [{"name": "g", "objectives": [5]}]}, r"groups\[0\]\.objectives: .* got \[5\]"),
        ({"groups": [{"name": "g", "set": 5}]}, r"groups\[0\]\.set: expected names with values"),
        ({"base": None}, r"base: expected a text, got None"),
    ],
)
def test_a_bad_recipe_is_explained(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_study(write(tmp_path, {**GOOD, **change}))


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"packaged study, got .*objectives"):
        find_recipe("no-such", folder=STUDIES)
    with pytest.raises(ValueError, match=r"expected options by name in .*, got \[1\]"):
        read_study(write(tmp_path, [1]))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="expected YAML"):
        read_study(str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ValueError, match="study: expected UTF-8 text"):
        read_study(str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_text("a: " + "[" * 50_000)
    with pytest.raises(ValueError, match="more than 64 levels"):
        read_study(str(tmp_path / "bad.yaml"))
