"""Events sent to an HTTP receiver, none lost over a restart, none sent twice."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from pathlib import Path
from typing import Any

from app.outputs.base import OutputError
from app.webhook.http_sender import DeliveryResult, HttpSender, Post, Receiver
from app.webhook.outbox import DELIVERED, LONGEST_S, REJECTED, Outbox, OutboxMessage
from app.webhook.signing import metadata_headers

_PAUSE_S = (1.0, 300.0)
"""The first and the longest pause of a back-off; each is drawn from nothing up to that."""
_HOLD_S = 16.0
"""The longest pause for a receiver that answers, however many events fail in a row."""
_RETRY_AFTER_S = 3600.0
_IN_PLACE = 3
"""After this many failures of an event, others go ahead of it. After this many failures in a row,
the least tried goes first: its result tells a receiver that is down from an event that the receiver
cannot take."""
_LATER = (408, 425, 429)
_KNOWN = 409
_ALL_WAIT = (429, 503)
"""With these, Retry-After is about the receiver; with others, about the event."""
_KEY = re.compile(r"[ -~]{1,255}")
_CUT_S = 0.5
"""How long to wait for the thread of a connection that was cut."""
_JOIN_S = 2.0


@dataclass(frozen=True)
class WebhookStatus:
    """How deliveries stand.

    Attributes:
        waiting: Events in the outbox for this receiver.
        delivered: Events that the receiver took in this run.
        rejected: Events that the receiver refused for good in this run.
        problem: The last error, one line without credentials.
    """

    waiting: int
    delivered: int
    rejected: int
    problem: str | None


class Webhook:
    """Sends events to a URL, one after another, each until the receiver has answered.

    Every event is delivered at least once, and exactly once but for one case: an answer that does
    not reach the disk (the process is killed, the connection breaks or the time is up after the
    receiver took the event) is not known, and the event is sent again, with the same
    ``Idempotency-Key``, by which the receiver recognises it. That header is a string as its draft
    wants it, in double quotes.

    2xx is delivered, and 409: the receiver knows the key. Any other 4xx but 408, 425 and 429 is
    rejected for good and counted in `status`. Everything else, redirects too, is tried again, with
    pauses that double from 1 s to 5 min, each drawn from nothing up to that; a ``Retry-After`` of
    up to an hour is waited for.

    Order: that of arrival. While a receiver cannot be reached, everything waits in its place. An
    event that it answers with a failure, or not in time, keeps its place for three tries; then
    those behind it go first, and it comes again when its own pause is over; each time it fails it
    holds the others up for 16 s at most. After three failures in a row the least tried goes first,
    and when one passes then, what was put off goes on at once, in order: after an outage one event
    is ahead of its place.

    Headers: ``webhook-id`` and ``webhook-timestamp`` of Standard Webhooks beside the key; with a
    secret also its ``webhook-signature``, and ``X-Bodystream-Signature`` as Stripe signs
    (`app.webhook.signing`).

    Args:
        url: http or https; its login goes into a header and nowhere else. A receiver is its URL
            without login: the outbox's rows for others stay in it unsent.
        outbox: An SQLite file, made if it is not there.
        timeout_s: The limit on a whole try, with its body.
        clock_s: The wall clock in UNIX seconds.
        wait: Sleeps the given number of seconds between tries (for tests).
        jitter: Draws from 0 to 1.
        secret: Signs what is sent: ``whsec_`` and base64, or any text.

    Raises:
        ValueError: The URL is not http or https.
        OutputError: An outbox in use, damaged or not writable.
    """

    def __init__(
        self,
        url: str,
        outbox: Path,
        *,
        timeout_s: float = 10.0,
        clock_s: Callable[[], float] = time.time,
        wait: Callable[[float], Any] | None = None,
        jitter: Callable[[], float] = random.random,
        secret: str | None = None,
    ) -> None:
        receiver = Receiver.of(url)
        self._sender = HttpSender(receiver)
        self._name = f"webhook {receiver.name}"
        self._timeout_s, self._clock_s, self._wait = timeout_s, clock_s, wait
        self._jitter, self._secret = jitter, secret
        self._agent = f"bodystream/{_version()}"
        mark = hashlib.sha256(receiver.address.encode()).hexdigest()
        # The address is hashed: a URL may hold a secret, and the outbox is a file.
        self._outbox = Outbox(outbox, mark, clock_s=clock_s)
        self._changed = threading.Condition()
        self._arrived = self._delivered = self._rejected = 0
        self._problem: str | None = None
        self._end_s = inf
        self._failed, self._passed, self._until_s = 0, False, 0.0
        self._left: Post | None = None
        # A daemon, so that a disk or a name server that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    @property
    def status(self) -> WebhookStatus:
        """How deliveries stand; for any thread."""
        counts = self._outbox.waiting, self._delivered, self._rejected
        return WebhookStatus(*counts, self._problem)

    def send(self, key: str, event: Mapping[str, Any]) -> None:
        """Store an event and send it in its turn; it is on the disk when this returns.

        Args:
            key: 1 to 255 printable ASCII characters; one that was sent before is ignored.
            event: A JSON object.

        Raises:
            ValueError: The key is of another kind, or the event is not JSON.
            OutputError: The outbox is full, closed or cannot be written.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"event {key!r:.80}: a key is 1 to 255 printable ASCII characters")
        try:
            body = json.dumps(dict(event), allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"event {key}: not JSON: {error}") from None
        if self._outbox.add(key, body):
            with self._changed:
                self._arrived += 1
                self._changed.notify_all()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop after sending what can be sent in ``timeout_s``; what waits stays in the outbox.
        Returns at once if nothing can be sent in that time, and never more than a few seconds after
        it. Safe to call twice."""
        with self._changed:
            # The earlier of two calls counts.
            self._end_s = min(self._end_s, time.monotonic() + timeout_s)
            self._changed.notify_all()
        self._thread.join(timeout_s + _JOIN_S)
        self._outbox.close()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:
            self._problem = f"{self._name}: stopped by a fault: {type(error).__name__}"
            raise

    def _step(self) -> bool:
        """Make one try, or one pause; return False if that was the last one."""
        with self._changed:
            # Read before the outbox: an event that arrives in between ends the sleep at once.
            arrived = self._arrived
        try:
            message, rest_s = self._next()
        except OutputError as error:
            self._problem = str(error)
            # An outbox that cannot be read now may be readable later, so delivery goes on.
            message, rest_s = None, _PAUSE_S[0]
        if message is None:
            return self._sleep(rest_s, arrived)
        return time.monotonic() < self._end_s and self._try(message)

    def _next(self) -> tuple[OutboxMessage | None, float]:
        """Return the event whose turn it is, or in how many seconds there is one."""
        now_s = self._clock_s()
        hold_s = self._until_s - now_s
        # A longer hold means that the clock was set back; it is ignored.
        if not 0 < hold_s < LONGEST_S:
            hold_s = 0.0
            message = self._outbox.due(freshest=self._failed >= _IN_PLACE)
            if message is not None:
                return message, 0.0
        next_s = self._outbox.next_s()
        return None, inf if next_s is None else max(hold_s, next_s - now_s)

    def _sleep(self, rest_s: float, arrived: int) -> bool:
        """Sleep ``rest_s``, or until more than ``arrived`` events have arrived; return False if the
        end comes first."""
        until_s = time.monotonic() + rest_s
        with self._changed:
            while self._arrived == arrived and (left_s := until_s - time.monotonic()) > 0:
                # Nothing can be sent before the end, so closing need not wait for it.
                if self._end_s < inf and until_s > self._end_s:
                    return False
                if self._wait is not None and rest_s < inf:
                    break
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            else:
                return True
        # Only with a `wait` of a test, by the `break` above.
        self._wait(rest_s)
        return True

    def _try(self, message: OutboxMessage) -> bool:
        """Send it once and keep the result; return False if the end came first."""
        # One abandoned thread at most: without this, each try would leave another one behind.
        if self._left is not None and not self._left.finished:
            return self._keep(message, DeliveryResult(None, "a name server does not answer", False))
        deadline_s = time.monotonic() + self._timeout_s
        post = self._sender.post(message.body, self._headers(message), self._timeout_s, self._wake)
        with self._changed:
            while not post.finished:
                left_s = min(deadline_s, self._end_s) - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        result = post.cut()
        if not post.finished:
            # A cut connection ends its thread at once; only a name look-up goes on.
            post.thread.join(_CUT_S)
            self._left = post
        # Cut by the end and not by its own time: no failure, so the event keeps its count.
        ended = self._end_s <= time.monotonic() < deadline_s
        return not (ended and result.status is None) and self._keep(message, result)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _headers(self, message: OutboxMessage) -> dict[str, str]:
        # The characters that a quoted string of a header must escape (RFC 8941).
        quoted = message.key.replace("\\", r"\\").replace('"', r"\"")
        at_s = int(self._clock_s())
        return {
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{quoted}"',
            "User-Agent": self._agent,
            **metadata_headers(message.key, message.body, at_s, self._secret),
        }

    def _keep(self, message: OutboxMessage, result: DeliveryResult) -> bool:
        """Write down the result of a try, again and again until it is on the disk: nothing else is
        sent before. Return False if the end comes first."""
        status = result.status or 0
        taken = 200 <= status < 300 or status == _KNOWN
        if not taken:
            turned = "redirects, which are not followed: give the final address; it "
            words = (turned if 300 <= status < 400 else "") + result.words
            self._problem = f"{self._name}: event {message.key}: {words}"
        if taken or (400 <= status < 500 and status not in _LATER):
            write = self._settle(message, DELIVERED if taken else REJECTED, status)
        else:
            write = self._put_off(message, result)
        while True:
            try:
                write()
                return True
            except OutputError as error:
                self._problem = str(error)
            if not self._sleep(_PAUSE_S[0], self._arrived):
                return False

    def _settle(self, message: OutboxMessage, state: str, status: int) -> Callable[[], None]:
        """Return the function that stores the receiver's decision on an event."""
        # After an outage, what was put off need not wait for its own pause.
        many_failed = self._failed > 1
        self._failed, self._passed = 0, True

        def write() -> None:
            if many_failed:
                self._outbox.hurry()
            self._outbox.settle(message, state, status)
            self._delivered += state == DELIVERED
            self._rejected += state == REJECTED

        return write

    def _put_off(self, message: OutboxMessage, result: DeliveryResult) -> Callable[[], None]:
        """Return the function that stores that a try failed."""
        now_s, draw = self._clock_s(), self._jitter()
        alone, self._passed = self._passed, False
        self._failed += 1
        hold_s = draw * _most_s(self._failed)
        # The receiver is down, which says nothing about the event: it keeps its place.
        if not result.reached:
            self._until_s = now_s + hold_s
            return lambda: None
        hold_s = min(hold_s, draw * _HOLD_S)
        rest_s = asked_s = _asked_s(result.retry_after, now_s)
        if message.tries + 1 >= _IN_PLACE:
            rest_s += draw * _most_s(message.tries + 1)
        if result.status in _ALL_WAIT:
            hold_s = max(hold_s, asked_s)
        self._until_s = now_s + hold_s
        return lambda: self._outbox.put_off(message, now_s + rest_s, alone=alone)


def _most_s(failed: int) -> float:
    """Return the longest pause after ``failed`` failures in a row, seconds."""
    first_s, longest_s = _PAUSE_S
    return min(first_s * 2.0 ** min(failed - 1, 30), longest_s)


def _asked_s(retry_after: str | None, now_s: float) -> float:
    """Return how many seconds a ``Retry-After`` asks for, at most an hour; 0 if it is not one."""
    text = (retry_after or "").strip()
    asked_s = 0.0
    if re.fullmatch("[0-9]+", text):
        asked_s = float(text)
    elif text:
        with suppress(ValueError, OverflowError):
            at = parsedate_to_datetime(text)
            asked_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s
    return min(max(asked_s, 0.0), _RETRY_AFTER_S)


def _version() -> str:
    try:
        return importlib.metadata.version("bodystream")
    except importlib.metadata.PackageNotFoundError:
        return "0"
