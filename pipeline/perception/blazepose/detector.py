"""BlazePose's person detector: anchors, boxes, suppression, and the region a person fills.

The numbers are MediaPipe Pose's own graph options (Bazarevsky et al., BlazePose, 2020; Apache-2.0
configuration of the 2254-anchor detector).
"""

from __future__ import annotations

import numpy as np

from pipeline.perception.blazepose.roi import Roi, roi_between

INPUT = 224
OUTPUTS = ((1, 2254, 12), (1, 2254, 1))
STRIDES = (8, 16, 32, 32, 32)
MIN_SCORE = 0.5
MIN_OVERLAP = 0.3


def make_anchors() -> np.ndarray:
    """Anchor centres (2254, 2) float32 in [0, 1]; two a cell and layer, layers of equal stride
    merged."""
    centres = []
    for stride in sorted(set(STRIDES)):
        cells, repeats = INPUT // stride, 2 * STRIDES.count(stride)
        y, x = np.mgrid[:cells, :cells]
        grid = np.stack((x, y), -1).reshape(-1, 2)
        centres.append(np.repeat((grid + 0.5) / cells, repeats, axis=0))
    return np.concatenate(centres).astype(np.float32)


def decode_boxes(raw: np.ndarray, scores: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Detections (N, 13) float64 in the input's [0, 1] coordinates, best first.

    ``raw`` (2254, 12) and ``scores`` (2254,) as the network gives them. A row is x0, y0, x1, y1,
    four key points (x, y) and the score.
    """
    probability = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -100, 100)))
    keep = np.flatnonzero(probability >= MIN_SCORE)
    keep = keep[np.argsort(-probability[keep], kind="stable")]
    # Centre, size and key points; all but the size are relative to the anchor.
    points = (raw[keep] / INPUT).reshape(-1, 6, 2)
    points[:, [0, 2, 3, 4, 5]] += anchors[keep][:, None]
    centre, half = points[:, 0], points[:, 1] / 2
    return np.concatenate(
        (centre - half, centre + half, points[:, 2:].reshape(-1, 8), probability[keep, None]), 1
    )


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of one box (4,) with others (N, 4) or wider rows."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:4] - box[:2])
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    return shared / np.maximum(area + areas - shared, 1e-12)


def suppress(detections: np.ndarray) -> np.ndarray:
    """Weighted non-maximum suppression: each cluster becomes its score-weighted mean, with the
    score of its best.

    ``detections`` (N, 13), best first, as ``decode_boxes`` gives them -> (M, 13).
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


def regions_of(detections: np.ndarray, to_image: np.ndarray) -> list[Roi]:
    """A region for each detection, from its hip centre and full-body point.

    ``to_image`` (2, 3) takes the detections' coordinates to image pixels.
    """
    rois = []
    for row in detections:
        points = row[4:8].reshape(2, 2) @ to_image[:, :2].T + to_image[:, 2]
        rois.append(roi_between(points[0], points[1], float(row[-1])))
    return rois
