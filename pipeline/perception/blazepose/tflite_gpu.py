"""A TensorFlow Lite graph in our own kernels: one launch a layer, ready in seconds.

BlazePose's layers are so small that launching them takes longer than computing them. Here a
convolution takes in what surrounds it: the padding before it, a depthwise convolution where
computing it again is cheap, the sum behind it and the activation. `tflite_torch.GraphModule` is the
reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.perception.blazepose import tflite
from pipeline.perception.blazepose import tflite_kernels_gpu as kernels
from pipeline.perception.blazepose.tflite import Operator
from pipeline.perception.blazepose.tflite_torch import GraphModule, clip_of, option, padding_of

_CHANNELS = 8
"""Every image in between has a multiple of this many channels, so that a thread reads eight."""
_RECOMPUTED = 64
"""A depthwise convolution of at most this many channels is computed by each program that needs it.
"""


class _Tile(NamedTuple):
    """What a program makes and reads at a time: pixels, output channels, input channels."""

    rows: int
    columns: int
    depth: int


def _tile(pixels: int, channels: int, outputs: int, single: bool) -> _Tile:
    """The tile for a number of pixels: few pixels need small tiles to fill the GPU."""
    narrow = outputs <= 16
    if single:
        return _Tile(64, 16, 16) if pixels > 4096 else _Tile(16, 32, 32)
    if channels <= 16:
        return _Tile(128, 16 if narrow else 64, 16)
    if pixels <= 64:
        return _Tile(16, 16, 128)
    if pixels <= 1024:
        # Many inputs are read in few steps, many outputs made by few programs.
        return _Tile(32, 32, 64) if outputs > channels else _Tile(16, 16 if narrow else 32, 128)
    if channels <= 32:
        return _Tile(128 if pixels > 16384 else 64, 16 if narrow else 64, 32)
    return _Tile(64 if pixels > 4096 else 32, 16 if narrow else 64, 64)


@dataclass(frozen=True)
class _Layer:
    """A convolution or a depthwise one: the names of its buffers, and how it reads its image."""

    weight: str
    bias: str
    side: int
    stride: int
    top: int
    left: int
    low: float
    high: float
    first: bool


class FusedGraph(nn.Module):
    """A graph as a module from images (B, 3, H, W) to its outputs, like `GraphModule`.

    Args:
        reference: The graph's module, already halved where it shall compute in half precision.
        averaged: Outputs of which only the means of squares are wanted, each with the squares'
            side. Each is a convolution without an activation, whose means are a convolution too.

    Raises:
        ValueError: The graph has a layer that the kernels do not know.
    """

    def __init__(self, reference: GraphModule, averaged: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.start, self.ends, self._averaged = reference.start, reference.ends, averaged or {}
        self._shapes = [tensor.shape for tensor in reference.graph.tensors]
        self._constants = reference.constants
        self._uses = Counter(k for op in reference.operators for k in op.inputs)
        self._uses.update(self.ends)
        self._makers = {op.outputs[0]: op for op in reference.operators}
        self._taken: set[int] = set()
        self._first = self._first_layers(reference.operators)
        self._layers = {
            op.outputs[0]: self._layer(op, reference)
            for op in reference.operators
            if op.code in (tflite.CONV_2D, tflite.DEPTHWISE_CONV_2D)
        }
        # Backwards, because what stands behind a layer decides whether it is taken in.
        steps = [self._step(op) for op in reversed(reference.operators)]
        self._steps: list[Callable[[dict[int, Tensor]], None]] = [s for s in steps[::-1] if s]
        # Only read while the steps are made; the weights are buffers now.
        self._constants = {}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's outputs for images (B, 3, H, W)."""
        # The first layer reads the colours' planes; any other operator takes channels last.
        image = images if self._first else images.permute(0, 2, 3, 1)
        values = {self.start: image.contiguous()}
        for step in self._steps:
            step(values)
        return tuple(values[k].reshape(len(images), *self._shapes[k][1:]) for k in self.ends)

    def _first_layers(self, operators: Sequence[Operator]) -> set[int]:
        """The results of convolutions of the colours, if nothing else reads these."""
        colours = self._shapes[self.start][3] == 3
        firsts = [
            op.outputs[0]
            for op in operators
            if op.code == tflite.CONV_2D and self._read_by(op) == self.start and colours
        ]
        return set(firsts) if len(firsts) == self._uses[self.start] else set()

    def _layer(self, op: Operator, reference: GraphModule) -> _Layer:
        """Keep a layer's weights as the kernels read them, and describe it."""
        end, deep = op.outputs[0], op.code == tflite.DEPTHWISE_CONV_2D
        weight, bias = (reference.get_buffer(f"t{end}_{name}") for name in ("weight", "bias"))
        side, strides = weight.shape[2], (option(op, 2), option(op, 1))
        if weight.shape[3] != side or strides[0] != strides[1]:
            raise ValueError("a convolution that is not the same along both axes")
        left, _, top, _ = padding_of(op, reference.graph, (side, side), strides)
        pad = self._padding_before(op)
        if pad is not None:
            rows, columns = self._constants[pad.inputs[1]][1:3]
            top, left = top + int(rows[0]), left + int(columns[0])
        stride = strides[0]
        if end in self._averaged:
            factor = self._averaged[end]
            self._check_averaged(op, factor)
            _, height, width, outputs = self._shapes[end]
            self._shapes[end] = (1, height // factor, width // factor, outputs)
            weight, side, stride = _mean_of(weight, factor), side + factor - 1, factor
        weight = weight.flatten(2).permute(2, 1, 0)  # taps, inputs, outputs
        if deep:
            weight = weight[:, 0]
        else:
            if end in self._first:
                weight = weight.reshape(1, -1, weight.shape[2])
            elif weight.shape[1] % _CHANNELS:
                raise ValueError(f"a convolution of {weight.shape[1]} channels")
            filler = -weight.shape[1] % _CHANNELS
            # Columns beyond the outputs, up to the widest tile, are read but not written.
            weight = F.pad(weight, (0, -weight.shape[2] % 64, 0, filler))
        names = f"w{end}", f"b{end}"
        for name, values in zip(names, (weight, bias)):
            self.register_buffer(name, values.contiguous())
        return _Layer(*names, side, stride, top, left, *clip_of(op), end in self._first)

    def _check_averaged(self, op: Operator, factor: int) -> None:
        height, width = self._shapes[op.outputs[0]][1:3]
        plain = op.code == tflite.CONV_2D and clip_of(op) == (-torch.inf, torch.inf)
        if not plain or self._uses[op.outputs[0]] > 1 or option(op, 1) != 1:
            raise ValueError("means of what is not a plain convolution")
        if height % factor or width % factor:
            raise ValueError(f"means of squares of {factor} in {height}x{width}")

    def _step(self, op: Operator) -> Callable[[dict[int, Tensor]], None] | None:
        """What to run for an operator, None where another one has taken it in."""
        end = op.outputs[0]
        if end in self._taken:
            return None
        if op.code in (tflite.CONV_2D, tflite.DEPTHWISE_CONV_2D):
            return self._convolved(end, op, None, clip_of(op))
        if op.code == tflite.ADD:
            return self._added(op)
        if op.code == tflite.RESIZE_BILINEAR:
            return self._enlarged(end, op, None, (-torch.inf, torch.inf))
        simple = _SIMPLE.get(op.code)
        if simple is None:
            raise ValueError(f"a graph with the unknown operator {op.code}")
        return simple(op, self._constants, self._shapes)

    def _taken_in(self, end: int, *codes: int) -> Operator | None:
        """The operator that makes a tensor, if it is of these and nothing else needs its result."""
        op = self._makers.get(end)
        if op is None or op.code not in codes or self._uses[end] > 1:
            return None
        return op

    def _added(self, op: Operator) -> Callable[[dict[int, Tensor]], None]:
        """A sum: taken in by the convolution or the enlargement on one of its sides."""
        for end, other in (op.inputs, op.inputs[::-1]):
            inner = self._taken_in(end, tflite.CONV_2D, tflite.RESIZE_BILINEAR)
            if inner is None or clip_of(inner) != (-torch.inf, torch.inf):
                continue
            self._taken.add(end)
            pad = self._taken_in(other, tflite.PAD)
            # The kernel takes an addend of fewer channels as it is.
            if (
                pad is not None
                and inner.code == tflite.CONV_2D
                and _channels_padded(pad, self._constants)
            ):
                self._taken.add(other)
                other = pad.inputs[0]
            made = self._convolved if inner.code == tflite.CONV_2D else self._enlarged
            return made(op.outputs[0], inner, other, clip_of(op))
        low, high = clip_of(op)

        def run(values: dict[int, Tensor]) -> None:
            a, b = (values[k] for k in op.inputs)
            values[op.outputs[0]] = (a + b).clamp(low, high)

        return run

    def _padding_before(self, op: Operator) -> Operator | None:
        """The padding of an image that a layer takes in."""
        pad = self._taken_in(op.inputs[0], tflite.PAD)
        return None if pad is None or _channels_padded(pad, self._constants) else pad

    def _read_by(self, op: Operator) -> int:
        """The tensor that a layer reads: what a padding before it reads."""
        pad = self._padding_before(op)
        return op.inputs[0] if pad is None else pad.inputs[0]

    def _image_of(self, op: Operator) -> int:
        """As `_read_by`; the padding is taken in."""
        image = self._read_by(op)
        if image != op.inputs[0]:
            self._taken.add(op.inputs[0])
        return image

    def _convolved(
        self, end: int, op: Operator, addend: int | None, clip: tuple[float, float]
    ) -> Callable[[dict[int, Tensor]], None]:
        layer, source = self._layers[op.outputs[0]], self._image_of(op)
        height, width = self._shapes[op.outputs[0]][1:3]
        if op.code == tflite.DEPTHWISE_CONV_2D:

            def run_deep(values: dict[int, Tensor]) -> None:
                values[end] = self._deep(values[source], layer, height, width)

            return run_deep
        deep, before = None, self._taken_in(source, tflite.DEPTHWISE_CONV_2D)
        if before is not None and layer.side == 1 and self._is_recomputed(before):
            deep = self._layers[source]
            self._taken.add(source)
            source = self._image_of(before)

        def run(values: dict[int, Tensor]) -> None:
            more = None if addend is None else values[addend]
            values[end] = self._mixed(values[source], layer, deep, more, clip, height, width)

        return run

    def _is_recomputed(self, op: Operator) -> bool:
        return self._shapes[op.outputs[0]][3] <= _RECOMPUTED

    def _mixed(
        self,
        image: Tensor,
        layer: _Layer,
        deep: _Layer | None,
        addend: Tensor | None,
        clip: tuple[float, float],
        height: int,
        width: int,
    ) -> Tensor:
        """A convolution (B, height, width, outputs) of an image (B, H, W, C), or of the input."""
        weights, bias = getattr(self, layer.weight), getattr(self, layer.bias)
        outputs, read = len(bias), layer if deep is None else deep
        out = image.new_empty(len(image), height, width, outputs, dtype=weights.dtype)
        pixels, kind = len(image) * height * width, kernels.TAPS
        channels, size = image.shape[3], image.shape[1:3]
        if layer.first:
            kind, channels, size = kernels.FIRST, weights.shape[1], image.shape[2:]
        elif deep is not None:
            kind = kernels.DEPTHWISE
        elif (layer.side, layer.stride, layer.top, layer.left) == (1, 1, 0, 0):
            kind = kernels.POINTWISE
        tile = _tile(pixels, channels, outputs, weights.dtype == torch.float32)
        kernels.convolution[triton.cdiv(pixels, tile.rows), triton.cdiv(outputs, tile.columns)](
            image, weights, bias,
            getattr(self, read.weight), getattr(self, read.bias),
            image if addend is None else addend, out,
            pixels, *size, height, width, channels // _CHANNELS, outputs,
            weights.shape[2], 0 if addend is None else addend.shape[3],
            read.stride, read.top, read.left, *clip, read.low, read.high,
            KIND=kind, SIDE=read.side, ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth,
        )  # fmt: skip
        return out

    def _deep(self, image: Tensor, layer: _Layer, height: int, width: int) -> Tensor:
        """A depthwise convolution (B, height, width, C) of an image (B, H, W, C)."""
        weights, channels = getattr(self, layer.weight), image.shape[3]
        out = image.new_empty(len(image), height, width, channels, dtype=weights.dtype)
        pixels = len(image) * height * width
        rows, depth = (32, 32) if pixels > 4096 else (16, 64)
        kernels.depthwise[triton.cdiv(pixels, rows), triton.cdiv(channels, depth)](
            image, weights, getattr(self, layer.bias), out,
            pixels, *image.shape[1:3], height, width, channels // _CHANNELS,
            layer.stride, layer.top, layer.left, layer.low, layer.high,
            SIDE=layer.side, ROWS=rows, DEPTH=depth,
        )  # fmt: skip
        return out

    def _enlarged(
        self, end: int, op: Operator, addend: int | None, clip: tuple[float, float]
    ) -> Callable[[dict[int, Tensor]], None]:
        if option(op, 2) or not option(op, 3):
            raise ValueError("a resize without half pixels")
        height, width = self._shapes[end][1:3]

        def run(values: dict[int, Tensor]) -> None:
            image = values[op.inputs[0]]
            out = image.new_empty(len(image), height, width, image.shape[3])
            pixels, channels = len(image) * height * width, image.shape[3]
            # Eight numbers a thread.
            rows, depth = (128, 8) if channels == _CHANNELS else (64, 16)
            kernels.enlarge[triton.cdiv(pixels, rows), triton.cdiv(channels, depth)](
                image, image if addend is None else values[addend], out,
                pixels, *image.shape[1:3], height, width, channels // _CHANNELS,
                0 if addend is None else channels, *clip, ROWS=rows, DEPTH=depth,
            )  # fmt: skip
            values[end] = out

        return run


def _mean_of(weight: Tensor, factor: int) -> Tensor:
    """The weights (O, I, k + factor - 1, ...) of a convolution that gives the means of another's
    results over squares: the sum of that one's weights at all places in a square."""
    squares = weight.new_full((1, 1, factor, factor), 1 / factor**2)
    moved = F.conv2d(weight.flatten(0, 1)[:, None].float(), squares.float(), padding=factor - 1)
    return moved[:, 0].unflatten(0, weight.shape[:2]).to(weight.dtype)


def _channels_padded(op: Operator, constants: dict) -> bool:
    return bool(constants[op.inputs[1]][3].any())


def _pad(op: Operator, constants: dict, shapes: Any) -> Callable[[dict[int, Tensor]], None]:
    _, rows, columns, channels = (tuple(int(n) for n in p) for p in constants[op.inputs[1]])
    return _of_one(op, lambda x: F.pad(x, (*channels, *columns, *rows)))


def _pool(op: Operator, constants: dict, shapes: Any) -> Callable[[dict[int, Tensor]], None]:
    strides, sides = (option(op, 2), option(op, 1)), (option(op, 4), option(op, 3))
    if strides != sides or any(n % s for n, s in zip(shapes[op.inputs[0]][1:3], sides)):
        raise ValueError("a pool whose windows overlap or stand out")
    down, across = sides

    def run(x: Tensor) -> Tensor:
        parts = x.unflatten(1, (-1, down)).unflatten(3, (-1, across))
        return parts.amax((2, 4))

    return _of_one(op, run)


def _reshape(op: Operator, constants: dict, shapes: Any) -> Callable[[dict[int, Tensor]], None]:
    shape = shapes[op.outputs[0]][1:]
    return _of_one(op, lambda x: x.reshape(len(x), *shape))


def _depth_to_space(
    op: Operator, constants: dict, shapes: Any
) -> Callable[[dict[int, Tensor]], None]:
    block = option(op, 0)

    def run(x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        parts = x.reshape(batch, height, width, block, block, -1).transpose(2, 3)
        return parts.reshape(batch, height * block, width * block, -1)

    return _of_one(op, run)


def _logistic(op: Operator, constants: dict, shapes: Any) -> Callable[[dict[int, Tensor]], None]:
    return _of_one(op, torch.sigmoid)


def _concatenate(op: Operator, constants: dict, shapes: Any) -> Callable[[dict[int, Tensor]], None]:
    axis, (low, high) = option(op, 0), clip_of(op)

    def run(values: dict[int, Tensor]) -> None:
        joined = torch.cat([values[k] for k in op.inputs], axis)
        values[op.outputs[0]] = joined if low == -torch.inf else joined.clamp(low, high)

    return run


def _of_one(
    op: Operator, function: Callable[[Tensor], Tensor]
) -> Callable[[dict[int, Tensor]], None]:
    def run(values: dict[int, Tensor]) -> None:
        values[op.outputs[0]] = function(values[op.inputs[0]])

    return run


_SIMPLE: dict[int, Callable[..., Callable[[dict[int, Tensor]], None]]] = {
    tflite.CONCATENATION: _concatenate,
    tflite.DEPTH_TO_SPACE: _depth_to_space,
    tflite.LOGISTIC: _logistic,
    tflite.MAX_POOL_2D: _pool,
    tflite.PAD: _pad,
    tflite.RESHAPE: _reshape,
}
"""Operators that are rare or only move numbers: torch's, channels last."""
