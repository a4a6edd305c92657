"""A TensorFlow Lite graph as a torch module: BlazePose's two models, for any batch and device.

What `tflite.read_graph` reads is rebuilt operator by operator in torch's channels-first layout.
Spatial sizes are the file's, so all padding is known when the module is built and nothing in
``forward`` depends on values: it can be traced, compiled and captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.perception.blazepose import tflite
from pipeline.perception.blazepose.tflite import Graph, Operator

# Numbers of the schema's ActivationFunctionType.
_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    0: lambda x: x,
    1: torch.relu,
    3: lambda x: torch.clamp(x, 0.0, 6.0),
}

_CLIPS = {0: (-torch.inf, torch.inf), 1: (0.0, torch.inf), 3: (0.0, 6.0)}


class GraphModule(nn.Module):
    """A graph as a module from images (B, 3, H, W) to its outputs.

    Outputs have the file's shapes with the batch of one replaced by B; those of rank 4 keep the
    file's order (B, H, W, C).

    Args:
        graph: What `tflite.read_graph` returned.
        outputs: Positions in the file's list of outputs; None takes all. Operators that only the
            others need are left out.

    Raises:
        ValueError: The graph has an operator that BlazePose's models do not use.
    """

    def __init__(self, graph: Graph, outputs: Sequence[int] | None = None) -> None:
        super().__init__()
        wanted = range(len(graph.outputs)) if outputs is None else outputs
        self.ends = tuple(graph.outputs[k] for k in wanted)
        self.start = graph.inputs[0]
        self.shapes = {end: graph.tensors[end].shape for end in self.ends}
        constants = {k: t.values for k, t in enumerate(graph.tensors) if t.values is not None}
        self.operators = _needed(graph, self.ends, constants)
        self.graph, self.constants = graph, constants
        self.steps: list[tuple[Callable[..., Tensor], tuple[int, ...], int]] = []
        for operator in self.operators:
            build = _BUILDERS.get(operator.code)
            if build is None:
                raise ValueError(f"a graph with the unknown operator {operator.code}")
            run, inputs = build(self, graph, operator, constants)
            self.steps.append((run, inputs, operator.outputs[0]))

    def keep(self, operator: Operator, name: str, values: np.ndarray) -> str:
        """Register an operator's constant as a buffer; return the buffer's name."""
        key = f"t{operator.outputs[0]}_{name}"
        # A buffer follows the module to its device and precision.
        self.register_buffer(key, torch.from_numpy(np.ascontiguousarray(values, np.float32)))
        return key

    def halve(self) -> GraphModule:
        """Compute in half precision; changes the module in place, outputs stay single.

        The last convolution before each output stays single too: half precision would round
        landmarks of up to 256 pixels to an eighth of a pixel.
        """
        exact = self._last_convolutions()
        for name, buffer in self.named_buffers():
            if int(name.split("_")[0][1:]) not in exact:
                self._buffers[name] = buffer.half()
        return self

    def _last_convolutions(self) -> set[int]:
        """The tensors of convolutions that no other convolution follows."""
        makers = {end: inputs for _, inputs, end in self.steps}
        exact, pending = set(), list(self.ends)
        while pending:
            end = pending.pop()
            if f"t{end}_weight" in self._buffers:
                exact.add(end)
            else:
                pending += [k for k in makers[end] if k in makers]
        return exact

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's outputs for images (B, 3, H, W)."""
        values = {self.start: images}
        for run, inputs, end in self.steps:
            values[end] = run(*(values[k] for k in inputs))
        return tuple(
            values[k].permute(0, 2, 3, 1) if len(self.shapes[k]) == 4 else values[k]
            for k in self.ends
        )


def _needed(graph: Graph, ends: Sequence[int], constants: dict[int, np.ndarray]) -> list[Operator]:
    """The operators between input and ``ends``, in order.

    Those that only unpack constants, of half precision or sparse, are done here and join
    ``constants``.
    """
    for operator in graph.operators:
        if operator.code in (tflite.DEQUANTIZE, tflite.DENSIFY) and operator.inputs[0] in constants:
            constants[operator.outputs[0]] = constants[operator.inputs[0]].astype(np.float32)
    wanted, chosen = set(ends), []
    # Backwards, so that an operator comes after all that use its result.
    for operator in reversed(graph.operators):
        if operator.outputs[0] in wanted and operator.outputs[0] not in constants:
            chosen.append(operator)
            wanted |= set(operator.inputs)
    return chosen[::-1]


def option(operator: Operator, field: int, default: int = 0) -> int:
    """Return a field of an operator's options; missing ones have the schema's default."""
    return operator.options[field] if field < len(operator.options) else default


