"""The benchmark's files."""

from __future__ import annotations

import math
import os

import pytest

from app.bench import results
from tests.support.bench import MACHINE, merged, record


def test_merge_replaces_a_row_keeps_others_and_orders():
    document = merged(record("default-cpu", 100.0), record("default", 20.0), record("later"))
    document = merged(record("default", 10.0), document=document)
    assert [row["id"] for row in document["rows"]] == ["default", "default-cpu", "later"]
    assert tuple(document) == results.KEYS
    assert [row["speedup"] for row in document["rows"]] == [10.0, 1.0, 10.0]


def test_speed_up_is_of_like_with_like():
    document = merged(record("default-cpu", size="32x32"), record("default"))
    assert [row["speedup"] for row in document["rows"]] == [None, 1.0]
    document = merged(record("default"))
    assert document["rows"][0]["speedup"] is None
    document = merged(record("default-cpu"), record("streams-p1", streams=3))
    assert document["rows"][1]["speedup"] is None


def test_rows_of_other_people_and_sizes_stand_side_by_side():
    one, eight = record("default", 10.0), {**record("default", 40.0), "people": 8}
    slow = {**record("default-cpu", 400.0), "people": 8}
    document = merged(one, eight, slow, record("default-cpu", 200.0))
    assert [(row["id"], row["people"], row["speedup"]) for row in document["rows"]] == [
        ("default", 1, 20.0),
        ("default", 8, 10.0),
        ("default-cpu", 1, 1.0),
        ("default-cpu", 8, 1.0),
    ]
    document = merged({**eight, "total_ms_p50": 20.0}, document=document)
    assert [row["total_ms_p50"] for row in document["rows"]] == [10.0, 20.0, 200.0, 400.0]
    document = merged(record("default", 1.0, size="32x32"), document=document)
    assert len(document["rows"]) == 5


def test_speed_up_is_over_the_first_row_that_was_measured():
    mine = {**record("sam3d", 10.0), "against": ["sam3d-upstream", "sam3d-eager"]}
    document = merged(mine, record("sam3d-eager", 30.0))
    found = next(row for row in document["rows"] if row["id"] == "sam3d")
    assert (found["speedup_over"], found["speedup"]) == ("sam3d-eager", 3.0)
    document = merged(record("sam3d-upstream", 500.0), document=document)
    found = next(row for row in document["rows"] if row["id"] == "sam3d")
    assert (found["speedup_over"], found["speedup"]) == ("sam3d-upstream", 50.0)


def test_a_row_kept_from_another_torch_says_so():
    document = merged(record("default-cpu"))
    document = merged(record("default"), document=document, machine={**MACHINE, "torch": "3"})
    default, cpu = document["rows"]
    assert "measured_on" not in default
    assert cpu["measured_on"] == {"torch": "2"}
    document = merged(record("default"), document=document, machine={**MACHINE, "torch": "4"})
    assert document["rows"][1]["measured_on"] == {"torch": "2"}
    document = merged(record("default-cpu"), document=document, machine={**MACHINE, "torch": "4"})
    assert "measured_on" not in document["rows"][1]


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x.json"
    results.write(path, merged(record("default")))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(path, merged(record("default", math.nan)))
    assert path.read_bytes() == before

    def no_replace(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(OSError, match="disk is full"):
        results.write(path, merged(record("later")))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"rows": []}', '{"hardware":{},"command":"","rows":[1]}']
)
def test_another_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a benchmark file") as error:
        results.read(path)
    assert "\n" not in str(error.value)


def test_code_hash_sees_code_that_runs_and_no_other(tmp_path):
    for name in ("pipeline/a.py", "pipeline/capture/b.py", "render/c.py", "app/bench/view.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    plan = ("plan", "plan_nets", "plan_people")
    run = ("subject", "measure", "streams", "footage", "timers", "pipelines", "upstream_sam3d")
    for name in (*run, *plan):
        (tmp_path / f"app/bench/{name}.py").write_text("1")
    first = results.code_hash(tmp_path)
    (tmp_path / "pipeline/capture/b.py").write_text("2")
    (tmp_path / "app/bench/view.py").write_text("2")
    assert results.code_hash(tmp_path) == first
    (tmp_path / "render/c.py").write_text("2")
    assert results.code_hash(tmp_path) != first
