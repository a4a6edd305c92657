"""A second person detector: SSD on MobileNetV2, which finds small people and crowds.

BlazePose's own detector looks for one clear face or body; this one was trained on Open Images V4
(24 classes, one of them Person) and sees people in groups, from behind and cut off by the picture's
border. The numbers are the options of MediaPipe Objectron's graph, which uses the same model
(Apache-2.0 configuration of `SsdAnchorsCalculator` and `TfLiteTensorsToDetectionsCalculator`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from numba_loops import compiled
from pipeline.perception.blazepose import detector
from pipeline.perception.blazepose.detector import best_first
from pipeline.perception.blazepose.litert import load_model
from pipeline.perception.blazepose.resample import Box, stretch
from pipeline.perception.blazepose.roi import Roi

INPUT = 300
OUTPUTS = ((1, 1917, 4), (1, 1917, 24))
"""Shapes of the network's outputs: raw boxes and the logits of all classes."""
PERSON = 4
"""The class Person in the model's label map; class 0 is the background."""
MIN_SCORE = 0.25
"""Least raw score of a detection. Of 167 people of 70 pixels or more in ten frames of a street,
the picture alone shows 59 % (precision 0.61), with all tiles 95 % (0.54); from 0.3 on it is 88 %
(0.68) with all tiles."""
_NEAR_LOGIT = math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-3
"""A little below the logit of that score."""
MAX_OVERLAP = 0.4
"""Boxes that overlap more are one person: as many people as with 0.5, and fewer doubled ones."""
_CELLS = (19, 10, 5, 3, 2, 1)
"""Cells a side of the network's layers."""
_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Sides of the layers' square anchors, in parts of the input."""
_CENTRE_SCALE, _SIZE_SCALE = 10.0, 5.0
_EDGE = 0.015
"""A box that ends closer to an edge than this, in parts of the view, is cut off by it."""
_SIDE, _WIDTHS, _CUT_WIDTHS = 1.35, 1.8, 2.8
"""Side of an ROI in heights of its box, and at least in widths; the last where the box is cut."""
_HIPS, _CUT_HIPS = 0.52, 0.385
"""How far the hips are below the box's top: in its heights; in the ROI's sides where it is cut."""
_MIDDLE, _STEEPNESS = 0.396, 12.4
"""The logistic from a raw score to the share of such detections that the landmark model confirms
(benchmarks/detector_scores.py: 623 detections in 16 clips, mean error 0.04). BlazePose's own scores
of 0.5 to 1 stand for shares of 0.6 to 0.94, so the rules may read both alike."""


def make_anchors() -> np.ndarray:
    """Return the anchors (1917, 4) float32: centre x, y, width, height in [0, 1].

    Liu et al., SSD, 2016: six for each cell, of five aspect ratios and a square between two layers'
    scales; the first layer has three, of which one is a small square.
    """
    anchors = []
    for cells, scale, following in zip(_CELLS, _SCALES, _SCALES[1:]):
        shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
        shapes.append(((scale * following) ** 0.5, 1.0))
        if cells == _CELLS[0]:
            shapes = [(0.1, 1.0), *shapes[1:3]]
        sizes = [(side * ratio**0.5, side / ratio**0.5) for side, ratio in shapes]
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack((x, y), -1).reshape(-1, 1, 2) + 0.5) / cells
        anchors.append(np.concatenate(np.broadcast_arrays(centres, np.array([sizes])), 2))
    return np.concatenate([layer.reshape(-1, 4) for layer in anchors]).astype(np.float32)


