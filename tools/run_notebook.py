"""Run a notebook and keep its outputs as they are committed: small, and the same on any machine.

python -m tools.run_notebook samples/quickstart.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

SHOWN_LIVE = "shown-live"
"""The tag of a cell whose output is not kept: it is large, or means nothing without its kernel."""
_LONGEST_S = 300


def run_notebook(path: Path, **settings: Any) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a new run, which takes place in its folder.

    Args:
        path: The notebook, which stays as it is.
        **settings: More settings of `NotebookClient`.

    Raises:
        CellExecutionError: A cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    settings = {"timeout": _LONGEST_S, "record_timing": False, **settings}
    NotebookClient(notebook, resources=resources, **settings).execute()
    # The interpreter's version would differ on each machine.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def without_live(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook after removing the outputs of cells tagged `SHOWN_LIVE`."""
    for cell in notebook.cells:
        if SHOWN_LIVE in cell.metadata.get("tags", []):
            cell.outputs = []
    return notebook


def main(paths: list[str]) -> int:
    """Run notebooks in place; return the exit code."""
    if not paths:
        sys.exit(__doc__)
    for path in map(Path, paths):
        nbformat.write(without_live(run_notebook(path)), path)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
