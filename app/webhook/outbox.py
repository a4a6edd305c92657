"""Events on their way out, in a file that survives the process and the machine's power."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.outputs.base import OutputError
from app.setting import no_file

WAITING, DELIVERED, REJECTED = "waiting", "delivered", "rejected"
# A receiver that is down for weeks must not fill the disk.
MOST_WAITING = 100_000
"""The most waiting events, of all receivers; more are refused."""
MOST_SETTLED = 100_000
KEPT_S = 30 * 24 * 3600.0
"""How many settled events are kept for their keys, and for how long."""
LONGEST_S = 2 * 3600.0
"""The longest delay of an event; a longer one means that the clock was set back."""
_PRUNE_EVERY = 1000
_APPLICATION = 0x626F6479
"""Marks an outbox in SQLite's header."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DAMAGED = "not an outbox, or damaged: move it away or repair it; it was left as it is"
_LOCK_S = 1.0
_TABLE = """
BEGIN;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, key TEXT NOT NULL, body BLOB,
    state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, alone INTEGER NOT NULL DEFAULT 0,
    next_s REAL NOT NULL DEFAULT 0, arrived_s REAL NOT NULL, settled_s REAL, status INTEGER,
    UNIQUE (receiver, key)
);
CREATE INDEX waiting ON events (receiver, seq) WHERE state = 'waiting';
CREATE INDEX settled ON events (seq) WHERE state != 'waiting';
PRAGMA application_id = {application};
COMMIT;
"""


@dataclass(frozen=True)
class OutboxMessage:
    """A waiting event: its place ``seq``, ``key`` and ``body``. ``tries`` reached the receiver and
    failed, ``alone`` of them right after another event had passed."""

    seq: int
    key: str
    body: bytes
    tries: int
    alone: int


