"""ONNX files of the size and the operations of published networks, with random weights.

They time `--estimator instanthmr` and `onnx` without anybody's weights. Only the last layer's bias
is no chance: it is a standing person, so that people are followed and fitted as in a real run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.skeleton import COCO_17, MHR_70, KeypointSet

_WIDTHS, _DEPTHS = (64, 128, 256, 512), (4, 4, 24, 4)
"""RepViT-M1.5's stages (Wang et al., RepViT, CVPR 2024): 14 million weights, 2.3 G products."""
_SMALL_WIDTHS, _SMALL_DEPTHS = (64, 128, 256, 512), (2, 2, 14, 2)
"""Stages for 256 x 192 with as many products as RTMPose-m (1.9 G; Jiang et al., 2023)."""
_MODEL, _HEADS = 256, 4
"""Width and attention heads of InstantHMR's decoder."""
_LIMBS = 5
"""Its queries that the joints are read from; four more are read for the rig and the camera."""
_OPSET = 17
_STANDING = {
    "nose": (0.0, -0.86), "left_eye": (0.03, -0.89), "left_ear": (0.07, -0.87),
    "left_shoulder": (0.18, -0.63), "left_elbow": (0.24, -0.3), "left_wrist": (0.26, 0.0),
    "left_hip": (0.1, -0.02), "left_knee": (0.11, 0.46), "left_ankle": (0.11, 0.9),
    "left_heel": (0.1, 0.94), "left_big_toe_tip": (0.14, 0.97), "neck": (0.0, -0.64),
}  # fmt: skip
"""A standing person who faces the camera, x to the right and y down, half its height as the unit;
the other side mirrored."""


