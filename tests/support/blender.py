"""Runs scripts in Blender, as a Python module in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BLENDER = Path(sys.prefix, "blender", "bin", "python")
"""The Python that `make blender` installs Blender for."""


def run_in_blender(script: Path, *arguments: str | Path) -> str:
    """Return what a script prints."""
    done = subprocess.run(
        [BLENDER, script, *arguments], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
