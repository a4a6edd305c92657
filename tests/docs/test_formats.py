"""docs/formats describes exactly the columns and keys that the app writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import ezc3d
import jsonschema
import numpy as np
import pytest

from app.exports import angles
from app.exports.recording import make_recording
from app.outputs.catalog import entries
from app.outputs.jsonl import line_of
from app.outputs.mhr import MhrOutput
from app.outputs.poses import AmassOutput, PosesOutput
from app.reports.record import record_of
from pipeline.core.frame import Window
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.events.detect import DetectedEvent
from pipeline.events.motion import Motion, load_motion
from tests.support.bodies import VERTICES, bodies, frame, made_up_body, mhr_body, run_info
from tests.support.events import renderer_of
from tests.support.gltf import Glb
from tests.support.motions.installed import SERVE
from tests.support.paths import ROOT
from tests.support.recordings import poses_arrays

FORMATS = ROOT / "docs" / "formats"
SIZES = {"V": VERTICES, "F": 2}


def documented(page: str) -> dict[str, tuple[str, str]]:
    """Shape and dtype of each column in a page's tables."""
    rows = re.findall(
        r"(?m)^\| `(\w+)` \| \((.*?)\) \| (\w+) \| .+ \|$", (FORMATS / page).read_text()
    )
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)), "a column is described twice"
    return {name: (shape, dtype) for name, shape, dtype in rows}


def described_keys(page: str, heading: str) -> set[str]:
    """The keys in the table under a heading."""
    text = re.split(r"(?m)^## ", (FORMATS / page).read_text())
    (section,) = (part for part in text if part.partition("\n")[0] == heading)
    return set(re.findall(r"(?m)^\| `(\w+)` \|", section))


def check_columns(page: str, written: dict[str, np.ndarray], rows: int) -> None:
    """Every column is described, with the shape and dtype that it has, and no other is."""
    columns = documented(page)
    assert set(columns) == set(written)
    for name, (shape, dtype) in columns.items():
        sizes = {"N": rows, **SIZES}
        wanted = tuple(sizes.get(side, side) for side in shape.split(", ") if side)
        assert tuple(map(int, wanted)) == written[name].shape, name
        kind = "str" if written[name].dtype.kind == "U" else str(written[name].dtype)
        assert kind == dtype, name


def test_the_columns_of_poses(tmp_path):
    output = PosesOutput(tmp_path / "out.npz", vertices=True)
    output.open(run_info(turn_of=lambda frame: np.zeros(3)))
    for index in range(3):
        output.write(frame(index), bodies([1, 2], index), None)
    output.close()
    with np.load(tmp_path / "out.npz") as written:
        check_columns("poses.md", dict(written), rows=6)


def test_the_columns_of_mhr(tmp_path):
    output = MhrOutput(tmp_path / "out.npz", mhr_vertices=True)
    output.open(run_info())
    for index in range(3):
        mhr = {track: mhr_body(track) for track in (1, 2)}
        output.write(frame(index), replace(bodies([1, 2], index), mhr=mhr), None)
    output.close()
    with np.load(tmp_path / "out.npz") as written:
        check_columns("mhr.md", dict(written), rows=6)


def test_the_columns_of_amass(tmp_path):
    output = AmassOutput(tmp_path)
    output.open(run_info())
    for index in range(3):
        output.write(frame(index), bodies([1, 2], index), None)
    output.close()
    with np.load(tmp_path / "track_0002.npz") as written:
        check_columns("amass.md", dict(written), rows=3)
        # "Camera x stays x, camera z becomes y, and camera y becomes -z."
        np.testing.assert_array_equal(written["camera_to_world"] @ [1, 2, 3], [1, 3, -2])
        # "66 to 155 the fingers, which are zero."
        assert not written["poses"][:, 66:].any()
        assert written["poses"][:, 3:66].any()


def names_in(page: str, heading: str) -> list[str]:
    """The names in the blocks of plain text under a heading, in order."""
    text = re.split(r"(?m)^## ", (FORMATS / page).read_text())
    (section,) = (part for part in text if part.partition("\n")[0] == heading)
    return " ".join(re.findall(r"(?ms)^```text$(.*?)^```$", section)).split()


def exported(tmp_path, name: str) -> Path:
    """The first file that `export` makes of a recording."""
    recording = make_recording(poses_arrays({3: [5, 6, 8]}))
    entry = next(entry for entry in entries() if entry.name == name)
    return next(iter(entry.load()(tmp_path / name).export(recording)))


def test_the_skeleton_of_bvh(tmp_path):
    text = exported(tmp_path, "bvh").read_text()
    assert names_in("bvh.md", "The skeleton") == re.findall(r"(?:ROOT|JOINT) (\w+)", text)
    described = set(re.findall(r"`((?:[XYZ]\w+ ?)+)`", (FORMATS / "bvh.md").read_text()))
    assert described == set(re.findall(r"CHANNELS \d (.+)", text))
    assert "End Site" in text


def test_the_nodes_of_glb(tmp_path):
    file = Glb(exported(tmp_path, "glb"))
    above = {name.replace("_3", "_N") for name in file.places if name not in JOINT_NAMES[1:]}
    assert above == described_keys("glb.md", "In the file")
    page = (FORMATS / "glb.md").read_text()
    (animation,) = file.document["animations"]
    extras = (*animation["extras"], *file.nodes[file.places["person_3"]]["extras"])
    assert [name for name in extras if f"`{name}`" not in page] == []


