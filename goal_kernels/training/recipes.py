"""Recipes: configurations shipped with the package, found by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONFIG_OPTIONS = ("--config", "-c")


def recipe_names() -> list[str]:
    """Names of the packaged recipes, in alphabetical order."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a configuration, given as a path or as the name of a packaged recipe.

    Raises: FileNotFoundError naming the packaged recipes when it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = RECIPES / f"{name}.yaml"
    if name in recipe_names():
        return packaged
    raise FileNotFoundError(
        f"--config: expected a YAML file or one of the packaged recipes "
        f"({', '.join(recipe_names())}), got {name!r}; check the path or the name"
    )


def resolve_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments with every `--config NAME` (or `-c NAME`) made `--config FILE`."""
    resolved: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option in CONFIG_OPTIONS and (equals or (value := next(rest, ""))):
            resolved += ["--config", str(find_recipe(value))]
        else:
            resolved.append(argument)
    return resolved
