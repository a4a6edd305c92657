"""BlazePose's person detector: anchors, boxes, suppression, and the region a person fills.

The numbers are MediaPipe Pose's own graph options (Bazarevsky et al., BlazePose, 2020; Apache-2.0
configuration of the 2254-anchor detector).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

INPUT = 224
STRIDES = (8, 16, 32, 32, 32)
MIN_SCORE = 0.5
MIN_OVERLAP = 0.3
REGION_SCALE = 1.25


@dataclass(frozen=True, slots=True)
class Region:
    """A turned square of the image: centre and side in pixels, ``angle`` in radians.

    ``id`` names the person followed in it (-1: not followed yet); ``score`` is how sure the
    detector or the landmark model was; ``missed`` counts frames in a row without the person.
    """

    x: float
    y: float
    side: float
    angle: float
    score: float
    id: int = -1
    missed: int = 0

    def to_image(self, size: int) -> np.ndarray:
        """(2, 3) float64: pixels of a ``size`` square crop -> image pixels."""
        scale = self.side / size
        c, s = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        half = size / 2
        return np.array(
            [
                [c, -s, self.x - c * half + s * half],
                [s, c, self.y - s * half - c * half],
            ]
        )


def region_between(
    centre: np.ndarray, tip: np.ndarray, score: float, region_id: int = -1
) -> Region:
    """The region whose circle runs through ``tip`` and which is turned so that ``tip`` is up.

    Both (2,) pixels. MediaPipe's alignment points: the side is twice their distance times 1.25.
    """
    dx, dy = (tip - centre).astype(float)
    angle = np.pi / 2 - np.arctan2(-dy, dx)
    angle -= 2 * np.pi * np.floor((angle + np.pi) / (2 * np.pi))
    side = 2 * float(np.hypot(dx, dy)) * REGION_SCALE
    return Region(float(centre[0]), float(centre[1]), side, float(angle), score, region_id)


def make_anchors() -> np.ndarray:
    """Anchor centres (2254, 2) in [0, 1]; two a cell and layer, layers of equal stride merged."""
    centres = []
    for stride in sorted(set(STRIDES)):
        cells, repeats = INPUT // stride, 2 * STRIDES.count(stride)
        y, x = np.mgrid[:cells, :cells]
        grid = np.stack((x, y), -1).reshape(-1, 2)
        centres.append(np.repeat((grid + 0.5) / cells, repeats, axis=0))
    return np.concatenate(centres).astype(np.float32)


def letterbox(image: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Fit a part of an image into the detector's square, black around it.

    ``box`` is x, y, width, height in pixels. Returns the input (224, 224, 3) float32 in [-1, 1]
    and the (2, 3) map from its [0, 1] coordinates to image pixels.
    """
    x, y, width, height = box
    side = max(width, height)
    scale = INPUT / side
    new = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image[y : y + height, x : x + width], new, interpolation=interpolation)
    left, top = (INPUT - new[0]) // 2, (INPUT - new[1]) // 2
    out = np.full((INPUT, INPUT, 3), -1.0, np.float32)
    out[top : top + new[1], left : left + new[0]] = small * np.float32(2 / 255) - 1.0
    sx, sy = width / new[0], height / new[1]
    to_image = np.array(
        [[INPUT * sx, 0.0, x - left * sx - 0.5], [0.0, INPUT * sy, y - top * sy - 0.5]]
    )
    return out, to_image


def decode_boxes(raw: np.ndarray, scores: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Detections (N, 13) in the input's [0, 1] coordinates, best first.

    ``raw`` (2254, 12) and ``scores`` (2254,) as the network gives them. A row is x0, y0, x1, y1,
    four key points (x, y) and the score.
    """
    probability = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -100, 100)))
    keep = np.flatnonzero(probability >= MIN_SCORE)
    keep = keep[np.argsort(-probability[keep], kind="stable")]
    values = raw[keep] / INPUT
    points = values.reshape(-1, 6, 2).copy()
    points[:, [0, 2, 3, 4, 5]] += anchors[keep][:, None]
    centre, half = points[:, 0], points[:, 1] / 2
    return np.concatenate(
        (centre - half, centre + half, points[:, 2:].reshape(-1, 8), probability[keep, None]), 1
    )


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with others (N, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:4] - box[:2])
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    return shared / np.maximum(area + areas - shared, 1e-12)


def suppress(detections: np.ndarray) -> np.ndarray:
    """Weighted non-maximum suppression: each cluster becomes its score-weighted mean.

    ``detections`` (N, 13), best first, as ``decode_boxes`` gives them.
    """
    out = []
    left = detections
    while len(left):
        near = overlap(left[0], left) > MIN_OVERLAP
        near[0] = True
        cluster = left[near]
        weight = cluster[:, -1:] / cluster[:, -1].sum()
        merged = (cluster * weight).sum(0)
        merged[-1] = cluster[0, -1]
        out.append(merged)
        left = left[~near]
    return np.array(out).reshape(-1, 13)


def regions_of(detections: np.ndarray, to_image: np.ndarray) -> list[Region]:
    """A region for each detection, from its hip centre and full-body point."""
    regions = []
    for row in detections:
        points = row[4:8].reshape(2, 2) @ to_image[:, :2].T + to_image[:, 2]
        regions.append(region_between(points[0], points[1], float(row[-1])))
    return regions


def tiles(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Overlapping squares (x, y, width, height) in which people too small for the whole picture
    are found: sides of a half and of two sevenths of the longer side, half overlapping."""
    out = []
    for part in (1 / 2, 2 / 7):
        side = round(max(height, width) * part)
        if side < INPUT:
            break
        starts = [_starts(length, side) for length in (height, width)]
        size = (min(side, width), min(side, height))
        out += [(x, y, *size) for y in starts[0] for x in starts[1]]
    return out


def _starts(length: int, side: int) -> list[int]:
    spare = length - side
    if spare <= 0:
        return [0]
    count = max(1, round(spare / (0.55 * side))) + 1 if spare > 0.2 * side else 1
    if count == 1:
        return [spare // 2]
    return [round(i * spare / (count - 1)) for i in range(count)]
