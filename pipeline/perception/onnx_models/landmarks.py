"""Landmark networks for crops in general: RTMPose's kind (SimCC) and ViTPose's (heatmaps).

The file says the input's size and the batch; the outputs' shapes say the kind of head, and so what
a cell is. What the file cannot say is taken as the published models of MMPose have it: RGB,
normalised as ImageNet (mean 123.675, 116.28, 103.53 and deviation 58.395, 57.12, 57.375 of 255,
``bgr_to_rgb`` set), a crop of 1.25 times the box, black beyond the picture. SimCC's cells are equal
parts of the input's pixels; heatmaps' outermost cells lie on the outermost pixels (ViTPose's
unbiased coding, Huang et al., UDP, CVPR 2020). A heatmap network that was trained without that
coding is read up to 2 pixels of the input off.

The points are 2D: depth, and with it who leans where, comes from the fit's prior alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.people import Person
from pipeline.core.skeleton import (
    COCO_17,
    COCO_WHOLEBODY_133,
    HALPE_26,
    MHR_70,
    KeypointSet,
)
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.blazepose.landmarks import box_around
from pipeline.perception.crops import Crop, CropNetwork, CropQuery, normalised
from pipeline.perception.onnx_models.heads import read_heatmaps, read_simcc
from pipeline.perception.onnx_models.session import OnnxError, OnnxModel
from pipeline.perception.top_down import TopDown, make_top_down

GROWTH = 1.25
"""The crop's side over the box's."""
SETS = {each.name: each for each in (COCO_17, COCO_WHOLEBODY_133, HALPE_26, MHR_70)}
"""The sets that a network may report, by the name of the setting."""


class LandmarkModel(CropNetwork):
    """A network of 2D keypoints from its ONNX file.

    Args:
        model: The file.
        keypoints: Which points it reports.

    Raises:
        OnnxError: The file has another interface, or another number of points.
    """

    has_confidence = True

    def __init__(self, model: OnnxModel, keypoints: KeypointSet) -> None:
        if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
            raise OnnxError(f"{model.path}: a landmark network has one input (N, 3, H, W)")
        _, channels, height, width = model.inputs[0].shape
        if channels != 3 or height is None or width is None:
            raise OnnxError(f"{model.path}: its input is no (N, 3, H, W) of a fixed size")
        self.name, self.keypoints = model.path.stem, keypoints
        self.width, self.height, self._model = width, height, model
        self.reports = (model.report,)
        # Files often leave the outputs' sizes open; also the first run, which takes longer.
        outputs = model(np.zeros((1, 3, height, width), np.float32))
        self._check(outputs)
        self._lines = len(outputs) == 2

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        crops = [Crop.around(query.box, GROWTH, self.width, self.height) for query in queries]
        images = normalised([crop.cut(q.frame.image) for q, crop in zip(queries, crops)])
        points, confidence = self.read(self._model(images))
        return [
            _person(crop.in_image(points[k]), confidence[k], self.keypoints)
            for k, crop in enumerate(crops)
        ]

    def read(self, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return points (N, K, 2) in the input's pixels, and their confidence (N, K).

        Args:
            outputs: What the network returned of a batch.
        """
        size = np.array([self.width, self.height], float)
        if self._lines:
            along_x, along_y = outputs
            points, confidence = read_simcc(along_x, along_y)
            return points * size / (along_x.shape[-1], along_y.shape[-1]), confidence
        (maps,) = outputs
        points, confidence = read_heatmaps(maps)
        cells = np.array([maps.shape[-1], maps.shape[-2]])
        return points * (size - 1) / (cells - 1), confidence

    def _check(self, outputs: Sequence[np.ndarray]) -> None:
        shapes = [each.shape for each in outputs]
        size, lengths = (self.width, self.height), tuple(shape[-1] for shape in shapes)
        simcc = len(shapes) == 2 and all(len(shape) == 3 for shape in shapes)
        # Both lines have as many cells a pixel: otherwise they are in another order.
        simcc = simcc and lengths[0] * size[1] == lengths[1] * size[0]
        heatmap = len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][2:]) > 2
        if not simcc and not heatmap:
            raise OnnxError(
                f"{self._model.path}: its outputs {shapes} are neither SimCC's (N, K, Wx) and "
                "(N, K, Wy) nor heatmaps (N, K, h, w)"
            )
        found = {shape[1] for shape in shapes}
        if found != {len(self.keypoints)}:
            fitting = [name for name, each in SETS.items() if found == {len(each)}]
            hint = f"; try --keypoints {fitting[0]}" if fitting else ""
            raise OnnxError(
                f"{self._model.path}: it reports {', '.join(map(str, sorted(found)))} points and "
                f"{self.keypoints.name} has {len(self.keypoints)}{hint}"
            )


def _person(points: np.ndarray, confidence: np.ndarray, keypoints: KeypointSet) -> Person:
    points = points.astype(np.float32)
    return Person(
        box_px=box_around(points, confidence),
        score=float(confidence[: len(COCO_17)].mean()),
        landmarks_px=points,
        visibility=confidence.astype(np.float32),
        world_m=None,
        keypoints=keypoints,
    )


def make(options: PerceiverOptions) -> TopDown:
    """Return the perceiver that measures people with a landmark network of the user's.

    Raises:
        OnnxError: The file is not given, is not there, or does not fit.
        WeightsError: BlazePose's files, which find the people, are missing.
        RuntimeError: ONNX Runtime or LiteRT is not installed.
    """
    if options.model is None:
        raise OnnxError("--estimator onnx needs --model FILE.onnx, and --keypoints for its points")
    if options.keypoints not in SETS:
        raise OnnxError(f"--keypoints is one of {', '.join(SETS)}, not {options.keypoints}")
    model = OnnxModel(options.model, options.device, options.engine)
    return make_top_down(LandmarkModel(model, SETS[options.keypoints]), options)
