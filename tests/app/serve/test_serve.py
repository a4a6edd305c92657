"""`serve` with a real server on the loopback: the API, live pictures and bodies, and refusals."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
import pytest

from app.outputs.base import OutputError
from app.reports.record import record_of
from app.serve.channel import Channel, filler, wrapped
from app.serve.event_log import MOST_EVENTS, EventForwarder, EventLog
from app.serve.security import Buckets, is_loopback
from app.serve.token_auth import TokenAuth
from pipeline.body.load import load_body
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.events.motion import load_motion
from tests.support.events import event_of, renderer_of

pytest.importorskip("uvicorn")
websockets = pytest.importorskip("websockets.sync.client")
websockets_closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
from tests.support.serving import PICTURES, TOKEN, pictures  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = pytest.mark.timeout(60)
TEST = frozenset({("source", "test")})


def test_a_source_is_seen_recorded_and_removed(serve, tmp_path):
    served = serve()
    with served.client() as client:
        assert client.get("/api/sources").json() == []
        assert client.get("/healthz").status_code == 200
        name = served.hub.add(PICTURES, "test", trusted=True)
        until(lambda: client.get("/api/sources").json()[0]["drawn"] > 0)
        seen = pictures(client, name, 5)
        assert all(picture.shape == (180, 320, 3) for picture in seen)
        assert any(np.abs(seen[0].astype(int) - p.astype(int)).max() > 30 for p in seen[1:])
        file = client.put(f"/api/sources/{name}/recording", json={"on": True}).json()["file"]
        until(lambda: (tmp_path / "recordings" / file).exists())
        before = client.get("/api/sources").json()[0]
        assert before["recording"] == file
        until(lambda: client.get("/api/sources").json()[0]["drawn"] > before["drawn"] + 20)
        done = client.put(f"/api/sources/{name}/recording", json={"on": False})
        assert done.json() == {"file": None}
        beside = file.replace(".mp4", ".jsonl")
        assert {each["name"] for each in client.get("/api/files").json()} == {file, beside}
        answer = client.get(f"/api/files/{file}")
        assert answer.headers["content-type"] == "video/mp4"
        with av.open(io.BytesIO(answer.content)) as video:
            recorded = sum(1 for _ in video.decode(video=0))
        assert recorded >= 20
        answer = client.get(f"/api/files/{beside}")
        assert answer.headers["content-type"] == "application/jsonl"
        numbers = [json.loads(line)["frame"] for line in answer.text.splitlines()]
        assert len(numbers) == recorded
        assert numbers == sorted(set(numbers))
        assert client.get("/api/sources").json()[0]["not_recorded"] == 0
        lines = client.get(f"/api/sources/{name}/poses").text.splitlines()
        frames = [json.loads(line)["frame"] for line in lines]
        assert frames == sorted(frames)
        assert len(frames) > 20
        assert client.delete(f"/api/sources/{name}").status_code == 204
        assert client.get("/api/sources").json() == []
        assert client.delete(f"/api/sources/{name}").status_code == 404
        assert client.get(f"/video/{name}").status_code == 404


def test_a_dead_source_shows_why_and_costs_the_others_nothing(serve):
    served = serve()
    with served.client() as client:
        served.hub.add(PICTURES, "test", trusted=True)
        answer = client.post("/api/sources", json={"address": "rtsp://annie:s3cret@127.0.0.1:1/x"})
        assert answer.status_code == 201
        name = answer.json()["name"]
        assert name == "127.0.0.1-1-x"

        def dead():
            return next(v for v in client.get("/api/sources").json() if v["name"] == name)

        until(lambda: "refused" in dead()["reason"])
        assert dead()["state"] == "connecting"
        told = json.dumps(dead()) + client.get("/metrics").text
        assert "s3cret" not in told
        assert "annie" not in told
        (picture,) = pictures(client, name, 1)
        assert picture.mean() < 60
        assert picture.max() > 150, "it says why"
        drawn = served.hub.sources()[0].drawn
        begun = time.monotonic()
        until(lambda: served.hub.sources()[0].drawn >= drawn + 50)
        assert time.monotonic() - begun == pytest.approx(2.0, rel=0.25)
        assert client.get("/healthz").status_code == 200
        client.delete("/api/sources/test")
        assert client.get("/healthz").status_code == 503


def test_a_token_is_needed_where_there_is_one(serve):
    served = serve(TOKEN)
    with served.client() as client:
        for path in ("/api/sources", "/video/x", "/metrics", "/page/page.js", "/openapi.json"):
            assert client.get(path).status_code == 401
        assert client.get("/").headers["location"] == "/login"
        assert client.get("/login").status_code == 200
        assert client.get("/healthz").status_code == 200
        for wrong in ("x", "x" * 22, TOKEN[:-1], TOKEN + "x", "é" * 20):
            given = {"Authorization": b"Bearer " + wrong.encode()}
            assert client.get("/api/sources", headers=given).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/sources", headers=right).status_code == 200
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        done = client.post("/login", data={"token": TOKEN})
        assert done.status_code == 303
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/api/sources").status_code == 200
        tries = [client.post("/login", data={"token": "wrong"}).status_code for _ in range(8)]
        assert 429 in tries


def test_other_sites_and_other_names_are_refused(serve):
    served = serve()
    new = {"address": "rtsp://127.0.0.1:1/x"}
    with served.client() as client:
        for headers in (
            {"Origin": "http://evil.example"}, {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{served.port + 1}"}, {"Sec-Fetch-Site": "cross-site"},
        ):  # fmt: skip
            assert client.post("/api/sources", json=new, headers=headers).status_code == 403
        for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example"):
            assert client.get("/api/sources", headers={"Host": host}).status_code == 403
        assert client.get("/api/sources").json() == []
        own = {"Origin": served.url}
        assert client.post("/api/sources", json=new, headers=own).status_code == 201
        answer = client.get("/")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        own = re.findall(r'<script (?:type="module" )?src="/page/\w+\.js"></script>', answer.text)
        assert answer.text.count("<script") == len(own) == 2


def test_a_viewer_who_takes_nothing_costs_the_others_nothing(serve):
    served = serve()
    name = served.hub.add("lavfi:testsrc2=size=1280x720:rate=25", "test", trusted=True)
    until(lambda: served.hub.sources()[0].state == "live")
    stuck = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
    for each in stuck:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.sendall(f"GET /video/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    with served.client() as client:
        pictures(client, name, 3)
        begun = time.monotonic()
        assert len(pictures(client, name, 30)) >= 30
        assert time.monotonic() - begun < 3.0
    for each in stuck:
        each.close()


def test_bodies_come_by_websocket_to_our_own_pages_only(serve):
    served = serve()
    name = served.hub.add(PICTURES, "test", trusted=True)
    until(lambda: served.hub.sources()[0].state == "live")
    address = f"ws://127.0.0.1:{served.port}/ws/{name}"
    with websockets.connect(address, origin=served.url) as own:
        told = [json.loads(own.recv(timeout=5)) for _ in range(10)]
    assert [each["source"] for each in told] == [name] * 10
    frames = [each["frame"] for each in told]
    assert frames == sorted(set(frames))
    other = "http://evil.example"
    with pytest.raises(Exception, match="403"), websockets.connect(address, origin=other):
        pass


def test_events_come_with_the_bodies_and_stay_for_who_asks(serve):
    served = serve(motion=load_motion())
    plain = serve()
    for each in (served, plain):
        each.hub.add(PICTURES, "test", trusted=True)
    until(lambda: served.hub.sources()[0].state == "live")
    assert [each.hub.sources()[0].events for each in (served, plain)] == [0, None]
    event, info = event_of(served.hub._scheduler.estimator.body)
    renderer = renderer_of(served.hub._scheduler.estimator.body)
    record = record_of(event.seen, event.window, event.fitted, info, renderer)
    address = f"ws://127.0.0.1:{served.port}/ws/test"
    with websockets.connect(address, origin=served.url) as own, served.client() as client:
        assert client.get("/api/sources/test/events").json() == []
        own.recv(timeout=5)
        served.hub._served["test"].events.log(record)
        told = {}
        while "event" not in told:
            told = json.loads(own.recv(timeout=5))
        assert told == {"source": "test", "event": json.loads(json.dumps(record.data))}
        assert client.get("/api/sources/test/events").json() == [told["event"]]
        assert client.get("/api/sources").json()[0]["events"] == 1
        found = scraped(client)
        assert found["bodystream_events_total", TEST] == 1
        assert found["bodystream_events_lost_total", TEST] == 0
        strip = client.get("/api/sources/test/events/0/strip")
        assert strip.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(strip.content, np.uint8), 1).shape == (320, 1280, 3)
        for missing in ("test/events/1/strip", "nobody/events", "nobody/events/0/strip"):
            assert client.get(f"/api/sources/{missing}").status_code == 404
    with plain.client() as client:
        assert client.get("/api/sources/test/events").status_code == 404
        assert client.get("/api/sources/test/events/0/strip").status_code == 404
        assert ("bodystream_events_total", TEST) not in scraped(client)


def test_a_source_keeps_so_many_events(serve):
    body = load_body()
    event, info = event_of(body)
    record, told = (
        record_of(event.seen, event.window, event.fitted, info, renderer_of(body)),
        EventLog(),
    )
    for _ in range(MOST_EVENTS + 5):
        told(record)
    assert told.count == MOST_EVENTS + 5
    assert [number for number, _ in told.after(-1)] == list(range(5, MOST_EVENTS + 5))
    with pytest.raises(KeyError):
        told.strip(4)


def scraped(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return /metrics as Prometheus reads it: values by name and labels."""
    from prometheus_client.parser import text_string_to_metric_families

    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def bins_of(found: dict, name: str) -> dict[frozenset, list[tuple[float, float]]]:
    """A histogram's buckets by its other labels, in the order of their edges."""
    bins: dict[frozenset, list[tuple[float, float]]] = {}
    for (sample, labels), value in found.items():
        if sample == f"{name}_bucket":
            edge = float(dict(labels)["le"])
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            bins.setdefault(rest, []).append((edge, value))
    return {labels: sorted(pairs) for labels, pairs in bins.items()}


