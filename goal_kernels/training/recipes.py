"""Recipes: configurations shipped with the package, found by name, made of parts.

A configuration may begin with a block `recipe`, which training does not read: `summary`, `extends`
(configurations that come before it, by name or as files beside it), `expected` (the figures it
should reach and who states them) and `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

MOST_LEVELS = 64
MOST_VALUES = 100_000
"""Of a configuration, with what its aliases stand for; ours have 4 levels and some 150 values."""

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONFIG_OPTIONS = ("--config", "-c")
CARD = "recipe"  # key of the block, and name of the option that takes it


class RecipeError(ValueError):
    """A configuration that cannot be put together."""


def recipe_names() -> list[str]:
    """Names of the packaged recipes, in alphabetical order; parts of them are not among these."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a configuration, given as a path or as the name of a packaged recipe or part.

    Args:
        name: what `--config` or `extends` says.
        beside: folder that paths may be relative to, besides the working folder.
    Raises: FileNotFoundError naming the packaged recipes when it is neither.
    """
    packaged = RECIPES / f"{name}.yaml"
    for path in (*([beside / name] if beside else []), Path(name), packaged):
        if path.is_file():
            return path
    near = get_close_matches(name, recipe_names(), 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise FileNotFoundError(
        f"--config: expected a YAML file or a packaged recipe, got {name!r}; {meant}there are "
        f"{', '.join(recipe_names())}"
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
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{argument}: expected UTF-8 text in {path}, found other bytes at {error.start}; "
            "convert it, for instance with `iconv -f latin1 -t utf-8`"
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
