"""Pages of the site that lie outside docs/: the README and its neighbours (mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(\.\./)?(?!https?:|#|mailto:)([^)\s]+)(?=\))")

FOLDER = re.compile(r"\[[^\]]+\]\(([\w/-]+/results)\)")
"""A link to a folder, which a site does not have."""


def outside() -> dict[str, Path]:
    """Address on the site -> file: pages, and what they and those of docs/ show or link to."""
    pages = ["CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"]
    paths = [ROOT / page for page in pages] + [ROOT / "bench" / "README.md"]
    paths += [p for p in (ROOT / "bench" / "results").rglob("*") if p.is_file()]
    return {"index.md": ROOT / "README.md", **{str(p.relative_to(ROOT)): p for p in paths}}


def on_files(files: Any, config: Any) -> Any:
    """Add them as if they lay in docs/."""
    from mkdocs.structure.files import File

    for address, path in outside().items():
        files.append(File.generated(config, address, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between docs/ and the files around it, as they are on the site: all in one folder."""
    within_docs = page.file.generated_by is None

    def moved(link: re.Match[str]) -> str:
        up, target = link[1] or "", link[2]
        if not within_docs:
            return up + target.removeprefix("docs/")
        # From docs/ itself "../" leaves it; from a folder in it, once more does.
        return target if up and "/" not in page.file.src_uri else up + target

    return LINK.sub(moved, FOLDER.sub(r"`docs/\1`", markdown))
