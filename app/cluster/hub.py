"""The hub of `serve --cluster`: to the page what `app.serve.hub.Hub` is, with its sources on the
workers of a cluster.

Pictures and bodies come straight from a source's worker, and only where they are asked for; the
controller is asked where that is. While it is away its last answer holds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.cluster import controller, ray_api
from app.cluster.controller import Controller
from app.cluster.ray_api import Gone, call, result
from app.cluster.remote import end_cluster
from app.cluster.spec import ClusterSpec
from app.cluster.table import SourceRow, Table
from app.cluster.views import absent_view, placed_view
from app.cluster.worker import WATCHING
from app.config import ConfigError
from app.serve.channel import encode, filler
from app.serve.folder import RecordingFolder
from app.serve.settings import Values, settings_of
from app.serve.source_view import SourceView
from pipeline.core.problem import one_line
from pipeline.core.stats import Snapshot

_TABLE_S = 0.2
"""The time between two looks at the controller's table."""
_TABLE_REST = 4.0
"""After a look it rests for this many times as long as the look took."""
_LOOK_S = 20.0
"""How long the controller may take for its table."""
_CALL_S = 45.0
"""How long the controller may take for a request: longer than its own calls to workers, of which a
move makes several."""
_FIGURES_S = 1.0
"""How long workers may take for their figures; those of a slower one are its last."""
_KEEP_S = 0.25
"""How long figures are used, in seconds."""
_EXTRA_S = 2.0
"""What a call to a worker may take beyond the time that it waits there."""
_READY_S = 600.0
"""How long the first worker may take to start: engines are built then."""
_OTHERS_S = 60.0
"""How long the other workers are waited for, once one is ready."""
_FILLER = (540, 960)
_THREADS = 32
_HALF = 1 << 31


