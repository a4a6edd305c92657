"""What README and the manual say of the repository is true: paths, links and figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import check_offline
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
SOURCES = ("app", "benchmarks", "configs", "pipeline", "render", "samples", "tests", "tools")
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md"])


def test_every_page_that_the_code_names_is_there():
    missing = []
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".md"):
                named = re.findall(r"\bdocs/[\w/]+\.md", path.read_text())
                missing += [f"{path}: {name}" for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "ARCHITECTURE.md"], ids=lambda p: p.name
)
def test_links_from_the_top_lead_somewhere(page):
    """MkDocs checks the links of the pages in docs/; these two are outside it."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", page.read_text())
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_are_there(page):
    """Paths in backticks whose first folder is one of the repository's."""
    named = re.findall(r"`([a-z_]+(?:/[\w.]+)*/[\w.]+\.(?:py|md|toml|npz|mp4))`", page.read_text())
    ours = [name for name in named if is_ours(name)]
    assert [name for name in ours if not exists(name)] == []


def is_ours(name: str) -> bool:
    """Whether a path begins with a folder of the repository or of ``pipeline/``."""
    first = name.split("/")[0]
    return first in (*SOURCES, "docs") or (ROOT / "pipeline" / first).is_dir()


def exists(name: str) -> bool:
    """Whether the repository has a file; ARCHITECTURE.md leaves ``pipeline/`` out in places."""
    return (ROOT / name).exists() or (ROOT / "pipeline" / name).exists()


def test_readme_s_figures_stand_in_the_results():
    """Every figure with a unit and every number of its tables has a page that says how it was
    measured."""
    readme = (ROOT / "README.md").read_text()
    tables = readme.partition("## How fast, how accurate")[2].partition("\n[An H100]")[0]
    cells = {
        cell.strip()
        for row in re.findall(r"(?m)^\|(.+)\|$", tables)
        for cell in row.split("|")[1:]
        if re.fullmatch(r"[\d.]+", cell.strip())
    }
    assert len(cells) > 12
    results = "\n".join((DOCS / "results" / name).read_text() for name in ("cpu.md", "accuracy.md"))
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", results))
    assert cells <= numbers
    # The slowest of the table's clip to the fastest run of the sample.
    slowest, fastest = re.search(r"(\d+) to (\d+) frames a second", readme).groups()
    assert re.search(rf"\| 1 \| {slowest} \|", readme)
    assert re.search(rf"\d+ to {fastest} \|", results)


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 135
    assert len(text.split()) <= 1000


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="https://fonts.example/css">', 1),
        ("<img alt=x src=http://a.example/p.png>", 1),
        ('<a href="https://example.org/">a link</a> <img src="../images/x.png">', 0),
        ('<script src="../assets/x.js"></script> https://example.org', 0),
    ],
)
def test_the_build_refuses_what_a_network_would_load(html, count):
    """`make docs` runs it on every page."""
    assert len(check_offline.loaded(html)) == count
    assert "  - docs/check_offline.py" in (ROOT / "mkdocs.yml").read_text().splitlines()


def test_every_page_is_plain():
    """Words that this manual does without."""
    archaic = re.compile(r"\b(whom|whoever|nobody|somebody|is told|so many|are told)\b", re.I)
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in PAGES
        for match in archaic.finditer(_prose(page))
    ]
    assert not found


def _prose(page: Path) -> str:
    """A page without its code, its tables' names of tests and flags."""
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    return re.sub(r"`[^`]*`|(?m:^ {4}.*$)", "", text)
