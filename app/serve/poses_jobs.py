"""The files of poses that are made on request: each once, for all that ask for it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.serve.folder import RecordedFile
from app.serve.live import Full
from app.serve.poses_file import Kind, make_poses

MOST_JOBS = 2
"""The most files of poses at once. Each has a process while it is made, and its room on the disk
until it is sent."""
_MAKE_S = 300.0
_END_S = 2.0


class PosesJobs:
    """Makes files of poses in processes of their own and keeps them while they are sent. For any
    thread.

    A job lasts from its first request to the end of its last, and holds its place for as long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._closed = False

    @contextmanager
    def file(self, lines: RecordedFile, kind: Kind) -> Iterator[Future[Path]]:
        """Yield the file of a recording's bodies, which stays until the end of the block.

        A block that ends early ends the job, unless another one waits for the same file.

        Args:
            lines: The recording's file of bodies.
            kind: The format.

        Raises:
            Full: All places are taken, or the jobs are closed.
        """
        with self._lock:
            job = self._job(lines, kind)
            job.requests += 1
        try:
            yield job.file
        finally:
            with self._lock:
                job.requests -= 1
                if not job.requests:
                    job.stop.set()

    def close(self) -> None:
        """End all jobs: their processes, and then their files. Further ones are refused."""
        with self._lock:
            self._closed, jobs = True, list(self._jobs)
            for job in jobs:
                job.stop.set()
        for job in jobs:
            job.join(_END_S)

    def _job(self, lines: RecordedFile, kind: Kind) -> _Job:
        # With the size, because a recording that is being written grows.
        key = (lines.path, kind, lines.stat.st_size)
        for job in self._jobs:
            if job.key == key and not job.stop.is_set():
                return job
        if self._closed or len(self._jobs) >= MOST_JOBS:
            raise Full("other files are being made; try again soon")
        job = _Job(key, self._jobs, self._lock)
        self._jobs.append(job)
        job.start()
        return job


class _Job(threading.Thread):
    """Makes one file, keeps it until ``stop`` is set, and deletes it. ``requests`` use it."""

    def __init__(self, key: tuple[Path, Kind, int], jobs: list[_Job], lock: threading.Lock) -> None:
        super().__init__(name="poses", daemon=True)
        self.key, self._jobs, self._lock = key, jobs, lock
        self.requests, self.stop = 0, threading.Event()
        self.file: Future[Path] = Future()
        # As running it cannot be cancelled: one request that is would take it from the others.
        self.file.set_running_or_notify_cancel()

    def run(self) -> None:
        lines, kind, _ = self.key
        try:
            with TemporaryDirectory(prefix="bodystream-", ignore_cleanup_errors=True) as folder:
                out = Path(folder) / "poses"
                make_poses(lines, kind, out, _MAKE_S, self.stop)
                self.file.set_result(out)
                self.stop.wait()
        except Exception as error:
            # For the requests to raise.
            self.file.set_exception(error)
        finally:
            with self._lock:
                self._jobs.remove(self)
