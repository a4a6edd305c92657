"""A local RTSP server in its own process, and functions that read its pictures."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np


def clock_ms(image: np.ndarray) -> int:
    """Return the monotonic clock (ms) that the RTSP server drew into the top of an RGB picture."""
    return _number_in(image[:32])


def picture_number(image: np.ndarray) -> int:
    """Return the number of a grey picture, which the RTSP server drew below the clock."""
    return _number_in(image[32:64])


def _number_in(rows: np.ndarray) -> int:
    width = rows.shape[1]
    centres = [int((bit + 0.5) * (width // 32)) for bit in range(32)]
    bits = rows[8:24, centres].mean(axis=(0, 2)) > 128
    return int("".join(str(int(bit)) for bit in bits), 2)


class RtspServer:
    """A local RTSP server in its own process that plays test pictures at /test."""

    def __init__(self, port: int = 0, *arguments: str) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(script), "--port", str(port), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        if not line:
            raise RuntimeError("the RTSP server did not start")
        self.port, self.pid = int(line[0]), self._process.pid

    def url(self, path: str = "test", login: str = "") -> str:
        return f"rtsp://{login}127.0.0.1:{self.port}/{path}"

    def freeze(self) -> None:
        """Stop the process: it sends nothing more, and its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)
