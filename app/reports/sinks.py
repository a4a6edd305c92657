"""The destinations of events: lines of JSON, pictures, a webhook."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import cv2

from app.config import ConfigError
from app.options import OUTBOX, WebhookOptions
from app.outputs.atomic_file import written_whole
from app.outputs.base import OutputClosed, OutputError
from app.outputs.reservation import Existing, Reservation
from app.outputs.streams import open_text
from app.outputs.unfinished import cut_broken_end
from app.reports.dispatcher import Sink
from app.reports.record import Record, strip_of
from pipeline.events.motion import Motion, load_motion


def read_motion(flag: str, name: str) -> Motion:
    """Return the motion that a flag names. Raises ConfigError."""
    try:
        return load_motion(name)
    except FileNotFoundError as error:
        raise ConfigError(f"{flag}: there is no {error.filename}") from None
    except OSError as error:
        raise ConfigError(f"{flag}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from None


class Lines:
    """Writes events as lines of JSON, with or without their pictures.

    Args:
        file: Where the lines go.
        name: What errors call it.
        pictures: Whether the pictures are in them.
        known: The ids of events that are left out.

    Raises:
        OutputClosed: The reader of the lines has left.
        OutputError: They cannot be written.
    """

    def __init__(
        self,
        file: IO[str],
        name: str,
        pictures: bool = False,
        known: frozenset[str] = frozenset(),
    ) -> None:
        self._file, self._name, self._pictures, self._known = file, name, pictures, known

    def __call__(self, record: Record) -> None:
        if record.key in self._known:
            return
        data = record.with_pictures() if self._pictures else record.data
        try:
            self._file.write(json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n")
            # At once: a line in a buffer would reach the reader with the next event only.
            self._file.flush()
        except BrokenPipeError:
            raise OutputClosed(f"{self._name} was closed") from None
        except OSError as error:
            raise OutputError(f"{self._name}: cannot write: {error.strerror}") from None


def lines_to(stack: ExitStack, reserved: Reservation) -> Lines:
    """Return a sink that writes lines with pictures to a file, closed with ``stack``.

    In a file that it continues, an event that is there already, as a clip's that is watched from
    its start again, is left out. Raises OutputError.
    """
    path, known = reserved.path, frozenset[str]()
    try:
        if reserved.continues:
            cut_broken_end(path)
            with path.open(encoding="utf-8") as lines:
                known = frozenset(json.loads(line)["id"] for line in lines)
        file = stack.enter_context(open_text(path, append=reserved.continues))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    return Lines(file, str(path), pictures=True, known=known)


class Strips:
    """Writes every event's pictures side by side, a PNG each. Raises OutputError.

    Another picture of the same name stays, and the new one gets the next free number.

    Args:
        folder: Made if missing.
        replace: Whether the new one replaces it instead.
    """

    def __init__(self, folder: Path, replace: bool = False) -> None:
        self._folder = folder
        self._existing: Existing = "overwrite" if replace else "keep"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None

    def __call__(self, record: Record) -> None:
        path = self._folder / f"{record.key}.png"
        # Not `imwrite`: its libraries print errors of their own.
        done, data = cv2.imencode(".png", strip_of(record)[..., ::-1])
        assert done, "OpenCV writes PNG"
        picture = data.tobytes()
        # An event of a clip that is watched again is there already.
        if _is_there(path, picture):
            return
        with Reservation("--strip", path, self._existing) as reserved:
            try:
                with written_whole(reserved.path) as part:
                    part.write_bytes(picture)
            except OSError as error:
                raise OutputError(f"{reserved.path}: cannot be written: {error.strerror}") from None


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def webhook_of(stack: ExitStack, options: WebhookOptions) -> Sink:
    """Return a sink that sends events, with pictures, to the address of ``--webhook``. It ends with
    ``stack``. Raises ConfigError, OutputError."""
    from app.webhook.delivery import Webhook

    try:
        # The default is here and not in the options, so that `--outbox` alone can be refused.
        outbox = options.outbox or Path(OUTBOX)
        hook = Webhook(options.webhook or "", outbox, secret=options.webhook_secret)
    except ValueError as error:
        raise ConfigError(f"--webhook: {str(error).removeprefix('webhook: ')}") from None

    def end() -> None:
        hook.close()
        # After closing, when no more deliveries can change it.
        status = hook.status
        if status.waiting or status.rejected:
            why = f": {status.problem}" if status.problem else ""
            waiting = "1 event waits" if status.waiting == 1 else f"{status.waiting} events wait"
            print(
                f"webhook: {waiting} for the next run, {status.rejected} rejected{why}",
                file=sys.stderr,
            )

    stack.callback(end)
    return lambda record: hook.send(record.key, record.with_pictures())