class Outbox:
    """One receiver's events in an SQLite file, a row a key; other receivers' rows are left alone.

    A change is on the disk when its method returns. The file belongs to one process, as long as
    it lives: SQLite's own lock is held, which a program that opens and closes the file by other
    means *in the same process* would lose (POSIX). Delivered rows lose their body and keep their
    key; rejected ones keep both. Settled rows are forgotten after 30 days or 100 000 later ones.

    All methods are for any thread and raise OutputError, one line that names the file: it cannot
    be read or written, is damaged or not an outbox (it is left as it is), in use, full or closed.
    """

    def __init__(
        self, path: Path, receiver: str, *, clock_s: Callable[[], float] = time.time
    ) -> None:
        self._path, self._receiver, self._clock_s = path, receiver, clock_s
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._settled = 0
        # A pipe or a device would be waited for, or taken for a damaged database.
        if problem := no_file(path):
            raise OutputError(f"{path}: {problem}")
        with self._named():
            path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner only: events say where people were. An existing file is not opened:
            # closing it would release this process's locks on it (POSIX).
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._db = sqlite3.connect(path, 0, isolation_level=None, check_same_thread=False)
            try:
                self._begin(self._db)
            except BaseException:
                self._db.close()
                raise
        self.waiting = self._waiting(mine=True)
        self._others = self._waiting(mine=False)

    def _begin(self, db: sqlite3.Connection) -> None:
        # Exclusive before the first look, so that no other process ever shares the WAL.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ours = db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION
        # An SQLite file of another program is never written to.
        if tables and not ours:
            raise OutputError(f"{self._path}: {_DAMAGED}")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise OutputError(f"{self._path}: {_DAMAGED}")
        # FULL: a commit reaches the disk before it returns, also if the power fails then.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # An empty transaction: in exclusive mode the lock stays with this process from now on.
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
        if not tables:
            db.executescript(_TABLE.format(application=_APPLICATION))
        self._prune(db)

    def _waiting(self, mine: bool) -> int:
        test = "=" if mine else "!="
        counted = f"SELECT count(*) FROM events WHERE state = 'waiting' AND receiver {test} ?"
        return self._do(counted, self._receiver)[0][0]

    def add(self, key: str, body: bytes) -> bool:
        """Store an event; return False if its key is known."""
        with self._open() as db:
            known = "SELECT 1 FROM events WHERE receiver = ? AND key = ?"
            # Settled rows count too: an event found again after a restart is not sent twice.
            if db.execute(known, (self._receiver, key)).fetchone():
                return False
            if self.waiting + self._others >= MOST_WAITING:
                raise OutputError(f"{self._path}: full: {MOST_WAITING} events wait in it already")
            db.execute(
                "INSERT INTO events (receiver, key, body, state, arrived_s) VALUES (?, ?, ?, ?, ?)",
                (self._receiver, key, body, WAITING, self._clock_s()),
            )
            self.waiting += 1
            return True

    def due(self, *, freshest: bool = False) -> OutboxMessage | None:
        """Return the first to arrive of those that may be tried now, with ``freshest`` of those
        tried the least; None without one."""
        now_s = self._clock_s()
        order = "tries, seq" if freshest else "seq"
        rows = self._do(
            # The second test is for a clock that was set back: nothing is put off for that long.
            "SELECT seq, key, body, tries, alone FROM events WHERE state = 'waiting' AND"
            f" receiver = ? AND (next_s <= ? OR next_s > ?) ORDER BY {order} LIMIT 1",
            *(self._receiver, now_s, now_s + LONGEST_S),
        )
        return OutboxMessage(*rows[0]) if rows else None

    def next_s(self) -> float | None:
        """Return when the next one may be tried, by the clock; None if nothing waits."""
        soonest = "SELECT min(next_s) FROM events WHERE state = 'waiting' AND receiver = ?"
        return self._do(soonest, self._receiver)[0][0]

    def put_off(self, message: OutboxMessage, next_s: float, *, alone: bool) -> None:
        """Store that a try of a message failed; the next one may be at ``next_s``."""
        self._do(
            "UPDATE events SET tries = tries + 1, alone = alone + ?, next_s = ? WHERE seq = ?",
            *(int(alone), next_s, message.seq),
        )

    def hurry(self) -> None:
        """Allow all waiting events to be tried now, except those that failed twice while others
        passed."""
        self._do(
            "UPDATE events SET next_s = 0 WHERE state = 'waiting' AND receiver = ? AND alone < 2"
            " AND next_s > 0",
            self._receiver,
        )

    def settle(self, message: OutboxMessage, state: str, status: int) -> None:
        """Store that a message is delivered or rejected, as the receiver's ``status`` says."""
        with self._open() as db:
            # Not at every event, because the deletion scans the settled rows.
            if self._settled % _PRUNE_EVERY == _PRUNE_EVERY - 1:
                self._prune(db)
            # Only a waiting row, so that settling twice counts once.
            done = db.execute(
                "UPDATE events SET state = ?, status = ?, settled_s = ?,"
                " body = CASE WHEN ? THEN NULL ELSE body END WHERE seq = ? AND state = 'waiting'",
                (state, status, self._clock_s(), state == DELIVERED, message.seq),
            ).rowcount
            self.waiting -= done
            self._settled += done

    def close(self) -> None:
        """Close the file; what waits stays in it. Safe to call twice; a disk that hangs is waited
        for no longer than a second."""
        # With a timeout: another thread may hold the lock in a write that never returns.
        if self._lock.acquire(timeout=_LOCK_S):
            try:
                if self._db is not None:
                    self._db.close()
            finally:
                self._db = None
                self._lock.release()

    def _prune(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM events WHERE state != 'waiting' AND (settled_s < ? OR seq <= (SELECT seq"
            " FROM events WHERE state != 'waiting' ORDER BY seq DESC LIMIT 1 OFFSET ?))",
            (self._clock_s() - KEPT_S, MOST_SETTLED),
        )

    def _do(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._open() as db:
            return db.execute(statement, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give the database to one thread at a time."""
        with self._lock, self._named():
            if self._db is None:
                raise OutputError(f"{self._path}: closed")
            yield self._db

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors into an OutputError that names the file."""
        try:
            yield
        except OutputError:
            raise
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: {_words(error)}") from None
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}") from None


def _words(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    # The lower byte is SQLite's primary code; the rest makes it an extended one.
    if code is not None and code & 0xFF in _BUSY:
        return "in use by another process"
    return _DAMAGED if code is not None and code & 0xFF in _BROKEN else str(error)
