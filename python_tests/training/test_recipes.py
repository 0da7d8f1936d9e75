"""Recipes: found, put together, parsed by the real parser, built, and told truly in the docs."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

pytest.importorskip("pytorch_lightning")

from goal_kernels.cli import main
from goal_kernels.recipes import (
    RecipeError,
    files_of,
    find_recipe,
    merged,
    read_card,
    read_config,
    recipe_names,
    resolve_recipes,
)
from goal_kernels.training.data_module import RetrievalDataModule
from goal_kernels.training.lightning_cli import RetrievalCLI
from goal_kernels.training.lightning_module import RetrievalModule
from goal_kernels.training.options import DataSizes, as_options

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


class ParserOnly(RetrievalCLI):
    """Builds the parser and parses, and neither builds nor trains anything."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture(scope="module")
def parse():
    """From arguments of `fit` to the parsed configuration."""
    cli = ParserOnly(
        RetrievalModule,
        RetrievalDataModule,
        resume=None,
        held=ExitStack(),
        typed=["fit"],
        seed_everything_default=0,
        save_config_callback=None,
        auto_configure_optimizers=False,
        args=["fit", "--data.folder", "none"],
    )
    return lambda *arguments: cli.parser.parse_args(["fit", *resolve_recipes(arguments)]).fit


def as_plain(namespace) -> dict:
    return namespace.as_dict()


def test_recipes_of_all_families_are_there() -> None:
    names = set(recipe_names())
    families = {
        f"vse_infinity_{image}_{text}_{data}"
        for image in ("region", "grid")
        for text in ("bigru", "bert")
        for data in ("f30k", "coco")
    }
    kinds = ("vsepp", "vsepp_raw", "goal", "xvlm_like", "albef_like", "laps_like")
    families |= {f"{kind}_{data}" for kind in kinds for data in ("f30k", "coco")}
    families |= {f"goal_{data}_region_bert" for data in ("f30k", "coco")}
    goalworld = {f"goalworld{name}" for name in ("", "_fusion", "_late", "_tiny")}
    assert names == families | goalworld | {"demo", "emoji", "emoji_features"}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_parses_to_what_it_says(parse, name: str) -> None:
    config = as_plain(parse("--config", name))

    def compare(said: dict, got: dict, where: str) -> None:
        for key, value in said.items():
            if isinstance(value, dict) and isinstance(got[key], dict):
                compare(value, got[key], f"{where}.{key}")
            else:
                assert got[key] == value, f"{where}.{key}"

    compare(merged(find_recipe(name)), config, name)
    assert config["run"]["name"] == name
    assert config["recipe"]["summary"] == read_card(name).summary


@pytest.mark.parametrize(
    "name",
    [n for n in recipe_names() if not any(raw in n for raw in ("emoji", "grid", "raw", "_like_"))],
)
def test_the_model_of_a_recipe_can_be_built(parse, name: str) -> None:
    small = ["--model.embed_dim", "8", "--model.text.word_dim", "4"]
    if "bert" in name:
        small += ["--model.text.bert", "random:tiny"]
    options = as_plain(parse("--config", name, *small))["model"]
    options = {key: value for key, value in options.items() if key not in ("sizes", "seed")}
    sizes = as_options(DataSizes, {"region_dim": 6, "vocabulary_size": 40})
    module = RetrievalModule(sizes, **options)
    assert module.objective.name == options["objective"]
    groups = module.model.parameter_groups(options["lr"], options["weight_decay"])
    assert {group["weight_decay"] for group in groups} == {options["weight_decay"]}


@pytest.mark.parametrize("name", ["vse_infinity_region_bigru_f30k", "goal_coco"])
def test_the_published_schedule(parse, name: str) -> None:
    """VSE-infinity: one epoch on all negatives, 25 epochs, a tenth of the rate from epoch 15."""
    config = as_plain(parse("--config", name))
    model, trainer = config["model"], config["trainer"]
    assert (model["warmup_epochs"], model["lr_drop_epochs"]) == (1.0, [15])
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (25, 2.0)
    assert (model["optimizer"], model["lr"], model["weight_decay"]) == ("adamw", 5e-4, 1e-2)


def test_what_comes_later_wins(parse, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model:\n  image: {drop_probability: 0.1}\n  lr: 0.25\n")
    config = as_plain(parse("--config", "goal_f30k", "--config", str(own), "--model.lr", "0.5"))
    assert config["model"]["image"]["drop_probability"] == 0.1
    assert config["model"]["image"]["pooling"] == "gpo"
    assert config["model"]["lr"] == 0.5
    assert config["model"]["objective"] == "nca/sigmoid_ms"
    as_overlay = as_plain(parse("--config", "goalworld", "--config", "parts/goal"))
    assert as_overlay["model"]["objective"] == "nca/sigmoid_ms"
    assert as_overlay["data"]["folder"] == "data/goalworld"


def write(folder: Path, name: str, content: dict) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


def test_files_extend_files_beside_them(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", {"model": {"lr": 1, "embed_dim": 2}})
    left = write(tmp_path, "left.yaml", {"recipe": {"extends": ["base.yaml"]}, "model": {"lr": 3}})
    right = write(
        tmp_path, "right.yaml", {"recipe": {"extends": ["base.yaml"]}, "data": {"seed": 4}}
    )
    top = write(tmp_path, "top.yaml", {"recipe": {"extends": ["left.yaml", "right.yaml"]}})
    assert files_of(top) == [base, left, right, top]
    assert merged(top) == {"model": {"lr": 3, "embed_dim": 2}, "data": {"seed": 4}}


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, "a.yaml", {"recipe": {"extends": ["b.yaml"]}})
    circle = write(tmp_path, "b.yaml", {"recipe": {"extends": ["a.yaml"]}})
    with pytest.raises(RecipeError, match=r"extends itself"):
        files_of(circle)
    lonely = write(tmp_path, "c.yaml", {"recipe": {"extends": ["parts/nothing"]}})
    with pytest.raises(FileNotFoundError, match=r"'parts/nothing'"):
        files_of(lonely)
    torn = tmp_path / "torn.yaml"
    torn.write_text("model: [1,")
    assert main(["fit", "--config", str(torn)]) == 2
    assert "expected YAML in" in capsys.readouterr().err
    for encoding in ("latin1", "utf-16"):
        torn.write_text("run: {name: café}", encoding=encoding)
        with pytest.raises(RecipeError, match=rf"expected UTF-8 text .*iconv -f {encoding} "):
            files_of(torn)
    torn.write_text("just words")
    with pytest.raises(RecipeError, match=r"expected options by name"):
        files_of(torn)


def test_the_command_lists_and_prints(capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name in recipe_names():
        assert f"{name}\n    {read_card(name).summary}\n" in listed
    name = "vse_infinity_region_bert_coco"
    assert main(["recipes", name]) == 0
    printed = capsys.readouterr().out
    assert "i2t 79.7 / 96.4, t2i 64.8 / 91.4" in printed
    assert yaml.safe_load(printed) == merged(find_recipe(name))
    assert main(["recipes", "vse"]) == 2
    assert "goalworld" in capsys.readouterr().err


def test_the_docs_show_every_recipe_with_its_figures() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows == {name: read_card(name).figures() for name in recipe_names()}


@pytest.mark.parametrize("card", ["goalworld", {"extends": [3]}, {"extends": "parts"}, [1]])
def test_a_card_of_another_kind_is_explained(tmp_path: Path, card: object) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"recipe": card}))
    with pytest.raises(RecipeError, match=r"expected the block `recipe` of .*own\.yaml"):
        read_config(path)
