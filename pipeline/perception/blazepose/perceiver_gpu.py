"""BlazePose on a GPU: the same rules as on a CPU, their questions answered in batches.

Everything the rules ask at the same time, for all people, frames and sources, is cropped in one
launch, goes through each network in one batch and comes back in one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.gpu.engine import make_engine
from pipeline.gpu.transfer import AsyncCopy, upload
from pipeline.perception.blazepose import detector, landmarks
from pipeline.perception.blazepose.landmarks_torch import (
    LandmarkNet,
    presence_of_row,
    reading_of_row,
)
from pipeline.perception.blazepose.perceiver import BlazePose, Memory
from pipeline.perception.blazepose.queries import (
    DetectionQuery,
    LandmarkQuery,
    PersonRoi,
    Plan,
    PrefetchHint,
    Query,
    gather,
    run_plan,
)
from pipeline.perception.blazepose.resample import (
    Sampling,
    crop,
    painted_over,
    sample_letterbox,
    sample_region,
    sampled,
)
from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.tflite import Graph, read_graph
from pipeline.perception.blazepose.tflite_torch import GraphModule

BUCKETS = (1, 4, 16)
"""Batch sizes that the networks are made ready for. Few: a larger batch than is needed costs a GPU
little, and making ready for one takes inductor half a minute."""


_EXAMPLE = Path(__file__).with_name("example.jpg")
"""Somebody in their region, out of samples/pitch.mp4: what engines are checked on."""


def example_view(side: int, low: float) -> Tensor:
    """A person's crop (1, 3, side, side) float32, black ``low`` and white 1."""
    coded = np.frombuffer(_EXAMPLE.read_bytes(), np.uint8)
    image = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)
    assert image is not None, "it comes with the package"
    image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(image).permute(2, 0, 1)[None] * ((1 - low) / 255) + low


