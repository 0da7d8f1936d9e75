"""The studies that come with the package, found by name without reading them."""

from __future__ import annotations

from pathlib import Path

STUDIES = Path(__file__).resolve().parents[2] / "recipes" / "studies"


def study_names() -> list[str]:
    """Names of the packaged studies, in alphabetical order."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def find_study(name: str) -> Path:
    """The file of a study, given as a path or as the name of a packaged one.

    Raises: FileNotFoundError naming the packaged studies when it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if name in study_names():
        return STUDIES / f"{name}.yaml"
    raise FileNotFoundError(
        f"--config: expected a YAML file or one of the packaged studies "
        f"({', '.join(study_names())}), got {name!r}; check the path or the name"
    )