class ClusterHub:
    """Sources on the workers of a cluster, in a ``with`` block inside `ray_api.connected`.

    Leaving the block ends the sources, their workers and the controller. A process that is killed
    leaves them; the next one for the same cluster finds them again.

    Args:
        spec: How the cluster serves its sources.
        on_warning: Called with a line for what went wrong.

    Attributes:
        folder: The folder of recordings of this machine.

    Raises:
        ConfigError: A cluster of other settings runs there already.
    """

    def __init__(
        self, spec: ClusterSpec, on_warning: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = RecordingFolder(spec.folder)
        self._spec, self._on_warning = spec, on_warning
        self._table = Table((), (), (), "")
        self._warned = 0
        self._handles: dict[tuple[str, int], Any] = {}
        self._views: dict[int, tuple[SourceView, Snapshot]] = {}
        self._figures: list[tuple[SourceView, Snapshot]] = []
        self._figures_s = 0.0
        self._figures_lock, self._look_lock = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._away_since_s: float | None = None
        self._attached = False
        self._page = uuid.uuid4().hex

    def __enter__(self) -> ClusterHub:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self._controller = ray_api.actor_named(controller.NAME)
        if self._controller is None:
            self._controller = ray_api.start_actor(
                Controller, self._spec, name=controller.NAME, threads=_THREADS, restarts=-1
            )
        else:
            self._attached = True
            if not _alike(self._ask("spec"), self._spec):
                raise ConfigError(
                    "--cluster: it serves sources with other settings already; end that command, "
                    "or `bodystream cluster stop`, first"
                )
        try:
            self._ask("claim", self._page)
        except RuntimeError as error:
            raise ConfigError(f"--cluster: {error}") from None
        self._look()
        self._thread = threading.Thread(target=self._watch, name="cluster table")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        # An error of this command is no reason to end what ran before it.
        if kind is None or not self._attached:
            end_cluster(self._controller)
        else:
            with suppress(RuntimeError):
                self._ask("leave", self._page)

    def wait_until_ready(self, stop: threading.Event) -> None:
        """Wait until a worker is ready and no other one is starting, or ``stop`` is set.

        Raises:
            RuntimeError: None can start; the line says why.
        """
        end_s = time.monotonic() + _READY_S
        begun_s = time.monotonic()
        while not stop.wait(0.1):
            table = self._table
            states = {worker.state for worker in table.workers}
            late = time.monotonic() - begun_s > _OTHERS_S
            if "ready" in states and ("starting" not in states or late):
                return
            if table.trouble and not table.workers or time.monotonic() > end_s:
                raise RuntimeError(f"--cluster: {table.trouble or 'no worker has become ready'}")

    @property
    def table(self) -> Table:
        """The sources and workers as the controller has told last."""
        return self._table

    # As Hub.

    @property
    def looks_for_events(self) -> bool:
        return self._spec.motion is not None

    def names(self) -> set[str]:
        return {row.name for row in self._table.sources}

    def sources(self) -> list[SourceView]:
        return [view for view, _ in self.figures()]

    def figures(self) -> list[tuple[SourceView, Snapshot]]:
        with self._figures_lock:
            if time.monotonic() - self._figures_s > _KEEP_S:
                self._figures = self._ask_figures()
                self._figures_s = time.monotonic()
            return self._figures

    def add(self, address: str, name: str | None = None, *, trusted: bool = False) -> str:
        if trusted and Path(address).exists():
            # A worker has a working folder of its own.
            address = str(Path(address).absolute())
        # A command that was killed and begins again finds the sources that it had.
        return str(self._changed("add", address, name, trusted, trusted and self._attached))

    def remove(self, name: str) -> None:
        self._changed("remove", name)

    def change(self, name: str, values: Values) -> bool:
        return bool(self._changed("change", name, dict(values)))

    def settings(self, name: str) -> dict[str, bool | float | str]:
        return settings_of(self._row(name).config)

    def restart(self, name: str) -> None:
        self._changed("restart", name)

    def move(self, name: str, worker: str) -> None:
        """Move a source to a worker; as `Controller.move`."""
        self._changed("move", name, worker)

    def drain(self, node: str, on: bool = True) -> None:
        """Drain a machine of its sources and workers; as `Controller.drain`."""
        self._changed("drain", node, on)

    def record(self, name: str, on: bool) -> str | None:
        found = self._ask("record", name, on)
        return None if found is None else str(found)

    def written(self) -> set[str]:
        calls = [call(handle, "written") for handle in self._all_handles().values()]
        ray_api.wait_for(calls, _FIGURES_S)
        names: set[str] = set()
        for each in ray_api.finished(calls):
            try:
                names |= result(each, _FIGURES_S)
            except Gone:
                continue  # Its files are complete, or will never be.
        return names

    def number(self, name: str) -> int:
        return self._row(name).number

    def picture(self, name: str, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        row = self._row(name)
        if row.worker is not None:
            try:
                found = self._watch_call(row, timeout_s, "picture", name, after, timeout_s)
                return None if found is None else (int(found[0]), bytes(found[1]))
            except (Gone, KeyError):
                # It is moved just now, or its worker has died: the next table says so.
                self._stopped.wait(_TABLE_S)
                return None
        # Without a worker nothing wakes the viewer, so it is woken once in a while.
        self._stopped.wait(timeout_s)
        row = self._row(name)
        picture = encode(filler(_FILLER, row.reason or "moving to another worker"))
        # Between the numbers of the last worker and those of the next.
        return max(after, (row.epoch << 32) + _HALF) + 1, picture

    def snapshot(self, name: str) -> bytes:
        row = self._row(name)
        if row.worker is None:
            raise RuntimeError(row.reason or "it is moving to another worker")
        try:
            return bytes(self._watch_call(row, _EXTRA_S, "snapshot", name))
        except Gone as error:
            raise RuntimeError(str(error)) from None

    def bodies(self, name: str, after: int, timeout_s: float = 0.0) -> list[tuple[int, str]]:
        return list(self._or_nothing(name, timeout_s, [], "bodies", name, after, timeout_s))

    def view(
        self, name: str, after: int | None, timeout_s: float
    ) -> tuple[str, list[tuple[int, bytes]]]:
        scene, frames = self._or_nothing(
            name, timeout_s, ("", []), "view", name, after, timeout_s
        )  # fmt: skip
        return scene, frames

    def events(self, name: str, after: int) -> list[tuple[int, str]]:
        return list(self._or_nothing(name, 0.0, [], "events", name, after))

    def strip(self, name: str, number: int) -> bytes:
        try:
            return bytes(self._watch_call(self._row(name), _EXTRA_S, "strip", name, number))
        except Gone:
            raise KeyError(number) from None

    # The controller.

    def _watch(self) -> None:
        wait_s = _TABLE_S
        while not self._stopped.wait(wait_s):
            begun_s = time.monotonic()
            self._look()
            # Of a thousand sources a table takes a tenth of a second to read.
            wait_s = max(_TABLE_S, _TABLE_REST * (time.monotonic() - begun_s))

    def _look(self) -> None:
        # One at a time, or an older table could take a newer one's place.
        with self._look_lock:
            self._look_once()

    def _look_once(self) -> None:
        try:
            self._table = result(call(self._controller, "table", self._page), _LOOK_S)
        except Exception as error:
            # It begins again; what it said last still holds, for sources go on without it.
            if self._away_since_s is None:
                self._away_since_s = time.monotonic()
                self._on_warning(f"controller: {one_line(error)}; the sources go on")
            return
        if self._away_since_s is not None:
            away_s, self._away_since_s = time.monotonic() - self._away_since_s, None
            self._on_warning(f"controller: is back after {away_s:.1f} s")
            self._warned = 0
        for number, line in self._table.warnings:
            if number > self._warned:
                self._warned = number
                self._on_warning(line)

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return result(call(self._controller, method, *args), _CALL_S)
        except Gone as error:
            raise RuntimeError(f"the cluster's controller: {error}; try once more") from None

    def _changed(self, method: str, *args: Any) -> Any:
        found = self._ask(method, *args)
        # At once, so that a request that follows finds what this one has done.
        self._look()
        self._figures_s = 0.0
        return found

    def _row(self, name: str) -> SourceRow:
        for row in self._table.sources:
            if row.name == name:
                return row
        raise KeyError(name)

    # The workers.

    def _handle(self, worker: str) -> Any:
        pid = next((one.pid for one in self._table.workers if one.id == worker), 0)
        with self._lock:
            # A worker that takes a dead one's place has its name.
            key = worker, pid
            if key not in self._handles:
                handle = ray_api.actor_named(worker)
                if handle is None:
                    raise Gone("its worker has ended")
                self._handles = {k: v for k, v in self._handles.items() if k[0] != worker}
                self._handles[key] = handle
            return self._handles[key]

    def _all_handles(self) -> dict[str, Any]:
        found = {}
        for worker in self._table.workers:
            if worker.state not in ("starting", "ending"):
                try:
                    found[worker.id] = self._handle(worker.id)
                except Gone:
                    continue  # The controller takes it out of its table.
        return found

    def _watch_call(self, row: SourceRow, waits_s: float, method: str, *args: Any) -> Any:
        if row.worker is None:
            raise Gone(row.reason or "it has no worker")
        handle = self._handle(row.worker)
        return result(call(handle, method, *args, group=WATCHING), waits_s + _EXTRA_S)

    def _or_nothing(self, name: str, waits_s: float, nothing: Any, method: str, *args: Any) -> Any:
        """What a source's worker answers; nothing, after a wait, where it has none now."""
        row = self._row(name)
        try:
            return self._watch_call(row, waits_s, method, *args)
        except (Gone, KeyError):
            self._stopped.wait(max(waits_s, 0.05))
            return nothing

    def _ask_figures(self) -> list[tuple[SourceView, Snapshot]]:
        table = self._table
        calls = {id: call(handle, "figures") for id, handle in self._all_handles().items()}
        ray_api.wait_for(list(calls.values()), _FIGURES_S)
        done = ray_api.finished(list(calls.values()))
        told: dict[tuple[str, str], tuple[SourceView, Snapshot]] = {}
        for id, each in calls.items():
            if each in done:
                try:
                    told |= {(id, one[0].name): one for one in result(each, _FIGURES_S)}
                except Gone:
                    continue  # Its last figures are shown, with the reason.
        out = []
        for row in table.sources:
            found = None if row.worker is None else told.get((row.worker, row.name))
            if found is None:
                last = self._views.get(row.number)
                found = absent_view(row, last)
            else:
                self._views[row.number] = found
            out.append((placed_view(found[0], row), found[1]))
        there = {row.number for row in table.sources}
        self._views = {number: view for number, view in self._views.items() if number in there}
        return out


def _alike(one: ClusterSpec, other: ClusterSpec) -> bool:
    """Return whether two serve sources alike; functions have no equality across processes."""
    plain = {"load": None, "make_source": None}
    return replace(one, **plain) == replace(other, **plain)  # type: ignore[arg-type]
