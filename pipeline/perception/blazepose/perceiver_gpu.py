"""BlazePose on a GPU: the same plans as on a CPU, their queries answered in batches.

All queries that are pending at the same time, for all people, frames and sources, are cropped in
one launch, go through each network in one batch and come back in one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.gpu.engine import Engine, make_engines
from pipeline.gpu.transfer import AsyncCopy, upload
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.perception.blazepose import detector, landmarks, person_detector
from pipeline.perception.blazepose.example import example_image
from pipeline.perception.blazepose.followed import with_scores
from pipeline.perception.blazepose.landmarks_torch import (
    LandmarkNet,
    presences_of_rows,
    readings_of_rows,
)
from pipeline.perception.blazepose.perceiver import BlazePose, Memory, distinct
from pipeline.perception.blazepose.person_detector_torch import PersonDetectorNet
from pipeline.perception.blazepose.queries import (
    DetectionQuery,
    LandmarkQuery,
    PersonRoi,
    Plan,
    Query,
    ask_later,
    counted,
    gather,
    run_plan,
)
from pipeline.perception.blazepose.resample import (
    Sampling,
    crop,
    painted_over,
    sample_letterbox,
    sample_roi,
    sample_stretched,
    sampled,
)
from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.tflite import Graph, read_graph
from pipeline.perception.blazepose.tflite_torch import GraphModule

BUCKETS = (1, 4, 8, 16)
"""Batch sizes that the networks are compiled for; others are padded to the next one. A person's
window has four queries, and up to eight that follow from their answers."""
_FEWER_BUCKETS = (1, 4, 16)
"""Those of engines that take half a minute to build for each."""


def example_view(side: int, low: float) -> Tensor:
    """Return the example (1, 3, side, side) float32, in which black is ``low`` and white 1."""
    image = np.asarray(cv2.resize(example_image(), (side, side), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(image).permute(2, 0, 1)[None] * ((1 - low) / 255) + low


class DetectorNet(nn.Module):
    """Network from letterboxed images (B, 3, 224, 224) in [-1, 1] to (B, 2254, 13).

    A row is the 12 numbers of a box and its score, as `detector.decode_boxes` takes them.
    """

    def __init__(self, graph: Graph, net: Any = None) -> None:
        super().__init__()
        self.net = GraphModule(graph) if net is None else net

    def halve(self) -> DetectorNet:
        """Compute in half precision where that costs no accuracy; changes the module in place."""
        self.net.halve()
        return self

    def with_kernels(self) -> DetectorNet:
        """Return a module that computes the same in our own kernels on a GPU."""
        # Imported here: Triton is only sure to be there with a GPU.
        from pipeline.perception.blazepose.tflite_gpu import FusedGraph

        return DetectorNet(self.net.graph, FusedGraph(self.net))

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes and scores (B, 2254, 13) of images (B, 3, 224, 224) in [-1, 1]."""
        boxes, scores = self.net(images)
        return torch.cat((boxes.float(), scores.float()), 2)


