"""The plan's rows: SAM or FastSAM, depth, fit and drawing, one step of docs/results/plan.md after
another.

The default perceiver finds the people beforehand, so that every row has the same ones: their boxes
prompt SAM and select FastSAM's instances, and their landmarks go to the fit. Networks with their
real weights also give their masks to the fit. With random weights the masks are computed and copied
to the host, but not used: the times are right, the masks are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.bench.plan_nets import Maker, Sizes, make_depth, make_segmenter
from app.bench.roofline import Work
from app.bench.rows import Settings
from app.bench.subject import ALPHA, Finished, copy_back, rounding, scene_of
from app.bench.timers import Timer
from app.body_renderer import colors_of, drawn_mesh
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from pipeline.fitting.solver import FitConfig
from pipeline.gpu.transfer import AsyncCopy, upload
from pipeline.perception.ultralytics_models.segment import MASK_SIDE, looks, mask_of
from pipeline.runtime.estimator import FittedWindow
from render.overlay import make_renderer

People = dict[int, Person]
"""The people of a frame by track."""


@dataclass(frozen=True)
class Look:
    """A person in a frame: the number of the window, of the frame in it, and the track."""

    window: int
    frame: int
    track: int


@dataclass(frozen=True, eq=False)
class _Results:
    """The networks' results, while they are copied to the host: a mask for each of ``masked``, a
    depth for each of ``measured``."""

    masked: list[Look]
    measured: list[Look]
    coming: AsyncCopy | None

    def masks(self) -> dict[Look, np.ndarray]:
        """Wait for the copy and return the masks."""
        if self.coming is None:
            return {}
        values = self.coming.result()[: len(self.masked) * MASK_SIDE**2]
        return dict(zip(self.masked, values.reshape(-1, MASK_SIDE, MASK_SIDE)))


class PlanPipeline:
    """The pipeline of a row of the plan.

    Set ``people_of``, which returns a frame's people (`plan_people`), before the first window.

    Args:
        settings: The row's settings, with a plan.

    Raises:
        WeightsError: A model file is wrong.
        ValueError: The settings have no plan, or a setting does not fit.
        RuntimeError: The engine or the renderer is not available.
    """

    depth = 1

    def __init__(self, settings: Settings) -> None:
        plan = settings.plan
        if plan is None:
            raise ValueError("these settings are of no row of the plan")
        self.plan, self.at_once, self._planes = plan, plan.sources, settings.planes
        self._device = torch.device(settings.device)
        most_people = settings.people
        frames = plan.sources if plan.reuse else plan.batch
        # FastSAM's instances are selected once for a window, in its key frame; SAM's decoder makes
        # a new mask for every frame.
        self._moved = plan.reuse and plan.segment.startswith("fastsam")
        masks = most_people * (plan.sources * WINDOW_FRAMES if plan.reuse else plan.batch)
        depths = plan.sources if plan.reuse_depth else plan.batch
        make = Maker(settings, plan)
        sizes = Sizes(frames, masks, depths)
        self._segmenter = make_segmenter(make, sizes)
        self._meter = make_depth(make, sizes)
        real = self._segmenter.real and self._meter.real
        self.weights: Literal["real", "random"] = "real" if real else "random"
        graphs = plan.warm and settings.graphs
        config = FitConfig(iterations=plan.steps, cold_iterations=plan.steps)
        # TF32 is for the networks only: the solver needs all digits of FP32.
        with rounding(False):
            self._fitter = BodyFitter(
                load_body(None), config, self._device, graphs, kernels=plan.warm
            )
            self._fitter.warm_up(most_people * plan.sources)
        self._renderer = make_renderer(settings.renderer)
        self.people_of: Callable[[Frame], People] = _nobody
        self.last: list[list[tuple[Frame, Bodies]]] = []
        """The bodies of the last windows."""
        self.work = self._work(most_people, make.work)
        fit = f"{plan.steps} steps, {'warm' if plan.warm else 'cold'}"
        fit += ", kernels of its own, CUDA graphs" if self._fitter.graphs else ", kernel by kernel"
        words = (*make.reports, f"fit: {fit}", f"drawn by {self._renderer.name}")
        self.engine = "; ".join(words)

    def warm_up(self, sources: int) -> None:
        """Do nothing: all was captured for the row's sources when it was made."""

    def begin(self) -> FitMemory:
        return FitMemory()

    def submit(
        self, windows: Sequence[Window], states: Sequence[FitMemory], timer: Timer
    ) -> tuple[Timer, list[Any]]:
        people = [[self.people_of(frame) for frame in window.frames] for window in windows]
        with timer("upload"):
            windows = [upload(window, self._device) for window in windows]
        results = self._perceive(windows, people, timer)
        with timer("fit"):
            found = results.masks()
            # Random weights give noise, which must not reach the fit.
            if self._segmenter.real:
                people = self._masked(people, found)
            with rounding(False):
                self.last = self._fit(windows, people, states)
        with timer("draw"):
            return timer, self._draw(self.last)

    def collect(self, ticket: tuple[Timer, list[Any]]) -> list[Finished]:
        timer, drawn = ticket
        with timer("download"):
            pictures = [d if isinstance(d, list) else copy_back(d, self._planes)() for d in drawn]
        most = [max(len(bodies) for _, bodies in fitted) for fitted in self.last]
        return [Finished(*item) for item in zip(pictures, most)]

    @torch.inference_mode()
    def embed(self, window: Window) -> None:
        """Run only the segmenter's image network, on a window's key frame."""
        frame = upload(window, self._device).key_frame
        self._segmenter.embed(frame.on_device[None])

    def close(self) -> None:
        self._renderer.close()

    # The people that the networks segment and measure, and the batches.

    def _prompts(
        self,
        windows: Sequence[Window],
        people: Sequence[Sequence[People]],
        every: Sequence[Look],
    ) -> dict[Look, Tensor]:
        """Return the row of `looks`, on the device, for each of some people."""
        height, width = windows[0].key_frame.size
        rows = torch.from_numpy(
            looks(
                [people[look.window][look.frame][look.track] for look in every],
                self._segmenter.letterbox(height, width),
                self._meter.letterbox(height, width),
            )
        )
        if self._device.type == "cuda":
            # Page-locked, so that the copy does not stop the host.
            rows = rows.pin_memory()
        return dict(zip(every, rows.to(self._device, non_blocking=True)))

    @staticmethod
    def _once_per_window(windows: Sequence[Window], every: Sequence[Look]) -> list[Look]:
        """Return every person once per window: in its key frame, or in their first frame."""
        chosen: dict[tuple[int, int], Look] = {}
        for look in every:
            person = (look.window, look.track)
            if person not in chosen or look.frame == windows[look.window].key:
                chosen[person] = look
        return list(chosen.values())

    def _perceive(
        self,
        windows: Sequence[Window],
        people: Sequence[Sequence[People]],
        timer: Timer,
    ) -> _Results:
        """Run the networks batch by batch and start copying their results to the host."""
        plan = self.plan
        every = [
            Look(w, t, track)
            for w, window in enumerate(people)
            for t, frame in enumerate(window)
            for track in frame
        ]
        # Made once, while a GPU computes the first batch.
        prompts = cache(lambda: self._prompts(windows, people, every))
        once = self._once_per_window(windows, every)
        keys = [(w, window.key) for w, window in enumerate(windows)]
        all_frames = [(w, t) for w, window in enumerate(windows) for t in range(len(window.frames))]
        steps: list[tuple[str, list[tuple[int, int]], list[Look]]] = []
        parts = [all_frames[k : k + plan.batch] for k in range(0, len(all_frames), plan.batch)]
        if plan.reuse:
            steps.append(("segment", keys, once if self._moved else every))
        if plan.reuse_depth:
            steps.append(("depth", keys, once))
        for part in parts:
            in_part = [look for look in every if (look.window, look.frame) in part]
            steps += [("segment", part, in_part)] if not plan.reuse else []
            steps += [("depth", part, in_part)] if not plan.reuse_depth else []
        done: dict[str, list[Look]] = {"segment": [], "depth": []}
        out: dict[str, list[Tensor]] = {"segment": [], "depth": []}
        for stage, frames, targets in steps:
            with timer(stage):
                out[stage] += self._step(stage, windows, frames, targets, prompts)
            done[stage] += targets
        with timer("download"):
            # One copy for all results, not one for each.
            values = [t.flatten() for t in (*out["segment"], *out["depth"])]
            coming = AsyncCopy(torch.cat(values)) if values else None
        return _Results(done["segment"], done["depth"], coming)

    @torch.inference_mode()
    def _step(
        self,
        stage: str,
        windows: Sequence[Window],
        frames: Sequence[tuple[int, int]],
        targets: Sequence[Look],
        prompts: Callable[[], dict[Look, Tensor]],
    ) -> list[Tensor]:
        """Run one batch of frames through one network; return one tensor for all targets, or no
        tensor without targets."""
        images = torch.stack([windows[w].frames[t].on_device for w, t in frames])
        embedding = self._segmenter.embed(images) if stage == "segment" else None
        # The image network has run: its time counts also where no person is in the batch.
        if not targets:
            return []
        found = prompts()
        rows = torch.stack([found[look] for look in targets])
        picture = self._pictures(frames, targets)
        if stage == "segment":
            out = self._segmenter.masks(embedding, rows, picture)  # type: ignore[arg-type]
        else:
            out = self._meter(images, rows, picture)
        # Copied: an engine with CUDA graphs writes the next batch's result to the same memory.
        return [out.clone()]

    def _pictures(self, frames: Sequence[tuple[int, int]], targets: Sequence[Look]) -> Tensor:
        """Return the index in ``frames`` of each target's frame; the window's first frame in the
        batch if its own is not in it."""
        place = {frame: k for k, frame in enumerate(frames)}
        first = {w: k for k, (w, _) in reversed(list(enumerate(frames)))}
        numbers = [place.get((look.window, look.frame), first[look.window]) for look in targets]
        indices = torch.tensor(numbers)
        if self._device.type == "cuda":
            indices = indices.pin_memory()
        return indices.to(self._device, non_blocking=True)

    # The fit and the drawing.

    def _masked(
        self,
        people: Sequence[Sequence[People]],
        found: dict[Look, np.ndarray],
    ) -> list[list[People]]:
        """Return the people with their new masks; a key frame's mask moves with the person's
        box."""
        once = {(look.window, look.track): values for look, values in found.items()}
        out: list[list[People]] = []
        for w, window in enumerate(people):
            out.append([])
            for t, frame in enumerate(window):
                out[w].append({})
                for track, person in frame.items():
                    values = found.get(Look(w, t, track), once.get((w, track)))
                    assert values is not None, "every person has a mask"
                    out[w][t][track] = replace(person, mask=mask_of(values, person))
        return out

    def _fit(
        self,
        windows: Sequence[Window],
        people: Sequence[Sequence[People]],
        states: Sequence[FitMemory],
    ) -> list[list[tuple[Frame, Bodies]]]:
        jobs = []
        for window, window_people, state in zip(windows, people, states):
            if not self.plan.warm:
                # A cold fit starts anew in each window, as the plan's first rows do.
                state.clear()
            jobs.append(FitJob(window_people, default_intrinsics(*window.key_frame.size), state))
        fitted = self._fitter.fit_many(jobs)
        return [list(zip(window.frames, bodies)) for window, bodies in zip(windows, fitted)]

    def _draw(self, windows: Sequence[FittedWindow]) -> list[Any]:
        """Return pictures of each window, or an object whose ``pictures`` waits for them."""
        faces = self._fitter.body.faces
        cameras = [default_intrinsics(*window[0][0].size) for window in windows]
        # The GPU's renderer draws without waiting; the others return finished pictures.
        queue = getattr(self._renderer, "queue", None)
        if queue is not None:
            scenes = [scene_of(window, lens) for window, lens in zip(windows, cameras)]
            return queue(scenes, faces, ALPHA)
        return [
            [
                self._renderer.draw(
                    frame.image, drawn_mesh(bodies), faces, colors_of(bodies), lens, ALPHA
                )
                for frame, bodies in window
            ]
            for window, lens in zip(windows, cameras)
        ]

    def _work(self, people: int, work: dict[str, Work]) -> dict[str, Work]:
        """Return the least work for a window, of the stages that only the plan has."""
        plan = self.plan
        frames = 1 if plan.reuse else WINDOW_FRAMES
        masks = people * (1 if self._moved else WINDOW_FRAMES)
        depths = 1 if plan.reuse_depth else WINDOW_FRAMES
        out = {
            "segment": _times(work["embed"], frames) + _times(work["mask"], masks),
            "depth": _times(work["depth"], depths),
        }
        if not hasattr(self._renderer, "queue"):
            # Drawn on the host, where the frames are: no pictures are copied back.
            back = 4.0 * (masks * MASK_SIDE**2 + people * depths)
            out |= {"draw": Work(), "download": Work(down_bytes=back)}
        return out


def _times(work: Work, count: int) -> Work:
    """Return the work of ``count`` runs. The bytes stay: nearly all are weights, read once."""
    return replace(work, operations=count * work.operations)


def _nobody(frame: Frame) -> People:
    raise RuntimeError("people_of was not set: the people in the frames are unknown")
