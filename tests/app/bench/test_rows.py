"""The benchmark's rows."""

from __future__ import annotations

import json

import pytest

from app.bench.rows import ROWS, choose
from app.config import ConfigError


def test_rows_are_declared_soundly():
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert {name for row in ROWS for name in row.against} <= set(ids)
    assert {"default", "default-cpu", "default-nograph", "default-fp32"} <= set(ids)
    assert {row.people for row in ROWS if row.measure == "streams"} == {1, 4, 8}
    json.dumps([row.settings.as_json() for row in ROWS])


def test_rows_are_chosen_in_the_tables_order():
    assert [r.id for r in choose("default-cpu, default")] == ["default", "default-cpu"]
    assert choose(None) == list(ROWS)
    with pytest.raises(ConfigError, match="name one or more"):
        choose(" , ")
