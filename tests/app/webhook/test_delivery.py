"""Events on their way to a real HTTP server: none lost, none twice, whatever the server does."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import standardwebhooks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.outputs.base import OutputError
from app.webhook import outbox as outbox_module
from app.webhook.delivery import Webhook, _asked_s
from app.webhook.outbox import Outbox
from app.webhook.signing import message_id
from tests.support.paths import ROOT

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Request:
    key: str
    body: bytes
    headers: dict[str, str]
    path: str
    at_s: float

    @property
    def n(self) -> int:
        return json.loads(self.body)["n"]


Act = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, **headers: str) -> Act:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def drip(start: bytes, count: int = 200) -> Act:
    """Begin as told, then a byte every 20 ms, so that no single read ever waits for long."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        for _ in range(count):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    return act


class Receiver:
    """A server that notes what it is sent and does as ``plan(request, how many so far)`` says."""

    def __init__(self, plan: Callable[[Request, int], Act] | None = None) -> None:
        self.plan = plan or (lambda request, count: answer(200))
        self.requests: list[Request] = []
        self.tls: ssl.SSLContext | None = None
        self._server: ThreadingHTTPServer | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                # A sender that is killed in the middle leaves half a request, which no server
                # takes for one.
                if len(body) < length:
                    return
                key = self.headers["Idempotency-Key"]
                assert key[0] == key[-1] == '"'
                sent = {name.lower(): value for name, value in self.headers.items()}
                request = Request(key[1:-1], body, sent, self.path, time.monotonic())
                outer.requests.append(request)
                with contextlib.suppress(OSError):
                    outer.plan(request, len(outer.requests))(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def keys(self) -> list[str]:
        return [request.key for request in self.requests]


class Clock:
    """Time that passes only when a thread waits."""

    def __init__(self) -> None:
        self.now_s = 1.8e9
        self.pauses: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now_s

    def wait(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s
        self.on_wait()
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def hook(tmp_path) -> Iterator[Callable[..., Webhook]]:
    """Makes webhooks with one outbox; each is closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(url: str, **options) -> Webhook:
            made = Webhook(url, tmp_path / "outbox.db", **options)
            stack.callback(made.close, 0)
            return made

        yield make


def until(ready: Callable[[], bool], limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def names(count: int) -> list[str]:
    return [f"e{n}" for n in range(count)]


def send(hook: Webhook, keys: list[str]) -> None:
    for n, key in enumerate(keys):
        hook.send(key, {"n": n})


def states(path: Path) -> dict[str, str]:
    """Every key's state, as the closed file has it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT key, state FROM events ORDER BY seq"))


# What is sent


def test_an_event_is_a_post_in_order_of_arrival(receiver, hook, tmp_path):
    sending = hook(receiver.url)
    send(sending, names(20))
    sending.close()
    assert receiver.keys == names(20)
    assert [request.n for request in receiver.requests] == list(range(20))
    headers = receiver.requests[0].headers
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("bodystream/")
    assert "authorization" not in headers
    assert "x-bodystream-signature" not in headers
    assert (sending.status.waiting, sending.status.delivered) == (0, 20)
    assert sending.status.problem is None
    assert set(states(tmp_path / "outbox.db").values()) == {"delivered"}


def test_the_signature_is_stripes(receiver, hook):
    sending = hook(receiver.url, secret="hush", clock_s=lambda: 1.8e9 + 0.5)
    sending.send("a", {"n": 1, "who": "Zoë"})
    sending.close()
    request = receiver.requests[0]
    found = re.fullmatch("t=([0-9]+),v1=([0-9a-f]+)", request.headers["x-bodystream-signature"])
    assert found is not None
    mac = hmac.new(b"hush", found[1].encode() + b"." + request.body, hashlib.sha256)
    assert (found[1], found[2]) == ("1800000000", mac.hexdigest())
    assert json.loads(request.body)["who"] == "Zoë"


SECRETS = {
    "whsec_" + base64.b64encode(bytes(range(24))).decode(): bytes(range(24)),
    "whsec_" + base64.b64encode(bytes(range(25))).decode().rstrip("="): bytes(range(25)),
    "hush": b"hush",
    "whsec_not base64": b"whsec_not base64",
    "whsec_": b"whsec_",
}
"""Secrets as they are given, and the bytes of the key that each stands for."""


@pytest.mark.parametrize("secret", SECRETS)
def test_the_signature_is_that_of_standard_webhooks(receiver, hook, secret):
    """Their own library takes it; of what was changed on the way it takes nothing."""
    sending = hook(receiver.url, secret=secret)
    sending.send('the "south" gate.mp4-59-1', {"n": 1, "who": "Zoë"})
    sending.close()
    (request,) = receiver.requests
    theirs = standardwebhooks.Webhook(SECRETS[secret])
    assert theirs.verify(request.body, request.headers) == {"n": 1, "who": "Zoë"}
    if secret.startswith("whsec_") and SECRETS[secret] != secret.encode():
        standardwebhooks.Webhook(secret).verify(request.body, request.headers)
    for changed in (
        (request.body + b" ", request.headers),
        (request.body, {**request.headers, "webhook-id": "another"}),
        (request.body, {**request.headers, "webhook-timestamp": str(int(time.time()) - 9)}),
    ):
        with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
            theirs.verify(*changed)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_an_id_is_the_key_without_dots(key):
    """Dots divide what is signed, so an id with one could be read as another."""
    made = message_id(key)
    assert re.fullmatch("[A-Za-z0-9_~%-]+", made)
    assert unquote(made) == key


def test_a_retry_has_the_same_id_and_a_time_of_its_own(receiver, hook):
    receiver.plan = lambda request, count: answer(500 if count == 1 else 200)
    clock = Clock()
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait, jitter=lambda: 1.0)
    sending.send("clip.mp4-1", {"n": 0})
    until(lambda: sending.status.delivered == 1)
    first, second = (request.headers for request in receiver.requests)
    assert first["webhook-id"] == second["webhook-id"] == "clip%2Emp4-1"
    assert int(second["webhook-timestamp"]) == int(first["webhook-timestamp"]) + 1
    assert "webhook-signature" not in first, "without a secret nothing is signed"


def test_a_key_is_sent_once_also_after_a_restart(receiver, hook):
    for _ in range(2):
        sending = hook(receiver.url)
        for n in range(3):
            sending.send("same", {"n": n})
        sending.close()
    assert [(request.key, request.n) for request in receiver.requests] == [("same", 0)]


def test_a_key_is_a_string_as_the_draft_has_it(receiver, hook):
    sending = hook(receiver.url)
    sending.send('a "b" \\c', {"n": 0})
    sending.close()
    assert receiver.keys == [r"a \"b\" \\c"]
    for key in ("", "x" * 256, "a\r\nHost: b", "ä"):
        with pytest.raises(ValueError, match="a key is"):
            sending.send(key, {})


@pytest.mark.parametrize("event", [{"a": float("nan")}, {"a": object()}, {"a": b""}])
def test_what_json_cannot_say_is_refused_at_once(hook, receiver, event):
    with pytest.raises(ValueError, match=r"^event a: not JSON: [^\n]+$"):
        hook(receiver.url).send("a", event)


def test_the_environments_proxy_is_used(receiver, hook, monkeypatch):
    monkeypatch.setenv("http_proxy", receiver.url)
    sending = hook("http://receiver.invalid/hook")
    sending.send("a", {"n": 0})
    sending.close()
    assert receiver.requests[0].path == "http://receiver.invalid/hook"


@pytest.mark.parametrize("kind", ["excepted", "another", "socks"])
def test_a_proxy_for_others_is_not_used(receiver, hook, monkeypatch, kind):
    """no_proxy excepts this one; the other schemes' and all_proxy are for others."""
    nobody = "http://127.0.0.1:9"
    monkeypatch.setenv("http_proxy" if kind == "excepted" else "https_proxy", nobody)
    if kind == "excepted":
        monkeypatch.setenv("no_proxy", "127.0.0.1")
    if kind == "socks":
        monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    sending = hook(receiver.url)
    sending.send("a", {"n": 0})
    sending.close()
    assert receiver.keys == ["a"]


@pytest.mark.parametrize("address", ["socks5://u:pa55@127.0.0.1:1", "http://u:pa55@host:port"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_login(tmp_path, monkeypatch, address):
    monkeypatch.setenv("http_proxy", address)
    with pytest.raises(ValueError, match=r"^webhook: http_proxy: [^\n]+$") as told:
        Webhook("http://receiver.invalid/", tmp_path / "outbox.db")
    assert "pa55" not in str(told.value)


def test_a_proxy_that_refuses_is_told_and_tried_again(receiver, hook, monkeypatch):
    """The receiver is the proxy here; it knows no CONNECT."""
    monkeypatch.setenv("https_proxy", receiver.url.replace("//", "//u:pa55@"))
    sending = hook("https://receiver.invalid/")
    sending.send("a", {"n": 0})
    until(lambda: sending.status.problem is not None)
    assert "event a: the proxy refuses: 501" in sending.status.problem
    assert "pa55" not in sending.status.problem
    assert sending.status.waiting == 1


# What is answered


def by_key(statuses: list[int]) -> Callable[[Request, int], Act]:
    """The n-th event is answered with the n-th status."""
    return lambda request, count: answer(statuses[request.n])


def test_what_is_taken_is_delivered_and_a_conflict_is_too(receiver, hook):
    statuses = [200, 201, 204, 299, 409]
    receiver.plan = by_key(statuses)
    sending = hook(receiver.url)
    send(sending, names(5))
    sending.close()
    assert receiver.keys == names(5)
    assert (sending.status.delivered, sending.status.rejected) == (5, 0)


def test_what_is_refused_is_rejected_for_good_and_later_ones_go_on(receiver, hook, tmp_path):
    receiver.plan = by_key([400, 200, 401, 404, 410, 422, 200])
    sending = hook(receiver.url)
    send(sending, names(7))
    sending.close()
    assert receiver.keys == names(7)
    assert (sending.status.delivered, sending.status.rejected) == (2, 5)
    assert sending.status.problem == (
        f"webhook http://127.0.0.1:{receiver.port}: event e5: answers 422"
    )
    kept = states(tmp_path / "outbox.db")
    assert [key for key, state in kept.items() if state == "delivered"] == ["e1", "e6"]
    again = hook(receiver.url)
    send(again, names(7))
    again.close()
    assert receiver.keys == names(7)


def test_what_may_pass_later_is_tried_again_in_its_place(receiver, hook):
    statuses, clock, told = [304, 408, 425, 429, 500, 503, 599], Clock(), []
    seen: Counter[str] = Counter()

    def plan(request: Request, count: int) -> Act:
        seen[request.key] += 1
        return answer(statuses[request.n] if seen[request.key] <= 2 else 200)

    receiver.plan = plan
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait)
    clock.on_wait = lambda: told.append(sending.status.problem)
    send(sending, names(7))
    until(lambda: sending.status.delivered == 7)
    assert receiver.keys == [key for key in names(7) for _ in range(3)]
    for n, status in enumerate(statuses):
        assert any(f"event e{n}: " in line and f"answers {status}" in line for line in told)


def test_a_redirect_is_not_followed(receiver, hook):
    places = ["/elsewhere", receiver.url + "/elsewhere", "http://[", "ftp://a/elsewhere"]
    turns = [answer(status, Location=place) for status in (302, 307) for place in places]
    receiver.plan = lambda request, count: [*turns, answer(200)][count - 1]
    clock = Clock()
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait)
    sending.send("a", {"n": 0})
    until(lambda: sending.status.delivered == 1)
    assert [request.path for request in receiver.requests] == ["/hook"] * 9
    assert "redirects, which are not followed" in sending.status.problem
    assert "elsewhere" not in sending.status.problem


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("dated", [False, True])
def test_retry_after_is_waited_for_by_all(receiver, hook, status, dated):
    clock = Clock()
    after = formatdate(clock.now_s + 120, usegmt=True) if dated else "120"
    busy = answer(status, Retry_After=after)
    receiver.plan = lambda request, count: busy if count == 1 else answer(200)
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait)
    send(sending, names(3))
    until(lambda: sending.status.delivered == 3)
    assert receiver.keys == ["e0", *names(3)]
    assert clock.pauses == [120.0]


