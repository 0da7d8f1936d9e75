"""`goal-kernels recipes`: which there are, what they should reach, what they set."""

from __future__ import annotations

import argparse

EPILOG = """\
examples
  goal-kernels recipes
  goal-kernels recipes vse_infinity_region_bigru_f30k
  goal-kernels fit --config vse_infinity_region_bigru_f30k --data.folder my/f30k

Any option of a recipe can be overridden, and any objective goes with any recipe:
  goal-kernels fit --config vse_infinity_region_bigru_f30k --model.objective circle/linear_ms
"""


def add_recipes_arguments(parser: argparse.ArgumentParser) -> None:
    """The optional name of one recipe."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "name", nargs="?", help="print this recipe with all its options as YAML; list all if absent"
    )


def run_recipes(chosen: argparse.Namespace) -> int:
    """Print one recipe, or a line or two about each."""
    from goal_kernels.training.recipes import read_card, recipe_names

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

    from goal_kernels.training.recipes import files_of, find_recipe, merged, read_card

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