class DetectorNet(nn.Module):
    """Letterboxed images (B, 3, 224, 224) in [-1, 1] -> (B, 2254, 13): 12 numbers of a box and its
    score, as `detector.decode_boxes` takes them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.net = GraphModule(graph)

    def halve(self) -> DetectorNet:
        """Compute in half precision where that loses nothing; in place."""
        self.net.halve()
        return self

    def forward(self, images: Tensor) -> Tensor:
        boxes, scores = self.net(images)
        return torch.cat((boxes.float(), scores.float()), 2)


class BlazePoseTorch(BlazePose):
    """The default perceiver in torch, for a GPU (a CPU does it too, slower than LiteRT).

    ``engine``, ``half``, ``graphs``, ``cache`` and ``on_progress`` are `make_engine`'s;
    ``reports`` says what became of them, for each network. Belongs to the thread that made it or
    to one it is handed to, never to two at once. Raises ValueError when a file is not the model
    it should be, RuntimeError for an engine that is not there.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        max_people: int = 4,
        device: str | torch.device = "cuda",
        *,
        engine: str = "auto",
        half: bool = True,
        graphs: bool = True,
        buckets: Sequence[int] = BUCKETS,
        cache: Path | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is followed, not {max_people}")
        self.max_people = max_people
        self.device = torch.device(device)
        self._anchors = detector.make_anchors()
        nets = (
            (DetectorNet, "pose_detection.tflite", detector.INPUT, detector.OUTPUTS),
            (LandmarkNet, "pose_landmark_full.tflite", landmarks.INPUT, landmarks.OUTPUTS),
        )
        engines = []
        for net, name, side, outputs in nets:
            graph = read_graph(files[name])
            if [graph.tensors[k].shape for k in graph.outputs] != list(outputs):
                raise ValueError(f"{name} is another model than the one this version expects")
            low = -1.0 if net is DetectorNet else 0.0
            engines.append(
                make_engine(
                    net(graph), example_view(side, low), engine=engine, half=half, graphs=graphs,
                    buckets=tuple(buckets), cache=cache, device=self.device, channels_last=True,
                    on_progress=on_progress,
                )
            )  # fmt: skip
        self._detector, self._landmarker = engines
        self.ahead, self._ahead = self.device.type == "cuda", None
        self.reports = tuple(made.report for made in engines)

    def prepare(self, window: Window) -> Window:
        """The same window with its frames on the GPU too."""
        return window if self.device.type == "cpu" else upload(window, self.device)

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Memory | None]
    ) -> list[tuple[list[tuple[Person, ...]], Memory]]:
        """What ``decode(embed(...))`` gives for each window, of one source each, all in step."""
        rules = [self._whole(window, memory) for window, memory in zip(windows, memories)]
        try:
            return run_plan(gather(rules), self._answer)
        finally:
            self._ahead = None

    def _whole(
        self, window: Window, memory: Memory | None
    ) -> Plan[tuple[list[tuple[Person, ...]], Memory]]:
        embedding = yield from self._embed(window, memory)
        return (yield from self._decode(embedding, window))

    @torch.inference_mode()
    def _answer(self, asked: list[Query]) -> list[Any]:
        views = [
            (one.frame, view)
            for one in asked
            if isinstance(one, DetectionQuery)
            for view in one.views
        ]
        looks = [one for one in asked if isinstance(one, LandmarkQuery)]
        known = [self._ahead.find(one) if self._ahead else None for one in looks]
        new = [one for one, row in zip(looks, known) if row is None]
        # Both networks are under way before either is waited for.
        coming = self._start_views(views), self._start_looks(new)
        if any(isinstance(one, PrefetchHint) for one in asked):
            self._ahead = self._look_ahead([one for one in asked if isinstance(one, PrefetchHint)])
        seen = iter(self._read_views(views, coming[0]))
        rows = iter(() if coming[1] is None else coming[1].result())
        found = (
            self._read_look(one, next(rows) if row is None else row)
            for one, row in zip(looks, known)
        )
        return [
            next(found)
            if isinstance(one, LandmarkQuery)
            else self._together(seen, len(one.views))
            if isinstance(one, DetectionQuery)
            else None
            for one in asked
        ]

    def _look_ahead(self, asked: list[PrefetchHint]) -> Any:
        if not self.ahead:
            return None
        from pipeline.perception.blazepose.prefetch_gpu import LandmarkPrefetch

        return LandmarkPrefetch(asked, self._landmarker)

    def _start_looks(self, looks: list[LandmarkQuery]) -> AsyncCopy | None:
        if not looks:
            return None
        size = landmarks.INPUT
        wanted = [
            (one.frame, sample_region(one.frame.size, one.roi, size), one.mirrored) for one in looks
        ]
        batch = self._views_of(wanted, size, 1 / 255, 0.0)
        for k, one in enumerate(looks):
            if one.without is not None and one.without.mask is not None:
                batch[k] = self._painted(one, one.without.mask)
        return AsyncCopy(self._landmarker(batch)[0])

    def _painted(self, look: LandmarkQuery, mask: Any) -> Tensor:
        """Too rare to be worth a kernel."""
        view = painted_over(crop(look.frame.image, look.roi, landmarks.INPUT), look.roi, mask)
        view = view[:, ::-1] if look.mirrored else view
        return torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1).to(self.device)

    @staticmethod
    def _read_look(look: LandmarkQuery, row: np.ndarray) -> PersonRoi | None:
        if presence_of_row(row) < look.least:
            return None
        return landmarks.read_person(look.roi, reading_of_row(row), look.mirrored)

    def _start_views(
        self, views: list[tuple[Frame, tuple[int, int, int, int]]]
    ) -> tuple[AsyncCopy, list[np.ndarray]] | None:
        if not views:
            return None
        size = detector.INPUT
        plans = [sample_letterbox(frame.size, view, size) for frame, view in views]
        wanted = [(frame, plan, False) for (frame, _), (plan, _) in zip(views, plans)]
        batch = self._views_of(wanted, size, 2 / 255, -1.0)
        return AsyncCopy(self._detector(batch)[0]), [to_image for _, to_image in plans]

    def _read_views(self, views: list, started: Any) -> list[list[Roi]]:
        if started is None:
            return []
        coming, maps = started
        out = []
        for raw, to_image in zip(coming.result(), maps):
            boxes = detector.decode_boxes(raw[:, :12], raw[:, 12], self._anchors)
            out.append(detector.regions_of(detector.suppress(boxes), to_image))
        return out

    def _together(self, seen: Any, count: int) -> list[Roi]:
        return self._once([roi for _ in range(count) for roi in next(seen)])

    def _views_of(
        self, wanted: Sequence[tuple[Frame, Sampling, bool]], side: int, scale: float, offset: float
    ) -> Tensor:
        """Views (B, 3, side, side) of frames, mirrored where said."""
        if self.device.type == "cpu":
            views = [sampled(frame.image, plan, side) for frame, plan, _ in wanted]
            flipped = [v[:, ::-1] if m else v for v, (_, _, m) in zip(views, wanted)]
            stack = torch.from_numpy(np.ascontiguousarray(np.stack(flipped)))
            return stack.permute(0, 3, 1, 2) * scale + offset
        from pipeline.perception.blazepose.resample_gpu import COLUMNS, describe, take_views

        rows = [describe(self._on_device(frame), plan, m) for frame, plan, m in wanted]
        table = torch.empty(len(rows), COLUMNS, dtype=torch.float64, pin_memory=True)
        table.numpy()[:] = rows
        out = torch.empty(len(rows), 3, side, side, device=self.device)
        take_views(table.to(self.device, non_blocking=True), out, scale, offset)
        return out

    @staticmethod
    def _on_device(frame: Frame) -> Tensor:
        if frame.on_device is None:
            raise ValueError("a frame that is not on the GPU; `prepare` its window first")
        return frame.on_device
