"""A motion as another package brings it: a copy that an entry point names."""

from __future__ import annotations

import shutil
from pathlib import Path

SERVE = Path(__file__).with_name("tennis_serve")


def installed(site: Path, entry: str = "court_serve", value: str = "court.serve") -> Path:
    """Put a package ``court`` with the tennis serve in it, and the metadata of a distribution that
    has ``entry = value`` in the group ``bodystream.motions``, in the folder ``site``; return it."""
    site.mkdir(exist_ok=True)
    package = site / "court"
    shutil.copytree(SERVE, package / "serve", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text(
        "from pathlib import Path\n\ndef folder():\n    return Path(__file__).parent / 'serve'\n"
    )
    info = site / "court-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: court\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bodystream.motions]\n{entry} = {value}\n")
    return site
