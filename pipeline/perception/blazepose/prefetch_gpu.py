"""Landmark queries that are likely to follow, run on a GPU before they are made.

A tracked person is queried in the key frame, then in the frames next to it in the ROI that each
answer gives, and so on. Copying each answer to the host to work out the next ROI takes longer than
the query. Here the next ROI is computed where the network's answer lies (Triton), so that a
window's queries follow one another without the host. The plans still make every query; a prefetched
answer is used only if it was computed in the very ROI that the query names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.core.frame import Frame
from pipeline.gpu.transfer import AsyncCopy
from pipeline.perception.blazepose.landmarks import INPUT, OFFSET
from pipeline.perception.blazepose.landmarks_torch import WIDTH
from pipeline.perception.blazepose.queries import LandmarkQuery, PrefetchHint
from pipeline.perception.blazepose.resample import sample_roi
from pipeline.perception.blazepose.resample_gpu import COLUMNS, describe, take_views
from pipeline.perception.blazepose.roi import SCALE, Roi

PLACE = 5
"""Numbers of an ROI on a GPU: x, y and side in pixels, cosine and sine of its angle."""
_SAME_PX = 0.01
"""Tolerances of the comparison with the host's ROI, in pixels and in cosine and sine."""
_SAME_TURN = 1e-4


@dataclass(frozen=True)
class _Step:
    """Queries that do not depend on one another: their frames, and which query each one follows."""

    frames: tuple[Frame, ...]
    after: tuple[int, ...]


class LandmarkPrefetch:
    """The answers that were computed ahead in some windows; `find` returns one.

    Everything is queued on the current stream; nothing waits for the device until `find`.

    Args:
        hints: Windows and ROIs to begin with.
        landmarker: The network, from crops (B, 3, 256, 256) to rows (B, WIDTH), on the device of
            the frames.
    """

    def __init__(
        self, hints: Sequence[PrefetchHint], landmarker: Callable[[Tensor], tuple]
    ) -> None:
        first, steps = _schedule(hints)
        self._frames = [frame for frame, _ in first] + [f for step in steps for f in step.frames]
        self._rows: np.ndarray | None = None
        if not self._frames:
            return
        image = _on_device(first[0][0])
        count, device = len(self._frames), image.device
        views = torch.empty(count, 3, INPUT, INPUT, device=device)
        rows = torch.empty(count, WIDTH, device=device)
        # Double precision, as the host computes ROIs, so that `find` can compare them closely.
        places = torch.empty(count, PLACE, dtype=torch.float64, device=device)
        # One copy takes the tables of all steps to the device; later ROIs are filled in there.
        tables = np.zeros((count, COLUMNS + PLACE + 1))
        for k, (frame, roi) in enumerate(first):
            turn = np.cos(roi.angle), np.sin(roi.angle)
            sampling = sample_roi(frame.size, roi, INPUT)
            tables[k] = (
                *describe(_on_device(frame), sampling),
                roi.x,
                roi.y,
                roi.side,
                *turn,
                # -1: it follows no query.
                -1,
            )
        at = len(first)
        for step in steps:
            for k, (frame, after) in enumerate(zip(step.frames, step.after), at):
                image_on_device = _on_device(frame)
                tables[k, :3] = (
                    image_on_device.data_ptr(),
                    image_on_device.shape[1],
                    image_on_device.shape[0],
                )
                tables[k, -1] = after
            at += len(step.frames)
        table = _copied(tables, device)
        places[: len(first)] = table[: len(first), COLUMNS : COLUMNS + PLACE]
        begin = 0
        for size in (len(first), *(len(step.frames) for step in steps)):
            now = slice(begin, begin + size)
            # The first step's ROIs come from the host; all later ones exist on the GPU alone.
            if begin:
                next_views(table, rows, places, begin, size)
            take_views(table[now], views[now], 1 / 255, 0.0)
            rows[now] = landmarker(views[now])[0]
            begin += size
        # One copy back for all steps, queued behind the last one.
        self._copies = AsyncCopy(rows), AsyncCopy(places)

    def find(self, query: LandmarkQuery) -> np.ndarray | None:
        """Return the row (WIDTH,) of a query that was run ahead; None if it was not."""
        # Only plain queries are run ahead.
        if query.mirrored or query.without is not None:
            return None
        for k, frame in enumerate(self._frames):
            if frame is not query.frame:
                continue
            # The first match waits for the copies; later ones find them here.
            if self._rows is None:
                rows, places = self._copies
                self._rows, self._places = rows.result(), places.result()
            if _is_at(self._places[k], query.roi):
                return self._rows[k]
        return None


