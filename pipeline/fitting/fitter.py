"""Fitting SMPL bodies to everybody in a window, and what is remembered of them between windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.body.kinematics import Skeleton
from pipeline.body.model import BodyModel
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.people import Bodies, Person
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting.lifter import CONTEXT, LandmarkHistory, Lifter
from pipeline.fitting.observations import layout, observe, write_rows
from pipeline.fitting.solver import FitConfig, Kernels
from pipeline.fitting.window_step import MEMORY, WindowFit, new_memory, without_pose
from pipeline.gpu.cuda_graphs import Graphed, filled
from pipeline.gpu.transfer import AsyncCopy

BUCKETS = (1, 3, 12, 48)
"""How many people are fitted together on a GPU: others are filled up to the next of these."""


@dataclass(frozen=True, eq=False)
class TrackFit:
    """What is remembered of one person: ``memory`` (`window_fit.MEMORY`), whether their last pose
    is ``known``, and for how many ``seconds`` they were watched."""

    memory: Tensor
    known: bool = False
    seconds: float = 0.0


@dataclass
class FitMemory:
    """A source's people, by track. Hand the same one to every window; ``clear`` at a cut."""

    tracks: dict[int, TrackFit] = field(default_factory=dict)

    def clear(self) -> None:
        self.tracks.clear()


@dataclass(frozen=True, eq=False)
class FitJob:
    """One source's window: for each of its T frames the people by track, the camera K (3, 3) in
    pixels, what is remembered of the source, the time between frames, and whether it is an
    ``event``'s, which has steps of its own."""

    people: Sequence[dict[int, Person]]
    intrinsics: np.ndarray
    memory: FitMemory
    interval_s: float = 1 / 30
    event: bool = False

    @property
    def tracks(self) -> list[int]:
        return sorted(set().union(*self.people)) if self.people else []


