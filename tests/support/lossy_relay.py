"""Loses RTP packets on their way from an RTSP server to a player."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections.abc import Callable


class LossyRelay:
    """An RTSP proxy that relays media by UDP and loses a share of the packets."""

    def __init__(self, to: int, loss: float) -> None:
        self._random, self._loss, self._to = random.Random(1), loss, to
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = self._server.getsockname()[1]
        self.lost = self.passed = 0
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, step: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=step, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._begin(self._talk, client, server, self._rewritten)
                self._begin(self._talk, server, client, lambda data: data)
        self._server.close()

    def _talk(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        source.settimeout(0.1)
        while not self._done.is_set():
            try:
                data = source.recv(65536)
                if not data:
                    break
                target.sendall(change(data))
            except TimeoutError:
                continue
            except OSError:
                break
        target.close()

    def _rewritten(self, request: bytes) -> bytes:
        """Replace the client's media ports in a request by the relay's own."""
        found = re.search(rb"client_port=(\d+)-(\d+)", request)
        if found is None:
            return request
        ours = []
        for theirs, loss in zip(found.groups(), (self._loss, 0.0)):
            here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            here.bind(("127.0.0.1", 0))
            here.settimeout(0.1)
            ours.append(here.getsockname()[1])
            self._begin(self._pass_on, here, int(theirs), loss)
        return request.replace(found[0], b"client_port=%d-%d" % tuple(ours))

    def _pass_on(self, here: socket.socket, to: int, loss: float) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                data = here.recv(65536)
                if self._random.random() < loss:
                    self.lost += 1
                else:
                    self.passed += 1
                    here.sendto(data, ("127.0.0.1", to))
        here.close()

    def kill(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(5)
