"""README, docs/ and the site: links lead somewhere, the navigation and the API have everything."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import goal_kernels as gk
from goal_kernels import analysis, data, distributed
from tools.site_pages import on_page_markdown, outside

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), ROOT / "bench/README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in LINK.findall(text):
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}#{anchor}"


def addresses(entry: object) -> set[str]:
    """Those of a part of the navigation."""
    if isinstance(entry, str):
        return {entry}
    parts = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(addresses, parts))


def test_the_navigation_has_every_page_of_docs() -> None:
    listed = addresses(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= listed
    assert listed <= {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | set(outside())


def test_the_api_has_every_public_name() -> None:
    written = re.findall(
        r"^::: (\S+)$", "\n".join(p.read_text() for p in (DOCS / "api").glob("*.md")), re.MULTILINE
    )
    assert len(written) == len(set(written))
    for module in (gk, analysis, distributed, data):
        assert {f"{module.__name__}.{name}" for name in module.__all__} <= set(written)


@pytest.mark.parametrize(
    ("address", "written", "shown"),
    [
        ("index.md", "[a](docs/cpu.md#1-parts)", "[a](cpu.md#1-parts)"),
        ("index.md", "[a](CONTRIBUTING.md)", "[a](CONTRIBUTING.md)"),
        ("cpu.md", "[a](../bench/README.md)", "[a](bench/README.md)"),
        ("cpu.md", "![b](study/x.png)", "![b](study/x.png)"),
        ("tutorials/mine.md", "[a](../mining.md)", "[a](../mining.md)"),
        ("study.md", "[files](study/results)", "`docs/study/results`"),
        ("cpu.md", "[a](https://b.org/docs/c)", "[a](https://b.org/docs/c)"),
    ],
    ids=["README", "beside it", "leaves docs", "picture", "within docs", "folder", "elsewhere"],
)
def test_links_on_the_site(address: str, written: str, shown: str) -> None:
    """All files lie in one folder there."""
    by = "site_pages" if address == "index.md" else None
    page = SimpleNamespace(file=SimpleNamespace(src_uri=address, generated_by=by))
    assert on_page_markdown(written, page) == shown


def test_one_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert cited == gk.__version__