@given(st.one_of(st.none(), st.text(), st.integers().map(str), st.floats().map(str)))
def test_whatever_retry_after_says_is_at_most_an_hour(text):
    assert 0 <= _asked_s(text, 1.8e9) <= 3600


def test_retry_after_in_both_forms():
    assert _asked_s(" 7 ", 0) == 7
    assert _asked_s("9" * 5000, 0) == 3600
    assert _asked_s("Wed, 21 Oct 2015 07:28:00 GMT", 1445412470) == 10
    assert _asked_s("Wed, 21 Oct 2015 07:28:00 GMT", 1445412490) == 0
    assert _asked_s("soon", 0) == _asked_s("-5", 0) == 0


# Pauses and order


def test_a_receiver_that_is_down_is_waited_for_in_order(hook):
    receiver, clock = Receiver(), Clock()
    clock.on_wait = lambda: receiver.start() if len(clock.pauses) == 12 else None
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait, jitter=lambda: 1.0)
    send(sending, names(10))
    until(lambda: sending.status.delivered == 10)
    receiver.stop()
    assert receiver.keys == names(10)
    assert clock.pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert sending.status.problem.endswith("event e0: connection refused")


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(draws=st.lists(st.integers(0, 999), min_size=12, max_size=12))
def test_pauses_lie_under_a_cap_that_doubles(receiver, tmp_path_factory, draws):
    drawn, clock, before = iter(draws), Clock(), len(receiver.requests)
    receiver.plan = lambda request, count: answer(500 if count - before <= 12 else 200)
    path = tmp_path_factory.mktemp("law") / "outbox.db"
    sending = Webhook(
        receiver.url, path, clock_s=clock, wait=clock.wait, jitter=lambda: next(drawn) / 1000
    )
    sending.send("a", {"n": 0})
    until(lambda: sending.status.delivered == 1)
    sending.close()
    caps = [min(2.0**n, 300.0) for n in range(12)]
    # To a microsecond, which is what a clock of such numbers can tell apart.
    slept = [pause for pause in clock.pauses if pause > 1e-5]
    drawn_s = [draw / 1000 * cap for draw, cap in zip(draws, caps) if draw]
    assert slept == pytest.approx(drawn_s, abs=1e-5)