class BodyFitter:
    """Fits one body model; holds no state of any source, so one serves them all.

    On a GPU each kind of full window (so many people, known or new) is captured as a CUDA graph
    when it is first met or by `warm_up`, with the solver's kernels of `linearise_gpu`;
    ``kernels=False`` takes torch's instead, ``graphs=False`` starts them one by one. Belongs to one
    thread at a time.
    """

    def __init__(
        self,
        body: BodyModel,
        config: FitConfig | None = None,
        device: str | torch.device = "cpu",
        graphs: bool = True,
        kernels: bool = True,
    ) -> None:
        self.config = config or FitConfig()
        self.device = torch.device(device)
        self.body = body.to(self.device)
        self.skeleton = Skeleton.of(self.body, self.config.surface_points)
        self.lifter = Lifter.load(self.device)
        self.graphs = graphs and self.device.type == "cuda"
        self._kernels: Kernels | None = None
        if kernels and self.device.type == "cuda":
            from pipeline.fitting.linearise_gpu import Linearizer

            self._kernels = Linearizer(self.skeleton, self.config)
        self._new_memory = new_memory(self.config).to(self.device)[0]
        self._fits: dict[tuple[int, int], WindowFit] = {}
        self._steps: dict[tuple[int, int, int], Graphed] = {}

    def fit(
        self,
        people: Sequence[dict[int, Person]],
        intrinsics: np.ndarray,
        memory: FitMemory,
        interval_s: float = 1 / 30,
    ) -> list[Bodies]:
        """Fit one window: for each of its T frames the people by track -> Bodies for each frame.

        ``intrinsics`` (3, 3) pixels; ``interval_s`` between frames. ``memory`` is updated; tracks
        that are in no frame lose their pose but keep their shape. Returns T Bodies, each with the
        people seen in that frame, by rising track. Raises FloatingPointError when a fit is not
        finite.
        """
        return self.fit_many([FitJob(people, intrinsics, memory, interval_s)])[0]

    @torch.inference_mode()
    def fit_many(self, jobs: Sequence[FitJob]) -> list[list[Bodies]]:
        """Fit one window of each of several sources, their people together. Each job's memory is
        another; the result is as `fit`'s for each."""
        alike: dict[tuple[int, int], list[int]] = {}
        for k, job in enumerate(jobs):
            self._forget(job)
            if job.tracks:
                alike.setdefault((len(job.people), self._steps_of(job)), []).append(k)
        out = [[self.no_bodies() for _ in job.people] for job in jobs]
        for kind, members in alike.items():
            for k, bodies in zip(members, self._solve(*kind, [jobs[k] for k in members])):
                out[k] = bodies
        return out

    def warm_up(self, people: int) -> None:
        """Make ready for up to ``people`` people in full windows, on a GPU."""
        if not self.graphs:
            return
        for size in BUCKETS:
            for steps in {self.config.iterations, self.config.cold_iterations}:
                self._step(WINDOW_FRAMES, steps, size)
            if size >= people:
                return

    def warm_up_events(self) -> None:
        """Make ready for one person about an event, on a GPU."""
        if self.graphs:
            self._step(WINDOW_FRAMES, self.config.event_iterations, BUCKETS[0])

    def no_bodies(self) -> Bodies:
        """Return the bodies of a frame without people."""
        return Bodies.none(len(self.body.v_template))

    def recalled(
        self,
        before: Sequence[Person | None],
        intrinsics: np.ndarray,
        memory: FitMemory,
        track: int,
    ) -> TrackFit:
        """Somebody's memory for a window anywhere: the sightings of the frames ``before`` it (None:
        not seen) and what ``memory`` holds of their shape, but no pose."""
        kept = self._recall(memory, track)
        row = without_pose(kept.memory)
        seen: list[Person | None] = [None] * max(CONTEXT - len(before), 0)
        seen += [None if one is None else replace(one, mask=None) for one in before[-CONTEXT:]]
        if any(one is not None for one in seen):
            sightings = LandmarkHistory.of(observe([seen], intrinsics, self.device, self.config))
            parts = zip(
                ("rays", "visible", "world_m", "sighted"),
                (sightings.rays, sightings.visible, sightings.world_m, sightings.known),
            )
            for name, values in parts:
                row[MEMORY.places[name]] = values.flatten()
        return TrackFit(row, False, kept.seconds)

    def _steps_of(self, job: FitJob) -> int:
        if job.event:
            return self.config.event_iterations
        known = all(self._recall(job.memory, track).known for track in job.tracks)
        return self.config.iterations if known else self.config.cold_iterations

    def _recall(self, memory: FitMemory, track: int) -> TrackFit:
        return memory.tracks.get(track) or TrackFit(self._new_memory)

    @staticmethod
    def _forget(job: FitJob) -> None:
        here = set(job.tracks)
        for track, kept in job.memory.tracks.items():
            if track not in here and kept.known:
                there = replace(kept, memory=without_pose(kept.memory), known=False)
                job.memory.tracks[track] = there

    def _solve(self, frames: int, steps: int, jobs: Sequence[FitJob]) -> Iterable[list[Bodies]]:
        """Everybody in windows of one kind, in batches of at most the largest bucket."""
        whole = [(job, track) for job in jobs for track in job.tracks]
        parts = [
            self._together(frames, steps, whole[k : k + BUCKETS[-1]])
            for k in range(0, len(whole), BUCKETS[-1])
        ]
        result = np.concatenate([part[0] for part in parts])
        vertices = np.concatenate([part[1] for part in parts])
        fit = self._fit(frames, steps)
        first = 0
        for job in jobs:
            rows = slice(first, first + len(job.tracks))
            yield _bodies(job, fit.result.split(result[rows]), vertices[rows])
            first = rows.stop

    def _together(
        self, frames: int, steps: int, people: Sequence[tuple[FitJob, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Results (P, ...) and meshes (P, T, V, 3) of these people; their memories are updated."""
        fit = self._fit(frames, steps)
        kept = [self._recall(job.memory, track) for job, track in people]
        watched = [
            k.seconds + frames * job.interval_s for k, (job, _) in zip(kept, people)
        ]  # fmt: skip
        memory = torch.stack([k.memory for k in kept])
        if self.device.type == "cuda":
            size = next(size for size in BUCKETS if size >= len(people))
            rows = self._written(fit, people, watched, size)
            step = self._step(frames, steps, size)
            result, vertices, memory = step(rows, filled(memory, size))
        else:
            rows = self._written(fit, people, watched, len(people))
            result, vertices, memory = fit(rows, memory)
        memory = memory[: len(people)].clone()
        result, vertices = to_host(result[: len(people)], vertices[: len(people)])
        if not np.isfinite(fit.result.split(result)["cost"]).all():
            raise FloatingPointError("the body fit did not stay finite")
        for (job, track), row, seconds in zip(people, memory, watched):
            job.memory.tracks[track] = TrackFit(row, True, seconds)
        return result, vertices

    def _written(
        self,
        fit: WindowFit,
        people: Sequence[tuple[FitJob, int]],
        watched: Sequence[float],
        size: int,
    ) -> Tensor:
        """What was seen of people, (size, seen.size), the first one again where they are fewer; in
        page-locked memory where that helps."""
        rows = torch.empty(size, fit.seen.size, pin_memory=self.device.type == "cuda")
        written = rows.numpy()
        inner = layout(fit.frames, fit.outlines).size
        for row, (job, track), seconds in zip(written, people, watched):
            seen = [[frame.get(track) for frame in job.people]]
            write_rows(seen, job.intrinsics, row[None, :inner], fit.outlines)
            row[fit.seen.places["interval_30hz"]] = 30.0 * job.interval_s
            row[fit.seen.places["shape_frozen"]] = seconds >= self.config.shape_seconds
        written[len(people) :] = written[0]
        return rows

    def _fit(self, frames: int, steps: int) -> WindowFit:
        kind = (frames, steps)
        if kind not in self._fits:
            self._fits[kind] = WindowFit(
                self.body, self.skeleton, self.lifter, self.config, frames, steps,
                outlines=self.device.type == "cuda",
                kernels=self._kernels,
            )  # fmt: skip
        return self._fits[kind]

    def _step(self, frames: int, steps: int, size: int) -> Graphed:
        kind = (frames, steps, size)
        if kind not in self._steps:
            fit = self._fit(frames, steps)
            seen = torch.from_numpy(example_row(fit)).to(self.device).expand(size, -1)
            memory = self._new_memory.expand(size, -1)
            # A clip's last frames are not worth the wait; single ones are low latency's.
            whole = frames in (1, WINDOW_FRAMES)
            self._steps[kind] = Graphed(fit, [seen, memory], enabled=self.graphs and whole)
        return self._steps[kind]


def example_row(fit: WindowFit) -> np.ndarray:
    """Observations (seen.size,) of somebody upright before the camera: harmless numbers to make
    ready with."""
    random = np.random.default_rng(0)
    frames = fit.frames
    image = random.uniform(-0.1, 0.1, (LANDMARKS, 2)) + [0, 0]
    image[:, 1] += np.linspace(-0.3, 0.3, LANDMARKS)
    parts = {
        "image": np.tile(image, (frames, 1, 1)),
        "visible": np.ones((frames, LANDMARKS)),
        "world_m": np.tile(np.c_[3 * image, np.zeros(LANDMARKS)], (frames, 1, 1)),
        "view": np.tile(np.eye(3), (frames, 1, 1)),
        "present": np.ones(frames),
        "size": np.full(frames, 0.6),
        "interval_30hz": np.ones(1),
        "world_known": np.ones(frames),
    }
    return fit.seen.row(**parts)


def to_host(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as arrays: all copies are queued, then waited for once."""
    coming = [AsyncCopy(tensor) for tensor in tensors]
    return [each.result() for each in coming]


def _bodies(job: FitJob, result: dict[str, np.ndarray], vertices: np.ndarray) -> list[Bodies]:
    """One window's results (P, ...) as Bodies of each frame."""
    tracks, out = job.tracks, []
    for t, people in enumerate(job.people):
        here = [p for p, track in enumerate(tracks) if track in people]
        # A fit seven deviations off its landmarks counts about a third.
        score = [
            people[tracks[p]].score * float(np.exp(-result["residual_mean"][p, t] / 50.0))
            for p in here
        ]
        turns = result["turns"][here, t]
        out.append(
            Bodies(
                np.array([tracks[p] for p in here], np.int64),
                np.array(score, np.float32),
                turns[:, 0],
                turns[:, 1:].reshape(len(here), 69),
                result["betas"][here],
                result["transl_m"][here, t],
                result["joints_m"][here, t],
                result["landmarks_m"][here, t],
                vertices[here, t],
            )
        )
    return out
