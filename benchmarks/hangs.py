"""Play servers that hang, drip, flood and lie to `serve`, and see what each one costs.

`serve` runs as a process of its own with one healthy source. Each kind of server misbehaves for a
while and is well from then on: it relays a healthy feed. The columns of the table are the time
until the fault is reported, the time from the server being well to the first picture, the greatest
memory of `serve` and of a decoder process meanwhile, and what is left five seconds after the source
was removed. Run it (Linux, GStreamer's RTSP server):

    python -m benchmarks.hangs [--bad-s 12] [kind ...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np

from tests.support.rtsp import RtspServer

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n"
)
_HTTP = b"HTTP/1.0 200 OK\r\nContent-Type: %s\r\n\r\n"
_JUNK_LIST = (
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:1\n"
    b"#EXTINF:1,\n/junk0.ts\n#EXTINF:1,\n/junk1.ts\n"
)


def _repeat(connection: socket.socket, data: bytes, pause_s: float = 0.0) -> None:
    while True:
        connection.sendall(data)
        time.sleep(pause_s)


def silent(connection: socket.socket, request: str) -> None:
    """Take the connection and say nothing."""
    time.sleep(60)


def garbage(connection: socket.socket, request: str) -> None:
    """Send random bytes as fast as they are taken."""
    _repeat(connection, os.urandom(1 << 16))


def drip(connection: socket.socket, request: str) -> None:
    """Send a byte of a stream now and then."""
    connection.sendall(_HTTP % b"video/mp2t")
    _repeat(connection, b"\x47", 1.0)


def headers(connection: socket.socket, request: str) -> None:
    """Send headers without end."""
    connection.sendall(b"RTSP/1.0 200 OK\r\n")
    _repeat(connection, b"X-A: " + b"a" * 60_000 + b"\r\n")


def redirects(connection: socket.socket, request: str) -> None:
    """Redirect to the same address."""
    address = request.split()[1]
    sequence = _sequence(request)
    connection.sendall(
        f"RTSP/1.0 302 Moved\r\nCSeq: {sequence}\r\nLocation: {address}\r\n\r\n".encode()
    )


def huge_description(connection: socket.socket, request: str) -> None:
    """Describe the stream in 2 GB."""
    head = f"RTSP/1.0 200 OK\r\nCSeq: {_sequence(request)}\r\n"
    head += "Content-Type: application/sdp\r\nContent-Length: 2000000000\r\n\r\n"
    connection.sendall(head.encode())
    _repeat(connection, (b"a=x:" + b"y" * 1000 + b"\r\n") * 1000)


def huge_picture(connection: socket.socket, request: str) -> None:
    """Send JPEGs of 256 million pixels, 1.5 MB each."""
    jpeg = _huge_jpeg()
    connection.sendall(_HTTP % b"multipart/x-mixed-replace; boundary=b")
    head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
    _repeat(connection, head + jpeg + b"\r\n", 0.5)


def endless_picture(connection: socket.socket, request: str) -> None:
    """Send one JPEG that does not end."""
    connection.sendall(_HTTP % b"image/jpeg" + _huge_jpeg()[:1000])
    _repeat(connection, b"\x55" * (1 << 20))


def control_only(connection: socket.socket, request: str) -> None:
    """Play a stream that has RTP's control packets and no picture."""
    file = connection.makefile("rb")
    text = request
    while True:
        method, sequence, body, head = text.split()[0], _sequence(text), "", ""
        if method == "DESCRIBE":
            head, body = "Content-Type: application/sdp\r\n", _SDP
        elif method == "SETUP":
            head = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        size = f"Content-Length: {len(body)}\r\n" if body else ""
        connection.sendall(
            f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{head}{size}\r\n{body}".encode()
        )
        if method == "PLAY":
            break
        text = "".join(iter(lambda: file.readline().decode(), "\r\n"))
    report = bytes([0x80, 200, 0, 6]) + bytes(24)
    _repeat(connection, b"$\1" + len(report).to_bytes(2) + report, 1.0)


def junk_playlist(connection: socket.socket, request: str) -> None:
    """Serve a live playlist whose segments are noise."""
    if "junk" in request.split()[1]:
        connection.sendall(_HTTP % b"video/mp2t" + os.urandom(1 << 18))
    else:
        connection.sendall(_HTTP % b"application/vnd.apple.mpegurl" + _JUNK_LIST)


def no_video(connection: socket.socket, request: str) -> None:
    """Serve a page, as a camera does that wants a login on its page first."""
    connection.sendall(_HTTP % b"text/html" + b"<html>login</html>" * 50)


Behaviour = Callable[[socket.socket, str], None]
KINDS: dict[str, tuple[str, Behaviour]] = {
    "silent": ("rtsp", silent),
    "garbage": ("rtsp", garbage),
    "drip": ("http", drip),
    "headers": ("rtsp", headers),
    "redirects": ("rtsp", redirects),
    "control only": ("rtsp", control_only),
    "junk playlist": ("http", junk_playlist),
    "no video": ("http", no_video),
    "huge description": ("rtsp", huge_description),
    "huge picture": ("http", huge_picture),
    "endless picture": ("http", endless_picture),
}


def _sequence(request: str) -> str:
    found = re.search(r"(?i)cseq: *(\d+)", request)
    return found[1] if found else "1"


def _huge_jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((16_000, 16_000), np.uint8))[1])


