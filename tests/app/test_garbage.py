"""What is loaded is left out of Python's searches for garbage, and nothing else is."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from app.garbage import leave_out_loaded, take_in_loaded
from tests.support.clips import numbered, write_clip
from tests.support.paths import ROOT


class Node:
    """Refers to itself, so that only a search frees it."""

    def __init__(self) -> None:
        self.self = self


def test_what_is_loaded_is_left_out_and_what_comes_later_is_freed():
    loaded = Node()
    kept = weakref.ref(loaded)
    leave_out_loaded()
    assert gc.get_freeze_count() > 10_000
    later = weakref.ref(Node())
    del loaded
    gc.collect()
    assert later() is None
    assert kept() is not None
    take_in_loaded()
    assert kept() is None


def test_garbage_before_is_freed():
    before = weakref.ref(Node())
    leave_out_loaded()
    assert before() is None


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("library", [False, True])
def test_a_command_does_so_and_the_library_does_not(tmp_path, library):
    clip = write_clip(tmp_path / "a.mp4", [numbered(k) for k in range(8)])
    run = (
        f"bodystream.run({str(clip)!r}, jsonl={str(tmp_path / 'o.jsonl')!r}, progress=False)"
        if library
        else f"main(['run', {str(clip)!r}, '--jsonl', {str(tmp_path / 'o.jsonl')!r}, '--quiet'])"
    )
    code = (
        "import gc, bodystream; from app.cli import main; from app import build; "
        "opened = build._run_opened; build._run_opened = lambda *given: "
        f"(print(gc.get_freeze_count()), opened(*given))[1]; {run}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout.split()[0]) > 10_000) == (not library)
