"""The plan's rows: SAM or FastSAM, depth, fit and drawing, one step of the plan after another.

Whom the networks are asked about is found beforehand, by the default perceiver, so that every row
has the same people: their boxes prompt SAM and choose FastSAM's instances, their landmarks are what
the fit sees. With weights of their own the masks go to the fit too. With random weights they are
made, brought to the host and left there: the times stand, the masks are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.bench.plan_nets import Maker, Sizes, make_depth, make_segmenter
from app.bench.roofline import Work
from app.bench.rows import Settings
from app.bench.subject import ALPHA, Finished, colors_of, rounding
from app.bench.timers import Timer
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from pipeline.fitting.solver import FitConfig
from pipeline.gpu.transfer import AsyncCopy, upload
from pipeline.perception.ultralytics_models.segment import MASK_SIDE, looks, mask_of
from render.overlay import make_renderer

People = dict[int, Person]
"""Those in a frame, by track."""


@dataclass(frozen=True)
class Look:
    """A person in a frame: the window, the frame in it, and the track."""

    window: int
    frame: int
    track: int


@dataclass(frozen=True, eq=False)
class _Results:
    """What the networks said, on its way: a mask for each of ``masked``, a depth for each of
    ``measured``."""

    masked: list[Look]
    measured: list[Look]
    coming: AsyncCopy | None

    def masks(self) -> dict[Look, np.ndarray]:
        """Wait for them."""
        if self.coming is None:
            return {}
        values = self.coming.result()[: len(self.masked) * MASK_SIDE**2]
        return dict(zip(self.masked, values.reshape(-1, MASK_SIDE, MASK_SIDE)))


class PlanPipeline:
    """A row of the plan. ``people_of`` says who is in a frame (`plan_people`); set it before the
    first window. Raises WeightsError, ValueError, RuntimeError."""

    depth = 1

    def __init__(self, settings: Settings) -> None:
        plan = settings.plan
        if plan is None:
            raise ValueError("these settings are of no row of the plan")
        self.plan, self.at_once = plan, plan.sources
        self._device = torch.device(settings.device)
        each = settings.people
        frames = plan.sources if plan.reuse else plan.batch
        # FastSAM's instances of the key frame are chosen once a window, SAM's mask anew a frame.
        self._moved = plan.reuse and plan.segment.startswith("fastsam")
        masks = each * (plan.sources * WINDOW_FRAMES if plan.reuse else plan.batch)
        depths = plan.sources if plan.reuse_depth else plan.batch
        make = Maker(settings, plan)
        sizes = Sizes(frames, masks, depths)
        self._segmenter = make_segmenter(make, sizes)
        self._meter = make_depth(make, sizes)
        real = self._segmenter.real and self._meter.real
        self.weights: Literal["real", "random"] = "real" if real else "random"
        graphs = plan.warm and settings.graphs
        config = FitConfig(iterations=plan.steps, cold_iterations=plan.steps)
        # The plan's TF32 is for the networks: a solve would lose its last digits to it.
        with rounding(False):
            self._fitter = BodyFitter(
                load_body(None), config, self._device, graphs, kernels=plan.warm
            )
            self._fitter.warm_up(each * plan.sources)
        self._renderer = make_renderer(settings.renderer)
        self.people_of: Callable[[Frame], People] = _nobody
        self.last: list[list[tuple[Frame, Bodies]]] = []
        """The bodies of the last windows."""
        self.work = self._work(each, make.work)
        fit = f"{plan.steps} steps, {'warm' if plan.warm else 'cold'}"
        fit += ", kernels of its own, CUDA graphs" if self._fitter.graphs else ", kernel by kernel"
        words = (*make.reports, f"fit: {fit}", f"drawn by {self._renderer.name}")
        self.engine = "; ".join(words)

    def begin(self) -> FitMemory:
        return FitMemory()

    def submit(
        self, windows: Sequence[Window], states: Sequence[FitMemory], timer: Timer
    ) -> tuple[Timer, list[Any]]:
        people = [[self.people_of(frame) for frame in window.frames] for window in windows]
        with timer("upload"):
            windows = [upload(window, self._device) for window in windows]
            seen = self._looks(windows, people)
        results = self._perceive(windows, people, seen, timer)
        with timer("fit"):
            found = results.masks()
            if self._segmenter.real:
                people = self._masked(people, found)
            with rounding(False):
                self.last = self._fit(windows, people, states)
        with timer("draw"):
            return timer, [self._draw(fitted) for fitted in self.last]

    def collect(self, ticket: tuple[Timer, list[Any]]) -> list[Finished]:
        timer, drawn = ticket
        with timer("download"):
            pictures = [d if isinstance(d, list) else d.pictures() for d in drawn]
        most = [max(len(bodies) for _, bodies in fitted) for fitted in self.last]
        return [Finished(*each) for each in zip(pictures, most)]

    @torch.inference_mode()
    def embed(self, window: Window) -> None:
        """A window's key frame through the segmenter's image network, and no more."""
        frame = upload(window, self._device).key_frame
        self._segmenter.embed(frame.on_device[None])

    def close(self) -> None:
        self._renderer.close()

    # Whom the networks are asked about, and in which batches.

    def _looks(
        self, windows: Sequence[Window], people: Sequence[Sequence[People]]
    ) -> dict[Look, Tensor]:
        """The row of `looks` on the device for everybody in the windows."""
        who = [
            Look(w, t, track)
            for w, window in enumerate(people)
            for t, frame in enumerate(window)
            for track in frame
        ]
        if not who:
            return {}
        height, width = windows[0].key_frame.size
        rows = torch.from_numpy(
            looks(
                [people[look.window][look.frame][look.track] for look in who],
                self._segmenter.letterbox(height, width),
                self._meter.letterbox(height, width),
            )
        )
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return dict(zip(who, rows.to(self._device, non_blocking=True)))

    @staticmethod
    def _one_each(windows: Sequence[Window], seen: dict[Look, Tensor]) -> list[Look]:
        """Everybody once a window: in its key frame, or where they are first seen."""
        chosen: dict[tuple[int, int], Look] = {}
        for look in seen:
            who = (look.window, look.track)
            if who not in chosen or look.frame == windows[look.window].key:
                chosen[who] = look
        return list(chosen.values())

    def _perceive(
        self,
        windows: Sequence[Window],
        people: Sequence[Sequence[People]],
        seen: dict[Look, Tensor],
        timer: Timer,
    ) -> _Results:
        plan, every = self.plan, list(seen)
        once = self._one_each(windows, seen)
        keys = [(w, window.key) for w, window in enumerate(windows)]
        all_frames = [(w, t) for w, window in enumerate(windows) for t in range(len(window.frames))]
        steps: list[tuple[str, list[tuple[int, int]], list[Look]]] = []
        parts = [all_frames[k : k + plan.batch] for k in range(0, len(all_frames), plan.batch)]
        if plan.reuse:
            steps.append(("segment", keys, once if self._moved else every))
        if plan.reuse_depth:
            steps.append(("depth", keys, once))
        for part in parts:
            here = [look for look in every if (look.window, look.frame) in part]
            steps += [("segment", part, here)] if not plan.reuse else []
            steps += [("depth", part, here)] if not plan.reuse_depth else []
        done: dict[str, list[Look]] = {"segment": [], "depth": []}
        out: dict[str, list[Tensor]] = {"segment": [], "depth": []}
        for stage, frames, wanted in steps:
            with timer(stage):
                out[stage] += self._step(stage, windows, frames, wanted, seen)
            done[stage] += wanted
        with timer("download"):
            values = [t.flatten() for t in (*out["segment"], *out["depth"])]
            coming = AsyncCopy(torch.cat(values)) if values else None
        return _Results(done["segment"], done["depth"], coming)

    @torch.inference_mode()
    def _step(
        self,
        stage: str,
        windows: Sequence[Window],
        frames: Sequence[tuple[int, int]],
        wanted: Sequence[Look],
        seen: dict[Look, Tensor],
    ) -> list[Tensor]:
        """One batch of frames through one network: a tensor for those wanted, none for nobody."""
        images = torch.stack([windows[w].frames[t].on_device for w, t in frames])
        found = self._segmenter.embed(images) if stage == "segment" else None
        if not wanted:
            return []
        rows = torch.stack([seen[look] for look in wanted])
        picture = self._pictures(frames, wanted)
        if stage == "segment":
            made = self._segmenter.masks(found, rows, picture)  # type: ignore[arg-type]
        else:
            made = self._meter(images, rows, picture)
        # The next batch's may come in the same memory.
        return [made.clone()]

    def _pictures(self, frames: Sequence[tuple[int, int]], wanted: Sequence[Look]) -> Tensor:
        """Which of the frames each look is at; at the only one of its window where there is but
        one."""
        place = {frame: k for k, frame in enumerate(frames)}
        first = {w: k for k, (w, _) in reversed(list(enumerate(frames)))}
        numbers = [place.get((look.window, look.frame), first[look.window]) for look in wanted]
        there = torch.tensor(numbers)
        if self._device.type == "cuda":
            there = there.pin_memory()
        return there.to(self._device, non_blocking=True)

    # What is made of it.

    def _masked(
        self,
        people: Sequence[Sequence[People]],
        found: dict[Look, np.ndarray],
    ) -> list[list[People]]:
        """The people with the masks that were found; one of the key frame moves with the box."""
        once = {(look.window, look.track): values for look, values in found.items()}
        out: list[list[People]] = []
        for w, window in enumerate(people):
            out.append([])
            for t, frame in enumerate(window):
                out[w].append({})
                for track, person in frame.items():
                    values = found.get(Look(w, t, track), once.get((w, track)))
                    assert values is not None, "everybody was looked at"
                    out[w][t][track] = replace(person, mask=mask_of(values, person))
        return out

    def _fit(
        self,
        windows: Sequence[Window],
        people: Sequence[Sequence[People]],
        states: Sequence[FitMemory],
    ) -> list[list[tuple[Frame, Bodies]]]:
        jobs = []
        for window, those, state in zip(windows, people, states):
            if not self.plan.warm:
                state.clear()
            jobs.append(FitJob(those, default_intrinsics(*window.key_frame.size), state))
        fitted = self._fitter.fit_many(jobs)
        return [list(zip(window.frames, bodies)) for window, bodies in zip(windows, fitted)]

    def _draw(self, fitted: Sequence[tuple[Frame, Bodies]]) -> Any:
        """Pictures, or what can be asked for them."""
        faces = self._fitter.body.faces
        lens = default_intrinsics(*fitted[0][0].size)
        queue = getattr(self._renderer, "queue", None)
        if queue is not None:
            return queue(
                [frame.on_device for frame, _ in fitted],
                [bodies.vertices_m for _, bodies in fitted],
                faces, [colors_of(bodies) for _, bodies in fitted], lens, ALPHA,
            )  # fmt: skip
        return [
            self._renderer.draw(
                frame.image, bodies.vertices_m, faces, colors_of(bodies), lens, ALPHA
            )
            for frame, bodies in fitted
        ]

    def _work(self, people: int, work: dict[str, Work]) -> dict[str, Work]:
        """The least work for a window of what is the plan's own."""
        plan = self.plan
        frames = 1 if plan.reuse else WINDOW_FRAMES
        masks = people * (1 if self._moved else WINDOW_FRAMES)
        depths = 1 if plan.reuse_depth else WINDOW_FRAMES
        out = {
            "segment": _times(work["embed"], frames) + _times(work["mask"], masks),
            "depth": _times(work["depth"], depths),
        }
        if not hasattr(self._renderer, "queue"):
            # Drawn on the host, where the frames are: of them nothing comes back.
            back = 4.0 * (masks * MASK_SIDE**2 + people * depths)
            out |= {"draw": Work(), "download": Work(down_bytes=back)}
        return out


def _times(work: Work, count: int) -> Work:
    """The operations of ``count``; the weights, nearly all of the bytes, are read once."""
    return replace(work, operations=count * work.operations)


def _nobody(frame: Frame) -> People:
    raise RuntimeError("nobody said who is in the frames")