def test_events_that_alone_fail_hold_up_nobody_for_long(hook):
    bad, receiver = {"e1", "e2", "e7"}, Receiver()
    clock, chance = Clock(), random.Random(3)
    at_s: dict[str, list[float]] = {}

    def plan(request: Request, count: int) -> Act:
        at_s.setdefault(request.key, []).append(clock.now_s)
        return answer(500 if request.key in bad else 200)

    receiver.plan = plan
    before = hook(receiver.url)
    send(before, names(40))
    before.close(0)
    receiver.start()
    begun_s = clock.now_s
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait, jitter=chance.random)
    # One more arrives when they have failed for long.
    sent_s: list[float] = []

    def late() -> None:
        if len(at_s["e1"]) == 14 and not sent_s:
            sent_s.append(clock.now_s)
            sending.send("late", {"n": 40})

    clock.on_wait = late
    until(lambda: sending.status.delivered == 38)
    receiver.stop()
    good = [key for key in receiver.keys if key not in bad]
    assert good == [*(key for key in names(40) if key not in bad), "late"]
    assert max(at_s["e39"]) - begun_s < 60
    # They themselves are tried less and less often: fourteen times in what would be a minute.
    assert sent_s[0] - begun_s > 300
    assert at_s["late"][0] - sent_s[0] <= 16 * len(bad)


