"""Fitting SMPL bodies to all people of a window, and what is remembered of them between windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton
from pipeline.body.model import BodyModel
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.people import Bodies, Person
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting.device_bodies import DeviceBodies, DeviceMeshes, MeshKeeper
from pipeline.fitting.lifter import CONTEXT, LandmarkHistory, Lifter
from pipeline.fitting.observations import layout, observe, write_rows
from pipeline.fitting.solver import FitConfig, Kernels
from pipeline.fitting.visibility import joint_visibility, picture_sizes
from pipeline.fitting.window_step import MEMORY, WindowFit, WindowParts, new_memory, without_pose
from pipeline.gpu.cuda_graphs import Graphed
from pipeline.gpu.transfer import AsyncCopy

BUCKETS = (1, 3, 12, 48)
"""Batch sizes on a GPU; smaller batches are padded to the next of them. A CUDA graph holds one
batch size, and capturing one takes seconds and memory, so there are few of them."""


class Kind(NamedTuple):
    """What windows that are fitted in one batch have in common.

    Attributes:
        frames: Frames in a window.
        steps: Solver steps.
        surface: How many points of an MHR body's skin their people bring; 0 for none.
    """

    frames: int
    steps: int
    surface: int = 0


@dataclass(frozen=True, eq=False)
class TrackFit:
    """What is remembered of one person between windows.

    Attributes:
        memory: (MEMORY.size,) float32, a row of `window_step.MEMORY`.
        known: Whether it holds the person's last pose.
        seconds: For how long the person has been observed.
    """

    memory: Tensor
    known: bool = False
    seconds: float = 0.0


@dataclass
class FitMemory:
    """What is remembered of one source's people. Pass the same one with every window of the source.

    Attributes:
        tracks: What is remembered of each person, by track id.
    """

    tracks: dict[int, TrackFit] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget every person, as at a cut."""
        self.tracks.clear()


@dataclass(frozen=True, eq=False)
class FitJob:
    """One source's window to fit.

    Attributes:
        people: For each of the T frames, the people by track id.
        intrinsics: (3, 3) the camera's K in pixels.
        memory: What is remembered of the source's people; `BodyFitter.fit_many` updates it.
        interval_s: Time between frames, in seconds.
        event: Whether the window surrounds an event; such a window has a step count of its own.
        size: The picture's height and width in pixels; None takes every joint as inside it.
    """

    people: Sequence[dict[int, Person]]
    intrinsics: np.ndarray
    memory: FitMemory
    interval_s: float = 1 / 30
    event: bool = False
    size: tuple[int, int] | None = None

    @cached_property
    def tracks(self) -> list[int]:
        """The track ids in any frame, rising."""
        return sorted(set().union(*self.people)) if self.people else []


class _Started(NamedTuple):
    """A batch of people whose fit was started.

    Attributes:
        people: The P people as jobs and track ids.
        result: The copy of the results (P, ...) to the host.
        vertices: (P, T, M, V, 3) the meshes on the device.
        memory: (P, MEMORY.size) what to remember of each.
        watched_s: For how long each has been observed.
        seen: (P, T, 33) the visibility of the landmarks.
    """

    people: Sequence[tuple[FitJob, int]]
    result: AsyncCopy
    vertices: Tensor
    memory: Tensor
    watched_s: Sequence[float]
    seen: np.ndarray


class _Sight(NamedTuple):
    """How P people were seen in T frames, apart from what the fit finds.

    Attributes:
        seen: (P, T, 33) the visibility of the landmarks.
        score: (P, T) the perceiver's score, 0 where absent.
        lenses: (P * T, 3, 3) each one's camera's K in pixels.
        sizes: (P * T, 2) as from `picture_sizes`.
    """

    seen: np.ndarray
    score: np.ndarray
    lenses: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, people: Sequence[tuple[FitJob, int]], seen: np.ndarray) -> _Sight:
        """Return that of people, given as jobs and track ids, with the landmarks' visibility."""
        score = [
            [frame[track].score if track in frame else 0.0 for frame in job.people]
            for job, track in people
        ]
        lenses = np.array([job.intrinsics for job, _ in people])
        sizes, frames = picture_sizes([job.size for job, _ in people]), seen.shape[1]
        return cls(seen, np.array(score), lenses.repeat(frames, 0), sizes.repeat(frames, 0))


