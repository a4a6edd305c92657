"""Bodies of all sources of a cluster in one folder: `serve --cluster --poses-to DIR`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from app.outputs.background_writer import BackgroundWriter
from app.outputs.base import OutputError
from app.serve.source_hub import SourceHub

_LOOK_S = 0.25
_WAITING = 4096
"""The most lines that wait for the disk; then the oldest are left out."""
_MOST_BYTES = 1 << 20
"""Of a file's end, which holds its last line."""


class PosesCollector:
    """Appends the bodies of each source to ``NAME.jsonl``, in a ``with`` block.

    The lines are those of `run --jsonl`, without its first line of facts. Bodies of frames that
    were lost with a worker are missing.

    Args:
        hub: The hub whose sources are written.
        folder: The folder; it is made if missing.
        on_warning: Called with a line where bodies are left out.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, hub: SourceHub, folder: Path, on_warning: Callable[[str], None]) -> None:
        self._hub, self._folder, self._on_warning = hub, folder, on_warning
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None
        self._last: dict[int, int] = {}
        self._begun: set[str] = set()
        self._failed: set[str] = set()
        self._writer: BackgroundWriter[tuple[str, str]] = BackgroundWriter(
            "poses", self._write, lambda: None, _WAITING, live=True
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collect poses")

    def __enter__(self) -> PosesCollector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._collect()
        if self._writer.dropped:
            self._on_warning(
                f"{self._folder}: the disk is too slow; {self._writer.dropped} lines are missing"
            )
        self._writer.close()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            self._collect()

    def _collect(self) -> None:
        for name in self._hub.names():
            try:
                number = self._hub.number(name)
                lines = self._hub.bodies(name, self._last.get(number, -1))
            except KeyError:
                continue  # It was removed just now.
            if not lines:
                continue
            self._last[number] = lines[-1][0]
            if name not in self._begun:
                self._begun.add(name)
                lines = self._not_written(name, lines)
            self._writer.put((name, "".join(f"{line}\n" for _, line in lines)))

    def _not_written(self, name: str, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """The lines behind the last one of the file, which a command before this one has written
        of the same source."""
        try:
            with (self._folder / f"{name}.jsonl").open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _MOST_BYTES, 0))
                last = file.read().decode("utf-8", "replace").rstrip("\n").rpartition("\n")[2]
        except OSError:
            return lines
        same = [k for k, (_, line) in enumerate(lines) if line == last]
        return lines[same[-1] + 1 :] if same else lines

    def _write(self, item: tuple[str, str]) -> None:
        name, text = item
        try:
            with (self._folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(text)
            self._failed.discard(name)
        except OSError as error:
            # Said once; tried again with the next lines.
            if name not in self._failed:
                self._failed.add(name)
                self._on_warning(f"{self._folder}/{name}.jsonl: {error.strerror}")
