"""Sources that are changed, played again and looked at while they run, over the API."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest

from app.config import settings
from app.serve import hub
from app.serve.settings import KEYS
from pipeline.events.motion import load_motion

pytest.importorskip("uvicorn")
from tests.support.bodies import standing  # noqa: E402
from tests.support.clips import number_of, numbered, write_clip  # noqa: E402
from tests.support.serving import PICTURES, Served, pictures  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def clip(tmp_path) -> str:
    return str(write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(12)]))


def view(served: Served) -> dict:
    return httpx.get(served.url + "/api/sources").json()[0]


def change(served: Served, **values) -> httpx.Response:
    return httpx.patch(served.url + "/api/sources/test", json=values, timeout=30)


def decoded(jpeg: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def test_settings_are_those_of_the_profile_and_change(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    assert view(served)["settings"] == {name: settings()[key].default for name, key in KEYS.items()}
    values = {"style": "skeleton", "alpha": 0.5, "labels": True, "draw_unseen": True, "loop": True}
    answer = change(served, **values)
    assert answer.json()["restarted"] is False
    assert answer.json()["settings"] == view(served)["settings"]
    assert view(served)["settings"].items() >= values.items()
    assert change(served).json()["settings"].items() >= values.items()


@pytest.mark.parametrize(
    "wrong",
    [{"style": "cubist"}, {"style": None}, {"alpha": -0.1}, {"alpha": 1.1}, {"alpha": "0.5"},
     {"alpha": None}, {"labels": 1}, {"labels": "yes"}, {"loop": None}, {"colour": "red"},
     {"timing": "sync", "x": 1}, {"rtsp_transport": "tcp "}, [], "x", 3],
    ids=str,
)  # fmt: skip
def test_wrong_settings_change_nothing(serve, wrong):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    before = view(served)["settings"]
    answer = httpx.patch(served.url + "/api/sources/test", json=wrong)
    assert answer.status_code == 422
    assert view(served)["settings"] == before


def test_settings_that_do_not_go_together_are_refused(serve):
    served = serve(motion=load_motion())
    served.hub.add(PICTURES, "test", trusted=True)
    answer = change(served, timing="low-latency")
    assert answer.status_code == 422
    assert "searched for events" in answer.json()["detail"]
    answer = change(served, rtsp_transport="udp")
    assert answer.status_code == 422
    assert "is not rtsp://" in answer.json()["detail"]


def test_nothing_is_done_to_a_source_that_is_not_there(serve):
    served = serve()
    with served.client() as client:
        assert client.patch("/api/sources/missing", json={"alpha": 1}).status_code == 404
        assert client.post("/api/sources/missing/restart").status_code == 404
        assert client.get("/api/sources/missing/snapshot").status_code == 404


def test_the_drawing_changes_at_once(serve, nobody, monkeypatch):
    """The same person is there all the time; the pictures show the body, its bones, nothing."""
    person = standing()

    def fit(detected, states):
        return [[(frame, person) for frame in one.window.frames] for one in detected]

    monkeypatch.setattr(nobody, "fit", fit)
    served = serve()
    served.hub.add("lavfi:color=c=0x404040:size=320x180:rate=25", "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)

    def drawn(style: str) -> int:
        """How many pixels the bodies cover, below the numbers in the corner."""
        assert change(served, style=style).status_code == 200
        shown = view(served)["drawn"] + 8
        until(lambda: view(served)["drawn"] > shown)
        picture = decoded(httpx.get(served.url + "/api/sources/test/snapshot").content)[80:]
        return int((np.abs(picture.astype(int) - 0x40).max(axis=2) > 12).sum())

    mesh, bones, nothing = drawn("mannequin"), drawn("skeleton"), drawn("off")
    assert mesh > bones > nothing == 0
    assert drawn("mannequin") == pytest.approx(mesh, rel=0.2)


def test_a_setting_that_is_read_at_the_start_begins_the_source_again(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: view(served)["drawn"] > 5)
    number, drawn = served.hub.number("test"), view(served)["drawn"]
    answer = change(served, timing="low-latency", style="skeleton")
    assert answer.json()["restarted"] is True
    assert served.hub.number("test") > number
    until(lambda: view(served)["state"] == "live")
    until(lambda: view(served)["drawn"] > drawn + 5)
    assert view(served)["settings"]["timing"] == "low-latency"
    assert view(served)["settings"]["style"] == "skeleton"
    assert change(served, timing="low-latency").json()["restarted"] is False


def test_a_recording_goes_on_where_a_source_begins_again(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)
    first = httpx.put(served.url + "/api/sources/test/recording", json={"on": True}).json()["file"]
    until(lambda: (served.folder / first).exists())
    time.sleep(1.1)
    assert httpx.post(served.url + "/api/sources/test/restart", timeout=30).status_code == 204
    until(lambda: view(served)["recording"] not in (None, first))
    until(lambda: (served.folder / view(served)["recording"]).exists())


def test_requests_at_once_begin_a_source_again_one_after_another(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)
    path = served.url + "/api/sources/test/restart"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: httpx.post(path, timeout=30).status_code, range(8)))
    assert set(found) <= {204, 409}
    assert 204 in found
    drawn = view(served)["drawn"]
    until(lambda: view(served)["drawn"] > drawn + 5)
    assert len(served.hub._scheduler.streams) == 1


def test_a_change_whose_new_beginning_is_refused_changes_nothing(serve, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no more sources")

    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)
    before = view(served)["settings"]
    with monkeypatch.context() as patch:
        patch.setattr(served.hub._scheduler, "add", refuse)
        answer = change(served, timing="low-latency", alpha=0.25)
        assert (answer.status_code, answer.json()["detail"]) == (409, "no more sources")
    assert view(served)["settings"] == before
    assert view(served)["state"] == "ended"
    assert httpx.post(served.url + "/api/sources/test/restart").status_code == 204
    until(lambda: view(served)["state"] == "live")
    assert view(served)["settings"] == before


def test_a_source_that_cannot_be_shown_leaves_its_name_free(serve, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no renderer")

    served = serve()
    with monkeypatch.context() as patch:
        patch.setattr(hub, "make_render_loop", refuse)
        with pytest.raises(RuntimeError, match="no renderer"):
            served.hub.add(PICTURES, "test", trusted=True)
    served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)


def test_a_clip_keeps_its_last_frame_and_is_played_again(serve, clip):
    served = serve()
    served.hub.add(clip, "test", trusted=True)
    assert view(served)["clip"] is True
    until(lambda: view(served)["state"] == "ended")
    assert view(served)["reason"] == ""
    # A viewer who comes late, and stays for longer than a picture is waited for.
    for picture in pictures(served.client(), "test", 3):
        assert number_of(picture) == 11
    assert number_of(decoded(httpx.get(served.url + "/api/sources/test/snapshot").content)) == 11
    assert view(served)["read"] == 12
    assert httpx.post(served.url + "/api/sources/test/restart").status_code == 204
    until(lambda: view(served)["read"] == 24)
    until(lambda: view(served)["state"] == "ended")


def test_a_clip_that_ended_while_recorded_is_played_again_without_a_recording(serve, tmp_path):
    path = write_clip(tmp_path / "long.mp4", [numbered(k % 12) for k in range(90)])
    served = serve()
    served.hub.add(str(path), "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)
    record = served.url + "/api/sources/test/recording"
    assert httpx.put(record, json={"on": True}).json()["file"]
    until(lambda: view(served)["state"] == "ended")
    until(lambda: not served.hub.written())
    assert view(served)["recording_wanted"] is False
    files = len(served.hub.folder.files())
    assert files == 2
    assert httpx.post(served.url + "/api/sources/test/restart").status_code == 204
    until(lambda: view(served)["drawn"] > 90)
    assert view(served)["recording_wanted"] is False
    assert view(served)["recording"] is None
    until(lambda: view(served)["read"] == 180)
    assert len(served.hub.folder.files()) == files


def test_a_clip_loops_until_that_is_switched_off(serve, clip):
    served = serve()
    served.hub.add(clip, "test", trusted=True)
    assert change(served, loop=True).json()["restarted"] is False
    until(lambda: view(served)["read"] > 40)
    change(served, loop=False)
    until(lambda: view(served)["state"] == "ended")
    # The figures are a quarter of a second old.
    until(lambda: view(served)["read"] % 12 == 0)
    numbers = [number for number, _ in served.hub.bodies("test", -1)]
    assert numbers == sorted(set(numbers))
    # Looping a clip that has ended plays it.
    assert change(served, loop=True).json()["restarted"] is True
    until(lambda: view(served)["state"] == "live")


def test_a_fault_is_not_hidden_behind_the_last_frame(serve, tmp_path):
    served = serve()
    (tmp_path / "broken.mp4").write_bytes(b"no clip at all")
    served.hub.add(str(tmp_path / "broken.mp4"), "test", trusted=True)
    until(lambda: view(served)["state"] == "ended")
    assert view(served)["reason"]
    answer = httpx.get(served.url + "/api/sources/test/snapshot")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "there is no picture yet"


def test_a_snapshot_has_the_full_size(serve):
    served = serve()
    served.hub.add("lavfi:testsrc2=size=1600x90:rate=10", "test", trusted=True)
    until(lambda: view(served)["drawn"] > 0)
    answer = httpx.get(served.url + "/api/sources/test/snapshot")
    assert answer.headers["content-type"] == "image/jpeg"
    assert decoded(answer.content).shape == (90, 1600, 3)
    assert "test_2" in answer.headers["content-disposition"]
    assert pictures(served.client(), "test", 1)[0].shape == (72, 1280, 3)
