"""The controller of a cluster: it places sources on workers, moves them, and replaces what dies.

It is an actor that Ray starts again when it dies. What it knows is kept in Ray's own store with
every change; the sources go on meanwhile, and its successor finds them with their workers.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from app.cluster import placement, ray_api
from app.cluster.cost import gpu_share
from app.cluster.ray_api import Gone, call, result
from app.cluster.spec import ClusterSpec
from app.cluster.state import KnownWorker, PlacedSource
from app.cluster.table import SourceRow, Table, WorkerRow
from app.cluster.worker import GROUPS, REPORTING, THREADS, Worker
from app.cluster.workers import Places, missing, places, uses_gpu, workers_on_gpu
from app.config import with_changes
from app.serve.handover import BEGINNING
from app.serve.hub import check_change, check_new, config_of
from app.serve.served import is_live
from app.serve.settings import Values, by_key
from app.source_names import names_of
from pipeline.core.problem import one_line

NAME = "controller"
"""The name of the controller among Ray's actors."""
_KEY = "cluster"
"""The key of what is kept."""
_TICK_S = 0.1
_REPORT_S = 0.5
"""The time between two reports of a worker."""
_NODES_S = 1.0
_BALANCE_S = 5.0
"""The time between two moves for relief: costs are means over as long."""
_CALL_S = 10.0
"""How long a worker may take for a request."""
_CONNECT_S = 3.0
"""How long a move waits for the second connection to a feed, before it goes on without."""
_START_PAUSES_S = (1.0, 5.0, 20.0, 60.0)
"""The pauses before a worker that could not start, or died, is started again on its machine."""
_MOST_AGAIN = 1_000_000
"""A source's number is its own and that of its beginnings, of which there are fewer than this."""
_RESTART_S = 25.0
"""How long a worker may take to begin a source again: it waits for the source's files."""
_KEEP_S = 2.0
"""The time between two times that the sources' counters are kept."""
_PAUSE_S = 1.5
_PAGE_S = 3.0
"""A page that has not asked for so long is gone."""
_STARTING_S = 900.0
"""How long a worker may take to start: TensorRT's engines are built in minutes."""
_TIDY_S = 2.0
_MOST_WARNINGS = 100