def test_after_an_outage_of_answers_the_order_is_taken_up_again(hook):
    receiver = Receiver(lambda request, count: answer(502 if count <= 40 else 200))
    before = hook(receiver.url)
    send(before, names(30))
    before.close(0)
    receiver.start()
    clock, chance = Clock(), random.Random(5)
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait, jitter=chance.random)
    until(lambda: sending.status.delivered == 30)
    receiver.stop()
    passed = receiver.keys[40:]
    assert sorted(passed) == sorted(names(30))
    first, *others = passed
    assert others == [key for key in names(30) if key != first]
    # Forty tries were not forty at once.
    assert sum(clock.pauses) > 60


def test_a_clock_set_back_keeps_nobody_waiting(receiver, hook):
    receiver.plan = lambda request, count: answer(500 if count <= 5 else 200)
    clock = Clock()

    def back() -> None:
        clock.now_s -= 1e6

    clock.on_wait = back
    sending = hook(receiver.url, clock_s=clock, wait=clock.wait, jitter=lambda: 1.0)
    sending.send("a", {"n": 0})
    until(lambda: sending.status.delivered == 1)


# Slow ones


def test_dripping_headers_are_given_up_in_time(receiver, hook):
    slow = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    receiver.plan = lambda request, count: slow if count == 1 else answer(200)
    sending = hook(receiver.url, timeout_s=0.3, jitter=lambda: 0.0)
    send(sending, names(2))
    until(lambda: sending.status.delivered == 2)
    assert receiver.keys == ["e0", "e0", "e1"]
    assert 0.25 < receiver.requests[1].at_s - receiver.requests[0].at_s < 1.5
    assert sending.status.problem.endswith("event e0: no answer within 0.3 s")