def padding_of(operator: Operator, graph: Graph, kernel: tuple[int, int], strides: tuple[int, int]):
    """Return (left, right, top, bottom) as TensorFlow pads: SAME puts the odd pixel last."""
    if option(operator, 0) != tflite.SAME:
        return (0, 0, 0, 0)
    sides = []
    for size, width, stride in zip(graph.tensors[operator.inputs[0]].shape[1:3], kernel, strides):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        sides.append((total // 2, total - total // 2))
    return (*sides[1], *sides[0])


def clip_of(operator: Operator) -> tuple[float, float]:
    """Return the lowest and the highest value that an operator's activation lets pass."""
    field = {
        tflite.CONV_2D: 3, tflite.DEPTHWISE_CONV_2D: 4, tflite.ADD: 0, tflite.CONCATENATION: 1
    }.get(operator.code)  # fmt: skip
    return _CLIPS[0 if field is None else option(operator, field)]


def _conv(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    """CONV_2D, weights (out, h, w, in), and DEPTHWISE_CONV_2D, weights (1, h, w, out)."""
    weights, bias = (constants[k] for k in operator.inputs[1:3])
    depthwise = operator.code == tflite.DEPTHWISE_CONV_2D
    weights = weights.transpose(3, 0, 1, 2) if depthwise else weights.transpose(0, 3, 1, 2)
    groups = weights.shape[0] if depthwise else 1
    if depthwise and option(operator, 3, 1) > 1:
        raise ValueError("a depthwise convolution that multiplies channels")
    strides = (option(operator, 2), option(operator, 1))
    left, right, top, bottom = padding_of(operator, graph, weights.shape[2:], strides)
    act = _ACTIVATIONS[option(operator, 4 if depthwise else 3)]
    even = left == right and top == bottom
    w, b = module.keep(operator, "weight", weights), module.keep(operator, "bias", bias)

    def run(x: Tensor) -> Tensor:
        # conv2d pads both sides alike, so uneven padding takes a step of its own.
        if not even:
            x = F.pad(x, (left, right, top, bottom))
        padding = (top, left) if even else (0, 0)
        w_, b_ = getattr(module, w), getattr(module, b)
        # The layers before an output stay in single precision, so the type may change here.
        return act(F.conv2d(x.to(w_.dtype), w_, b_, strides, padding, groups=groups))

    return run, operator.inputs[:1]


def _add(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    if any(k in constants for k in operator.inputs):
        raise ValueError("a sum with a constant")
    act = _ACTIVATIONS[option(operator, 0)]
    return lambda a, b: act(a + b), operator.inputs


def _pad(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    batch, rows, columns, channels = (
        tuple(int(n) for n in p) for p in constants[operator.inputs[1]]
    )
    if batch != (0, 0):
        raise ValueError("padding of the batch")
    padding = (*columns, *rows, *channels)
    return lambda x: F.pad(x, padding), operator.inputs[:1]


def _pool(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    strides = (option(operator, 2), option(operator, 1))
    kernel = (option(operator, 4), option(operator, 3))
    padding = padding_of(operator, graph, kernel, strides)
    return (
        # With any other number the padding could be the maximum.
        lambda x: F.max_pool2d(F.pad(x, padding, value=-torch.inf), kernel, strides),
        operator.inputs[:1],
    )


def _resize(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    corners, half_pixels = bool(option(operator, 2)), bool(option(operator, 3))
    # torch knows these two conventions only.
    if corners == half_pixels:
        raise ValueError("a resize with neither half pixels nor aligned corners")
    size = graph.tensors[operator.outputs[0]].shape[1:3]
    return (
        lambda x: F.interpolate(x, size, mode="bilinear", align_corners=corners),
        operator.inputs[:1],
    )


def _reshape(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    """Reshape in the file's order, channels last."""
    shape = graph.tensors[operator.outputs[0]].shape
    flat = len(graph.tensors[operator.inputs[0]].shape) != 4

    def run(x: Tensor) -> Tensor:
        x = x if flat else x.permute(0, 2, 3, 1)
        x = x.reshape(len(x), *shape[1:])
        return x.permute(0, 3, 1, 2) if len(shape) == 4 else x

    return run, operator.inputs[:1]


def _concatenate(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    axis, rank = option(operator, 0), len(graph.tensors[operator.outputs[0]].shape)
    # The file's axes are (B, H, W, C), torch's (B, C, H, W).
    axis = (0, 2, 3, 1)[axis % 4] if rank == 4 else axis
    act = _ACTIVATIONS[option(operator, 1)]
    return lambda *parts: act(torch.cat(parts, axis)), operator.inputs


def _depth_to_space(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    """Blocks come first in the channels, unlike in torch's pixel shuffle."""
    block = option(operator, 0)

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, block, block, channels // block**2, height, width)
        return x.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * block, width * block)

    return run, operator.inputs[:1]


def _logistic(module: GraphModule, graph: Graph, operator: Operator, constants: dict) -> Any:
    return torch.sigmoid, operator.inputs[:1]


_BUILDERS: dict[int, Callable[..., Any]] = {
    tflite.ADD: _add,
    tflite.CONCATENATION: _concatenate,
    tflite.CONV_2D: _conv,
    tflite.DEPTHWISE_CONV_2D: _conv,
    tflite.DEPTH_TO_SPACE: _depth_to_space,
    tflite.LOGISTIC: _logistic,
    tflite.MAX_POOL_2D: _pool,
    tflite.PAD: _pad,
    tflite.RESHAPE: _reshape,
    tflite.RESIZE_BILINEAR: _resize,
}
