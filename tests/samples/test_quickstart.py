"""The notebook runs, and what is committed of its outputs is small and as it would be today."""

from __future__ import annotations

import re

import nbformat
import pytest

from tests.support.paths import ROOT, SAMPLES
from tools.run_notebook import SHOWN_LIVE, run_notebook, without_live

NOTEBOOK = SAMPLES / "quickstart.ipynb"


@pytest.fixture(scope="module")
def committed():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def kinds(notebook):
    """What each cell shows: the type of each output and the formats that it is in."""
    return {
        cell.id: [(out.output_type, sorted(out.get("data", {}))) for out in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.mark.slow
@pytest.mark.weights
def test_it_runs_and_shows_what_is_committed(committed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = run_notebook(NOTEBOOK)
    for cell in made.cells:
        if SHOWN_LIVE in cell.metadata.get("tags", []):
            assert cell.outputs, f"{cell.id} shows nothing"
    assert kinds(without_live(made)) == kinds(committed)


def test_what_is_committed_is_small_and_shows_no_machine(committed):
    """GitHub's readers see the pictures; a checkout does not pay for them."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(home|root|tmp)/", text)
    assert str(ROOT) not in text
    outputs = [out for cell in committed.cells for out in cell.get("outputs", [])]
    formats = {format for out in outputs for format in out.get("data", {})}
    assert {"image/png", "image/jpeg", "text/html"} <= formats
    assert "stderr" not in [out.get("name") for out in outputs], "a warning is committed"
    # In order, and from one run.
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