@contextlib.contextmanager
def talking(begin: bytes, piece: bytes, pause_s: float) -> Iterator[int]:
    """A port whose server begins, whatever it is sent, and then says a piece again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def talk() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    line, _ = server.accept()
                    with line, contextlib.suppress(OSError):
                        line.sendall(begin)
                        while not over.wait(pause_s):
                            line.sendall(piece)

        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]
        over.set()


@pytest.mark.parametrize(
    ("scheme", "begin", "piece", "pause_s"),
    [
        ("http", b"HTTP/1.1 200 OK\r\n", b"X-More: " + bytes(50).hex().encode() + b"\r\n", 0.0),
        ("http", b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096, 0.0),
        ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
        ("http", b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.02),
        ("https", b"\x16\x03\x03\x40\x00", b"\x02", 0.02),
        ("https", b"", b"", 0.02),
    ],
)
def test_a_try_ends_in_time_whatever_comes(hook, scheme, begin, piece, pause_s):
    """Endless headers, endless answers before the answer, a handshake that drips or never comes."""
    with talking(begin, piece, pause_s) as port:
        sending = hook(f"{scheme}://127.0.0.1:{port}/", timeout_s=0.4)
        begun_s = time.monotonic()
        sending.send("a", {"n": 0})
        until(lambda: sending.status.problem is not None)
        assert time.monotonic() - begun_s < 1.5
        assert sending.status.waiting == 1
        # And it can be left at any time.
        begun_s = time.monotonic()
        sending.close(0)
        assert time.monotonic() - begun_s < 1.5
        assert not sending._thread.is_alive()


def test_a_dripping_body_comes_after_the_answer(receiver, hook):
    slow = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    receiver.plan = lambda request, count: slow if count == 1 else answer(200)
    sending = hook(receiver.url, timeout_s=0.3)
    send(sending, names(2))
    until(lambda: sending.status.delivered == 2)
    assert receiver.keys == names(2)
    assert receiver.requests[1].at_s - receiver.requests[0].at_s < 1.5


def test_an_endless_body_is_not_read(receiver, hook):
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(bytes(65536))

    receiver.plan = lambda request, count: endless
    sending = hook(receiver.url, timeout_s=30)
    send(sending, names(2))
    until(lambda: sending.status.delivered == 2, 5)


def test_nonsense_and_a_closed_connection_are_tried_again(receiver, hook):
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SMTP ready\r\n\r\n")

    acts = [nonsense, lambda handler: None, answer(200)]
    receiver.plan = lambda request, count: acts[count - 1]
    sending = hook(receiver.url, jitter=lambda: 0.0)
    sending.send("a", {"n": 0})
    until(lambda: sending.status.delivered == 1)
    assert receiver.keys == ["a"] * 3


def test_a_name_server_that_hangs_is_left_behind(hook, monkeypatch):
    asked, go = itertools.count(), threading.Event()

    def hang(*_, **__):
        next(asked)
        go.wait(20)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    sending = hook("http://receiver.invalid/", timeout_s=0.1, jitter=lambda: 0.01)
    sending.send("a", {"n": 0})
    until(lambda: "does not answer" in (sending.status.problem or ""), 5)
    begun_s = time.monotonic()
    sending.close(0.1)
    assert time.monotonic() - begun_s < 2
    assert not sending._thread.is_alive()
    assert next(asked) == 1
    go.set()


def test_close_does_not_wait_for_a_receiver_that_hangs(receiver, hook):
    hang = threading.Event()
    receiver.plan = lambda request, count: lambda handler: hang.wait(20)
    sending = hook(receiver.url, timeout_s=30)
    send(sending, names(3))
    until(lambda: len(receiver.requests) == 1)
    begun_s = time.monotonic()
    sending.close(0.3)
    sending.close(0.3)
    assert 0.25 < time.monotonic() - begun_s < 2
    assert not sending._thread.is_alive()
    assert sending.status.waiting == 3
    with pytest.raises(OutputError, match="outbox.db: closed"):
        sending.send("b", {})
    hang.set()
    receiver.plan = lambda request, count: answer(200)
    hook(receiver.url).close()
    assert receiver.keys == ["e0", *names(3)]


def test_close_returns_at_once_where_nothing_can_be_sent_in_time(receiver, hook):
    receiver.plan = lambda request, count: answer(503, Retry_After="60")
    sending = hook(receiver.url)
    sending.send("a", {"n": 0})
    until(lambda: sending.status.problem is not None)
    begun_s = time.monotonic()
    sending.close(20)
    assert time.monotonic() - begun_s < 2


def test_close_gives_what_waits_its_time(receiver, hook):
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        answer(200)(handler)

    receiver.plan = lambda request, count: slowly
    sending = hook(receiver.url)
    send(sending, names(5))
    sending.close(10)
    assert receiver.keys == names(5)


# TLS


@pytest.fixture
def certificate(tmp_path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path / "both.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=a"
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"]
    made = subprocess.run(["openssl", *asked.split(), *named], capture_output=True, check=True)
    path.write_bytes(made.stdout)
    return path


def test_a_certificate_is_verified(certificate, hook, monkeypatch):
    receiver = Receiver(lambda request, count: drip(b"HTTP") if count == 1 else answer(200))
    receiver.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    receiver.tls.load_cert_chain(certificate)
    receiver.start()
    url = receiver.url.replace("http", "https", 1)
    sending = hook(url)
    sending.send("a", {"n": 0})
    until(lambda: sending.status.problem is not None)
    sending.close(0)
    assert "its certificate is not trusted: self" in sending.status.problem
    assert not receiver.requests
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sending = hook(url, timeout_s=0.5, jitter=lambda: 0.0)
    until(lambda: sending.status.delivered == 1)
    receiver.stop()
    # A drip is cut under TLS too.
    assert sending.status.problem.endswith("no answer within 0.5 s")
    assert receiver.requests[1].at_s - receiver.requests[0].at_s < 2


def test_https_to_a_plain_server_is_told_and_tried_again(receiver, hook):
    sending = hook(receiver.url.replace("http", "https", 1))
    sending.send("a", {"n": 0})
    until(lambda: sending.status.problem is not None)
    assert "event a: no TLS" in sending.status.problem
    assert sending.status.waiting == 1


# Restarts


def test_what_waited_is_sent_by_the_next_run_once_and_in_order(hook):
    receiver = Receiver()
    first = hook(receiver.url)
    send(first, names(10))
    first.close(0)
    second = hook(receiver.url)
    assert second.status.waiting == 10
    second.send("e10", {"n": 10})
    second.close(0)
    receiver.start()
    third = hook(receiver.url)
    third.close()
    receiver.stop()
    assert receiver.keys == names(11)
    assert (third.status.waiting, third.status.delivered) == (0, 11)


CHILD = """
import sys, time
from pathlib import Path
from app.webhook.delivery import Webhook
hook = Webhook(sys.argv[1], Path(sys.argv[2]))
for n in range(200):
    hook.send(f"e{n}", {"n": n})
    print(n, flush=True)
    time.sleep(0.001)
