"""What libraries write to standard error from C++ is discarded, and nothing else is."""

from __future__ import annotations

import os
import sys

import pytest

from pipeline.core.standard_error import without_standard_error


def test_the_block_alone_is_silent(capfd):
    before = len(os.listdir("/proc/self/fd"))
    print("before", file=sys.stderr)
    with pytest.raises(OSError, match="as it was"):
        _fail_loudly()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
    assert len(os.listdir("/proc/self/fd")) == before


def _fail_loudly() -> None:
    with without_standard_error():
        os.write(2, b"from C++\n")
        raise OSError("as it was")


def test_a_program_without_standard_error_runs(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with without_standard_error():
        pass