class BodyFitter:
    """Fits bodies of one body model.

    It holds no state of any source, so one fitter serves them all; it belongs to one thread at a
    time. On a GPU each kind of full window (batch size and step count) is captured as a CUDA graph
    when it is first met, or by `warm_up`; shorter windows are only if `warm_up` was asked for them.

    Args:
        body: The body model; moved to ``device``.
        config: Weights and switches; None takes the defaults.
        device: Where to compute.
        graphs: Whether to capture CUDA graphs; without them every kernel is launched by itself.
        kernels: Whether to use the Triton kernels of `linearise_gpu` and `window_gpu` on a GPU and
            the loop of `contour_cpu` on a CPU in place of torch's.

    Attributes:
        config: Weights and switches.
        device: Where it computes.
        body: The body model, on ``device``.
        skeleton: The body model's tables for the solver.
        lifter: Corrects world landmarks.
        graphs: Whether CUDA graphs are captured: only on a GPU.
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
        self._parts: WindowParts | None = None
        if kernels and self.device.type == "cuda":
            # Imported here: a machine without a GPU need not have Triton.
            from pipeline.fitting.linearise_gpu import Linearizer
            from pipeline.fitting.window_gpu import WindowKernels

            self._kernels = Linearizer(self.skeleton, self.config)
            self._parts = WindowKernels(self.body, self.skeleton, self.lifter, self.config)
        elif kernels:
            # Imported here: a GPU does without.
            from pipeline.fitting.contour_cpu import ContourLoop

            self._kernels = ContourLoop(self.skeleton, self.config)
        self._new_memory = new_memory(self.config).to(self.device)[0]
        # On a GPU meshes stay there until the host reads them.
        self._keeper = MeshKeeper() if self.device.type == "cuda" else None
        # Ours take half a minute to compile for each number of frames, so a window that a stutter
        # of a feed cut short is fitted by torch's.
        self._compiled_for = {WINDOW_FRAMES}
        self._fits: dict[Kind, WindowFit] = {}
        self._steps: dict[tuple[Kind, int], Graphed] = {}

    def fit(
        self,
        people: Sequence[dict[int, Person]],
        intrinsics: np.ndarray,
        memory: FitMemory,
        interval_s: float = 1 / 30,
    ) -> list[Bodies]:
        """Fit one window of one source.

        Args:
            people: For each of the window's T frames, the people by track id.
            intrinsics: (3, 3) the camera's K in pixels, without skew.
            memory: What is remembered of the source; updated. Tracks that are in no frame lose
                their pose and keep their shape.
            interval_s: Time between frames, in seconds.

        Returns:
            T `Bodies`, each with the people of that frame by rising track id.

        Raises:
            FloatingPointError: A fit is not finite.
        """
        return self.fit_many([FitJob(people, intrinsics, memory, interval_s)])[0]

    @torch.inference_mode()
    def fit_many(self, jobs: Sequence[FitJob]) -> list[list[Bodies]]:
        """Fit one window of each of several sources, the people of like windows in one batch.

        Args:
            jobs: The windows; no two may share a memory.

        Returns:
            What `fit` returns, for each job.

        Raises:
            FloatingPointError: A fit is not finite.
        """
        groups: dict[Kind, list[int]] = {}
        for k, job in enumerate(jobs):
            self._forget_absent(job)
            if job.tracks:
                # A CUDA graph holds one kind of window, so only like windows share a batch.
                groups.setdefault(self._kind_of(job), []).append(k)
        out = [[] if job.tracks else [self.no_bodies() for _ in job.people] for job in jobs]
        before = [dict(job.memory.tracks) for job in jobs]
        try:
            for kind, members in groups.items():
                for k, bodies in zip(members, self._solve(kind, [jobs[k] for k in members])):
                    out[k] = bodies
        except BaseException:
            # A batch that fails may be tried again in parts, which must not follow on themselves.
            for job, tracks in zip(jobs, before):
                job.memory.tracks = tracks
            raise
        return out

    def warm_up(self, people: int, *, surface: bool = False, frames: int = WINDOW_FRAMES) -> None:
        """Capture the CUDA graphs of windows for up to ``people`` people; nothing on a CPU.

        On a GPU, windows of other numbers of frames than those that were warmed up are fitted
        without a graph and by torch's kernels, which takes several times as long.

        Args:
            people: The most people in a batch.
            surface: Whether they will bring an MHR body's skin (`Person.surface_m`).
            frames: How many frames a window has.
        """
        self._compiled_for.add(frames)
        if not self.graphs:
            return
        # A window without any skin has graphs of its own.
        kinds = {0, self._surface} if surface else {0}
        for size in BUCKETS:
            for steps in {self.config.iterations, self.config.cold_iterations}:
                for points in kinds:
                    self._step(Kind(frames, steps, points), size)
            # A batch of these people is padded to this size; larger graphs would be captured for
            # nothing.
            if size >= people:
                return

    def warm_up_events(self, *, surface: bool = False) -> None:
        """Capture the CUDA graph of one person's window around an event; nothing on a CPU."""
        if self.graphs:
            points = self._surface if surface else 0
            self._step(Kind(WINDOW_FRAMES, self.config.event_iterations, points), BUCKETS[0])

    def no_bodies(self) -> Bodies:
        """Return the bodies of a frame without people."""
        return Bodies.none(len(self.body.v_template))

    def memory_before(
        self,
        before: Sequence[Person | None],
        intrinsics: np.ndarray,
        memory: FitMemory,
        track: int,
        size: tuple[int, int] | None = None,
    ) -> TrackFit:
        """Return what to remember of a person for a window that is fitted out of turn.

        Args:
            before: The person in the frames before the window, None where not found; the last
                sixteen count.
            intrinsics: (3, 3) the camera's K in pixels.
            memory: What is remembered of the source; only the shape is taken from it.
            track: The person's track id.
            size: The picture's height and width in pixels; None takes everything as inside it.

        Returns:
            A memory with the shape and these landmarks, but without a pose.
        """
        remembered = self._track_fit(memory, track)
        # `without_pose` returns a copy, so the source's own memory stays as it is.
        row = without_pose(remembered.memory)
        people: list[Person | None] = [None] * max(CONTEXT - len(before), 0)
        # Only landmarks are remembered; without masks no edge map is made for nothing.
        people += [person and replace(person, mask=None) for person in before[-CONTEXT:]]
        if any(person is not None for person in people):
            seen = observe([people], intrinsics, self.device, self.config, size)
            history = LandmarkHistory.of(seen)
            parts = zip(
                ("rays", "visible", "world_m", "sighted"),
                (history.rays, history.visible, history.world_m, history.known),
            )
            for name, values in parts:
                row[MEMORY.places[name]] = values.flatten()
        return TrackFit(row, False, remembered.seconds)

    @property
    def kernels(self) -> Kernels | None:
        """What replaces the solver's functions, if anything."""
        return self._kernels

    @property
    def _surface(self) -> int:
        """How many points of the skin are compared where people bring them."""
        skin = self.skeleton.skin
        return 0 if skin is None or not self.config.use_surface else len(skin.mass)

    def _kind_of(self, job: FitJob) -> Kind:
        people = (person for frame in job.people for person in frame.values())
        known = any(person.surface_m is not None for person in people)
        return Kind(len(job.people), self._steps_of(job), self._surface if known else 0)

    def _steps_of(self, job: FitJob) -> int:
        """The solver steps for a job: few where the pose of everyone is known beforehand."""
        if job.event:
            return self.config.event_iterations
        known = all(
            self._track_fit(job.memory, track).known or self._brings_pose(job, track)
            for track in job.tracks
        )
        return self.config.iterations if known else self.config.cold_iterations

    def _brings_pose(self, job: FitJob, track: int) -> bool:
        """Whether the perceiver knows a person's joints in all frames of a job. Two steps from such
        a start reach what twelve reach (docs/design/fit.md)."""
        people = [frame[track] for frame in job.people if track in frame]
        return self._surface > 0 and all(
            person.surface_m is not None and person.start_rotations is not None for person in people
        )

    def _track_fit(self, memory: FitMemory, track: int) -> TrackFit:
        """What is remembered of a track, or a new memory."""
        return memory.tracks.get(track) or TrackFit(self._new_memory)

    @staticmethod
    def _forget_absent(job: FitJob) -> None:
        """Remove the poses of tracks that are in no frame of the job."""
        present = set(job.tracks)
        for track, fit in job.memory.tracks.items():
            # A pose from before a gap would be taken for that of the frame before the window.
            if track not in present and fit.known:
                shape_only = replace(fit, memory=without_pose(fit.memory), known=False)
                job.memory.tracks[track] = shape_only

    def _solve(self, kind: Kind, jobs: Sequence[FitJob]) -> Iterable[list[Bodies]]:
        """Yield the bodies of each job in turn; the jobs are of one kind and solved in batches."""
        people = [(job, track) for job in jobs for track in job.tracks]
        parts = [
            self._start(kind, people[k : k + BUCKETS[-1]])
            for k in range(0, len(people), BUCKETS[-1])
        ]
        # What needs no results is done while a GPU computes them.
        vertices = [part.vertices for part in parts]
        counts = [len(job.tracks) for job in jobs]
        together = torch.cat(vertices) if len(parts) > 1 else vertices[0]
        if self._keeper is not None:
            meshes: Sequence[np.ndarray | DeviceMeshes] = self._keeper.keep(together, counts)
        else:
            meshes = [part.numpy() for part in together.split(counts)]
        sight = _Sight.of(people, np.concatenate([part.seen for part in parts]))
        result = np.concatenate([self._finish(kind, part) for part in parts])
        values = self._fit(kind).result.split(result)
        values["visibility"], values["score"] = _certainty(sight, values)
        first = 0
        for job, mesh in zip(jobs, meshes):
            rows = slice(first, first + len(job.tracks))
            # Copied, or one source's bodies would keep those of all sources in memory.
            own = {name: value[rows].copy() for name, value in values.items()}
            if len(jobs) > 1 and isinstance(mesh, np.ndarray):
                mesh = mesh.copy()
            yield _bodies(job, own, mesh)
            first = rows.stop

    def _start(self, kind: Kind, people: Sequence[tuple[FitJob, int]]) -> _Started:
        """Start the fit of these people; a GPU need not be done when this returns."""
        fit = self._fit(kind)
        remembered = [self._track_fit(job.memory, track) for job, track in people]
        watched_s = [
            k.seconds + kind.frames * job.interval_s for k, (job, _) in zip(remembered, people)
        ]  # fmt: skip
        on_gpu = self.device.type == "cuda"
        size = next(b for b in BUCKETS if b >= len(people)) if on_gpu else len(people)
        rows = self._observed_rows(fit, people, watched_s, size)
        # People of several sources share the batch, so their memories are rows of one tensor here.
        # Rows beyond the people repeat the first one, as in the observations.
        before = [k.memory for k in remembered]
        before += before[:1] * (size - len(people))
        # One person's is a view: stacking it would be a launch.
        memory = torch.stack(before) if size > 1 else before[0][None]
        step = self._step(kind, size) if on_gpu else fit
        result, vertices, memory = step(rows, memory)
        copy = AsyncCopy(result[: len(people)])
        # A graph's outputs are overwritten by its next replay; what is kept is copied out.
        memory, vertices = memory[: len(people)].clone(), vertices[: len(people)].clone()
        seen = rows.numpy()[: len(people), fit.inputs.places["visible"]].copy()
        seen = seen.reshape(len(people), kind.frames, LANDMARKS)
        return _Started(people, copy, vertices, memory, watched_s, seen)

    def _finish(self, kind: Kind, started: _Started) -> np.ndarray:
        """Wait for a fit and return its results (P, ...); the people's memories are updated."""
        result = started.result.result()
        if not np.isfinite(result[:, self._fit(kind).result.places["cost"]]).all():
            raise FloatingPointError("the body fit did not stay finite")
        # Stored after the check, so that a failed fit does not become the next window's past.
        remembered = zip(started.people, started.memory.unbind(), started.watched_s)
        for (job, track), row, seconds in remembered:
            job.memory.tracks[track] = TrackFit(row, True, seconds)
        return result

    def _observed_rows(
        self,
        fit: WindowFit,
        people: Sequence[tuple[FitJob, int]],
        watched_s: Sequence[float],
        size: int,
    ) -> Tensor:
        """The people's observations (size, inputs.size) in host memory.

        Written in page-locked memory for a GPU, which copies from it without waiting. Rows beyond
        the people repeat the first one: real numbers keep the unused fits finite.
        """
        # Not zeroed: the observations and the two numbers of the window cover every column.
        rows = torch.empty(size, fit.inputs.size, pin_memory=self.device.type == "cuda")
        written = rows.numpy()[: len(people)]
        inner = layout(fit.frames, fit.outlines, fit.surface).size
        write_rows(
            [[frame.get(track) for frame in job.people] for job, track in people],
            np.array([job.intrinsics for job, _ in people]),
            picture_sizes([job.size for job, _ in people]),
            written[:, :inner],
            fit.outlines,
            fit.surface,
        )
        intervals_s = np.array([job.interval_s for job, _ in people])
        written[:, fit.inputs.places["interval_30hz"]] = 30.0 * intervals_s[:, None]
        frozen = np.array(watched_s) >= self.config.shape_seconds
        written[:, fit.inputs.places["shape_frozen"]] = frozen[:, None]
        rows.numpy()[len(people) :] = written[0]
        return rows

    def _fit(self, kind: Kind) -> WindowFit:
        """The `WindowFit` of one kind of window, made once."""
        if kind not in self._fits:
            on_gpu = self.device.type == "cuda"
            own = not on_gpu or kind.frames in self._compiled_for
            self._fits[kind] = WindowFit(
                self.body, self.skeleton, self.lifter, self.config, kind.frames, kind.steps,
                # A GPU makes the edge maps itself from outlines, which are a third of the numbers
                # to copy.
                outlines=on_gpu,
                kernels=self._kernels if own else None,
                surface=kind.surface,
                parts=self._parts if own else None,
            )  # fmt: skip
        return self._fits[kind]

    def _step(self, kind: Kind, size: int) -> Graphed:
        """The CUDA graph of one kind of window and batch size, captured once."""
        if (kind, size) not in self._steps:
            fit = self._fit(kind)
            rows = torch.from_numpy(example_row(fit)).to(self.device).expand(size, -1)
            memory = self._new_memory.expand(size, -1)
            # Shorter windows end a clip, precede a cut or follow a stutter; they are too rare to be
            # worth a capture, but with low latency.
            graphs = self.graphs and kind.frames in self._compiled_for
            if graphs:
                _compile(fit, rows, memory)
            self._steps[kind, size] = Graphed(fit, [rows, memory], enabled=graphs)
        return self._steps[kind, size]


