"""What the program is called here, for messages and hints; imports nothing of this project."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def program() -> str:
    """Return the words that start the program here.

    Returns:
        ``bodystream`` where that command is installed, else ``python -m bodystream``. After a
        start as a module it is the module too: that most likely means that no command is on the
        path, or one of another version.
    """
    started_as = Path(sys.argv[0]).name if sys.argv else ""
    if started_as in ("__main__.py", "bodystream.py"):
        return "python -m bodystream"
    installed = started_as == "bodystream" or shutil.which("bodystream") is not None
    return "bodystream" if installed else "python -m bodystream"


def version() -> str:
    """Return the version of the installed package, else of this checkout."""
    from importlib import metadata

    try:
        return metadata.version("bodystream")
    except metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
