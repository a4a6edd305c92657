"""One source's way through the house: capture, perceive and fit, a thread each, in order.

    source --frames--> [ring] --windows--> perceive --[ring]--> fit --[ring]--> you

Every ring is bounded. A clip waits for a free place, a live feed drops its oldest frame; only
the first ring ever drops. An error in any thread ends all of them and is raised where the result
is read. Frames come out in order, each with the bodies fitted to it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import torch

from pipeline.capture.base import Source
from pipeline.frame import WINDOW_FRAMES, Frame
from pipeline.infer import Inference, Perceived
from pipeline.people import Bodies
from pipeline.ring import Closed, Policy, Ring
from pipeline.stats import Stats
from pipeline.upload import own_stream
from pipeline.window import Windower, inherit_break

_JOIN_S = 10.0
_POLL_S = 0.05


class Runner:
    """Runs one source; iterate it for ``(frame, bodies)``, in a ``with`` block. ``opened`` says
    that the source is open already.

    ``stop()`` may be called from any thread or a signal handler: no new frame is captured, what
    is under way is finished and delivered. ``close()`` drops what is under way. Raises what a
    thread raised: a SourceError of capture, or whatever the model or the fit met.
    """

    def __init__(
        self,
        source: Source,
        inference: Inference,
        *,
        stats: Stats | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        opened: bool = False,
    ) -> None:
        self.source = source
        self.inference = inference
        self.stats = stats or Stats()
        self._clock_ns = clock_ns
        self._opened = opened
        policy = Policy.DROP_OLDEST if source.live else Policy.WAIT
        self._frames: Ring[Frame] = Ring(
            WINDOW_FRAMES,
            policy,
            on_drop=lambda _, cause: self.stats.drop(cause),
            inherit=inherit_break,
        )
        self._perceived: Ring[Perceived] = Ring(1)
        self._fitted: Ring[list[tuple[Frame, Bodies]]] = Ring(1)
        self._state = inference.begin()
        self._stop = threading.Event()
        self._done = False
        self._error: BaseException | None = None
        self._error_lock = threading.Lock()
        steps = (self._capture, self._perceive, self._fit)
        self._threads = [
            threading.Thread(target=self._guard, args=(step,), name=step.__name__.strip("_"))
            for step in steps
        ]

    def __enter__(self) -> Runner:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Runner:
        """Open the source (raises SourceError) and start the threads. Once only."""
        if not self._opened:
            self.source.open()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Capture no more; frames already read come out, then the iteration ends."""
        self._stop.set()
        # A camera that hangs would not hear of it otherwise.
        self.source.close()

    def close(self) -> None:
        """End now: drop what is under way and wait for the threads. Safe to call twice.

        Frames that were read and not delivered are counted as dropped. Raises RuntimeError when
        a thread does not end within ten seconds.
        """
        ended = self._done
        self._stop.set()
        for ring in (self._frames, self._perceived, self._fitted):
            ring.abort()
        self.source.close()
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(_JOIN_S)
        stuck = [thread.name for thread in started if thread.is_alive()]
        if stuck:
            raise RuntimeError(f"these threads did not end within {_JOIN_S:g} s: {stuck}")
        if not ended:
            self.stats.drop("stopped", self.stats.snapshot().in_flight)

    def __iter__(self) -> Iterator[tuple[Frame, Bodies]]:
        for window in self.windows():
            yield from window

    def windows(self) -> Iterator[list[tuple[Frame, Bodies]]]:
        """The frames of one window after another, for whoever draws them together."""
        while True:
            try:
                yield self._fitted.get()
            except Closed:
                break
        with self._error_lock:
            error = self._error
        self._done = error is None
        if error is not None:
            raise error

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            with own_stream():
                step()
        except Closed:
            pass
        except BaseException as error:
            with self._error_lock:
                self._error = self._error or error
            self._stop.set()
            # What was fitted before the error still comes out; the rest is dropped.
            self._frames.abort()
            self._perceived.abort()
            self._fitted.close()

    def _capture(self) -> None:
        try:
            for frame in self.source.frames():
                if self._stop.is_set():
                    break
                self.stats.count("read")
                self._frames.put(frame)
        finally:
            self._frames.close()

    def _perceive(self) -> None:
        # A stalled feed still shows what it sent; a clip's windows do not depend on the clock.
        windower = Windower(max_wait_ms=500.0 if self.source.live else math.inf)
        try:
            while True:
                try:
                    frame = self._frames.get(_POLL_S)
                except TimeoutError:
                    windows = windower.expire(self._clock_ns())
                except Closed:
                    windows = windower.finish()
                    for window in windows:
                        self._hand_on(window)
                    return
                else:
                    windows = windower.add(frame)
                for window in windows:
                    self._hand_on(window)
        finally:
            self._perceived.close()

    def _hand_on(self, window) -> None:
        with self.stats.time("perceive", frames=len(window.frames)):
            perceived = self.inference.perceive(window, self._state)
        self._perceived.put(perceived)

    def _fit(self) -> None:
        # The fit's many small products gain nothing from more threads, and the threads would
        # spin on cores that perception and drawing need. Holds for this thread alone.
        torch.set_num_threads(1)
        try:
            while True:
                perceived = self._perceived.get()
                with self.stats.time("fit", frames=len(perceived.people)):
                    fitted = self.inference.fit(perceived, self._state)
                self._fitted.put(fitted)
        finally:
            self._fitted.close()