class Controller:
    """See the module. Made by Ray; all methods may be called at once.

    Args:
        spec: How the cluster serves its sources.
    """

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self._lock = threading.RLock()
        self._sources: dict[str, PlacedSource] = {}
        self._workers: dict[str, KnownWorker] = {}
        self._drained: set[str] = set()
        self._number = self._warned = 0
        self._warnings: list[tuple[int, str]] = []
        self._on_gpu: int | None = None
        self._trouble = ""
        self._next_start_s: dict[str, float] = {}
        self._failed_starts: Counter[str] = Counter()
        self._balance_s = time.monotonic() + _BALANCE_S
        self._nodes_s = self._keep_s = 0.0
        self._heard_s = time.monotonic()
        self._measuring: threading.Thread | None = None
        self._ending: dict[str, KnownWorker] = {}
        self._page = ("", 0.0)
        self._ended = threading.Event()
        self._recover()
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._thread.start()

    # For the page's process.

    def spec(self) -> ClusterSpec:
        """Return what the cluster was made with."""
        return self._spec

    def pid(self) -> int:
        """Return the number of the controller's process."""
        return os.getpid()

    def table(self, page: str = "") -> Table:
        """Return all sources and workers, also workers that are being ended.

        Args:
            page: The word of the page that asks, "" for another program.
        """
        with self._lock:
            if page and page == self._page[0]:
                self._page = page, time.monotonic()
            sources = [
                SourceRow(s.name, s.number * _MOST_AGAIN + s.begun_again,
                          None if s.pending is not None else s.worker, s.epoch, s.config,
                          s.reason, s.moves, s.failovers, s.every, s.quarantined)
                for s in self._sources.values()
            ]  # fmt: skip
            loads = {load.id: load for load in self._loads()}
            workers = [
                WorkerRow(w.id, w.node, _state(w), w.facts.device if w.facts else "",
                          w.facts.pid if w.facts else 0, loads[w.id].streams, loads[w.id].load)
                for w in self._workers.values()
            ]  # fmt: skip
            workers += [
                WorkerRow(w.id, w.node, "ending", w.facts.device if w.facts else "",
                          w.facts.pid if w.facts else 0, 0, 0.0)
                for w in self._ending.values()
            ]  # fmt: skip
            return Table(tuple(sources), tuple(workers), tuple(self._warnings), self._trouble)

    def claim(self, page: str) -> None:
        """Make a page the one that serves this cluster.

        Args:
            page: A word of its own.

        Raises:
            RuntimeError: Another page serves it.
        """
        with self._lock:
            other, asked_s = self._page
            if other not in ("", page) and time.monotonic() - asked_s < _PAGE_S:
                raise RuntimeError("another `serve` has it")
            self._page = page, time.monotonic()

    def leave(self, page: str) -> None:
        """Let another page serve this cluster at once."""
        with self._lock:
            if self._page[0] == page:
                self._page = ("", 0.0)

    def add(self, address: str, name: str | None, trusted: bool, known: bool = False) -> str:
        """Place a new source; as `Hub.add`.

        Args:
            address: Its address.
            name: Its name, None to derive one.
            trusted: Whether the address may be a file.
            known: Whether one that is there with this address, and name, is taken for it.

        Raises:
            ValueError: The address or the name is not allowed.
            RuntimeError: No worker has room; the line says what they hold.
            SourceError: The source cannot be made.
        """
        check_new(address, name, trusted)
        config = config_of(self._spec.config, address)
        with self._lock:
            for source in self._sources.values() if known else ():
                if source.config.source == address and name in (None, source.name):
                    return source.name
            if name is None:
                name = names_of([address], taken=self._sources)[0]
            if name in self._sources:
                raise ValueError(f"there is a source named {name} already")
            worker, every = self._admit()
            source = PlacedSource(name, config, self._number, replace(BEGINNING, every=every))
            source.every, self._number = every, self._number + 1
            self._sources[name] = source
            pending = self._place(source, worker)
        try:
            result(pending, _CALL_S)
            self._begun(source, pending)
        except Gone:
            pass  # The loop places it elsewhere.
        except BaseException:
            with self._lock:
                # Another one may have the name by now.
                if self._sources.get(name) is source:
                    del self._sources[name]
                self._keep()
            raise
        return name

    def remove(self, name: str) -> None:
        """End a source and forget it. Raises KeyError."""
        with self._lock:
            source = self._sources.pop(name)
            worker = self._worker_of(source)
            self._keep()
        if worker is not None:
            with suppress(KeyError, Gone):
                result(call(worker.handle, "remove", name), _CALL_S)

    def change(self, name: str, values: Values) -> bool:
        """Change settings of a source; as `Hub.change`."""
        with self._lock:
            source = self._settled(name)
            worker = self._worker_of(source)
            after = with_changes(source.config, by_key(values))
        check_change(source.config, after, self._spec.motion is not None)
        again = False
        if worker is not None:
            again = bool(_answer(worker, _RESTART_S, "change", name, values))
        with self._lock:
            source.config = with_changes(source.config, by_key(values))
            self._keep()
        return again

    def _settled(self, name: str) -> PlacedSource:
        """Return a source that is neither moving nor beginning. Raises KeyError, RuntimeError."""
        source = self._sources[name]
        if source.moving or source.pending is not None:
            raise RuntimeError(f"{name} is on its way to a worker; try once more")
        return source

    def restart(self, name: str) -> None:
        """Begin a source again, also one in quarantine; as `Hub.restart`."""
        with self._lock:
            source = self._settled(name)
            worker = self._worker_of(source)
            if worker is None:
                source.quarantined, source.reason, source.deaths = False, "", 0
                self._keep()
                return
        _answer(worker, _RESTART_S, "restart", name)

    def record(self, name: str, on: bool) -> str | None:
        """Begin or end a source's recording; as `Hub.record`."""
        with self._lock:
            source = self._settled(name)
            worker = self._worker_of(source)
            source.begin = replace(source.begin, recording=on)
        if worker is None:
            return None
        found: str | None = _answer(worker, 2 * _CALL_S, "record", name, on)
        return found

    def drain(self, node: str, on: bool) -> str:
        """Move all sources away from a machine and end its workers, or let it have workers again.

        Args:
            node: The beginning of its id, or its name.
            on: Whether to drain it.

        Returns:
            Its id.

        Raises:
            ValueError: There is no such machine, or there are several.
        """
        found = [one for one in ray_api.nodes() if one.id.startswith(node) or one.host == node]
        if len(found) != 1:
            what = "no machine" if not found else f"{len(found)} machines"
            raise ValueError(f"{node}: {what} of the cluster has this name or id")
        with self._lock:
            if on:
                self._drained.add(found[0].id)
            else:
                self._drained.discard(found[0].id)
            for worker in self._workers.values():
                if worker.node == found[0].id:
                    worker.draining = on
            self._keep()
        return found[0].id

    def move(self, name: str, worker: str) -> None:
        """Move a source to a worker, and wait until it has begun there.

        Raises:
            KeyError: There is no such source or worker.
            RuntimeError: It cannot be moved now, or did not arrive.
        """
        with self._lock:
            source, target = self._settled(name), self._workers[worker]
            if self._worker_of(source) is None or target.facts is None:
                raise RuntimeError(f"{name} or {worker} is not ready")
            if source.worker == worker:
                return
            source.moving = True
        why = self._move(source, target)
        if why or source.worker != worker:
            raise RuntimeError(f"{name} has not come to {worker}" + (f": {why}" if why else ""))

    def end(self) -> None:
        """End all workers, with complete files, and forget everything."""
        self._ended.set()
        self._thread.join(_TIDY_S)
        with self._lock:
            workers = [*self._workers.values(), *self._ending.values()]
            self._workers, self._sources = {}, {}
        calls = [call(worker.handle, "end") for worker in workers if worker.facts is not None]
        ray_api.wait_for(calls, 2 * _CALL_S)
        # Each in a thread, with a limit: where Ray itself is being ended its calls do not return.
        ends = [partial(ray_api.kill, worker.handle) for worker in workers]
        tidy = [threading.Thread(target=each, daemon=True)
                for each in (*ends, partial(ray_api.forget, _KEY))]  # fmt: skip
        for thread in tidy:
            thread.start()
        for thread in tidy:
            thread.join(_TIDY_S)

    # The loop.

    def _run(self) -> None:
        while not self._ended.wait(_TICK_S):
            for step in (self._look_at_nodes, self._hear, self._settle, self._place_waiting,
                         self._empty_drained, self._relieve):  # fmt: skip
                try:
                    step()
                except Exception as error:
                    # Shown once, and tried again with the next round: the other steps go on.
                    line = f"controller: {one_line(error)}"
                    if line not in [said for _, said in self._warnings]:
                        self._warn(line)

    def _look_at_nodes(self) -> None:
        """Start workers that are missing, and count those on machines that have gone as dead."""
        now_s = time.monotonic()
        if now_s < self._nodes_s:
            return
        self._nodes_s = now_s + _NODES_S
        nodes = ray_api.nodes()
        there = {node.id for node in nodes}
        with self._lock:
            for worker in list(self._workers.values()):
                if worker.node not in there:
                    self._lose(worker, "its machine has gone")
            self._drained &= there
        if uses_gpu(self._spec.config, nodes) and self._on_gpu is None:
            # In a thread: it takes up to minutes, and workers that run are looked after meanwhile.
            if self._measuring is None or not self._measuring.is_alive():
                self._measuring = threading.Thread(target=self._measure, args=(nodes,), daemon=True)
                self._measuring.start()
            return
        by_id = {node.id: node for node in nodes}
        with self._lock:
            for place in places(nodes, self._on_gpu, self._spec.workers, self._drained):
                self._fill(place, by_id[place.node])

    def _measure(self, nodes: list[ray_api.NodeFacts]) -> None:
        """Find how many workers share a GPU, on the first machine that has one."""
        node = next((node for node in nodes if node.gpus >= 1), None)
        if node is None:
            self._trouble = "no machine of the cluster has a GPU"
            return
        try:
            share = ray_api.measured(
                gpu_share, self._spec.config, self._spec.load, self._spec.motion is not None,
                node=node.id, stop=self._ended,
            )  # fmt: skip
        except Exception as error:
            self._trouble = f"the model cannot be loaded on {node.host}: {one_line(error)}"
            time.sleep(_START_PAUSES_S[1])
            return
        with self._lock:
            self._trouble, self._on_gpu = "", workers_on_gpu(share)
            self._keep()

    def _fill(self, place: Places, node: ray_api.NodeFacts) -> None:
        """Start a machine's missing workers. The caller holds the lock."""
        if time.monotonic() < self._next_start_s.get(place.node, 0.0):
            return
        all_workers = [*self._workers.values(), *self._ending.values()]
        living = sum(not worker.draining for worker in self._workers.values())
        count = missing(
            place, node, [(w.cpus, w.gpus) for w in all_workers if w.node == node.id],
            None if self._spec.workers is None else self._spec.workers - living,
        )  # fmt: skip
        # The end may have come while a GPU was measured: nothing starts after it.
        if count == 0 or self._ended.is_set():
            return
        taken = self._workers.keys() | self._ending.keys()
        for _ in range(count):
            slot = 1
            while (id := f"{place.host}-{slot}") in taken:
                slot += 1
            taken.add(id)
            # One that a controller before this one had started, and not yet noted, is taken over.
            handle = ray_api.actor_named(id)
            if handle is not None and self._is_elsewhere(handle, place.node):
                continue
            if handle is None:
                handle = ray_api.start_actor(
                    Worker, self._spec, id, name=id, node=place.node, cpus=place.cpus,
                    gpus=place.gpus, threads=THREADS, groups=GROUPS,
                )  # fmt: skip
            worker = KnownWorker(
                id, place.node, handle, place.cpus, place.gpus,
                ready=call(handle, "facts", group=REPORTING),
            )  # fmt: skip
            self._workers[id] = worker
        self._keep()

    def _is_elsewhere(self, handle: Any, node: str) -> bool:
        """Whether a worker of this name runs on another machine of the same name."""
        try:
            facts = result(call(handle, "facts", group=REPORTING), 1.0)
        except Exception:
            # Not ready yet; when it is, it is heard like the others.
            return False
        return bool(facts.node != node)

    def _hear(self) -> None:
        """Take what workers have answered, and count those that have not as dead."""
        now_s = time.monotonic()
        # After a pause of this process itself, answers that have come are not yet to be seen.
        paused, self._heard_s = now_s - self._heard_s > _PAUSE_S, now_s
        with self._lock:
            if paused:
                for worker in self._workers.values():
                    worker.asked_s = now_s
            if now_s >= self._keep_s:
                self._keep_s = now_s + _KEEP_S
                self._keep()
            workers = list(self._workers.values())
            done = ray_api.finished(
                [ref for w in workers for ref in (w.ready, w.asked) if ref is not None]
            )
            for worker in workers:
                try:
                    self._hear_one(worker, done, now_s)
                except Exception as error:
                    self._lose(worker, one_line(error))

    def _hear_one(self, worker: KnownWorker, done: set[Any], now_s: float) -> None:
        if worker.ready is not None:
            if worker.ready not in done:
                if now_s - worker.begun_s > _STARTING_S:
                    raise Gone(f"not ready after {_STARTING_S:g} s: are its cores or GPUs taken?")
                if now_s - worker.begun_s > self._spec.late_s and not worker.late:
                    worker.late = True
                    self._warn(
                        f"worker {worker.id}: not ready after {self._spec.late_s:g} s. It may wait "
                        "for cores or a GPU that other programs of the cluster hold: ray status"
                    )
                return
            worker.facts, worker.ready = result(worker.ready, _CALL_S), None
            self._keep()
            self._failed_starts[worker.node], self._trouble = 0, ""
        if worker.asked is None:
            if now_s - worker.asked_s >= _REPORT_S:
                worker.asked, worker.asked_s = call(worker.handle, "report", group=REPORTING), now_s
        elif worker.asked in done:
            asked_s, ref = worker.asked_s, worker.asked
            worker.asked = None
            report = result(ref, _CALL_S)
            worker.take(report)
            for line in report.warnings:
                self._warn(line)
            self._compare(worker, asked_s)
        elif now_s - worker.asked_s > self._spec.lost_s:
            raise Gone(f"it has not answered for {self._spec.lost_s:g} s")

    def _compare(self, worker: KnownWorker, asked_s: float) -> None:
        """Mend what differs between a worker's sources and those that are placed on it."""
        assert worker.report is not None
        placed = self._on(worker)
        for name in worker.report.sources.keys() - {source.name for source in placed}:
            if not (name in self._sources and self._sources[name].moving):
                call(worker.handle, "remove", name)
        for source in placed:
            report = worker.report.sources.get(source.name)
            if report is not None and not source.moving and source.placed_s < asked_s:
                # Its frames' numbers begin anew, as another source's.
                if source.own_number not in (None, report.number):
                    source.begun_again += 1
                source.own_number = report.number
                source.begin, source.config = report.begin_elsewhere(), report.config
            if report is not None and asked_s - source.placed_s > placement.STEADY_S:
                source.deaths = 0
            new = source.moving or source.pending is not None or source.placed_s >= asked_s
            if not new and source.name not in worker.report.sources:
                source.worker = None

    def _settle(self) -> None:
        """Take what became of sources that were to begin."""
        with self._lock:
            waiting = [one for one in self._sources.values() if one.pending is not None]
            done = ray_api.finished([one.pending for one in waiting])
            for source in waiting:
                if source.pending not in done:
                    continue
                pending, source.pending = source.pending, None
                try:
                    result(pending, _CALL_S)
                except Gone:
                    pass  # Its worker is found dead with its next report.
                except Exception as error:
                    source.worker, source.reason = None, one_line(error)
                    source.placed_s = time.monotonic() + _START_PAUSES_S[1]

    def _place_waiting(self) -> None:
        """Place sources that have lost their worker, or never had one."""
        with self._lock:
            for source in list(self._sources.values()):
                if source.worker is not None or source.quarantined or source.moving:
                    continue
                if time.monotonic() < source.placed_s:
                    continue
                suspect = placement.is_suspect(source.deaths)
                suspects = sum(placement.is_suspect(s.deaths) for s in self._sources.values())
                loads, cost = self._loads(), self._cost(source)
                found = placement.choose(loads, cost, suspect, suspects)
                found = found or placement.anyway(loads, suspect, suspects)
                if found is not None:
                    self._place(source, found)
                elif suspect and any(load.open for load in loads):
                    source.reason = "waits for another worker: two have died with it"
                elif not source.reason:
                    source.reason = "waits for a worker: none is ready"

    def _empty_drained(self) -> None:
        """Move one source at a time away from each worker that is drained; end it once empty."""
        with self._lock:
            for worker in [w for w in self._workers.values() if w.draining]:
                own = self._on(worker)
                if not own:
                    del self._workers[worker.id]
                    self._ending[worker.id] = worker
                    self._keep()
                    threading.Thread(target=self._end_worker, args=(worker,), daemon=True).start()
                    continue
                if any(source.moving for source in own):
                    continue
                source = own[0]
                loads = self._loads()
                found = placement.choose(loads, self._cost(source)) or placement.anyway(loads)
                if found is not None and source.pending is None:
                    self._begin_move(source, self._workers[found])

    def _relieve(self) -> None:
        """Move a source away from an overloaded worker."""
        now_s = time.monotonic()
        with self._lock:
            if now_s < self._balance_s or any(one.moving for one in self._sources.values()):
                return
            self._balance_s = now_s + _BALANCE_S
            costs = {worker.id: worker.costs() for worker in self._workers.values()}
            found = placement.relief(self._loads(), costs)
            source = None if found is None else self._sources.get(found[0])
            if found is not None and source is not None and source.pending is None:
                self._begin_move(source, self._workers[found[1]])

    # What the steps share; the caller holds the lock.

    def _on(self, worker: KnownWorker) -> list[PlacedSource]:
        return [source for source in self._sources.values() if source.worker == worker.id]

    def _worker_of(self, source: PlacedSource) -> KnownWorker | None:
        return None if source.worker is None else self._workers.get(source.worker)

    def _loads(self) -> list[placement.WorkerLoad]:
        guess = self._guess()
        return [
            worker.load(self._on(worker), self._spec.most_streams, guess)
            for worker in self._workers.values()
        ]

    def _guess(self) -> float:
        """The cost of a source that was not measured: the median of those that were, or what
        workers measured at their start."""
        # A source of which each n-th frame is taken would cost n times as much.
        every = {source.name: source.every for source in self._sources.values()}
        known = [
            cost * every.get(name, 1)
            for worker in self._workers.values()
            for name, cost in worker.costs().items()
            if cost > 0
        ]
        known = known or [w.facts.cost for w in self._workers.values() if w.facts is not None]
        return median(known) if known else 0.0

    def _cost(self, source: PlacedSource) -> float:
        worker = self._worker_of(source)
        known = {} if worker is None else worker.costs()
        return known.get(source.name, self._guess() / source.every)

    def _admit(self) -> tuple[str, int]:
        """Return the worker of a new source, and which of its frames are taken. Raises
        RuntimeError."""
        loads, cost = self._loads(), self._guess()
        found = placement.choose(loads, cost)
        if found is not None:
            return found, 1
        reduced = None
        if self._spec.admit == "slower":
            reduced = placement.slower(loads, cost, 30.0)
        if reduced is None:
            raise RuntimeError(self._trouble or placement.refusal(loads, cost))
        return reduced

    def _place(self, source: PlacedSource, worker: str) -> Any:
        source.worker, source.reason = worker, ""
        source.epoch, source.own_number = source.epoch + 1, None
        source.placed_s = time.monotonic()
        how = replace(source.begin, first_picture=source.epoch << 32, every=source.every)
        handle = self._workers[worker].handle
        source.pending = call(handle, "begin", source.name, source.config, how)
        self._keep()
        return source.pending

    def _lose(self, worker: KnownWorker, why: str) -> None:
        """Take out a worker that is dead or of no use; the next step places its sources."""
        now_s = time.monotonic()
        if self._workers.pop(worker.id, None) is None:
            return
        ray_api.kill(worker.handle)
        self._warn(f"worker {worker.id}: {why}")
        pause_s = _START_PAUSES_S[min(self._failed_starts[worker.node], len(_START_PAUSES_S) - 1)]
        self._failed_starts[worker.node] += 1
        self._next_start_s[worker.node] = now_s + pause_s
        if worker.facts is None:
            self._trouble = f"worker {worker.id} could not start: {why}"
        lost = self._on(worker)
        deaths = placement.after_death(
            {source.name: source.deaths for source in self._sources.values()},
            {source.name for source in lost},
        )
        for source in self._sources.values():
            source.deaths = deaths[source.name]
        for source in lost:
            # It begins as its last report says, or, without one, as it was to begin there.
            source.worker = source.pending = None
            source.placed_s = 0.0
            source.reason = f"worker {worker.id}: {why}"
            source.failovers += 1
            if source.deaths >= placement.MOST_DEATHS:
                source.quarantined = True
                source.reason = (
                    f"in quarantine: {source.failovers} workers died while they had it, and it "
                    f"alone had part in all; the last: {why}. Restart it to try again"
                )
                self._warn(f"{source.name}: {source.reason}")
        self._keep()

    def _begun(self, source: PlacedSource, pending: Any) -> None:
        """Note that a source has begun with its worker."""
        with self._lock:
            if source.pending is pending:
                source.pending = None

    def _begin_move(self, source: PlacedSource, target: KnownWorker) -> None:
        source.moving = True
        work: Callable[[], object] = lambda: self._move(source, target)  # noqa: E731
        threading.Thread(target=work, name=f"move {source.name}", daemon=True).start()

    def _move(self, source: PlacedSource, target: KnownWorker) -> str:
        """Move a source that is marked as moving; return why it has not come, "" if it has. Not
        under the lock."""
        name = source.name
        try:
            with self._lock:
                old = self._worker_of(source)
            if old is None:
                return "its worker has ended"
            if is_live(source.config.source):
                self._connect_first(source, target)
            handover = result(call(old.handle, "hand_over", name), _CALL_S)
            with self._lock:
                source.config, source.begin = handover.config, handover.begin
                source.moves += 1
                if self._sources.get(name) is source and target.id in self._workers:
                    pending = self._place(source, target.id)
                else:
                    source.worker, pending = None, None
                    if target.id in self._workers:
                        call(target.handle, "withdraw", name)
            if pending is not None:
                result(pending, _CALL_S)
                self._begun(source, pending)
        except Exception as error:
            # What died is found by the next report; a source without a worker is placed again.
            why = one_line(error)
            self._warn(f"{name}: could not be moved: {why}")
            # What it may have connected to for this move.
            call(target.handle, "withdraw", name)
            return why
        finally:
            with self._lock:
                source.moving = False
        return ""

    def _connect_first(self, source: PlacedSource, target: KnownWorker) -> None:
        """Have the new worker connect to a feed while the old one still reads it, so that the gap
        is short. A camera that serves one client refuses that; the move then goes on without."""
        try:
            asked = call(target.handle, "prepare", source.name, source.config, source.every)
            result(asked, _CONNECT_S)
        except Exception:
            with suppress(Gone):
                result(call(target.handle, "withdraw", source.name), _CALL_S)

    def _end_worker(self, worker: KnownWorker) -> None:
        with suppress(Exception):
            result(call(worker.handle, "end"), _RESTART_S)
        ray_api.kill(worker.handle)
        with self._lock:
            self._ending.pop(worker.id, None)

    # What is kept.

    def _keep(self) -> None:
        ray_api.keep(
            _KEY,
            {
                "number": self._number,
                "on_gpu": self._on_gpu,
                "drained": self._drained,
                # Those that are being ended are ended by the next controller.
                "workers": [
                    (w.id, w.node, w.cpus, w.gpus, w.facts, draining)
                    for own, ending in ((self._workers, False), (self._ending, True))
                    for w in own.values()
                    for draining in (w.draining or ending,)
                ],
                "sources": [source.kept() for source in self._sources.values()],
            },
        )

    def _recover(self) -> None:
        """Take up what a controller before this one has left."""
        kept = ray_api.kept(_KEY)
        if kept is None:
            return
        self._number, self._on_gpu, self._drained = (
            kept["number"], kept["on_gpu"], kept["drained"],
        )  # fmt: skip
        self._sources = {one["name"]: PlacedSource(**one) for one in kept["sources"]}
        for id, node, cpus, gpus, facts, draining in kept["workers"]:
            handle = ray_api.actor_named(id)
            if handle is not None:
                ready = call(handle, "facts", group=REPORTING) if facts is None else None
                self._workers[id] = KnownWorker(
                    id, node, handle, cpus, gpus, ready, facts, draining=draining
                )
        for source in self._sources.values():
            source.placed_s = time.monotonic()
            if source.worker is not None and source.worker not in self._workers:
                source.placed_s = 0.0
                source.reason = f"worker {source.worker}: ended while the controller was away"
                source.worker = None
                source.failovers += 1

    def _warn(self, line: str) -> None:
        with self._lock:
            self._warned += 1
            self._warnings = [*self._warnings, (self._warned, line)][-_MOST_WARNINGS:]


def _state(worker: KnownWorker) -> str:
    if worker.facts is None:
        return "starting"
    return "draining" if worker.draining else "ready"


def _answer(worker: KnownWorker, limit_s: float, method: str, *args: Any) -> Any:
    """What a worker answers to a request. Raises RuntimeError where it does not."""
    try:
        return result(call(worker.handle, method, *args), limit_s)
    except Gone as error:
        # As it is, it would be the controller that is gone for the page.
        raise RuntimeError(f"worker {worker.id}: {error}") from None
