"""The recordings of a served source: one at a time, begun again when one fails."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from app.config import OutputConfig
from app.outputs.base import RunInfo
from app.serve.recorder import Recorder
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.yuv import Pixels

FULL, GONE, DENIED, HANGS, OTHER = "disk full", "folder gone", "permission", "no answer", "other"
CAUSES = (FULL, GONE, DENIED, HANGS, OTHER)
"""Why recordings fail, in metrics; the encoder's errors are among the others."""
_CAUSE_OF = {
    errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: FULL,
    errno.ENOENT: GONE, errno.ENOTDIR: GONE, errno.ESTALE: GONE,
    errno.EACCES: DENIED, errno.EPERM: DENIED, errno.EROFS: DENIED,
}  # fmt: skip
_PAUSES_S = (1.0, 60.0)
"""The first and the longest pause before a failed recording is begun again; each is twice the last
one."""
_PROVED_S = 5.0
"""A recording that has gone on for this long is well: its first pictures are on the disk."""
HANGS_S = 5.0
"""A disk that takes longer than this for one thing is reported."""
_MOST_ENDING = 2
"""The recordings that may be ending while the next one begins: a disk that hangs must not collect
threads."""
_END_S = 16.0
"""The longest time that ending a recording waits: more than a `BackgroundWriter` needs to write the
rest, or to give up."""


@dataclass(frozen=True)
class RecordingState:
    """How a source's recording stands.

    Attributes:
        wanted: Whether the source is to be recorded.
        path: The path of the video that is written, or None.
        trouble: Why the recording is not written, or why the last one failed, in a line; empty if
            all is well.
        cause: One of `CAUSES`, for ``trouble``.
        failures: How many recordings failed, by cause.
        dropped: The number of frames and lines that recordings left out.
    """

    wanted: bool
    path: Path | None
    trouble: str
    cause: str
    failures: dict[str, int]
    dropped: int

    @property
    def missing(self) -> bool:
        """Whether a recording is wanted and cannot be written."""
        return self.wanted and bool(self.trouble)