def _schedule(hints: Sequence[PrefetchHint]) -> tuple[list[tuple[Frame, Roi]], list[_Step]]:
    """The queries in key frames, then, step by step, those outward from there."""
    first, windows = [], []
    for hint in hints:
        for roi in hint.rois:
            windows.append((hint.window, hint.window.key, hint.window.key))
            first.append((hint.window.key_frame, roi))
    steps: list[_Step] = []
    # (window, frame, query before, direction) at the edges of the schedule, both directions.
    edges = [(w, k, i, direction) for i, (w, k, _) in enumerate(windows) for direction in (1, -1)]
    total = len(first)
    while edges:
        edges = [
            (w, k + direction, i, direction)
            for w, k, i, direction in edges
            if 0 <= k + direction < len(w.frames)
        ]
        if edges:
            frames = tuple(w.frames[k] for w, k, _, _ in edges)
            steps.append(_Step(frames, tuple(i for _, _, i, _ in edges)))
            edges = [(w, k, total + n, direction) for n, (w, k, _, direction) in enumerate(edges)]
            total += len(edges)
    return first, steps


def _place(roi: Roi) -> tuple[float, ...]:
    return roi.x, roi.y, roi.side, np.cos(roi.angle), np.sin(roi.angle)


def _is_at(place: np.ndarray, roi: Roi) -> bool:
    difference = np.abs(place - _place(roi))
    return bool(difference[:3].max() < _SAME_PX and difference[3:].max() < _SAME_TURN)


def _copied(values: np.ndarray, device: torch.device) -> Tensor:
    host = torch.empty(values.shape, dtype=torch.float64, pin_memory=device.type == "cuda")
    host.numpy()[:] = values
    return host.to(device, non_blocking=True)


def _on_device(frame: Frame) -> Tensor:
    if frame.on_device is None:
        raise ValueError("a frame that is not on the GPU; `prepare` its window first")
    return frame.on_device


def next_views(table: Tensor, rows: Tensor, places: Tensor, begin: int, count: int) -> None:
    """Compute the ROIs of queries from the answers before them, and write their table and places.

    As `landmarks.read_person` and `resample.sample_roi` do on the host.

    Args:
        table: (N, COLUMNS + PLACE + 1) float64, in which each row's image address, width and height
            are filled in; the last column is the index of the query before.
        rows: (N, WIDTH) float32, the answers.
        places: (N, PLACE) float64, the ROIs.
        begin: The first query to write.
        count: How many to write.
    """
    across, down = (float(n) for n in OFFSET)
    _next_views[(count,)](
        table, rows, places, begin, across, down,
        STRIDE=table.stride(0), WIDTH=WIDTH, PLACE=PLACE, SIDE=INPUT, SCALE=2 * SCALE,
    )  # fmt: skip