class BlazePoseTorch(BlazePose):
    """The default perceiver in torch, for a GPU. A CPU runs it too, slower than LiteRT.

    It belongs to one thread at a time, which need not be the one that made it.

    Args:
        files: The two model files by name.
        max_people: The most people to track, the largest ones.
        device: Where to compute.
        engine: As for `make_engines`.
        half: As for `make_engines`.
        graphs: As for `make_engines`.
        second: The file of the second detector; None does without it.
        buckets: Batch sizes that the networks are compiled for; None takes `BUCKETS`, or fewer for
            engines that are slow to build.
        cache: As for `make_engines`.
        on_progress: As for `make_engines`.
        areas: Where people are detected and followed.

    Attributes:
        reports: For each network, which engine was chosen.

    Raises:
        ValueError: ``max_people`` is below 1, or a file is not the expected model.
        RuntimeError: The engine is not installed.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        max_people: int = 8,
        device: str | torch.device = "cuda",
        *,
        second: Path | None = None,
        engine: str = "auto",
        half: bool = True,
        graphs: bool = True,
        buckets: Sequence[int] | None = None,
        cache: Path | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
        areas: Areas = EVERYWHERE,
    ) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is tracked, not {max_people}")
        # `BlazePose.__init__` is not called, because it loads LiteRT.
        self.max_people, self.areas = max_people, areas
        self.device = torch.device(device)
        self._anchors = detector.make_anchors()
        self.has_second = second is not None
        paths = [files["pose_detection.tflite"], files["pose_landmark_full.tflite"]]
        # The detectors take levels from -1 to 1, the landmark model levels from 0 to 1.
        nets: list[tuple[Any, Path, int, tuple, float]] = [
            (DetectorNet, paths[0], detector.INPUT, detector.OUTPUTS, -1.0),
            (LandmarkNet, paths[1], landmarks.INPUT, landmarks.OUTPUTS, 0.0),
        ]
        self._person_anchors = person_detector.make_anchors()
        if second is not None:
            nets.append(
                (
                    PersonDetectorNet, second, person_detector.INPUT, person_detector.OUTPUTS, -1.0,
                )
            )  # fmt: skip
        modules = []
        for net, path, side, outputs, low in nets:
            graph = read_graph(path)
            if [graph.tensors[k].shape for k in graph.outputs] != list(outputs):
                raise ValueError(f"{path.name} is another model than the one this version expects")
            modules.append((net(graph), example_view(side, low)))
        if buckets is None:
            buckets = _FEWER_BUCKETS if engine in ("tensorrt", "inductor") else BUCKETS
        engines = make_engines(
            modules, engine=engine, half=half, graphs=graphs, buckets=tuple(buckets), cache=cache,
            device=self.device, channels_last=True, on_progress=on_progress,
        )  # fmt: skip
        self._detector, self._landmarker = engines[:2]
        self._person_detector = engines[2] if second is not None else None
        self.reports = tuple(made.report for made in engines)

    def close(self) -> None:
        """Release the networks; the perceiver cannot be used afterwards."""
        for name in ("_detector", "_landmarker", "_person_detector"):
            self.__dict__.pop(name, None)

    def prepare(self, window: Window) -> Window:
        """Return the window with its frames on the GPU too."""
        return window if self.device.type == "cpu" else upload(window, self.device)

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Memory | None]
    ) -> list[tuple[list[tuple[Person, ...]], Memory]]:
        """Return what ``decode(embed(...))`` returns for each window, all of them run in step.

        Args:
            windows: One window of each of several sources.
            memories: What each source's last call returned; None for a new source.
        """
        plans = [self._window_plan(window, memory) for window, memory in zip(windows, memories)]
        # In step, so that each round of all sources' queries is one batch.
        return run_plan(gather(plans), self.answer)

    def _window_plan(
        self, window: Window, memory: Memory | None
    ) -> Plan[tuple[list[tuple[Person, ...]], Memory]]:
        before = () if memory is None or window.reset else memory.rois
        # Detection and looks do not depend on each other, so they go out in one batch; and a GPU
        # still detects while the host follows people.
        detection = ask_later(self.detection_plan(window, memory))
        plans: list[Plan[Any]] = [counted(self._ahead(window, before)), detection]
        ((found, followed), rounds), detected = yield from gather(plans)
        if rounds < 2:
            # A round without queries: all windows that were answered in one round come to this
            # point before one waits. After a second round, the detectors are done.
            yield []
        embedding = detected()
        known = None if followed is None else with_scores(followed, before, embedding.tracked)
        return (yield from self._decode(embedding, window, found, known))

    @torch.inference_mode()
    def answer(self, queries: list[Query]) -> list[Any]:
        if not queries:
            return []
        asked = [query for query in queries if isinstance(query, DetectionQuery)]
        views = [(query.frame, view) for query in asked for view in query.views]
        landmark_queries = [query for query in queries if isinstance(query, LandmarkQuery)]
        # All networks are launched before the host waits for one: landmarks first, with which it
        # goes on while a GPU detects.
        crops = self._start_landmarks(landmark_queries)
        detections, second = self._start_detection(views), self._start_second(asked)

        @cache
        def detected() -> list[list[Roi]]:
            rois = iter(self._read_detections(views, detections))
            more = self._read_second(asked, second)
            return [
                distinct([roi for _ in query.views for roi in next(rois)], others)
                for query, others in zip(asked, more)
            ]

        people = iter(() if crops is None else self._read_people(landmark_queries, crops.result()))
        places = iter(range(len(asked)))
        answers: list[Any] = []
        for query in queries:
            if isinstance(query, LandmarkQuery):
                answers.append(next(people))
            else:
                read = partial(_answer_at, detected, next(places))
                answers.append(read if query.later else read())
        return answers

    def _start_landmarks(self, queries: list[LandmarkQuery]) -> AsyncCopy | None:
        if not queries:
            return None
        size = landmarks.INPUT
        wanted = [
            (query.frame, sample_roi(query.frame.size, query.roi, size), query.mirrored)
            for query in queries
        ]
        batch = self._views_of(self._landmarker, wanted, size, 1 / 255, 0.0)
        for k, query in enumerate(queries):
            if query.without is not None and query.without.mask is not None:
                batch[k] = self._painted(query, query.without.mask)
        return AsyncCopy(self._landmarker(batch)[0])

    def _painted(self, query: LandmarkQuery, mask: Any) -> Tensor:
        """The crop with a person painted over; on the host, since it is too rare for a kernel."""
        view = painted_over(crop(query.frame.image, query.roi, landmarks.INPUT), query.roi, mask)
        view = view[:, ::-1] if query.mirrored else view
        return torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1).to(self.device)

    @staticmethod
    def _read_people(queries: Sequence[LandmarkQuery], rows: np.ndarray) -> list[PersonRoi | None]:
        """The answer of each query, read from its row of `LandmarkNet`."""
        answers: list[PersonRoi | None] = [None] * len(queries)
        asked = zip(queries, presences_of_rows(rows))
        found = [k for k, (query, presence) in enumerate(asked) if presence >= query.min_presence]
        if found:
            people = landmarks.read_people(
                [queries[k].roi for k in found],
                readings_of_rows(rows, found),
                [queries[k].mirrored for k in found],
            )
            for k, person in zip(found, people):
                answers[k] = person
        return answers

    def _start_detection(
        self, views: list[tuple[Frame, tuple[int, int, int, int]]]
    ) -> tuple[AsyncCopy, list[np.ndarray]] | None:
        if not views:
            return None
        size = detector.INPUT
        samplings = [sample_letterbox(frame.size, view, size) for frame, view in views]
        wanted = [(frame, sampling, False) for (frame, _), (sampling, _) in zip(views, samplings)]
        batch = self._views_of(self._detector, wanted, size, 2 / 255, -1.0)
        return AsyncCopy(self._detector(batch)[0]), [to_image for _, to_image in samplings]

    def _read_detections(self, views: list, started: Any) -> list[list[Roi]]:
        """The ROIs of each view's detections."""
        if started is None:
            return []
        copy, maps = started
        out = []
        for raw, to_image in zip(copy.result(), maps):
            boxes = detector.decode_boxes(raw[:, :12], raw[:, 12], self._anchors)
            out.append(detector.rois_of(detector.suppress(boxes), to_image))
        return out

    def _start_second(self, queries: Sequence[DetectionQuery]) -> AsyncCopy | None:
        size = person_detector.INPUT
        wanted = [
            (query.frame, sample_stretched(query.frame.size, view, size), False)
            for query in queries
            for view in query.second_views
        ]
        engine = self._person_detector
        if not wanted or engine is None:
            return None
        return AsyncCopy(engine(self._views_of(engine, wanted, size, 2 / 255, -1.0))[0])

    def _read_second(
        self, queries: Sequence[DetectionQuery], started: AsyncCopy | None
    ) -> list[list[Roi]]:
        """The ROIs of each query's detections."""
        rows = iter(() if started is None else started.result())
        found = []
        for query in queries:
            outputs = [(row[:, :4], row[:, 4]) for row in (next(rows) for _ in query.second_views)]
            size = query.frame.size
            boxes = person_detector.merged(outputs, query.second_views, size, self._person_anchors)
            found.append(person_detector.rois_of(boxes, size))
        return found

    def _views_of(
        self,
        engine: Engine,
        wanted: Sequence[tuple[Frame, Sampling, bool]],
        side: int,
        scale: float,
        offset: float,
    ) -> Tensor:
        """Views (B, 3, side, side) of frames for an engine, mirrored where their flag says so."""
        if self.device.type == "cpu":
            views = [sampled(frame.image, plan, side) for frame, plan, _ in wanted]
            flipped = [v[:, ::-1] if m else v for v, (_, _, m) in zip(views, wanted)]
            # torch takes no array with the negative stride of a flip.
            stack = torch.from_numpy(np.ascontiguousarray(np.stack(flipped)))
            return stack.permute(0, 3, 1, 2) * scale + offset
        # Imported here: Triton is only needed, and only sure to be there, with a GPU.
        from pipeline.perception.blazepose.resample_gpu import COLUMNS, describe, take_views

        rows = [describe(self._on_device(frame), plan, m) for frame, plan, m in wanted]
        # Page-locked, so that the copy to the GPU is queued without waiting.
        table = torch.empty(len(rows), COLUMNS, dtype=torch.float64, pin_memory=True)
        table.numpy()[:] = rows
        out = next(iter(engine.inputs(len(rows))), None)
        # The kernel writes one channel after the other.
        if out is None or not out.is_contiguous():
            out = torch.empty(len(rows), 3, side, side, device=self.device)
        take_views(table.to(self.device, non_blocking=True), out, scale, offset)
        return out

    @staticmethod
    def _on_device(frame: Frame) -> Tensor:
        if frame.on_device is None:
            raise ValueError("a frame that is not on the GPU; `prepare` its window first")
        return frame.on_device


def _answer_at(answers: Callable[[], list[list[Roi]]], place: int) -> list[Roi]:
    return answers()[place]
