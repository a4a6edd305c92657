"""Small ONNX networks that really find something: discs of given colours, one for each point."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.perception.crops import IMAGENET_MEAN, IMAGENET_STD

SHARPNESS = 9.0
"""How fast a pixel's evidence falls with the difference of its colour, squared."""


def colours(count: int) -> np.ndarray:
    """Return RGB colours (count, 3) uint8, 24 different ones: brighter than anything in nature."""
    hues = [colorsys.hsv_to_rgb(k / 24, 1.0, 1.0) for k in range(24)]
    return np.rint(255 * np.array([hues[k % 24] for k in range(count)])).astype(np.uint8)


def dotted(
    image: np.ndarray, points: np.ndarray, palette: np.ndarray, radius: int = 5
) -> np.ndarray:
    """Return an image with a disc on each point (K, 2), to a sixteenth of a pixel."""
    out = image.copy()
    for (x, y), colour in zip(points * 16, palette.tolist()):
        cv2.circle(out, (round(x), round(y)), radius * 16, colour, -1, cv2.LINE_AA, 4)
    return out


def write_network(
    path: Path,
    head: str,
    palette: np.ndarray,
    size: tuple[int, int] = (256, 192),
    batch: int | None = None,
    half: bool = False,
    metadata: dict[str, str] | None = None,
    leave_out: str = "",
) -> Path:
    """Write a network that finds the discs of a palette, and return the path.

    Args:
        path: The file to write.
        head: "simcc", "heatmap" or "instanthmr".
        palette: (K, 3) uint8 the discs' colours.
        size: (H, W) of the input.
        batch: The only batch that it takes; None for any.
        half: Whether inputs and outputs are in half precision.
        metadata: What is written beside the network.
        leave_out: An output that the file shall not have.
    """
    height, width = size
    count, kind = len(palette), TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes, weights = [], []

    def const(value, dtype=np.float32):
        name = f"c{len(weights)}"
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(name, *inputs, out=None, **attributes):
        out = out or f"v{len(nodes)}"
        nodes.append(helper.make_node(name, list(inputs), [out], **attributes))
        return out

    def result(value, name):
        op("Cast", value, out=name, to=kind)

    def sure(value, half):
        """From evidence of any size to [0, 1): a half where it is ``half``."""
        return op("Div", value, op("Add", value, const(half)))

    wanted = (palette / 255 - IMAGENET_MEAN) / IMAGENET_STD
    pixels = op("Unsqueeze", op("Cast", "image", to=TensorProto.FLOAT), const([1], np.int64))
    off = op("Sub", pixels, const(wanted[None, :, :, None, None]))
    far = op("ReduceSum", op("Mul", off, off), const([2], np.int64), keepdims=0)
    evidence = op("Exp", op("Mul", far, const(-SHARPNESS)))
    outputs: dict[str, list] = {}
    blurred = evidence
    for _ in range(3):
        blurred = op("AveragePool", blurred, kernel_shape=[7, 7], pads=[3] * 4)
    if head == "heatmap":
        # Cells on the outermost pixels, as in unbiased coding.
        cells = [height // 4, width // 4]
        how = {"coordinate_transformation_mode": "align_corners", "mode": "linear"}
        maps = op("Resize", blurred, "", "", const(cells, np.int64), axes=[2, 3], **how)
        result(sure(maps, 0.01), "maps")
        outputs = {"maps": [count, *cells]}
    elif head == "simcc":
        for name, axis, cells in (("simcc_x", 2, width), ("simcc_y", 3, height)):
            line = op("ReduceSum", blurred, const([axis], np.int64), keepdims=0)
            result(sure(line, 0.1), name)
            outputs[name] = [count, cells]
    else:
        y, x = np.mgrid[:height, :width] + 0.5
        total = op(
            "ReduceSum", op("Add", evidence, const(1e-6)), const([2, 3], np.int64), keepdims=0
        )
        sides = []
        for place, side in ((x, width), (y, height)):
            moment = op("Mul", evidence, const(2 * place / side - 1))
            mean = op("Div", op("ReduceSum", moment, const([2, 3], np.int64), keepdims=0), total)
            sides.append(op("Unsqueeze", mean, const([2], np.int64)))
        places = op("Concat", *sides, axis=2)
        result(places, "joints_2d")
        deep = op("Concat", places, op("Mul", sides[0], const(0.5)), axis=2)
        result(op("Add", deep, const([0.1, 0.2, 0.3])), "joints_3d")
        cliff = op("Cast", "cliff_cond", to=TensorProto.FLOAT)
        result(cliff, "cam_trans")
        first = op("Slice", cliff, const([0], np.int64), const([1], np.int64), const([1], np.int64))
        for name, length in (("mhr_params", 204), ("shape_params", 45)):
            result(op("MatMul", first, const(np.ones((1, length)))), name)
        outputs = {
            "mhr_params": [204], "shape_params": [45], "cam_trans": [3],
            "joints_2d": [count, 2], "joints_3d": [count, 3],
        }  # fmt: skip
    outputs.pop(leave_out, None)
    axis_0 = batch or "N"
    inputs = [helper.make_tensor_value_info("image", kind, [axis_0, 3, height, width])]
    if head == "instanthmr":
        inputs.append(helper.make_tensor_value_info("cliff_cond", kind, [axis_0, 3]))
    ends = [helper.make_tensor_value_info(n, kind, [axis_0, *s]) for n, s in outputs.items()]
    graph = helper.make_graph(nodes, "discs", inputs, ends, weights)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path
