"""Start and end decoder processes; one is kept ready while any is in use.

A process that hangs in FFmpeg or in a driver is killed. Each ends by itself when this process ends,
however that happens, because its socket ends then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

SUPPORTED = hasattr(os, "memfd_create") and bool(sys.executable)
"""Whether this system can pass pictures between processes as this package does (Linux)."""
_BLOCKED = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if os.name == "posix" else set())
_LEAVE_S = 0.6
"""How long a process may take to leave before it is killed."""
_KILLED_S = 2.0
"""How long a killed process is waited for. A driver may hold it for longer."""
_IDLE_S = 1.0
"""How long the spare process stays after the last one in use has ended. A source that reconnects
finds it."""


class DecoderProcess:
    """A process that runs `decoder_process`, not yet with an order.

    Attributes:
        socket: The messages to and from it.
    """

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Whatever the program's default is: a read waits for the next picture.
        self.socket.settimeout(None)
        theirs.settimeout(None)
        with theirs:
            # The signals that end this program come to its whole group, also when a terminal or a
            # supervisor sends them. A new process inherits the mask of the thread that makes it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
            try:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "pipeline.capture.decoder_process",
                        str(theirs.fileno()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                )
            except BaseException:
                self.socket.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def hang_up(self) -> None:
        """End the messages; the process ends soon. From any thread, at once."""
        # An error says that it has ended already.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> int | None:
        """End the process, by force if it does not leave; return its exit status.

        Returns:
            As ``Popen.returncode``: negative for a signal, None if a driver still holds it.
        """
        self.hang_up()
        self.socket.close()
        try:
            return self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        try:
            return self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            return None

    def memory_bytes(self) -> int:
        """Return its resident memory in bytes, the shared pictures included; 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        except (OSError, IndexError):
            return 0


class DecoderPool:
    """The decoder processes of this program. From any thread.

    Attributes:
        spare: The process that waits for an order, if there is one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spare: DecoderProcess | None = None
        self._used: set[DecoderProcess] = set()
        self._idle: threading.Timer | None = None

    def take(self) -> DecoderProcess:
        """Return a process for a source, the spare one if there is one.

        Raises:
            OSError: No process can be started.
        """
        with self._lock:
            decoder, self.spare = self.spare, None
            if decoder is None or not decoder.alive:
                decoder = DecoderProcess()
            self._used.add(decoder)
            return decoder

    def prepare(self) -> None:
        """Start the spare process, if a process is in use and there is no spare one."""
        with self._lock:
            if self._used and self.spare is None:
                # Without a spare one the next source starts its own, and reports the error.
                with contextlib.suppress(OSError):
                    self.spare = DecoderProcess()

    def end(self, decoder: DecoderProcess) -> int | None:
        """End a process as `DecoderProcess.end` does; the spare one follows the last."""
        status = decoder.end()
        with self._lock:
            self._used.discard(decoder)
            if not self._used and self.spare is not None:
                if self._idle is not None:
                    self._idle.cancel()
                self._idle = threading.Timer(_IDLE_S, self._end_spare)
                self._idle.daemon = True
                self._idle.start()
        return status

    @property
    def in_use(self) -> list[DecoderProcess]:
        """The processes that read a source, or are ending."""
        with self._lock:
            return list(self._used)

    def __len__(self) -> int:
        """The number of processes, the spare one included."""
        with self._lock:
            return len(self._used) + (self.spare is not None)

    def _end_spare(self) -> None:
        with self._lock:
            if self._used:
                return
            spare, self.spare = self.spare, None
        if spare is not None:
            spare.end()


def _environment() -> dict[str, str]:
    """The environment of a decoder process: it finds the modules that this one finds."""
    return os.environ | {
        "BODYSTREAM_DECODER": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # Or modules of the working directory would come first.
        "PYTHONSAFEPATH": "1",
        "MALLOC_ARENA_MAX": "2",
    }


DECODERS = DecoderPool()