time.sleep(60)
"""


def test_a_killed_process_loses_nothing(receiver, hook, tmp_path):
    path = tmp_path / "outbox.db"
    command = [sys.executable, "-c", CHILD, receiver.url, str(path)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    until(lambda: len(receiver.requests) >= 60)
    child.send_signal(signal.SIGKILL)
    kept = [f"e{line}" for line in child.communicate()[0].split()]
    assert child.returncode == -signal.SIGKILL
    assert 0 < len(kept) < 200
    rest = hook(receiver.url)
    rest.close()
    # Nothing that send() had returned for is missing; the one under way may be there too.
    assert set(kept) <= set(receiver.keys) <= set(names(len(kept) + 1))
    # The next run sends its events anew, as the first one did.
    again = hook(receiver.url)
    send(again, names(200))
    again.close()
    assert set(receiver.keys) == set(names(200))
    twice = [key for key, count in Counter(receiver.keys).items() if count > 1]
    assert len(twice) <= 1
    assert len(receiver.keys) <= 201
    bodies = {request.key: request.body for request in receiver.requests}
    assert all(bodies[request.key] == request.body for request in receiver.requests)
    assert list(dict.fromkeys(receiver.keys)) == names(200)


def test_a_url_gets_only_its_own_events(receiver, hook):
    down = Receiver()
    first = hook(down.url)
    send(first, names(3))
    first.close(0)
    other = hook(receiver.url)
    assert other.status.waiting == 0
    other.send("e0", {"n": 7})
    other.close()
    assert [(request.key, request.n) for request in receiver.requests] == [("e0", 7)]
    down.start()
    hook(down.url).close()
    down.stop()
    assert down.keys == names(3)


# The file


def test_one_process_at_a_time(receiver, hook, tmp_path):
    path = tmp_path / "outbox.db"
    sending = hook(receiver.url)
    sending.send("a", {"n": 0})
    code = CHILD.split("for n")[0]
    command = [sys.executable, "-c", code, receiver.url, str(path)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode != 0
    assert second.stderr.rstrip().endswith(f"OutputError: {path}: in use by another process")
    with pytest.raises(OutputError, match=r"outbox.db: in use"):
        hook(receiver.url)
    sending.send("b", {"n": 1})
    sending.close()
    assert receiver.keys == ["a", "b"]


def test_a_pipe_or_a_device_is_no_outbox(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, says in ((pipe, "is a pipe"), (Path("/dev/null"), "is no regular file")):
        with pytest.raises(OutputError, match=rf"^{path}: {says}; give a file$"):
            Outbox(path, "someone")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A closed outbox with events in it."""
    path = tmp_path_factory.mktemp("whole") / "outbox.db"
    box = Outbox(path, "someone")
    for key in names(30):
        box.add(key, bytes(1500))
    box.close()
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["text", "few", "cut", "holes", "leaf", "header", "other"])
def test_a_damaged_file_is_named_and_kept(hook, receiver, tmp_path, whole, kind):
    path = tmp_path / "outbox.db"
    assert len(whole) > 20000
    match kind:
        case "text":
            path.write_bytes(b"no database at all " * 1000)
        case "few":
            path.write_bytes(b"few bytes")
        case "cut":
            path.write_bytes(whole[:9000])
        case "holes":
            path.write_bytes(whole[:5000] + b"\xa5" * 12000 + whole[17000:])
        case "leaf":
            path.write_bytes(whole[:-4096] + b"\xa5" * 4096)
        case "header":
            path.write_bytes(bytes(100) + whole[100:])
        case "other":
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE events (a)")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"outbox.db: not an outbox, or damaged[^\n]*$"):
        hook(receiver.url)
    assert path.read_bytes() == before
    assert not receiver.requests


