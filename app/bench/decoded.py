"""Sources that are decoded from H.264 while they play, as the app decodes feeds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

from pipeline.capture.base import Source, SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.ring import Closed, Ring

LOOP_S = 300.0
"""The length of the clip that a source plays: no probe of it ends before."""


def write_loop(clip: Path, to: Path, seconds: float) -> None:
    """Write a clip's packets again and again, as they are, until it is long enough."""
    with av.open(str(clip)) as source, av.open(str(to), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        assert stream.time_base is not None
        step = 1 / (Fraction(stream.average_rate or 30) * stream.time_base)
        # The last packet of a file is empty.
        places = [
            (p, p.pts, p.dts)
            for p in source.demux(stream)
            if p.pts is not None and p.dts is not None
        ]
        length = round(len(places) * step)
        for k in range(int(seconds / (length * stream.time_base)) + 1):
            for packet, pts, dts in places:
                packet.stream = copy
                packet.time_base = stream.time_base
                packet.pts, packet.dts = pts + k * length, dts + k * length
                out.mux(packet)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        # A decoder that is ended closes its connection in the middle of the clip.
        with suppress(ConnectionError):
            super().do_GET()


class _Feed:
    """One source and the thread that takes its pictures from the decoder process."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # The window that plays, and the one that is decoded meanwhile.
        self.frames: Ring[Frame] = Ring(2 * WINDOW_FRAMES)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.frames.abort()
        self._source.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            self._source.open()
            for frame in self._source.frames():
                self.frames.put(frame)
        except Closed:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.frames.close()


class DecodedPlayer:
    """Makes windows of endless sources, each decoded in a process of its own from a server's file.

    Args:
        clip: The clip, H.264 in a file that needs no seeking.
        allocate: Allocates the frames' memory.
        seconds: How long a source can play.
    """

    def __init__(
        self,
        clip: Path,
        allocate: Callable[[tuple[int, ...]], np.ndarray],
        seconds: float = LOOP_S,
    ) -> None:
        self._folder = TemporaryDirectory()
        write_loop(clip, Path(self._folder.name) / "loop.ts", seconds)
        handler = partial(_Quiet, directory=self._folder.name)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._address = f"http://127.0.0.1:{self._server.server_address[1]}/loop.ts"
        self._options = SourceOptions(live=False, allocate=allocate)
        self._feeds: dict[int, _Feed] = {}

    def window(self, source: int, index: int) -> Window:
        """Return a source's next window, waiting for its decoder.

        Raises:
            RuntimeError: The source has ended.
        """
        feed = self._feeds.get(source)
        if feed is None:
            feed = self._feeds[source] = _Feed(open_source(self._address, self._options))
        frames: list[Frame] = []
        with suppress(Closed):
            while len(frames) < WINDOW_FRAMES:
                frames += feed.frames.get_batch(WINDOW_FRAMES - len(frames))
        if len(frames) < WINDOW_FRAMES:
            raise RuntimeError(f"a decoded source ended: {feed.error or 'its clip is over'}")
        first = WINDOW_FRAMES * index
        return Window(tuple(replace(f, id=first + k) for k, f in enumerate(frames)))

    def close(self) -> None:
        """End all decoders and the server."""
        for feed in self._feeds.values():
            feed.close()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()
