"""`serve`: a fault of one source ends it alone, is shown, and a live source begins again."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from app import body_renderer
from app.reports import dispatcher
from app.serve import hub
from app.serve import served as served_source
from app.serve.channel import Channel, Fits
from pipeline.events.motion import load_motion
from pipeline.runtime.video_stream import VideoStream
from tests.support.fakes import StubSource
from tests.support.faults import KINDS, FaultyNobody, FaultyRenderer
from tests.support.serving import serving
from tests.support.waiting import until

STAGES = ["source", "perceive", "fit", "lens", "draw", "channel", "bodies"]
FEW = (
    "value",
    "memory",
    "base",
)  # The other kinds take the same ways, as the runtime's tests show.
BAD = "rtsp://ann:s3cret@127.0.0.1:1/x"


class Fault:
    """Whether the fault is there: `estimator` and the patches below ask it."""

    def __init__(self, stage, error) -> None:
        self.stage, self.error = stage, error

    def check(self, stage):
        if stage == self.stage and threading.current_thread().name in ("show bad", "events"):
            raise self.error

    def end(self):
        self.stage = ""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve two live sources, of which one has a fault in one stage."""

    def serve(stage, error, stack, address=BAD):
        fault = Fault(stage, error)
        estimator = FaultyNobody(stage, error)
        renderer = FaultyRenderer(stage, error)

        def end():
            for part in (fault, estimator, renderer):
                part.stage = ""

        def source_of(config, _):
            name = "good" if config.source.endswith("good") else "bad"
            at = 5 if name == "bad" and fault.stage == "source" else None
            return StubSource(None, name=name, live=True, pause_s=0.005, fails_at=at, error=error)

        for kind, call in ((Channel, "channel"), (Fits, "bodies")):
            method = kind.write

            def write(self, *rest, method=method, call=call):
                fault.check(call)
                method(self, *rest)

            monkeypatch.setattr(kind, "write", write)
        monkeypatch.setattr(body_renderer, "make_renderer", lambda _: renderer)
        monkeypatch.setattr(hub, "source_of", source_of)
        monkeypatch.setattr(served_source, "_PAUSES_S", (0.3,))
        running = stack.enter_context(serving(estimator, tmp_path))
        running.hub.add("rtsp://127.0.0.1:1/good", "good")
        running.hub.add(address, "bad", trusted=True)
        return running, end

    return serve


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("error", [KINDS[kind] for kind in FEW], ids=FEW)
@pytest.mark.parametrize("stage", STAGES)
def test_a_live_source_says_why_and_begins_again(served, stack, stage, error):
    running, end = served(stage, error, stack)
    number = running.hub.number("bad")
    with running.client() as client:

        def views():
            return {view["name"]: view for view in client.get("/api/sources").json()}

        until(lambda: "begins again in" in views()["bad"]["reason"])
        bad = views()["bad"]
        assert bad["state"] == "reconnecting"
        assert "\n" not in bad["reason"]
        assert "s3cret" not in json.dumps(bad)
        drawn = views()["good"]["drawn"]
        until(lambda: views()["good"]["drawn"] > drawn + 5)
        assert client.get("/healthz").status_code == 200
        end()
        before = views()["bad"]["drawn"]
        until(lambda: views()["bad"]["drawn"] > before + 5)
        assert running.hub.number("bad") > number
        assert views()["bad"]["state"] == "live"
        assert views()["bad"]["reason"] == ""
        assert views()["good"]["reason"] == ""


def test_a_clip_ends_and_says_why(served, stack):
    running, _ = served("draw", ValueError("bad pixels"), stack, address="clip.mp4")
    until(lambda: running.hub.sources()[1].state == "ended")
    assert running.hub.sources()[1].reason == "bad pixels"
    assert running.hub.sources()[0].state == "live"


def test_a_source_is_removed_in_its_pause_too(served, stack, monkeypatch):
    running, _ = served("draw", ValueError("bad pixels"), stack)
    monkeypatch.setattr(served_source, "_PAUSES_S", (30.0,))
    until(lambda: "again in 30 s" in running.hub.sources()[1].reason)
    thread = running.hub._served["bad"].thread
    running.hub.remove("bad")
    assert not thread.is_alive()
    assert running.hub.names() == {"good"}


def test_a_restart_during_its_new_beginning_leaves_one_source(served, stack, monkeypatch):
    """The pause is over and the source's thread is about to act when the request comes."""
    acting, settle = threading.Event(), VideoStream.settle

    def slow(stream):
        if threading.current_thread().name == "show bad":
            acting.set()
            until(lambda: running.hub._served["bad"].restarting)
        settle(stream)

    monkeypatch.setattr(VideoStream, "settle", slow)
    running, end = served("draw", ValueError("bad pixels"), stack)
    assert acting.wait(20)
    end()
    number = running.hub.number("bad")
    running.hub.restart("bad")
    assert running.hub.number("bad") > number
    drawn = running.hub.sources()[1].drawn
    until(lambda: running.hub.sources()[1].drawn > drawn + 5)
    assert running.hub.sources()[1].state == "live"


def test_an_event_that_cannot_be_described_ends_its_source(tmp_path, monkeypatch):
    """The page says why; before, the source ended without a reason."""

    def broken(*_):
        raise ValueError("a body of no shape")

    class Seen(FaultyNobody):
        def fit_event(self, detected, before, track, state):
            return self._fit(detected.window.frames)

    class Watch:
        def __init__(self, _):
            pass

        def see(self, frame, people, reset):
            return [SimpleNamespace(frame_id=frame.id, track=1)] if frame.id == 5 else []

        def finish(self):
            pass

    monkeypatch.setattr(dispatcher, "record_of", broken)
    monkeypatch.setattr(hub, "Detector", Watch)
    monkeypatch.setattr(
        hub, "source_of", lambda *_: StubSource(None, name="bad", live=True, pause_s=0.005)
    )
    with serving(Seen(), tmp_path, motion=load_motion()) as running:
        running.hub.add("rtsp://127.0.0.1:1/x", "bad")
        until(lambda: running.hub.sources()[0].reason == "a body of no shape; begins again in 1 s")
