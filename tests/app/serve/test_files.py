"""Recordings over the API: listed, sent whole and in parts, deleted, and as files of poses."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.exports.recording import ExportError
from app.outputs.base import RunInfo
from app.outputs.poses import PosesOutput
from app.serve import files
from app.serve.folder import Busy, RecordingFolder
from app.serve.poses_file import make_poses, write_npz
from app.serve.recorder import facts_of
from tests.support.bodies import bodies, frame, run_info
from tests.support.served_recordings import DATA, recorded

pytest.importorskip("uvicorn")
from tests.support.serving import PICTURES, Served  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = pytest.mark.timeout(60)
FILE = {"etag": '"a"', "last-modified": "Fri, 27 Nov 2026 09:30:31 GMT"}


@pytest.fixture
def served(serve) -> Served:
    return serve()


# Ranges.


def asked(text: str | None, size: int, if_range: str | None = None) -> str:
    lines = {} if text is None else {"range": text}
    lines |= {} if if_range is None else {"if-range": if_range}
    return files._range(Headers(lines), Headers(FILE), size)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(1, 40))
def test_a_range_is_what_slicing_says(first, last, size):
    wanted = bytes(range(size))[first : last + 1]
    got = asked(f"bytes={first}-{last}", size)
    if first > last or not wanted:
        assert got == "416"
    else:
        assert got == f"bytes={first}-{first + len(wanted) - 1}"


@given(st.integers(0, 60), st.integers(0, 40))
def test_a_suffix_is_the_end(count, size):
    wanted = bytes(range(size))[-count:] if count else b""
    got = asked(f"bytes=-{count}", size)
    assert got == (f"bytes={size - len(wanted)}-{size - 1}" if wanted else "416")


@pytest.mark.parametrize(
    "text", ["bytes=", "bytes=-", "bytes=x-5", "bytes=5-x", "bytes", "bytes=\xb2-", "bytes=-1-2"]
)
def test_what_is_no_range_is_refused(text):
    assert asked(text, 100) == "416"


@pytest.mark.parametrize("text", [None, "", "lines=0-5", "bytesize=0-5", "bytes=0-1,4-5"])
def test_other_units_and_several_ranges_are_answered_with_the_whole(text):
    assert asked(text, 100) == ""


def test_a_file_that_has_changed_is_sent_whole():
    for same in FILE.values():
        assert asked("bytes=0-5", 100, same) == "bytes=0-5"
        assert asked("bytes=x", 100, same) == "416"
    for other in ('"b"', 'W/"a"', "Fri, 27 Nov 2026 09:30:32 GMT", "", "x"):
        assert asked("bytes=0-5", 100, other) == ""
        assert asked("bytes=x", 100, other) == ""


def test_parts_are_sent_as_they_are_asked_for(served):
    recorded(served.folder)
    path = "/api/files/door_20261127-093029.mp4"
    with served.client() as client:
        whole = client.get(path)
        assert (whole.status_code, whole.content) == (200, DATA)
        assert whole.headers["accept-ranges"] == "bytes"
        part = client.get(path, headers={"Range": "bytes=256-"})
        assert (part.status_code, part.content) == (206, DATA[256:])
        assert part.headers["content-range"] == "bytes 256-1023/1024"
        assert part.headers["content-type"] == "video/mp4"
        end = client.get(path, headers={"Range": "bytes=-10", "If-Range": whole.headers["etag"]})
        assert (end.status_code, end.content) == (206, DATA[-10:])
        (served.folder / "door_20261127-093029.mp4").write_bytes(DATA + b"more")
        end = client.get(path, headers={"Range": "bytes=-10", "If-Range": whole.headers["etag"]})
        assert (end.status_code, end.content) == (200, DATA + b"more")
        beyond = client.get(path, headers={"Range": "bytes=9999-"})
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == "bytes */1028"


# The list.


def test_recordings_are_listed_with_their_files(served):
    recorded(served.folder, "door_20261127-093029")
    for number in (1, 2, 10):
        (served.folder / f"yard_20261127-093030-2_{number:04d}.mp4").write_bytes(b"x")
    (served.folder / "holiday_2024.mp4").write_bytes(b"")
    (served.folder / "notes.txt").write_text("mine")
    (served.folder / "folder.mp4").mkdir()
    found = {each["name"]: each for each in httpx.get(served.url + "/api/recordings").json()}
    assert set(found) == {"door_20261127-093029", "yard_20261127-093030-2", "holiday_2024"}
    door, yard = found["door_20261127-093029"], found["yard_20261127-093030-2"]
    assert door["lines"] == "door_20261127-093029.jsonl"
    assert door["bytes"] == 1024 + (served.folder / door["lines"]).stat().st_size
    assert (door["has_poses"], door["being_written"]) == (True, False)
    assert [each["name"][-8:-4] for each in yard["videos"]] == ["0001", "0002", "0010"]
    assert (yard["lines"], yard["has_poses"]) == (None, False)


def test_a_name_that_is_no_text_hides_no_other(served):
    recorded(served.folder)
    (served.folder / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    for path in ("/api/recordings", "/api/files"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == 200
        assert "door" in answer.text


def test_a_part_is_sent_without_a_look_at_the_other_recordings(served, monkeypatch):
    """A player asks for hundreds of parts, and the folder may hold thousands of files."""
    recorded(served.folder)
    monkeypatch.setattr(RecordingFolder, "_all", lambda _: pytest.fail("the folder was listed"))
    path = served.url + "/api/files/door_20261127-093029.mp4"
    assert httpx.get(path, headers={"Range": "bytes=0-9"}).content == DATA[:10]
    assert httpx.get(served.url + "/api/files/none.mp4").status_code == 404


def test_those_who_ask_at_once_share_one_list(served, monkeypatch):
    recorded(served.folder)
    listed, plain = [], RecordingFolder._all

    def slow(folder):
        listed.append(1)
        time.sleep(0.5)
        return plain(folder)

    monkeypatch.setattr(RecordingFolder, "_all", slow)
    path = served.url + "/api/recordings"
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: httpx.get(path, timeout=10), range(16)))
    assert {answer.status_code for answer in found} == {200}
    assert all(len(answer.json()) == 1 for answer in found)
    assert len(listed) == 1
    assert httpx.delete(f"{path}/door_20261127-093029").status_code == 204
    assert httpx.get(path).json() == [], "what was deleted is in no list"


# Deletion.


def test_a_recording_is_deleted_with_all_its_files_and_no_other(served):
    recorded(served.folder, "door_20261127-093029")
    recorded(served.folder, "door_20261127-093029-2")
    (served.folder / "door_20261127-093029_0002.mp4").write_bytes(b"x")
    kept = {path.name for path in served.folder.iterdir() if "-2." in path.name}
    path = served.url + "/api/recordings/door_20261127-093029"
    assert httpx.delete(path).status_code == 204
    assert {path.name for path in served.folder.iterdir()} == kept
    assert httpx.delete(path).status_code == 404


@pytest.mark.parametrize(
    "name",
    ["../secret", "..%2Fsecret", "%2e%2e%2fsecret", "/etc/passwd", "link", "folder", "notes", ".",
     "", "%00", "secret%00", "door_20261127-093029.mp4", "*", "door*", "C:%5cx", "x" * 3000],
)  # fmt: skip
def test_only_recordings_are_deleted(served, name):
    recorded(served.folder)
    secret = served.folder.parent / "secret.mp4"
    secret.write_bytes(b"s")
    (served.folder / "link.mp4").symlink_to(secret)
    (served.folder / "folder.mp4").mkdir()
    (served.folder / "notes.txt").write_text("mine")
    before = sorted(served.folder.parent.rglob("*"))
    assert httpx.delete(f"{served.url}/api/recordings/{name}").status_code in (404, 405, 307)
    assert sorted(served.folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["a b", "ä ö", "quote'\"", "per%cent", "line\nbreak", "漢字", "-rf", "a?b#c"]
)
def test_odd_names_are_deleted_like_others(served, name):
    name += "_20261127-093029"
    recorded(served.folder, name)
    (found,) = httpx.get(served.url + "/api/recordings").json()
    assert found["name"] == name
    path = f"{served.url}/api/recordings/{quote(name, safe='')}"
    assert httpx.delete(path).status_code == 204
    assert list(served.folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["holiday", "door_2026-11-27", "door_20261127-09302", "_20261127-093029",
             "door_20261127-093029-", "door_20261127-093029_x",
             "door_2026112\u0667-093029"],
)  # fmt: skip
def test_what_serve_did_not_name_is_listed_and_not_deleted(served, name):
    recorded(served.folder, name)
    before = sorted(served.folder.iterdir())
    (found,) = httpx.get(served.url + "/api/recordings").json()
    assert (found["name"], found["deletable"]) == (name, False)
    answer = httpx.delete(f"{served.url}/api/recordings/{quote(name)}")
    assert answer.status_code == 409
    assert answer.json()["detail"] == f"{name}: not a recording of serve; delete it by hand"
    assert sorted(served.folder.iterdir()) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"schema": "other/1"}', "\udcff", "[" * 99_999], ids=range(7)
)
def test_another_programs_json_stays(tmp_path, text):
    recorded(tmp_path)
    other = tmp_path / "door_20261127-093029.json"
    other.write_bytes(os.fsencode(text))
    RecordingFolder(tmp_path).delete("door_20261127-093029", set())
    assert list(tmp_path.iterdir()) == [other]


def test_a_recording_that_is_being_written_is_not_deleted(served):
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: served.hub.sources()[0].drawn > 0)
    with served.client() as client:
        file = client.put("/api/sources/test/recording", json={"on": True}).json()["file"]
        until(lambda: (served.folder / file).exists())
        (found,) = client.get("/api/recordings").json()
        assert found["being_written"] is True
        answer = client.delete(f"/api/recordings/{found['name']}")
        assert answer.status_code == 409
        assert answer.json()["detail"] == f"{found['name']} is being recorded; stop it first"
        assert (served.folder / file).exists()
        client.put("/api/sources/test/recording", json={"on": False})
        until(lambda: not client.get("/api/recordings").json()[0]["being_written"])
        assert client.delete(f"/api/recordings/{found['name']}").status_code == 204
    assert list(served.folder.iterdir()) == []


def test_what_is_written_is_named_without_its_suffix(tmp_path):
    recorded(tmp_path)
    with pytest.raises(Busy):
        RecordingFolder(tmp_path).delete("door_20261127-093029", {"door_20261127-093029"})
    assert len(list(tmp_path.iterdir())) == 3


# Poses.


@given(fps=st.one_of(st.none(), st.floats(1, 240)))
def test_the_npz_is_the_one_that_poses_writes(tmp_path_factory, fps):
    folder = tmp_path_factory.mktemp("poses")
    info: RunInfo = run_info()
    info = RunInfo(**{**vars(info), "fps": fps})
    lines = recorded(folder)
    (lines.with_suffix(".json")).write_text(json.dumps(facts_of(info)))
    write_npz(lines, folder / "got.npz")
    wanted = PosesOutput(folder / "wanted.npz")
    wanted.open(info)
    for k in range(6):
        wanted.write(frame(k), bodies([1, 2][: k % 3]), None)
    wanted.close()
    with np.load(folder / "got.npz") as got, np.load(folder / "wanted.npz") as right:
        assert set(got.files) == set(right.files)
        for name in right.files:
            assert got[name].dtype == right[name].dtype, name
            if right[name].dtype.kind != "U":
                # Lines are rounded to six decimals.
                np.testing.assert_allclose(got[name], right[name], atol=1e-6, rtol=1e-6)
            else:
                assert got[name] == right[name]


def test_poses_come_in_each_format(served):
    recorded(served.folder)
    path = served.url + "/api/recordings/door_20261127-093029/poses"
    npz = httpx.get(path, timeout=60)
    assert npz.status_code == 200, npz.text
    assert "door_20261127-093029.npz" in npz.headers["content-disposition"]
    with np.load(io.BytesIO(npz.content)) as file:
        assert sorted(set(file["track"].tolist())) == [1, 2]
    glb = httpx.get(path, params={"kind": "glb"}, timeout=60)
    assert glb.content[:4] == b"glTF"
    bvh = httpx.get(path, params={"kind": "bvh"}, timeout=60)
    assert "door_20261127-093029_bvh.zip" in bvh.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(bvh.content)) as archive:
        assert [name[-14:] for name in archive.namelist()] == ["track_0001.bvh", "track_0002.bvh"]
        assert archive.read(archive.namelist()[0]).startswith(b"HIERARCHY")
    assert httpx.get(path, params={"kind": "fbx"}).status_code == 422
    assert httpx.get(served.url + "/api/recordings/none/poses").status_code == 404


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: lines.write_text(""), "it has no people"),
        (lambda lines: lines.write_text("{}\n"), "is no recording of serve"),
        (lambda lines: lines.write_text("[1\n"), "is no recording of serve"),
        (lambda lines: lines.write_bytes(b"\xff\n"), "is no recording of serve"),
        (lambda lines: lines.write_text(lines.read_text().replace("[", "[9,", 40)), "is no rec"),
        (lambda lines: lines.with_suffix(".json").write_text("{}"), "does not belong"),
        (lambda lines: lines.with_suffix(".json").write_text("["), "does not belong"),
        (lambda lines: lines.with_suffix(".json").unlink(), "is not known"),
        (lambda lines: lines.unlink(), "is not known"),
    ],
    ids=["empty", "foreign", "broken", "no text", "other shapes", "no facts", "broken facts",
         "facts gone", "lines gone"],
)  # fmt: skip
def test_what_has_no_poses_says_so_in_a_line(served, spoil, words):
    spoil(recorded(served.folder))
    path = "/api/recordings/door_20261127-093029/poses"
    answer = httpx.get(served.url + path, timeout=60)
    assert answer.status_code == 409
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_recording_that_is_being_written_has_the_poses_so_far(tmp_path):
    lines = recorded(tmp_path)
    with lines.open("a") as file:
        file.write('{"frame":6,"pts')
    write_npz(lines, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as got:
        assert got["frame"].max() == 5


def test_an_error_of_the_child_is_its_parents(tmp_path):
    lines = recorded(tmp_path)
    lines.write_text("")
    with pytest.raises(ExportError, match="no people"):
        make_poses(lines, "npz", tmp_path / "out.npz", 60, threading.Event())
    assert not (tmp_path / "out.npz").exists()
