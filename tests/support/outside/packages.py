"""Installs a package with entry points in a folder, without pip: two small files are enough."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.paths import ROOT


def install(folder: Path, group: str, name: str, target: str) -> dict[str, str]:
    """Write a distribution with one entry point into ``folder``.

    Args:
        folder: Goes in front of the import path.
        group: The entry point's group, such as "bodystream.perceivers".
        name: The entry point's name.
        target: "module:attribute".

    Returns:
        The environment in which a Python process finds it and this repository.
    """
    info = folder / f"outside_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: outside-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


class Wrong:
    """What a package might hand on by mistake: no perceiver."""

    def __init__(self, options: object) -> None:
        self.options = options
