"""Measure a row of the table and make its record for the file."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from app import hardware
from app.bench import (
    ceilings,
    footage,
    measure,
    plan_notes,
    plan_people,
    profiling,
    results,
    streams,
    subject,
)
from app.bench.cluster_workers import on_gpus
from app.bench.gpu_busy import GpuBusy
from app.bench.measure import Latency, Tick
from app.bench.pipelines import make_pipeline
from app.bench.plan import PlanPipeline
from app.bench.roofline import RTX_4090, Ceilings, Work, floor, predict_window
from app.bench.rows import Row, Settings
from app.bench.stream_workers import (
    StartWorker,
    WorkerSources,
    make_decoded_sources,
    make_sources,
    start_process,
)
from app.bench.timers import timer_for
from app.bench.work import stage_work
from pipeline.core.yuv import YuvImage
from pipeline.weights import store as weights

_STREAM_WARM = 6
"""The windows of a new source in which the detector searches everywhere; they are not measured."""


@dataclass(frozen=True)
class Options:
    """The command line's options for all rows.

    Attributes:
        windows: How many windows to measure.
        warm: How many windows to run first.
        size: The (width, height) of the frames.
        people: The people in each frame, unless a row says otherwise.
        clip: The path of the clip; None for the sample.
        weights_folder: A folder that is searched for weights first.
        upstream_folder: A clone of the original SAM 3D Body.
    """

    windows: int = 50
    warm: int = 10
    size: tuple[int, int] = (1920, 1080)
    people: int = 1
    clip: Path | None = None
    weights_folder: Path | None = None
    upstream_folder: Path | None = None


@dataclass
class Bench:
    """Measures rows on this machine; footage, people and ceilings are made once for all rows.

    Attributes:
        options: The command line's options.
        make: Makes a row's pipeline.
        ceilings_of: Measures a device's ceilings.
        hardware: The description of this machine.
    """

    options: Options
    make: Callable[[Settings], subject.Pipeline] = make_pipeline
    ceilings_of: Callable[[str], Ceilings] = ceilings.measure_ceilings
    hardware: dict[str, Any] = field(default_factory=hardware.describe)
    _ceilings: dict[str, Ceilings] = field(default_factory=dict)
    _footage: tuple[tuple[int, str, bool], np.ndarray | list[YuvImage]] | None = None
    _people: tuple[footage.Player, int, list[plan_people.People]] | None = None
    _meshes: dict[str, dict[tuple[int, int], np.ndarray]] = field(default_factory=dict)
    _code: str = field(default_factory=results.code_hash)

    def people(self, row: Row) -> int:
        """Return the number of people that a row is measured with."""
        return row.people or self.options.people

    def fingerprint(self, row: Row) -> str:
        """Return a short hash of all that a row's figures depend on: the code, the row's settings,
        the options and the machine. A row of the same fingerprint need not be measured again."""
        options = self.options
        chosen = (options.windows, options.warm, options.size)
        clip = options.clip or footage.SAMPLE
        content = weights.sha256_of(clip) if clip.is_file() else str(clip)
        machine = results.same_machine(self.hardware)
        measured = (row.measure, self.people(row), row.slow, row.workers, row.decoded, row.gpus)
        what = (row.settings.as_json(), *measured)
        return results.fingerprint(self._code, chosen, content, what, machine)

    def measure(self, row: Row, tick: Tick, profile_to: Path | None = None) -> dict[str, Any]:
        """Measure a row.

        Args:
            row: The row.
            tick: Shows progress.
            profile_to: Where to write profiles; the row's id is added to the name. None for none.

        Returns:
            The row's record for the file.

        Raises:
            RuntimeError: Another engine ran than the one that the row names.
            Exception: Any error of the pipeline.
        """
        device = row.settings.device
        if row.workers > 1 or row.decoded:
            return self._measure_workers(row, tick)
        tick("measuring what the machine can do")
        # Before the pipeline is loaded: nothing else may use the device meanwhile.
        self._measure_ceilings(device)
        tick("loading")
        player = footage.Player(self._frames(self.people(row), row.settings), row.slow)
        settings = replace(
            row.settings,
            people=self.people(row),
            weights_folder=self.options.weights_folder,
            upstream_folder=self.options.upstream_folder,
        )
        measure.reset_memory()
        with subject.rounding(settings.tf32):
            record = self._run(row, settings, player, tick, profile_to)
        if record["people_drawn"] != record["people"]:
            record["notes"].append(f"{record['people_drawn']:g} of {record['people']} people drawn")
        return record

    def _run(
        self,
        row: Row,
        settings: Settings,
        player: footage.Player,
        tick: Tick,
        profile_to: Path | None,
    ) -> dict[str, Any]:
        device = settings.device
        pipeline = self.make(settings)
        try:
            # An engine that fell back to another one would be measured under a wrong name.
            self._check_engine(row, pipeline)
            record = self._common(row, pipeline.engine, pipeline.weights)
            if isinstance(pipeline, PlanPipeline):
                tick("looking for people")
                people = self._people_in(player, self.people(row))
                pipeline.people_of = plan_people.people_of(player, people)
            if row.measure == "streams":
                sources = streams.Sources(pipeline, player, _STREAM_WARM)
                record |= self._streams(sources, tick)
            else:
                more = self._latency(settings, pipeline, player, tick)
                record |= {**more, "notes": record["notes"] + more["notes"]}
            memory = measure.memory_mb() if device == "cuda" else None
            record["gpu_memory_mb"] = None if memory is None else round(memory)
            if isinstance(pipeline, PlanPipeline):
                tick("comparing meshes")
                self._remark(row, pipeline, player, record)
            if profile_to is not None:
                tick("profiling")
                stem = f"{profile_to.stem}-{row.id}"
                profiling.write_profile(pipeline, player, device, profile_to.parent, stem)
        finally:
            pipeline.close()
            # The name too: memory is freed only once nothing refers to it.
            del pipeline
            measure.reset_memory()
        return record

    def _people_in(self, player: footage.Player, most: int) -> list[plan_people.People]:
        """Return the people in the frames, found once for all rows that use these frames."""
        known = self._people
        if known is None or known[0].frames is not player.frames or known[1] != most:
            found = plan_people.find_people(player, most, self.options.weights_folder)
            known = self._people = (player, most, found)
        return known[2]

    def _remark(
        self, row: Row, pipeline: PlanPipeline, player: footage.Player, record: dict[str, Any]
    ) -> None:
        """Add notes to a record of the plan: the difference of its meshes from the row above, and
        the kernels of attention."""
        notes = record["notes"]
        ours = self._meshes[row.id] = plan_notes.meshes(pipeline, player)
        above = self._meshes.get(row.above or "")
        difference_mm = None if above is None else plan_notes.mesh_difference_mm(ours, above)
        record["mesh_difference_mm"] = None if difference_mm is None else _short(difference_mm)
        if difference_mm is not None:
            notes.append(f"meshes {difference_mm:.2g} mm from those of {row.above}")
        notes.append(
            "people found beforehand by the default perceiver; depth is not given to the fit"
        )
        if pipeline.plan.segment.startswith("fastsam"):
            return  # It has no attention.
        try:
            kernels = plan_notes.attention_kernels(pipeline, player, row.settings.device)
        except RuntimeError as error:
            # A note only: the measured times are valid without the names of kernels.
            kernels = []
            words = (str(error) or "no message").splitlines()[0][:120]
            notes.append(f"attention not profiled: {words}")
        if kernels:
            notes.append(f"attention: {', '.join(kernels)}")

    def hardware_with_ceilings(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return the description of this machine with its ceilings.

        Args:
            before: The description in the file. If it is of the same machine, the ceilings of a
                device that no row used this time are taken from it.
        """
        same = results.same_machine(before) == results.same_machine(self.hardware)
        earlier = before.get("ceilings", {}) if same else {}
        new = {
            device: {name: _short(value) for name, value in asdict(ceiling).items()}
            for device, ceiling in self._ceilings.items()
        }
        return {**self.hardware, "ceilings": {**earlier, **new}}

    def _measure_ceilings(self, device: str) -> None:
        if device not in self._ceilings:
            self._ceilings[device] = self.ceilings_of(device)

    def _frames(self, people: int, settings: Settings) -> np.ndarray | list[YuvImage]:
        """Return the frames with that many people, of the kind and in the memory that the app
        decodes into for these settings. Only the last ones are stored, because they are large."""
        options, kind = self.options, (people, settings.device, settings.planes)
        if self._footage is None or self._footage[0] != kind:
            # The old frames go before new ones are made: both may not fit into memory.
            self._footage = None
            frames = footage.load_frames(options.clip, options.size, people, self._most_frames())
            self._footage = (kind, footage.ready_frames(frames, settings))
        return self._footage[1]

    def _most_frames(self) -> int:
        # Warm-up, measured windows and the second pass for the stages.
        return footage.WINDOW_FRAMES * (self.options.warm + 2 * self.options.windows)

    @staticmethod
    def _check_engine(row: Row, pipeline: subject.Pipeline) -> None:
        asked = row.settings.engine
        if asked != "auto" and asked not in pipeline.engine.lower():
            raise RuntimeError(f"{row.id}: asked for {asked}, but this ran: {pipeline.engine}")

    def _measure_workers(self, row: Row, tick: Tick) -> dict[str, Any]:
        """Measure a row of streams in several processes; nothing but they uses the device."""
        tick("loading")
        settings = replace(
            row.settings, people=self.people(row), weights_folder=self.options.weights_folder
        )
        options = self.options
        make = (
            partial(make_decoded_sources, settings, options.clip, _STREAM_WARM)
            if row.decoded
            else partial(
                make_sources, settings, options.clip, options.size, self._most_frames(),
                _STREAM_WARM,
            )
        )  # fmt: skip
        with ExitStack() as stack:
            start: StartWorker = start_process
            if row.gpus:
                start = stack.enter_context(on_gpus(row.gpus, row.workers))
            sources = stack.enter_context(WorkerSources(row.workers, make, start))
            record = self._common(row, sources.facts["engine"], sources.facts["weights"])
            record |= self._streams(sources, tick)
            used = sources.memory_mb
        if row.decoded:
            record["size"] = "the clip's"
        return record | {"gpu_memory_mb": None if used is None else round(used)}

    def _common(self, row: Row, engine: str, weights: str) -> dict[str, Any]:
        options = self.options
        return {
            "id": row.id,
            "name": row.name,
            "total_ms_p50": None,
            "total_ms_p95": None,
            "stages_ms": {},
            "speedup": None,
            "weights": weights,
            "plan_ms": row.plan_ms,
            "speedup_over": row.against[0],
            "against": list(row.against),
            "people": self.people(row),
            "size": f"{options.size[0]}x{options.size[1]}",
            "clip": "sample" if options.clip is None else options.clip.name,
            "windows": options.windows,
            "engine": engine,
            "settings": row.settings.as_json(),
            "notes": ["speed only"] if weights == "random" else [],
            "when": datetime.date.today().isoformat(),
            "fingerprint": self.fingerprint(row),
        }

    def _streams(self, sources: streams.Playable, tick: Tick) -> dict[str, Any]:
        periods = self.options.windows
        curve = streams.search(sources, periods, tick)
        tick(f"how busy the GPU is with {curve.best.streams} streams")
        sources.prepare(curve.best.streams)
        with GpuBusy() as gpu:
            sources.play(curve.best.streams, periods)
        # Idle time may be skipped (`streams.Sources`), so the share is of the sources' own time.
        busy = None if gpu.busy_s is None else gpu.busy_s / (periods * footage.PERIOD_S)
        drawn = median(sources.people)
        return {
            "people_drawn": drawn,
            "total_ms_p50": _short(curve.best.p50_ms),
            "total_ms_p95": _short(curve.best.p95_ms),
            "streams": curve.streams,
            "gpu_busy": None if busy is None else _short(min(busy, 1.0)),
            "curve": [
                {
                    "streams": p.streams,
                    "p50_ms": _short(p.p50_ms),
                    "p95_ms": _short(p.p95_ms),
                    "cut_short": p.cut_short,
                }
                for p in curve.probes
            ],
        }

    def _latency(
        self,
        settings: Settings,
        pipeline: subject.Pipeline,
        player: footage.Player,
        tick: Tick,
    ) -> dict[str, Any]:
        options = self.options
        latency = measure.measure_latency(
            pipeline,
            player,
            warm=options.warm,
            windows=options.windows,
            stage_timer=timer_for(settings.device),
            tick=tick,
        )
        p50, p95 = measure.quantiles(latency.total_ms)
        record = {
            "total_ms_p50": _short(p50),
            "total_ms_p95": _short(p95),
            "stages_ms": _shorts(latency.stage_medians()),
            "stages_ms_p95": _shorts(latency.stage_p95()),
            "people_drawn": latency.people,
        }
        tick("counting what had to be done")
        return record | self._floors(settings, pipeline, player, latency, p50)

    def _floors(
        self,
        settings: Settings,
        pipeline: subject.Pipeline,
        player: footage.Player,
        latency: Latency,
        total_ms: float,
    ) -> dict[str, Any]:
        """Return every stage's floors, and the prediction for another GPU if this ran on one."""
        ceiling, stages = self._ceilings[settings.device], latency.stage_medians()
        kernels: dict[str, int] = {}
        notes: list[str] = []
        # No floors are given for the original, so its kernels need no count.
        if settings.device == "cuda" and not settings.upstream:
            try:
                # The plan's rows search for no one, and some take a second for each window.
                warm = 1 if isinstance(pipeline, PlanPipeline) else _STREAM_WARM
                kernels = profiling.count_kernels(pipeline, player, warm)
            except RuntimeError as error:
                # The profiler is not available everywhere; the measured times are valid without.
                notes.append(
                    f"kernels not counted: {(str(error) or 'no message').splitlines()[0][:120]}"
                )
            if not kernels:
                notes.append("no launch floors: the profiler saw no kernels")
        work: dict[str, Work] = stage_work(
            settings,
            weights.find("blazepose", settings.weights_folder),
            self.options.size,
            round(latency.people),
            latency.covered_px,
            ceiling.cache_bytes,
        )
        if isinstance(pipeline, PlanPipeline):
            work |= pipeline.work
        if settings.network:
            # The work of a network in ONNX Runtime is not counted.
            work = {stage: known for stage, known in work.items() if stage in ("fit", "draw")}
        work = {
            stage: replace(work.get(stage, Work()), kernels=kernels.get(stage, 0))
            for stage in stages
        }
        floors = {stage: floor(work[stage], ceiling, settings.graphs) for stage in stages}
        record: dict[str, Any] = {
            # A floor of zero means that the work is not known; it is left out.
            "floors_ms": {s: _short(f.roofline_ms) for s, f in floors.items() if f.roofline_ms},
            "launch_floors_ms": {s: _short(f.launch_ms) for s, f in floors.items() if f.launch_ms},
            "bound": {s: f.bound for s, f in floors.items() if f.larger_ms},
            "efficiency": {
                s: _short(f.roofline_ms / stages[s])
                for s, f in floors.items()
                if f.roofline_ms and stages[s]
            },
            "kernels": kernels,
            "notes": notes,
        }
        if settings.device == "cuda" and not settings.network:
            predicted = predict_window(total_ms, stages, work, ceiling, RTX_4090, settings.graphs)
            record["predicted_rtx4090_ms"] = _short(predicted.pop("total"))
            record["predicted_rtx4090_stages_ms"] = _shorts(predicted)
        return record


def _short(value: float) -> float:
    """Round to four significant digits: no timing has more."""
    return float(f"{value:.4g}")


def _shorts(values: dict[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in values.items()}