def decode(raw_boxes: np.ndarray, raw_scores: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the network's detections (N, 5) float64, best first.

    A row is x0, y0, x1, y1 in the view's [0, 1] and the raw score.

    Args:
        raw_boxes: (1917, 4) boxes as the network returns them: y, x, height, width.
        raw_scores: (1917,) logits of the class Person.
        anchors: (1917, 4) as from `make_anchors`.
    """
    # Few come near, and scores are computed of those alone.
    keep = (raw_scores > _NEAR_LOGIT).nonzero()[0]
    if not len(keep):
        return np.zeros((0, 5))
    rows: np.ndarray = _decoded(raw_boxes[keep], raw_scores[keep], anchors[keep])
    return rows


@compiled("f8[:, ::1](f4[:, ::1], f4[::1], f4[:, ::1])")
def _decoded(raw, logits, anchors):
    """Return the rows (N, 5) of `decode`, of M boxes that come near."""
    scores, chosen = best_first(logits, MIN_SCORE)
    out = np.empty((len(chosen), 5))
    for place, k in enumerate(chosen):
        for axis in range(2):
            # The network has y before x, the anchors x before y.
            size = anchors[k, 2 + axis]
            centre = raw[k, 1 - axis] / _CENTRE_SCALE * size + anchors[k, axis]
            half = np.exp(min(raw[k, 3 - axis] / _SIZE_SCALE, 10.0)) * size / 2
            out[place, axis], out[place, 2 + axis] = centre - half, centre + half
        out[place, 4] = scores[k]
    return out


def calibrated(score: float) -> float:
    """Return how likely the landmark model confirms a person where the raw score is ``score``."""
    return 1 / (1 + math.exp(-_STEEPNESS * (score - _MIDDLE)))


def in_picture(boxes: np.ndarray, view: Box, size: tuple[int, int]) -> np.ndarray:
    """Return a view's detections in picture pixels, (M, 5), without those that the view cuts off.

    A person who is cut off by a tile's edge inside the picture is whole in another tile, which
    overlaps it.

    Args:
        boxes: (N, 5) as `decode` returns them.
        view: The part of the picture.
        size: (H, W) of the picture.
    """
    if not len(boxes):
        return boxes
    x, y, width, height = view
    inner = np.array([x > 0, y > 0, x + width < size[1], y + height < size[0]])
    cut = np.concatenate((boxes[:, :2] < _EDGE, boxes[:, 2:4] > 1 - _EDGE), 1)
    boxes = boxes[~(cut & inner).any(1)]
    scale, offset = np.array([width, height] * 2), np.array([x, y] * 2)
    return np.concatenate((boxes[:, :4] * scale + offset - 0.5, boxes[:, 4:]), 1)


def suppress(boxes: np.ndarray) -> np.ndarray:
    """Return one detection for each cluster of overlapping ones, (M, 5), best first.

    Args:
        boxes: (N, 5), best first.
    """
    return detector.suppress(boxes, MAX_OVERLAP)


def rois_of(boxes: np.ndarray, size: tuple[int, int]) -> list[Roi]:
    """Return an upright ROI for each detection, with its calibrated score.

    The landmark model wants the whole person around the hips. A box that the picture's lower edge
    cuts off shows the upper part alone, whose width tells how large the person is.

    Args:
        boxes: (N, 5) in picture pixels.
        size: (H, W) of the picture.
    """
    rois = []
    for x0, y0, x1, y1, score in boxes.tolist():
        width, height = x1 - x0, y1 - y0
        cut = y1 > (1 - _EDGE) * size[0]
        side = max(_SIDE * height, (_CUT_WIDTHS if cut else _WIDTHS) * width)
        down = _CUT_HIPS * side if cut else _HIPS * height
        rois.append(Roi((x0 + x1) / 2, y0 + down, side, 0.0, calibrated(score), by_box=True))
    return rois


def merged(
    outputs: Sequence[tuple[np.ndarray, np.ndarray]],
    views: Sequence[Box],
    size: tuple[int, int],
    anchors: np.ndarray,
) -> np.ndarray:
    """Return the detections in some views of a picture, (N, 5) in its pixels, each person once.

    Args:
        outputs: Of each view, the network's boxes and logits, as `decode` takes them.
        views: The parts of the picture.
        size: (H, W) of the picture.
        anchors: (1917, 4) as from `make_anchors`.
    """
    found = [np.zeros((0, 5))]
    for (raw_boxes, scores), view in zip(outputs, views):
        found.append(in_picture(decode(raw_boxes, scores, anchors), view, size))
    boxes = np.concatenate(found)
    # The usual case: nothing is left to compare.
    if len(boxes) < 2:
        return boxes
    return suppress(boxes[np.argsort(-boxes[:, 4], kind="stable")])


class PersonDetector:
    """The detector through LiteRT, for a CPU. It belongs to one thread at a time.

    Args:
        path: The model file.
        threads: LiteRT's threads.

    Raises:
        ValueError: The file is not the expected model.
        RuntimeError: LiteRT is not installed.
    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._model = load_model(path, OUTPUTS, threads)
        self._anchors = make_anchors()

    def detect(self, image: np.ndarray, views: Sequence[Box]) -> list[Roi]:
        """Return the ROIs of the people in some views of a picture, each once, best score first.

        Args:
            image: (H, W, 3) uint8 RGB.
            views: The parts of the picture to look at.
        """
        return rois_of(self.boxes(image, views), image.shape[:2])

    def boxes(self, image: np.ndarray, views: Sequence[Box]) -> np.ndarray:
        """Return the same people as boxes (N, 5) in pixels: x0, y0, x1, y1 and the raw score."""
        outputs = []
        for view in views:
            boxes, logits = self._model(stretch(image, view, INPUT))
            outputs.append((boxes[0], logits[0, :, PERSON]))
        return merged(outputs, views, image.shape[:2], self._anchors)