@triton.jit
def _next_views(
    table, rows, places, begin, across, down,
    STRIDE: tl.constexpr, WIDTH: tl.constexpr, PLACE: tl.constexpr,
    SIDE: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    row = begin + tl.program_id(0)
    at = table + row * STRIDE
    before = tl.load(at + STRIDE - 1).to(tl.int32)
    place = places + before * PLACE
    # Numbers 66 to 69 of a row are the points 33 and 34, MediaPipe's alignment points.
    points = rows + before * WIDTH + 66
    x = tl.load(place)
    y = tl.load(place + 1)
    step = tl.load(place + 2) / SIDE
    c = tl.load(place + 3) * step
    s = tl.load(place + 4) * step
    middle = (SIDE - 1) / 2
    u = tl.load(points).to(tl.float64) * SIDE + across - middle
    v = tl.load(points + 1).to(tl.float64) * SIDE + down - middle
    tip_u = tl.load(points + 2).to(tl.float64) * SIDE + across - middle
    tip_v = tl.load(points + 3).to(tl.float64) * SIDE + down - middle
    x += c * u - s * v
    y += s * u + c * v
    dx = c * (tip_u - u) - s * (tip_v - v)
    dy = s * (tip_u - u) + c * (tip_v - v)
    distance = tl.sqrt(dx * dx + dy * dy)
    # Two equal points give no ROI. Then anything may be computed: no query will name it.
    distance = tl.where(distance > 1e-6, distance, 1e-6)
    side = SCALE * distance
    cosine = -dy / distance
    sine = dx / distance
    own_place = places + row * PLACE
    tl.store(own_place, x)
    tl.store(own_place + 1, y)
    tl.store(own_place + 2, side)
    tl.store(own_place + 3, cosine)
    tl.store(own_place + 4, sine)

    step = side / SIDE
    c = cosine * step
    s = sine * step
    left = x - (c - s) * middle
    top = y - (s + c) * middle
    width = tl.load(at + 1)
    height = tl.load(at + 2)
    # As `resample._sampling` and `_bounds`; whole numbers are exact in double precision.
    block = tl.minimum(tl.floor(step), tl.minimum(width, height))
    averaged = block >= 2
    block = tl.maximum(block, 1.0)
    # The view's corners, whichever of them are the outermost.
    low_x = left - 0.5 * (c - s) + SIDE * (tl.minimum(c, 0.0) + tl.minimum(-s, 0.0))
    low_y = top - 0.5 * (s + c) + SIDE * (tl.minimum(s, 0.0) + tl.minimum(c, 0.0))
    high_x = left - 0.5 * (c - s) + SIDE * (tl.maximum(c, 0.0) + tl.maximum(-s, 0.0))
    high_y = top - 0.5 * (s + c) + SIDE * (tl.maximum(s, 0.0) + tl.maximum(c, 0.0))
    low_x = tl.minimum(tl.maximum(tl.floor(low_x) - block, 0.0), width - block)
    low_y = tl.minimum(tl.maximum(tl.floor(low_y) - block, 0.0), height - block)
    high_x = tl.minimum(tl.maximum(tl.ceil(high_x) + 2 * block, low_x + block), width)
    high_y = tl.minimum(tl.maximum(tl.ceil(high_y) + 2 * block, low_y + block), height)
    low_x = tl.where(averaged, low_x, 0.0)
    low_y = tl.where(averaged, low_y, 0.0)
    cols = tl.where(averaged, tl.floor((high_x - low_x) / block), width)
    rows_ = tl.where(averaged, tl.floor((high_y - low_y) / block), height)
    shift = (block - 1) / (2 * block)
    # The order is that of `describe`: block, low, grid, flags, map.
    tl.store(at + 2, block)
    tl.store(at + 3, low_x)
    tl.store(at + 4, low_y)
    tl.store(at + 5, cols)
    tl.store(at + 6, rows_)
    # The border is repeated, and nothing is mirrored: only plain queries are run ahead.
    tl.store(at + 7, 1.0)
    tl.store(at + 8, 0.0)
    tl.store(at + 9, c / block)
    tl.store(at + 10, -s / block)
    tl.store(at + 11, left / block - low_x / block - shift)
    tl.store(at + 12, s / block)
    tl.store(at + 13, c / block)
    tl.store(at + 14, top / block - low_y / block - shift)
