"""The page's scripts: whole, from one host, and of the version that the licences name."""

from __future__ import annotations

import posixpath
import re
import tomllib

import pytest

from app.view.assets import PAGE, assets
from tests.support.paths import ROOT

OWN = [name for name in assets() if not name.startswith("vendor/")]


@pytest.mark.parametrize("name", [name for name in assets() if name.endswith(".js")])
def test_a_script_imports_what_is_there(name):
    # Without comments, which show imports of other programs.
    text = re.sub(r"(?s)/\*.*?\*/", "", assets()[name].decode())
    found = re.findall(r"(?:\bfrom ?|\bimport\()[\"']([^\"']+)[\"']", text)
    folder = posixpath.dirname(name)
    assert {posixpath.normpath(posixpath.join(folder, each)) for each in found} <= set(assets())


@pytest.mark.parametrize("name", OWN)
def test_nothing_is_loaded_from_another_host(name):
    assert not re.search(rb"https?://|//cdn|url\(", assets()[name])


def test_the_licences_name_the_version_of_three():
    revision = re.search(rb'const \w+="(\d+)"', assets()["vendor/three.core.min.js"])
    assert revision is not None
    page = (ROOT / "docs" / "learn" / "licences.md").read_text()
    assert f"three.js 0.{revision[1].decode()}.0" in page


def test_every_file_is_in_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        path.relative_to(PAGE).as_posix()
        for pattern in patterns["package-data"]["app"]
        for path in (ROOT / "app").glob(pattern)
        if path.is_relative_to(PAGE) and path.is_file()
    }
    assert listed == set(assets())