class _Graph:
    """A network that is written down operation by operation; the methods return values' names."""

    def __init__(self, seed: int) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._tensor = helper, numpy_helper.from_array
        self._random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def op(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if count == 1 else names

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(self._tensor(np.asarray(value, dtype), name))
        return name

    def normal(self, *shape: int, deviation: float) -> str:
        return self.const(self._random.normal(0, deviation, shape))

    def conv(
        self, x: str, inner: int, outer: int, side: int, stride: int = 1, group: int = 1
    ) -> str:
        fan = inner // group * side * side
        weight = self.normal(outer, inner // group, side, side, deviation=fan**-0.5)
        pad = [side // 2] * 4
        return self.op(
            "Conv",
            x,
            weight,
            self.const(np.zeros(outer)),
            strides=[stride] * 2,
            pads=pad,
            group=group,
        )

    def gelu(self, x: str) -> str:
        # As exporters write it; ONNX Runtime makes one operation of it.
        inner = self.op("Erf", self.op("Div", x, self.const(2**0.5)))
        return self.op(
            "Mul", self.op("Mul", x, self.op("Add", inner, self.const(1.0))), self.const(0.5)
        )

    def linear(self, x: str, inner: int, outer: int, bias: Any = 0.0, gain: float = 1.0) -> str:
        weight = self.normal(inner, outer, deviation=gain * inner**-0.5)
        return self.op("Add", self.op("MatMul", x, weight), self.const(np.zeros(outer) + bias))

    def norm(self, x: str, width: int) -> str:
        one, zero = self.const(np.ones(width)), self.const(np.zeros(width))
        return self.op("LayerNormalization", x, one, zero, axis=-1)

    def mixer(self, x: str, width: int) -> str:
        """RepViT's channel mixer: twice as wide inside."""
        inner = self.gelu(self.conv(x, width, 2 * width, 1))
        return self.op("Add", x, self.conv(inner, 2 * width, width, 1))

    def block(self, x: str, width: int, squeeze: bool) -> str:
        """RepViT's block, its branches merged into one depthwise convolution."""
        x = self.conv(x, width, width, 3, group=width)
        if squeeze:
            inner = self.op(
                "Relu", self.conv(self.op("GlobalAveragePool", x), width, width // 4, 1)
            )
            gate = self.op("Sigmoid", self.conv(inner, width // 4, width, 1))
            x = self.op("Mul", x, gate)
        return self.mixer(x, width)

    def backbone(self, x: str, widths: Sequence[int], depths: Sequence[int]) -> str:
        """RepViT up to its last map, a thirty-second of the picture."""
        x = self.gelu(self.conv(x, 3, widths[0] // 2, 3, 2))
        x = self.conv(x, widths[0] // 2, widths[0], 3, 2)
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            if stage:
                narrow = widths[stage - 1]
                x = self.conv(self.block(x, narrow, False), narrow, narrow, 3, 2, narrow)
                x = self.mixer(self.conv(x, narrow, width, 1), width)
            for place in range(depth):
                x = self.block(x, width, place % 2 == 0)
        return x

    def attention(self, x: str, memory: str) -> str:
        """Multi-head attention of x (N, Q, D) on a memory (N, M, D)."""
        split = self.const([0, 0, _HEADS, _MODEL // _HEADS], np.int64)
        q, k, v = (
            self.op("Transpose", self.op("Reshape", self.linear(y, _MODEL, _MODEL), split), perm=p)
            for y, p in ((x, [0, 2, 1, 3]), (memory, [0, 2, 3, 1]), (memory, [0, 2, 1, 3]))
        )
        scores = self.op("Mul", self.op("MatMul", q, k), self.const((_MODEL // _HEADS) ** -0.5))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        whole = self.op("Reshape", merged, self.const([0, 0, _MODEL], np.int64))
        return self.linear(whole, _MODEL, _MODEL)

    def decoder_layer(self, x: str, memory: str) -> str:
        """A pre-norm layer: attention on itself, attention on the memory, two products."""
        inner = self.norm(x, _MODEL)
        x = self.op("Add", x, self.attention(inner, inner))
        x = self.op("Add", x, self.attention(self.norm(x, _MODEL), memory))
        inner = self.gelu(self.linear(self.norm(x, _MODEL), _MODEL, 4 * _MODEL))
        return self.op("Add", x, self.linear(inner, 4 * _MODEL, _MODEL))

    def rows(self, x: str, first: int, count: int, width: int) -> str:
        """Rows of x (N, Q, D), one behind another: (N, count * D)."""
        ends = [self.const([n], np.int64) for n in (first, first + count, 1)]
        return self.op(
            "Reshape", self.op("Slice", x, *ends), self.const([-1, count * width], np.int64)
        )

    def named(self, x: str, name: str, *shape: int) -> None:
        """End with a value of a name, (N, *shape)."""
        self.nodes.append(
            self._helper.make_node("Reshape", [x, self.const([-1, *shape], np.int64)], [name])
        )

    def write(self, path: Path, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> None:
        """Write the network; the batch of inputs and outputs is open."""
        import onnx

        def ports(of: dict[str, tuple]) -> list[Any]:
            kind = onnx.TensorProto.FLOAT
            return [self._helper.make_tensor_value_info(n, kind, ["N", *s]) for n, s in of.items()]

        graph = self._helper.make_graph(
            self.nodes, "random", ports(inputs), ports(outputs), self.weights
        )
        opset = [self._helper.make_opsetid("", _OPSET)]
        onnx.save(self._helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def write_instanthmr(path: Path, seed: int = 0) -> None:
    """Write a network with InstantHMR's interface, layers and size: 17 million weights.

    Args:
        path: The file to write.
        seed: Seed of the weights.
    """
    net, queries = _Graph(seed), 4 + _LIMBS
    memory = net.conv(net.backbone("image", _WIDTHS, _DEPTHS), _WIDTHS[-1], _MODEL, 1)
    tokens = net.op("Reshape", memory, net.const([0, 0, -1], np.int64))
    tokens = net.op("Transpose", tokens, perm=[0, 2, 1])
    tokens = net.op("Add", tokens, net.normal(1, 49, _MODEL, deviation=0.02))
    # The queries for every crop of the batch.
    zero = net.op("Mul", net.rows(tokens, 0, 1, _MODEL), net.const(0.0))
    zero = net.op("Reshape", zero, net.const([-1, 1, _MODEL], np.int64))
    x = net.op("Add", zero, net.normal(1, queries, _MODEL, deviation=1.0))
    for _ in range(2):
        x = net.decoder_layer(x, tokens)
    camera = net.op("Concat", net.rows(x, 0, 1, _MODEL), "cliff_cond", axis=1)
    camera = net.gelu(net.linear(camera, _MODEL + 3, _MODEL))
    net.named(net.linear(camera, _MODEL, 3, (0, 0, 4), 0.01), "cam_trans", 3)
    pose = net.linear(net.rows(x, 1, 1, _MODEL), _MODEL, 136, gain=0.01)
    scales = net.linear(net.rows(x, 2, 1, _MODEL), _MODEL, 68, gain=0.01)
    net.named(net.op("Concat", pose, scales, axis=1), "mhr_params", 204)
    net.named(net.linear(net.rows(x, 3, 1, _MODEL), _MODEL, 45, gain=0.01), "shape_params", 45)
    limbs, wide = net.rows(x, 4, _LIMBS, _MODEL), _LIMBS * _MODEL
    # The crop is 1.32 times as large as the box around the keypoints, so the person stays.
    flat = standing(MHR_70)
    deep = np.concatenate((0.8 * flat, np.zeros((70, 1))), 1)
    net.named(net.linear(limbs, wide, 140, flat.ravel() / 1.32, 1e-3), "joints_2d", 70, 2)
    net.named(net.linear(limbs, wide, 210, deep.ravel(), 1e-3), "joints_3d", 70, 3)
    net.write(
        path,
        {"image": (3, 224, 224), "cliff_cond": (3,)},
        {
            "mhr_params": (204,), "shape_params": (45,), "cam_trans": (3,),
            "joints_2d": (70, 2), "joints_3d": (70, 3),
        },
    )  # fmt: skip


def write_landmarks(path: Path, seed: int = 0) -> None:
    """Write a network of RTMPose-m's interface and size for COCO's points: SimCC, 256 x 192.

    Args:
        path: The file to write.
        seed: Seed of the weights.
    """
    net, points = _Graph(seed), len(COCO_17)
    x = net.backbone("input", _SMALL_WIDTHS, _SMALL_DEPTHS)
    rows = net.op(
        "Reshape", net.conv(x, _SMALL_WIDTHS[-1], points, 7), net.const([0, 0, -1], np.int64)
    )
    rows = net.linear(rows, 48, 256)
    # The crop is 1.375 times as large as the box around the keypoints.
    places = standing(COCO_17) * 128 / 1.375 + (96, 128)
    for name, axis, cells in (("simcc_x", 0, 384), ("simcc_y", 1, 512)):
        peaks = np.exp(-0.5 * ((np.arange(cells) - 2 * places[:, axis, None]) / 6) ** 2)
        line = net.linear(rows, 256, cells, gain=1e-3)
        net.named(net.op("Add", line, net.const(0.8 * peaks)), name, points, cells)
    outputs = {"simcc_x": (points, 384), "simcc_y": (points, 512)}
    net.write(path, {"input": (3, 256, 192)}, outputs)


def standing(keypoints: KeypointSet) -> np.ndarray:
    """Return a standing person's points (K, 2), x to the right and y down, half its height as the
    unit; points that are not known lie at the wrist of their side, or at the nose."""
    out = []
    for name in keypoints.names:
        left = name.replace("right_", "left_")
        side = "left_wrist" if left != name or name.startswith("left_") else "nose"
        x, y = _STANDING.get(left, _STANDING[side])
        # A person who faces the camera has the left on the picture's right.
        out.append((-x if left != name else x, y))
    points = np.array(out)
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) * (2 / (high - low).max())


WRITERS = {"instanthmr": write_instanthmr, "onnx": write_landmarks}
"""The function that writes the network of an estimator, by the estimator's name."""