def test_a_file_that_cannot_be_made_is_named(hook, receiver, tmp_path):
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(OutputError, match="outbox.db: "):
        hook(receiver.url)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/outbox.db: "):
        Webhook(receiver.url, tmp_path / "file" / "outbox.db")


def test_a_full_outbox_refuses_and_still_knows_its_keys(hook, monkeypatch):
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 3)
    down = Receiver()
    sending = hook(down.url)
    send(sending, names(3))
    with pytest.raises(OutputError, match=r"outbox.db: full: 3 events wait"):
        sending.send("e3", {"n": 3})
    sending.send("e0", {"n": 0})
    sending.close(0)
    down.start()
    again = hook(down.url)
    until(lambda: again.status.waiting == 0)
    again.send("e3", {"n": 3})
    again.close()
    down.stop()
    assert down.keys == names(4)


def test_settled_events_are_forgotten_after_a_month_or_many(tmp_path, monkeypatch):
    monkeypatch.setattr(outbox_module, "MOST_SETTLED", 5)
    clock, path = Clock(), tmp_path / "outbox.db"

    def opened() -> Outbox:
        return Outbox(path, "someone", clock_s=clock)

    box = opened()
    for key in names(9):
        box.add(key, b"{}")
    for state in ["delivered", "rejected"] * 4:
        message = box.due()
        assert message is not None
        box.settle(message, state, 200)
    box.close()
    opened().close()
    assert list(states(path)) == names(9)[3:]
    clock.now_s += 29 * 24 * 3600
    opened().close()
    assert len(states(path)) == 6
    clock.now_s += 2 * 24 * 3600
    opened().close()
    assert states(path) == {"e8": "waiting"}