class Recordings:
    """The recordings of a source, one at a time.

    Any thread may begin and end a recording. One thread writes frames; the same or another one
    adds lines. Only `end` waits for the disk, for a bounded time.

    A recording that fails stops, and the source goes on. It is begun again in a new file, after
    pauses that grow from a second to a minute; files in which there is nothing to see are removed,
    so that tries leave nothing behind on a full disk.

    Args:
        output: How recordings are written.
        new_path: Returns the path of the next recording's video. Called with every try.
        clock_s: A monotonic clock in seconds.
    """

    def __init__(
        self,
        output: OutputConfig,
        new_path: Callable[[], Path],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output, self._new_path, self._clock_s = output, new_path, clock_s
        self._lock = threading.Lock()
        self._wanted = self._hangs = False
        self._path: Path | None = None
        self._recorder: Recorder | None = None
        self._ending: list[Recorder] = []
        self._trouble, self._cause = "", ""
        self._failures: Counter[str] = Counter()
        self._begun_s = self._next_s = 0.0
        self._pause_s = _PAUSES_S[0]
        self._dropped = 0

    def state(self) -> RecordingState:
        """Return how the recording stands. Never waits for the disk."""
        with self._lock:
            current = [self._recorder] if self._recorder is not None else []
            dropped = self._dropped + sum(each.dropped for each in [*current, *self._ending])
            trouble, cause = self._trouble, self._cause
            if self._recorder is not None and self._recorder.busy_s > HANGS_S:
                trouble, cause = _hangs(self._recorder), HANGS
            failures = {each: self._failures[each] for each in CAUSES}
            return RecordingState(self._wanted, self._path, trouble, cause, failures, dropped)

    def begin(self) -> None:
        """Record from the next frame on. One that failed is tried at once; one that is written goes
        on."""
        with self._lock:
            if self._path is not None:
                return
            self._wanted, self._trouble, self._cause = True, "", ""
            self._path = self._new_path()
            self._next_s, self._pause_s = 0.0, _PAUSES_S[0]

    def end(self) -> None:
        """End the recording, and wait until its files are complete or the disk is given up."""
        with self._lock:
            # Taken out under the lock, so that no frame is written to a recorder that is closing.
            recorder, self._recorder = self._recorder, None
            self._wanted, self._path = False, None
            finished = None if recorder is None else self._finish(recorder)
        if finished is not None:
            finished.wait(_END_S)

    def written(self) -> set[Path]:
        """Return the videos of the recordings whose files are not finished."""
        with self._lock:
            current = set() if self._path is None else {self._path}
            return current | {each.path for each in self._ending}

    def unfinished(self) -> list[str]:
        """Return a line for each recording that has ended and may be incomplete on the disk."""
        with self._lock:
            return [
                f"{each.path}: may be incomplete: the disk or the encoder does not answer"
                for each in self._ending
                if not each.ended
            ]

    # The render loop's threads.

    def write(self, info: RunInfo, frame: Frame, bodies: Bodies, picture: Pixels) -> None:
        """Write a frame to the recording, if there is one. Never waits for the disk."""
        with self._lock, self._errors_end_it():
            if not self._wanted:
                return
            # The source's size may have changed since it was opened.
            height, width = frame.size
            if self._recorder is None and not self._start(
                replace(info, height=height, width=width)
            ):
                self._dropped += 1
                return
            assert self._recorder is not None
            self._recorder.write(frame, bodies, picture)
            self._watch(self._recorder)

    def add_line(self, line: str) -> None:
        """Write a frame's bodies to the recording, if it has begun. Never waits for the disk."""
        with self._lock, self._errors_end_it():
            if self._recorder is not None:
                self._recorder.add_line(line)

    # The caller of all methods below holds the lock.

    def _start(self, info: RunInfo) -> bool:
        """Begin a file if it is time for one; return whether it has begun."""
        if self._clock_s() < self._next_s:
            return False
        if len(self._ending) >= _MOST_ENDING:
            self._trouble, self._cause = _hangs(self._ending[0]), HANGS
            return False
        if self._path is None:
            self._path = self._new_path()
        self._recorder = Recorder(self._path, self._output, info)
        self._begun_s, self._hangs = self._clock_s(), False
        return True

    def _watch(self, recorder: Recorder) -> None:
        """Notice that a recording goes well, or that the disk hangs."""
        hangs = recorder.busy_s > HANGS_S
        # Counted once; it goes on in its file when the disk answers.
        self._failures[HANGS] += hangs and not self._hangs
        self._hangs = hangs
        well_s = 0.0 if hangs else self._clock_s() - self._begun_s
        if well_s > _PROVED_S:
            self._trouble = self._cause = ""
        if well_s > _PAUSES_S[1]:
            self._pause_s = _PAUSES_S[0]

    @contextmanager
    def _errors_end_it(self) -> Iterator[None]:
        """Turn an error into ``trouble``, and put off the next try."""
        try:
            yield
        except Exception as error:
            self._trouble, self._cause = _reason_of(error), _cause_of(error)
            self._failures[self._cause] += 1
            self._next_s = self._clock_s() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _PAUSES_S[1])
            recorder, self._recorder, self._path = self._recorder, None, None
            if recorder is not None:
                self._finish(recorder, failed=True)

    def _finish(self, recorder: Recorder, failed: bool = False) -> threading.Event:
        """Close a recorder in a thread of its own; return what is set once that is done or given
        up."""
        # Still counted in `dropped` while it closes.
        self._ending.append(recorder)
        done = threading.Event()
        # A daemon: a disk that never answers must not keep the process from ending.
        closing = partial(self._close, recorder, failed, done)
        threading.Thread(target=closing, name=f"finish {recorder.path}", daemon=True).start()
        return done

    # These run in the thread that closes a recorder, without the lock.

    def _close(self, recorder: Recorder, failed: bool, done: threading.Event) -> None:
        try:
            recorder.close()
        except Exception as error:
            # A recording that failed before has its reason: this one follows from it.
            if not failed:
                self._note(error, _cause_of(error) if recorder.ended else HANGS)
        done.set()
        # Counted as ending until the disk answers, however long ago it was given up.
        recorder.wait()
        recorder.tidy()
        with self._lock:
            self._ending.remove(recorder)
            self._dropped += recorder.dropped

    def _note(self, error: Exception, cause: str) -> None:
        with self._lock:
            self._trouble, self._cause = _reason_of(error), cause
            self._failures[cause] += 1


def _hangs(recorder: Recorder) -> str:
    return f"{recorder.path}: the disk or the encoder has not answered for {recorder.busy_s:.0f} s"


def _reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _cause_of(error: BaseException) -> str:
    """Return which of `CAUSES` an error is, by the system's error under it."""
    # An OutputError is raised from the system's error.
    found: BaseException | None = error
    while found is not None:
        if (cause := _CAUSE_OF.get(getattr(found, "errno", None) or 0)) is not None:
            return cause
        found = found.__cause__
    return OTHER