def test_metrics_are_prometheus(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    served.hub.add("rtsp://127.0.0.1:1/x", "dead")
    until(lambda: served.hub.sources()[0].drawn > 0)
    test = TEST
    with served.client() as client:
        first = scraped(client)
        until(lambda: served.hub.sources()[0].drawn > first["bodystream_frames_drawn_total", test])
        second = scraped(client)
    assert second["bodystream_state", test | {("state", "live")}] == 1.0
    assert second["bodystream_frames_read_total", test] > 0
    for found in (first, second):
        bins = bins_of(found, "bodystream_latency_seconds")
        assert set(bins) == {test, frozenset({("source", "dead")})}
        stages = bins_of(found, "bodystream_stage_seconds")
        assert {dict(labels)["stage"] for labels in stages} >= {"perceive", "fit", "draw", "write"}
        for name, each in (("latency", bins), ("stage", stages)):
            for labels, pairs in each.items():
                counts = [count for _, count in pairs]
                assert counts == sorted(counts), "buckets are cumulative"
                assert pairs[-1] == (np.inf, found[f"bodystream_{name}_seconds_count", labels])
                total_s = found[f"bodystream_{name}_seconds_sum", labels]
                most_s = sum(n * edge for edge, n in pairs[:-1]) + counts[-1] * 60
                assert 0 <= total_s <= most_s
        drawn = found["bodystream_frames_drawn_total", test]
        assert bins[test][-1][1] == drawn > 0
    for sample, before in first.items():
        if sample[0].endswith(("_total", "_bucket", "_count", "_sum")):
            assert second[sample] >= before, sample
    name = "bodystream_latency_seconds_count"
    assert second[name, test] > first[name, test]
    assert second["bodystream_recording_dropped_total", test] == 0


def test_people_who_are_not_followed_are_counted(serve, three_unfollowed):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    with served.client() as client:
        until(lambda: client.get("/api/sources").json()[0]["not_followed"] == 3)
        assert scraped(client)["bodystream_people_not_followed", TEST] == 3


def test_tokens_are_not_short_and_hosts_are_known():
    with pytest.raises(ValueError, match="at least 16"):
        TokenAuth("short")
    for host in ("localhost", "127.0.0.1", "::1", "[::1]", "127.8.9.1"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.1.4", "evil.example", "127.0.0.1.evil.example", ""):
        assert not is_loopback(host)


def test_a_bucket_lets_its_rate_through():
    now = [0.0]
    buckets = Buckets(2.0, 4.0, lambda: now[0])
    assert [buckets.take("a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert buckets.take("b")
    now[0] += 1.0
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]


def ended(socket_) -> bool:
    """Return whether it is closed, after reading the messages before."""
    try:
        while True:
            socket_.recv(timeout=0.05)
    except TimeoutError:
        return False
    except websockets_closed:
        return True


def test_who_watches_a_source_is_let_go_when_its_name_goes_to_another(serve):
    served = serve()
    served.hub.add(PICTURES, "test", trusted=True)
    sockets = [f"ws://127.0.0.1:{served.port}/{what}/test" for what in ("watch", "ws")]
    with (
        websockets.connect(sockets[0], origin=served.url) as viewer,
        websockets.connect(sockets[1], origin=served.url) as reader,
    ):
        viewer.send("next")
        assert viewer.recv(timeout=5)
        assert reader.recv(timeout=5)
        served.hub.remove("test")
        served.hub.add(PICTURES, "test", trusted=True)
        with contextlib.suppress(websockets_closed):
            viewer.send("next")
        for each in (viewer, reader):
            until(lambda: ended(each))  # noqa: B023 (called at once)


def test_of_a_recording_that_grows_what_was_there_is_sent(serve):
    served = serve()
    path = served.folder / "grows.jsonl"
    path.write_bytes(b"x" * 300_000)
    stop = threading.Event()

    def grow():
        with path.open("ab") as file:
            while not stop.is_set():
                file.write(b"y" * 20_000)
                file.flush()
                stop.wait(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with served.client() as client:
            for _ in range(30):
                answer = client.get("/api/files/grows.jsonl")
                assert answer.status_code == 200
                assert len(answer.content) == int(answer.headers["content-length"]) >= 300_000
            part = client.get("/api/files/grows.jsonl", headers={"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, b"x" * 10)
    finally:
        stop.set()
        writer.join()


def record_of_event(nobody):
    event, info = event_of(nobody.body)
    return record_of(event.seen, event.window, event.fitted, info, renderer_of(nobody.body))


def test_an_event_that_cannot_be_handed_on_is_reported_and_ends_nothing(nobody):
    full, taken = [True], []

    def sink(record):
        if full[0]:
            raise OSError("outbox: the disk is full")
        taken.append(record)

    forwarder, record = EventForwarder("door", sink), record_of_event(nobody)
    forwarder(record)
    until(lambda: "the disk is full" in forwarder.trouble)
    assert forwarder.lost == 1
    full[0] = False
    forwarder(record)
    forwarder.close()
    assert (forwarder.trouble, forwarder.lost, taken) == ("", 1, [record])


def test_an_outbox_that_hangs_holds_up_no_event(nobody, monkeypatch):
    monkeypatch.setattr("app.serve.event_log.HANGS_S", 0.1)
    monkeypatch.setattr("app.outputs.background_writer._LIVE_STUCK_S", 0.2)
    answers = threading.Event()
    forwarder, record = EventForwarder("door", lambda _: answers.wait(20)), record_of_event(nobody)
    begun_s = time.monotonic()
    for _ in range(MOST_EVENTS + 10):
        forwarder(record)
    assert time.monotonic() - begun_s < 1.0
    assert forwarder.lost >= 9
    until(lambda: "has not answered" in forwarder.trouble)
    with pytest.raises(OutputError, match="events of door: not finished"):
        forwarder.close()
    assert time.monotonic() - begun_s < 3.0
    answers.set()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def channel_of(nobody, clock) -> tuple[Channel, Callable[[int], None]]:
    channel = Channel(lambda: "waiting", lambda: Path("a.mp4"), clock)
    _, info = event_of(nobody.body)
    channel.open(info)

    def write(grey: int) -> None:
        picture = np.full((240, 320, 3), grey, np.uint8)
        frame = Frame(grey, "x", 0, 0.0, picture)
        channel.write(frame, Bodies.none(len(nobody.body.v_template)), picture)

    return channel, write


def grey_of(found: tuple[int, bytes] | None) -> int:
    assert found is not None
    image = cv2.imdecode(np.frombuffer(found[1], np.uint8), cv2.IMREAD_COLOR)
    return round(float(np.median(image)))


def test_a_picture_from_when_nobody_asked_is_shown_to_nobody(nobody):
    clock = Clock()
    channel, write = channel_of(nobody, clock)
    assert channel.picture(0, 0.0) is None
    for grey in range(60, 65):
        clock.now_s += 0.04
        write(grey)
    assert grey_of(channel.picture(0, 0.0)) == 64
    for grey in range(100, 200):
        clock.now_s += 0.1
        write(grey)
    # NoPeople asked for five seconds: the last picture made is old, and the next one is waited for.
    assert channel.picture(0, 0.0) is None
    clock.now_s += 0.1
    write(210)
    assert grey_of(channel.picture(0, 0.0)) == 210


@pytest.mark.parametrize("gap_s", [0.5, 2.0, 4.0])
def test_a_slow_source_is_not_a_dead_one(nobody, gap_s):
    clock = Clock()
    channel, write = channel_of(nobody, clock)
    channel.picture(0, 0.0)
    after = 0
    for grey in range(60, 80):
        write(grey)
        shown = channel.picture(after, 0.0)
        assert grey_of(shown) == grey
        after = shown[0]
        for _ in range(4):
            clock.now_s += gap_s / 4
            # Before a second frame nobody knows how far apart they are.
            filled = channel.picture(after, 0.0)
            assert grey < 62 or filled is None
            after = after if filled is None else filled[0]
    clock.now_s += 2 * gap_s + 1
    assert grey_of(channel.picture(after, 0.0)) < 30, "it says why"


def test_a_filler_says_why():
    lines = wrapped("reconnecting: rtsp://cam/x: connection refused: check the address " * 9, 46)
    assert len(lines) == 5
    assert all(len(line) <= 46 for line in lines)
    assert filler((180, 320), "lost").shape == (180, 320, 3)