def test_a_full_disk_sends_nothing_twice(receiver, hook, monkeypatch):
    """What cannot be written down is written down later, and nothing else is sent before."""
    clock, fails = Clock(), iter([True, False, False])
    sending = hook(receiver.url, wait=clock.wait)
    settle = Outbox.settle

    def sometimes(self, message, state, status):
        if next(fails):
            raise OutputError("outbox.db: database or disk is full")
        settle(self, message, state, status)

    monkeypatch.setattr(Outbox, "settle", sometimes)
    send(sending, names(2))
    until(lambda: sending.status.delivered == 2)
    assert receiver.keys == names(2)
    assert sending.status.problem == "outbox.db: database or disk is full"


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/",
        "file:///etc/passwd",
        "host/hook",
        "http://",
        "http:///hook",
        "http://user:pa55word@host:port/",
        "http://user:pa55/word@host/",
        "http://user:pa55#word@host/",
        "http://user:pa55word@host:99999/",
        "http://[user:pa55word@host/",
        "http://user:pa55 word@host/",
        "http://user:pa55word@host/\r\nX: y",
        "http://hôte/",
    ],
)
def test_other_addresses_are_one_line_and_show_no_login(tmp_path, url):
    with pytest.raises(ValueError, match=r"^webhook: [^\n]+$") as told:
        Webhook(url, tmp_path / "outbox.db")
    assert "pa55" not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None
    assert not (tmp_path / "outbox.db").exists()


def test_a_login_goes_into_a_header_and_nowhere_else(receiver, hook, tmp_path):
    acts = [answer(500), answer(302, Location="http://u:p@h/"), answer(200), answer(400)]
    receiver.plan = lambda request, count: acts[count - 1]
    clock, problems = Clock(), []
    url = receiver.url.replace("//", "//wanda:pa%3A55@") + "?token=t0ps3cret"
    sending = hook(url, clock_s=clock, wait=clock.wait, secret="s1gn")
    clock.on_wait = lambda: problems.append(sending.status.problem)
    send(sending, names(2))
    until(lambda: sending.status.rejected == 1)
    sending.close()
    basic = base64.b64encode(b"wanda:pa:55").decode()
    assert all(r.headers["authorization"] == f"Basic {basic}" for r in receiver.requests)
    assert all(r.path == "/hook?token=t0ps3cret" for r in receiver.requests)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    told = " ".join([*problems, sending.status.problem, repr(sending), repr(sending.status)])
    assert len(problems) == 2
    for secret in ("wanda", "pa:55", "pa%3A55", "t0ps3cret", "s1gn", basic):
        assert secret not in told
        assert secret.encode() not in stored


def test_a_new_password_is_the_same_receiver(receiver, hook):
    down = hook(receiver.url.replace("//", "//a:old@"), wait=lambda pause_s: None)
    down.send("a", {"n": 0})
    down.close()
    again = hook(receiver.url.replace("//", "//a:new@"))
    again.send("a", {"n": 0})
    again.close()
    assert receiver.keys == ["a"]