class Server:
    """A server on the loopback that behaves badly until ``well`` is set, then relays a healthy one.

    ``open`` is the number of connections that it has.
    """

    def __init__(self, behaviour: Behaviour, relay_to: int) -> None:
        self._behaviour = behaviour
        self._relay_to = relay_to
        self.well = threading.Event()
        self.open = 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.open += 1
        try:
            with connection, contextlib.suppress(OSError, IndexError):
                connection.settimeout(60)
                if self.well.is_set():
                    _relay(connection, self._relay_to)
                else:
                    # The first request only: a real one ends with an empty line.
                    self._behaviour(connection, connection.recv(1 << 16).decode(errors="replace"))
        finally:
            with self._lock:
                self.open -= 1


def _relay(connection: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_copy, args=(server, connection), daemon=True)
        back.start()
        _copy(connection, server)
        back.join(5)


def _copy(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class Jpegs:
    """A healthy camera: JPEGs over HTTP, ten a second."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        jpeg = bytes(cv2.imencode(".jpg", np.full((120, 160, 3), 90, np.uint8))[1])
        head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(_HTTP % b"multipart/x-mixed-replace; boundary=b")
            _repeat(connection, head + jpeg + b"\r\n", 0.1)


@dataclass(frozen=True)
class Use:
    """What a process holds: threads, file handles, child processes and memory in MB."""

    threads: int
    handles: int
    children: int
    memory_mb: float


def use_of(pid: int) -> Use:
    """Return what a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return Use(
        threads=int(re.search(r"Threads:\s+(\d+)", status)[1]),  # type: ignore[index]
        handles=len(os.listdir(f"/proc/{pid}/fd")),
        children=len(_children(pid)),
        memory_mb=_memory_mb(pid),
    )


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _memory_mb(pid: int) -> float:
    with contextlib.suppress(OSError, TypeError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    return 0.0


class Peak(threading.Thread):
    """Watches the greatest memory of a process and of any of its children, in MB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.parent_mb, self.child_mb = pid, 0.0, 0.0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.parent_mb = max(self.parent_mb, _memory_mb(self.pid))
            for child in _children(self.pid):
                self.child_mb = max(self.child_mb, _memory_mb(child))


@contextlib.contextmanager
def serve() -> Iterator[tuple[int, httpx.Client]]:
    """Run `serve` with a healthy source; its process number and a client of its API."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app", "serve", "0", "--folder", folder]
        command += ["good=lavfi:testsrc2=size=320x240:rate=5"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            found = None
            while found is None and (line := process.stdout.readline()):
                found = re.search(r"http://[^/\s]+", line)
            assert found is not None, "serve did not start"
            with httpx.Client(base_url=found[0], timeout=10) as client:
                yield process.pid, client
        finally:
            process.terminate()
            process.wait(30)


def play(
    kind: str, pid: int, client: httpx.Client, bad_s: float, healthy: dict[str, int]
) -> list[str]:
    """Add a source of this kind, let its server recover, remove it; the row of the table."""
    scheme, behaviour = KINDS[kind]
    server = Server(behaviour, healthy[scheme])
    before, peak = use_of(pid), Peak(pid)
    name = kind.replace(" ", "-")
    begun = time.monotonic()
    address = f"{scheme}://127.0.0.1:{server.port}/test"
    client.post("/api/sources", json={"address": address, "name": name}).raise_for_status()
    seen, back = "", ""
    while time.monotonic() - begun < bad_s:
        view = _view(client, name)
        if not seen and view["reason"]:
            seen = f"{time.monotonic() - begun:.1f}"
        time.sleep(0.1)
    reason = view["reason"]
    server.well.set()
    well = time.monotonic()
    while time.monotonic() - well < 60 and not back:
        if _view(client, name)["state"] == "live":
            back = f"{time.monotonic() - well:.1f}"
        time.sleep(0.1)
    client.delete(f"/api/sources/{name}").raise_for_status()
    time.sleep(5)
    peak.ended.set()
    after = use_of(pid)
    server.close()
    left = [after.threads - before.threads, after.children - before.children,
            after.handles - before.handles, server.open]  # fmt: skip
    return [
        kind, reason.partition("/test: ")[2] or reason, seen or "-", back or "-",
        f"{peak.parent_mb - before.memory_mb:.0f}", f"{peak.child_mb:.0f}", *map(str, left),
        f"{after.memory_mb - before.memory_mb:.0f}",
    ]  # fmt: skip


def _view(client: httpx.Client, name: str) -> dict[str, str]:
    views = client.get("/api/sources").json()
    return next(view for view in views if view["name"] == name)


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description="Servers that hang, drip, flood and lie.")
    parser.add_argument("--bad-s", type=float, default=12.0, help="how long a server misbehaves")
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="kind")
    options = parser.parse_args()
    say("| server | reason shown | seen, s | back, s | `serve` above idle, MB | decoder, MB | "
        "left: threads | processes | handles | connections | MB |")  # fmt: skip
    say("| --- | --- " + "| --: " * 9 + "|")
    rtsp = RtspServer()
    healthy = {"http": Jpegs().port, "rtsp": rtsp.port}
    try:
        with serve() as (pid, client):
            # The server's threads start with its first requests.
            for _ in range(50):
                client.get("/api/sources")
            time.sleep(5)
            for kind in options.kinds:
                say("| " + " | ".join(play(kind, pid, client, options.bad_s, healthy)) + " |")
    finally:
        rtsp.kill()


if __name__ == "__main__":
    main()