@torch.inference_mode()
def _compile(fit: WindowFit, rows: Tensor, memory: Tensor) -> None:
    """Compile a fit's kernels side by side; the capture would compile one after another."""
    from triton_launch import compiled_together

    with compiled_together():
        fit(rows, memory)


def example_row(fit: WindowFit) -> np.ndarray:
    """Return observations (inputs.size,) of an upright person before the camera, for warm-up."""
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
    if fit.surface:
        parts["start_rotations"] = np.tile(np.eye(3), (frames, JOINTS, 1, 1))
    return fit.inputs.row(**parts)


def _certainty(sight: _Sight, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Joint visibility (P, T, 24) and scores (P, T) float32 of fitted people; 0 where absent.

    ``values`` are the fit's results.
    """
    people, frames = sight.seen.shape[:2]
    right, score = certainty(
        sight.seen.reshape(-1, LANDMARKS),
        sight.score.reshape(-1),
        values["joints_m"].reshape(-1, JOINTS, 3),
        sight.lenses,
        sight.sizes,
        values["residual_mean"].reshape(-1),
    )
    return right.reshape(people, frames, JOINTS), score.reshape(people, frames)


def certainty(
    seen: np.ndarray,
    score: np.ndarray,
    joints_m: np.ndarray,
    lenses: np.ndarray,
    sizes: np.ndarray,
    residual_mean: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return joint visibility (N, 24) and scores (N,) float32 of N fitted bodies.

    Args:
        seen: (N, 33) the landmarks' visibility.
        score: (N,) the perceiver's scores.
        joints_m: (N, 24, 3) metres.
        lenses: (N, 3, 3) each one's camera's K in pixels.
        sizes: (N, 2) as from `picture_sizes`.
        residual_mean: (N,) as `solver.Solution.residual_mean`.
    """
    right, mean = joint_visibility(seen, joints_m, lenses, sizes)
    # A fit that is seven standard deviations off its landmarks (49 squared) keeps about 0.37 of
    # what its joints and the perceiver's score promise.
    return right, (score * mean * np.exp(-residual_mean / 50.0)).astype(np.float32)


def _bodies(
    job: FitJob, values: dict[str, np.ndarray], vertices: np.ndarray | DeviceMeshes
) -> list[Bodies]:
    """One window's values, arrays of (P, ...), as the `Bodies` of each frame."""
    kind: type[Any] = DeviceBodies if isinstance(vertices, DeviceMeshes) else Bodies
    tracks, out = np.array(job.tracks, np.int64), []
    for t, people in enumerate(job.people):
        here: Any = [p for p, track in enumerate(job.tracks) if track in people]
        # The usual case: a part of the arrays, without copies.
        here = slice(None) if len(here) == len(tracks) else here
        turns = values["turns"][here, t]
        out.append(
            kind(
                tracks[here],
                values["score"][here, t],
                turns[:, 0],
                turns[:, 1:].reshape(-1, 69),
                values["betas"][here],
                values["transl_m"][here, t],
                values["joints_m"][here, t],
                values["landmarks_m"][here, t],
                vertices[here, t, 0],
                values["visibility"][here, t],
                # The last mesh is the one to draw; without a mannequin it is the only one.
                vertices[here, t, -1],
                values["surface_error_m"][here, t] if "surface_error_m" in values else None,
            )
        )
    return out
