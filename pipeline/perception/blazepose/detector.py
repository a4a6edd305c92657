"""BlazePose's person detector: anchors, boxes, suppression, and the ROI of each detection.

The numbers are the options of MediaPipe Pose's own graph (Bazarevsky et al., BlazePose, 2020;
Apache-2.0 configuration of the detector with 2254 anchors).
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.perception.blazepose.roi import Roi, roi_between

INPUT = 224
OUTPUTS = ((1, 2254, 12), (1, 2254, 1))
"""Shapes of the network's outputs: raw boxes and scores."""
STRIDES = (8, 16, 32, 32, 32)
MIN_SCORE = 0.5
_NEAR_LOGIT = math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-3
"""A little below the logit of that score."""
MIN_OVERLAP = 0.3


def make_anchors() -> np.ndarray:
    """Return the anchors' centres (2254, 2) float32 in [0, 1].

    There are two for each cell and layer; layers of equal stride are merged.
    """
    centres = []
    for stride in sorted(set(STRIDES)):
        cells, repeats = INPUT // stride, 2 * STRIDES.count(stride)
        y, x = np.mgrid[:cells, :cells]
        grid = np.stack((x, y), -1).reshape(-1, 2)
        centres.append(np.repeat((grid + 0.5) / cells, repeats, axis=0))
    return np.concatenate(centres).astype(np.float32)


def decode_boxes(raw: np.ndarray, scores: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the network's detections (N, 13) float64, best first.

    A row is x0, y0, x1, y1, four key points (x, y) and the score, in the input's [0, 1]
    coordinates.

    Args:
        raw: (2254, 12) boxes and key points as the network returns them.
        scores: (2254,) logits.
        anchors: (2254, 2) as from `make_anchors`.
    """
    # Few come near, and probabilities are computed of those alone.
    keep = np.flatnonzero(scores > _NEAR_LOGIT)
    if not len(keep):
        return np.zeros((0, 13))
    # Clipped, so that no logit overflows the exponential.
    probability = 1 / (1 + np.exp(-np.clip(scores[keep].astype(np.float64), -100, 100)))
    keep, probability = keep[probability >= MIN_SCORE], probability[probability >= MIN_SCORE]
    # Stable: detections of equal score keep their order, so runs repeat.
    order = np.argsort(-probability, kind="stable")
    keep, probability = keep[order], probability[order]
    # Centre, size and key points; all but the size are relative to the anchor.
    points = (raw[keep] / INPUT).reshape(-1, 6, 2)
    points[:, [0, 2, 3, 4, 5]] += anchors[keep][:, None]
    centre, half = points[:, 0], points[:, 1] / 2
    return np.concatenate(
        (centre - half, centre + half, points[:, 2:].reshape(-1, 8), probability[:, None]), 1
    )


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N,) of one box (4,) and others (N, 4) or wider rows."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    # Products and bounds by ufuncs: `np.prod` and `np.clip` take several times as long to begin.
    sides = np.maximum(high - low, 0)
    shared = sides[:, 0] * sides[:, 1]
    width, height = (box[2:4] - box[:2]).tolist()
    spans = boxes[:, 2:4] - boxes[:, :2]
    return shared / np.maximum(width * height + spans[:, 0] * spans[:, 1] - shared, 1e-12)


def suppress(detections: np.ndarray, min_overlap: float = MIN_OVERLAP) -> np.ndarray:
    """Return one detection for each cluster of overlapping ones, (M, K), best first.

    Weighted non-maximum suppression (MediaPipe's): a cluster becomes its mean, weighted by score,
    with the score of its best. The mean is steadier from frame to frame than the best box alone.

    Args:
        detections: (N, K), best first: a box, what else is known of it, and the score.
        min_overlap: Boxes whose intersection over union is larger are one cluster.
    """
    out = []
    remaining = detections
    while len(remaining):
        near = overlap(remaining[0], remaining) > min_overlap
        # A box without area does not even overlap itself, and the loop would not end.
        near[0] = True
        cluster = remaining[near]
        weight = cluster[:, -1:] / cluster[:, -1].sum()
        merged = (cluster * weight).sum(0)
        merged[-1] = cluster[0, -1]
        out.append(merged)
        remaining = remaining[~near]
    return np.array(out).reshape(-1, detections.shape[1])


def rois_of(detections: np.ndarray, to_image: np.ndarray) -> list[Roi]:
    """Return an ROI for each detection, from its hip centre and its full-body point.

    Args:
        detections: (N, 13) as `suppress` returns them.
        to_image: (2, 3) the map from their coordinates to image pixels.
    """
    points = detections[:, 4:8].reshape(-1, 2, 2) @ to_image[:, :2].T + to_image[:, 2]
    ends, scores = points.tolist(), detections[:, -1].tolist()
    return [roi_between(centre, tip, score) for (centre, tip), score in zip(ends, scores)]