def test_the_fields_and_markers_of_trc(tmp_path):
    lines = exported(tmp_path, "trc").read_text().splitlines()
    assert described_keys("trc.md", "The header") == set(lines[1].split("\t"))
    page = (FORMATS / "trc.md").read_text()
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t")))
    assert f"| `NumMarkers` | {header['NumMarkers']} |" in page
    assert f"| `Units` | `{header['Units']}` |" in page
    assert names_in("trc.md", "Markers") == lines[3].split("\t")[2::3]
    assert header["OrigDataStartFrame"] == lines[6].split("\t")[0] == "5"


def test_the_parameters_of_c3d(tmp_path):
    read = ezc3d.c3d(str(exported(tmp_path, "c3d")))["parameters"]
    text = (FORMATS / "c3d.md").read_text()
    described = dict(re.findall(r"(?m)^\| `(\w+:\w+)` \| (.+) \|$", text))
    for name, value in described.items():
        group, _, parameter = name.partition(":")
        (first, *_) = read[group][parameter]["value"]
        if (literal := re.fullmatch(r"`(.+)`", value)) is not None:
            assert first == literal[1]
    own = {name for name in read["BODYSTREAM"] if name != "__METADATA__"}
    assert own == {name.partition(":")[2] for name in described if name.startswith("BODYSTREAM")}
    assert list(read["POINT"]["LABELS"]["value"]) == names_in("trc.md", "Markers")


def test_the_columns_of_angles(tmp_path):
    recording = make_recording(poses_arrays({3: [5, 6, 8]}))
    path = tmp_path / "angles.csv"
    angles.write(recording, path)
    rows = re.findall(r"(?m)^\| (`.+?) \| (.*)\|$", (FORMATS / "angles.md").read_text())
    described = [name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(described) == len(set(described))
    assert set(described) == set(path.read_text().partition("\n")[0].split(","))


def schema_of(name: str) -> dict:
    schema = json.loads((FORMATS / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def line(tracks: list[int]) -> dict:
    return json.loads(line_of(run_info(), frame(3), bodies(tracks)))


def test_a_json_line_follows_its_schema():
    schema = schema_of("jsonl.schema.json")
    for tracks in ([], [4], [1, 2, 7]):
        jsonschema.validate(line(tracks), schema)
    # The page, the schema and the line name the same keys.
    body = schema["$defs"]["body"]["properties"]
    assert set(line([1])) == set(schema["properties"]) == described_keys("jsonl.md", "A line")
    assert set(line([1])["bodies"][0]) == set(body) == described_keys("jsonl.md", "A body")


def without_score(told: dict) -> None:
    del told["bodies"][0]["score"]


def with_more(told: dict) -> None:
    told["bodies"][0]["mood"] = 1


def with_a_short_pose(told: dict) -> None:
    told["bodies"][0]["body_pose"].pop()


def with_nothing_for_bodies(told: dict) -> None:
    told["bodies"] = None


@pytest.mark.parametrize(
    "spoil", [without_score, with_more, with_a_short_pose, with_nothing_for_bodies]
)
def test_the_schema_refuses_another_line(spoil):
    wrong = line([1])
    spoil(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema_of("jsonl.schema.json"))


def event(live: bool = False, frames: int = 4, motion: Motion | None = None) -> dict:
    """An event of made-up bodies, with its pictures, as a receiver reads it."""
    images = tuple(frame(50 + k, (50 + k) / 30) for k in range(frames))
    fitted = [(each, bodies([3], k)) for k, each in enumerate(images)]
    key = frames - 2
    motion = motion or load_motion()
    seen = DetectedEvent(
        motion, 3, "right", 50 + key, (50 + key) / 30, 51 + key, 0, 0.9, {}, 0.0
    )  # fmt: skip
    made = record_of(
        seen, Window(images, key), fitted, run_info(live=live), renderer_of(made_up_body())
    )
    return json.loads(json.dumps(made.with_pictures(), allow_nan=False))


def test_an_event_follows_its_schema():
    schema = schema_of("event.schema.json")
    for whole in (event(), event(live=True), event(frames=3)):
        jsonschema.validate(whole, schema)
        without = {name: value for name, value in whole.items() if name != "pictures"}
        jsonschema.validate(without, schema)
    assert event(frames=3)["measures"] is None, "the schema's null is met"
    page = (FORMATS / "events.md").read_text().partition("\n## ")[0]
    described = set(re.findall(r"(?m)^\| `(\w+)` \|", page))
    assert set(event()) == set(schema["properties"]) == described
    measure = next(iter(event()["measures"].values()))
    assert set(measure) == set(schema["$defs"]["measure"]["properties"])
    assert set(measure) == described_keys("events.md", "A measure")


def test_an_event_of_another_motion_has_the_same_keys():
    serve = event(motion=load_motion(SERVE))
    assert serve["schema"] == "bodystream.event/1"
    assert (set(event()) - {"release_frame"}) | {"event_frame"} == set(serve)
    assert set(next(iter(serve["measures"].values()))) == described_keys("events.md", "A measure")


def test_the_schema_refuses_another_event():
    schema = schema_of("event.schema.json")
    for name, value in (("schema", "bodystream.release/2"), ("hand", "both"), ("time", "today")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**event(), name: value}, schema)
