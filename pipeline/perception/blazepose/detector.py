"""BlazePose's person detector: anchors, boxes, suppression, and the ROI of each detection.

The numbers are the options of MediaPipe Pose's own graph (Bazarevsky et al., BlazePose, 2020;
Apache-2.0 configuration of the detector with 2254 anchors).
"""

from __future__ import annotations

import math

import numpy as np

from numba_loops import compiled
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
    keep = (scores > _NEAR_LOGIT).nonzero()[0]
    if not len(keep):
        return np.zeros((0, 13))
    rows: np.ndarray = _decoded(raw[keep], scores[keep], anchors[keep])
    return rows


@compiled("Tuple((f8[::1], i8[::1]))(f4[::1], f8)")
def best_first(logits, least):
    """Return the probabilities of logits (N,), and the places of those that are ``least`` or more,
    the best first."""
    scores = np.empty(len(logits))
    for k in range(len(logits)):
        # Within limits, so that no number overflows.
        scores[k] = 1 / (1 + np.exp(-min(max(np.float64(logits[k]), -100.0), 100.0)))
    # Stable: detections of equal score keep their order, so runs repeat.
    order = np.argsort(-scores, kind="mergesort")
    return scores, order[: (scores >= least).sum()]


@compiled("f8[:, ::1](f4[:, ::1], f4[::1], f4[:, ::1])")
def _decoded(raw, logits, anchors):
    """Return the rows (N, 13) of `decode_boxes`, of M boxes that come near."""
    scores, chosen = best_first(logits, MIN_SCORE)
    # All in single precision, as the network's numbers are.
    out, side = np.empty((len(chosen), 13)), np.float32(INPUT)
    for place, k in enumerate(chosen):
        # Centre, size and key points; all but the size are relative to the anchor.
        for axis in range(2):
            centre = raw[k, axis] / side + anchors[k, axis]
            half = raw[k, 2 + axis] / side / np.float32(2)
            out[place, axis], out[place, 2 + axis] = centre - half, centre + half
            for point in range(2, 6):
                out[place, 2 * point + axis] = raw[k, 2 * point + axis] / side + anchors[k, axis]
        out[place, 12] = scores[k]
    return out


@compiled("f8(f8[::1], f8[::1])")
def overlap(box, other):
    """Return the intersection over union of two boxes (4,), which may be parts of longer rows."""
    shared = area = other_area = 1.0
    for axis in range(2):
        low, high = box[axis], box[axis + 2]
        other_low, other_high = other[axis], other[axis + 2]
        shared *= max(min(high, other_high) - max(low, other_low), 0.0)
        area *= high - low
        other_area *= other_high - other_low
    return shared / max(area + other_area - shared, 1e-12)


def suppress(detections: np.ndarray, min_overlap: float = MIN_OVERLAP) -> np.ndarray:
    """Return one detection for each cluster of overlapping ones, (M, K), best first.

    Weighted non-maximum suppression (MediaPipe's): a cluster becomes its mean, weighted by score,
    with the score of its best. The mean is steadier from frame to frame than the best box alone.

    Args:
        detections: (N, K), best first: a box, what else is known of it, and the score.
        min_overlap: Boxes whose intersection over union is larger are one cluster.
    """
    rows: np.ndarray = _clusters(np.ascontiguousarray(detections), float(min_overlap))
    return rows


@compiled("f8[:, ::1](f8[:, ::1], f8)")
def _clusters(detections, min_overlap):
    """Return what `suppress` does."""
    count, width = detections.shape
    out, taken, found = np.zeros((count, width)), np.zeros(count, np.bool_), 0
    for first in range(count):
        if taken[first]:
            continue
        total, row = 0.0, out[found]
        for k in range(first, count):
            # A box without area does not even overlap itself.
            near = k == first or overlap(detections[first], detections[k]) > min_overlap
            if near and not taken[k]:
                taken[k] = True
                total += detections[k, width - 1]
                row += detections[k] * detections[k, width - 1]
        row /= total
        row[width - 1] = detections[first, width - 1]
        found += 1
    return out[:found]


def rois_of(detections: np.ndarray, to_image: np.ndarray) -> list[Roi]:
    """Return an ROI for each detection, from its hip centre and its full-body point.

    Args:
        detections: (N, 13) as `suppress` returns them.
        to_image: (2, 3) the map from their coordinates to image pixels.
    """
    points = detections[:, 4:8].reshape(-1, 2, 2) @ to_image[:, :2].T + to_image[:, 2]
    ends, scores = points.tolist(), detections[:, -1].tolist()
    return [roi_between(centre, tip, score) for (centre, tip), score in zip(ends, scores)]
