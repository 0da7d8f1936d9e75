"""Recipes and studies: configurations shipped with the package, found by name, made of parts.

A configuration may begin with a block `recipe`, which training does not read: `summary`, `extends`
(configurations that come before it, by name or as files beside it), `expected` (the figures it
should reach and who states them) and `notes`.
"""

from __future__ import annotations

import argparse
import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

MOST_LEVELS = 64
MOST_VALUES = 100_000
"""Of a configuration, with what its aliases stand for; ours have 4 levels and some 150 values."""

RECIPES = Path(__file__).resolve().parent
STUDIES = RECIPES / "studies"
CONFIG_OPTIONS = ("--config", "-c")
CARD = "recipe"  # key of the block, and name of the option that takes it
EPILOG = """\
examples
  goal-kernels recipes
  goal-kernels recipes vse_infinity_region_bigru_f30k
  goal-kernels fit --config vse_infinity_region_bigru_f30k --data.folder my/f30k

Any option of a recipe can be overridden, and any objective goes with any recipe:
  goal-kernels fit --config vse_infinity_region_bigru_f30k --model.objective circle/linear_ms
"""


class RecipeError(ValueError):
    """A configuration that cannot be put together."""


def recipe_names(folder: Path = RECIPES) -> list[str]:
    """Names of what is packaged, in alphabetical order; parts of recipes are not among these."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_recipe(name: str, beside: Path | None = None, folder: Path = RECIPES) -> Path:
    """The file of a configuration, given as a path or as the name of a packaged recipe or part.

    Args:
        name: what `--config` or `extends` says.
        beside: folder that paths may be relative to, besides the working folder.
        folder: `RECIPES` or `STUDIES`.
    Raises: FileNotFoundError naming those that are packaged when it is neither.
    """
    packaged = folder / f"{name}.yaml"
    for path in (*([beside / name] if beside else []), Path(name), packaged):
        if path.is_file():
            return path
    near = get_close_matches(name, recipe_names(folder), 1)
    meant = f"did you mean {near[0]}? " if near else ""
    kind = "study" if folder == STUDIES else "recipe"
    raise FileNotFoundError(
        f"--config: expected a YAML file or a packaged {kind}, got {name!r}; {meant}there are "
        f"{', '.join(recipe_names(folder))}"
    )


def read_config(path: Path, argument: str = "--config") -> dict[str, Any]:
    """The content of a YAML file, which `argument` named.

    Raises: FileNotFoundError; RecipeError when it is no mapping, not UTF-8, or so deep or so large
        (also by aliases of aliases) that reading it would end the process or never end.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        check_extent(text)
        check_names(yaml.compose(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        marked = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise RecipeError(
            f"{argument}: expected UTF-8 text in {path}, found other bytes at {error.start}; "
            f"convert it, for instance with `iconv -f {'utf-16' if marked else 'latin1'} -t utf-8`"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{argument}: expected YAML in {path}, got {reason}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{argument}: expected options by name in {path}, got {content!r:.60}")
    card = content.get(CARD) or {}
    parts = card.get("extends") or [] if isinstance(card, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise RecipeError(
            f"{argument}: expected the block `{CARD}` of {path} to hold names with values and "
            f"`extends` a list of names, got {card!r:.60}"
        )
    return content


def check_extent(text: str) -> None:
    """Raises: ValueError when a YAML text is deeper or larger than any configuration."""
    import yaml

    sizes: dict[str, int] = {}  # of what an anchor names, its aliases written out
    open_values: list[list[Any]] = [["", 0]]  # anchor and size, outermost first
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_values.append([event.anchor, 1])
            if len(open_values) > MOST_LEVELS:
                raise ValueError(f"more than {MOST_LEVELS} levels of brackets or indentation")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_values.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = "", sizes.get(event.anchor, MOST_VALUES)  # unknown: refers to itself
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        sizes[anchor or ""] = size
        open_values[-1][1] += size
        if open_values[-1][1] > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, aliases written out")


def check_names(node: Any) -> None:
    """Raises: ValueError when an option stands twice in a block of composed YAML: one is lost."""
    if not isinstance(getattr(node, "value", None), list):
        return
    names: set[str] = set()
    for item in node.value:
        name, value = item if isinstance(item, tuple) else (None, item)
        if name is not None and str(name.value) in names:
            raise ValueError(f"{name.value} twice, again in line {name.start_mark.line + 1}")
        if name is not None:
            names.add(str(name.value))
        check_names(value)


def files_of(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """A configuration and those it extends, each behind what it builds on.

    Args:
        path: the configuration.
        above: those that are being expanded, to notice circles.
    Raises: RecipeError when it extends itself; FileNotFoundError when a part is missing.
    """
    if path in above:
        raise RecipeError(f"--config: {path} extends itself, by {' -> '.join(map(str, above))}")
    files: list[Path] = []
    for name in (read_config(path).get(CARD) or {}).get("extends") or []:
        part = find_recipe(name, path.parent)
        files += [file for file in files_of(part, (*above, path)) if file not in files]
    return [*files, path]


def resolve_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with each `--config NAME` (or `-c NAME`) made `--config FILE`, parts first."""
    resolved: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option in CONFIG_OPTIONS and (equals or (value := next(rest, ""))):
            for file in files_of(find_recipe(value)):
                resolved += ["--config", str(file)]
        else:
            resolved.append(argument)
    return resolved


def merged(path: Path) -> dict[str, Any]:
    """The options of a configuration and of all it extends, without the block `recipe`."""
    together: dict[str, Any] = {}
    for file in files_of(path):
        together = overlaid(together, read_config(file))
    together.pop(CARD, None)
    return together


def overlaid(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `changes` laid over it, mapping by mapping; neither is modified."""
    result = dict(config)
    for name, value in changes.items():
        old = result.get(name)
        if isinstance(value, Mapping):
            value = overlaid(old if isinstance(old, Mapping) else {}, value)
        result[name] = value
    return result


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by dotted name."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values.update(flat(value, f"{prefix}{name}."))
        else:
            values[f"{prefix}{name}"] = value
    return values


@dataclass(frozen=True)
class Card:
    """What a recipe is and what it should reach.

    Attributes:
        name: of the recipe.
        summary: one line.
        expected: "protocol", "i2t" and "t2i" (percent by "R@1", "R@5", "R@10"), "source"; None
            where no figures are stated.
        notes: what else is worth knowing, may be empty.
    """

    name: str
    summary: str
    expected: Mapping[str, Any] | None
    notes: str

    def figures(self) -> str:
        """The expected figures in one line."""
        if self.expected is None:
            return "not stated"
        sides = [
            f"{side} " + " / ".join(f"{value:.1f}" for value in self.expected[side].values())
            for side in ("i2t", "t2i")
        ]
        return ", ".join(sides)


def read_card(name: str) -> Card:
    """The card of a packaged recipe, or of a file with a block `recipe`.

    Raises: FileNotFoundError when there is no such recipe.
    """
    path = find_recipe(name)
    block = read_config(path).get(CARD) or {}
    return Card(path.stem, block.get("summary", ""), block.get("expected"), block.get("notes", ""))


def add_recipes_arguments(parser: argparse.ArgumentParser) -> None:
    """The optional name of one recipe."""
    parser.epilog = EPILOG
    parser.add_argument(
        "name", nargs="?", help="print this recipe with all its options as YAML; list all if absent"
    )


def run_recipes(chosen: argparse.Namespace) -> int:
    """Print one recipe, or a line or two about each."""

    if chosen.name is not None:
        print(_whole(chosen.name))
        return 0
    for name in recipe_names():
        card = read_card(name)
        print(f"{name}\n    {card.summary}")
        if card.expected is not None:
            print(f"    expected R@1 / R@5 ...: {card.figures()}  ({card.expected['protocol']})")
    return 0


def _whole(name: str) -> str:
    """A recipe as YAML that can be saved and run, its card in comments before it."""
    import yaml

    card, path = read_card(name), find_recipe(name)
    lines = [f"{card.name}: {card.summary}"]
    if card.expected is not None:
        columns = " / ".join(card.expected["i2t"])
        lines += [
            f"expected {columns}: {card.figures()} ({card.expected['protocol']})",
            f"stated by: {card.expected['source']}",
        ]
    else:
        lines.append("expected: not stated")
    lines += [card.notes] if card.notes else []
    parts = [file.stem for file in files_of(path)[:-1]]
    lines += [f"made of: {', '.join([*parts, card.name])}"] if parts else []
    comments = "\n".join(f"# {line}" for line in lines)
    return f"{comments}\n{yaml.safe_dump(merged(path), sort_keys=False)}".rstrip()
