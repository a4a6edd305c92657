"""docs/design/long_files.md lists exactly the long source files."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

LIMIT = 300


def long_files() -> set[str]:
    paths = (path for part in ("app", "pipeline", "render") for path in (ROOT / part).rglob("*.py"))
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if len(path.read_text().splitlines()) > LIMIT
    }


def test_every_long_file_has_its_reason():
    page = (ROOT / "docs" / "design" / "long_files.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `([\w/]+\.py)` \| (.+) \|$", page))
    assert set(rows) == long_files()
    assert all(len(reason.split()) > 3 for reason in rows.values())
