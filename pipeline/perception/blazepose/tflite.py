"""TensorFlow Lite files, read just far enough to rebuild their graph elsewhere.

A .tflite file is a FlatBuffer (tables of optional fields behind vtables; see FlatBuffers' page on
its internals) in TensorFlow Lite's schema (tensorflow/lite/schema/schema.fbs, version 3). Fields
are read by their number in that schema. Everything is checked against the file's end, so that a
broken or hostile file is a ValueError of one line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Numbers of the schema's BuiltinOperator.
ADD, CONCATENATION, CONV_2D, DEPTHWISE_CONV_2D, DEPTH_TO_SPACE, DEQUANTIZE = 0, 2, 3, 4, 5, 6
LOGISTIC, MAX_POOL_2D, RESHAPE, RESIZE_BILINEAR, PAD, DENSIFY = 14, 17, 22, 23, 34, 124
SAME = 0
# Numbers of the schema's TensorType.
_DTYPES = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 9: np.int8}
# A larger file is refused before it fills the memory.
_MOST_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: Its name in the file.
        shape: Its shape.
        dtype: Its numpy dtype.
        values: Its values where it is a constant, else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: type
    values: np.ndarray | None


@dataclass(frozen=True)
class Operator:
    """An operator of the graph.

    Attributes:
        code: The builtin operator's code.
        inputs: Indices of its input tensors; -1 for none.
        outputs: Indices of its output tensors.
        options: The fields of its options table as whole numbers, by position.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """The one subgraph of a file.

    Attributes:
        tensors: All tensors.
        operators: All operators, in order of execution.
        inputs: Indices of the input tensors.
        outputs: Indices of the output tensors.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Table:
    """A FlatBuffer table at ``at``."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - self._number("<i", at)
        # A vtable begins with two sizes (4 bytes) and has 2 bytes for each field.
        self.fields = (self._number("<H", self.vtable) - 4) // 2

    def _number(self, kind: str, at: int) -> int:
        # `struct` would count from the file's end.
        if at < 0:
            raise struct.error("before the file's beginning")
        return struct.unpack_from(kind, self.data, at)[0]

    def _place_of(self, field: int) -> int:
        """Where a field's value lies; 0 where the field is absent."""
        if field >= self.fields:
            return 0
        offset = self._number("<H", self.vtable + 4 + 2 * field)
        # An offset of 0 stands for a field that is absent.
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """A field's number of struct format ``kind``."""
        place = self._place_of(field)
        return self._number(kind, place) if place else default

    def table(self, field: int) -> _Table | None:
        """A field's table, or None."""
        place = self._place_of(field)
        return _Table(self.data, place + self._number("<I", place)) if place else None

    def array(self, field: int, dtype: str) -> np.ndarray:
        """A field's vector of numbers; empty where the field is absent."""
        place = self._place_of(field)
        if not place:
            return np.zeros(0, dtype)
        start = place + self._number("<I", place)
        count = self._number("<I", start)
        if start + 4 + count * np.dtype(dtype).itemsize > len(self.data):
            raise ValueError("an array runs past the file's end")
        return np.frombuffer(self.data, dtype, count, start + 4)

    def tables(self, field: int) -> Iterator[_Table]:
        """A field's vector of tables."""
        offsets = self.array(field, "<u4")
        place = self._place_of(field)
        start = place + self._number("<I", place) + 4 if place else 0
        for k, offset in enumerate(offsets):
            yield _Table(self.data, start + 4 * k + int(offset))


def read_graph(path: str | Path) -> Graph:
    """Return the graph of a model file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a model, or uses what this reader does not know; one line that
            names the file.
    """
    with open(path, "rb") as file:
        # One byte too many shows that a file is too large, without reading all of it.
        data = file.read(_MOST_BYTES + 1)
    try:
        if len(data) > _MOST_BYTES or data[4:8] != b"TFL3":
            raise ValueError("not version 3 of the format")
        return _graph(_Table(data, struct.unpack_from("<I", data)[0]))
    except (struct.error, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is no TensorFlow Lite model: {error}") from error


def _graph(model: _Table) -> Graph:
    # Older files have an operator's code in a byte (field 0), newer ones in field 3.
    codes = [max(c.number(0, "<b"), c.number(3)) for c in model.tables(1)]
    subgraphs = list(model.tables(2))
    buffers = [b.array(0, "<u1") for b in model.tables(4)]
    if len(subgraphs) != 1:
        raise ValueError(f"{len(subgraphs)} subgraphs, one is read")
    main = subgraphs[0]
    tensors = tuple(_tensor(table, buffers) for table in main.tables(0))
    operators = []
    for table in main.tables(3):
        options = table.table(4)
        operators.append(
            Operator(
                codes[table.number(0, "<I")],
                tuple(int(k) for k in table.array(1, "<i4")),
                tuple(int(k) for k in table.array(2, "<i4")),
                _options(options) if options else (),
            )
        )
    ends = (tuple(int(k) for k in main.array(field, "<i4")) for field in (1, 2))
    graph = Graph(tensors, tuple(operators), *ends)
    used = {k for o in operators for k in o.inputs + o.outputs} | {*graph.inputs, *graph.outputs}
    # -1 stands for an input that is left out.
    if used and not -1 <= min(used) <= max(used) < len(tensors):
        raise ValueError("an operator names a tensor that is not there")
    return graph


def _options(table: _Table) -> tuple[int, ...]:
    """All fields; a field's width is the distance to the next one, or to the table's end."""
    places = [table._place_of(field) for field in range(table.fields)]
    end = table.at + table._number("<H", table.vtable + 2)
    values = []
    for place in places:
        after = min((p for p in [*places, end] if p > place), default=end)
        kind = "<i" if after - place >= 4 else "<b"
        values.append(table._number(kind, place) if place else 0)
    return tuple(values)


def _tensor(table: _Table, buffers: list[np.ndarray]) -> Tensor:
    shape = tuple(int(n) for n in table.array(0, "<i4"))
    kind = table.number(1, "<b")
    if kind not in _DTYPES:
        raise ValueError(f"a tensor of the unknown type {kind}")
    dtype, raw = _DTYPES[kind], buffers[table.number(2, "<I")]
    name = bytes(table.array(3, "<u1")).decode(errors="replace")
    if not len(raw):
        return Tensor(name, shape, dtype, None)
    values = raw.view(dtype) if len(raw) % np.dtype(dtype).itemsize == 0 else None
    if values is None:
        raise ValueError(f"{name}: half a number at its end")
    sparsity = table.table(6)
    values = _dense(values, shape, sparsity) if sparsity else values
    return Tensor(name, shape, dtype, values.reshape(shape))


def _dense(values: np.ndarray, shape: tuple[int, ...], sparsity: _Table) -> np.ndarray:
    """A sparse tensor's values in a dense array.

    The format is TACO's (Kjolstad et al., The tensor algebra compiler, OOPSLA 2017): levels in
    traversal order, dense or compressed, blocks last.
    """
    order, blocks = sparsity.array(0, "<i4"), sparsity.array(1, "<i4")
    levels = list(sparsity.tables(2))
    # The tree of coordinates begins with its root alone.
    nodes = 1
    coordinates: list[np.ndarray] = []
    sizes: dict[int, int] = {}
    for level, level_table in zip(order, levels, strict=True):
        if level_table.number(0, "<b") == 0:
            size = level_table.number(1)
            parent, here = np.repeat(np.arange(nodes), size), np.tile(np.arange(size), nodes)
            sizes[int(level)] = size
        else:
            segments, here = (_whole(level_table, field) for field in (3, 5))
            parent = np.repeat(np.arange(nodes), np.diff(segments))
        # The second test bounds the memory that a hostile file can take.
        if len(parent) != len(here) or len(here) > len(values):
            raise ValueError("a sparse tensor's levels do not fit its values")
        coordinates = [c[parent] for c in coordinates] + [here]
        nodes = len(here)
    at = {int(level): c for level, c in zip(order, coordinates)}
    for k, dimension in enumerate(blocks):
        inner = len(shape) + k
        # The inner index counts within a block, the outer one counts blocks.
        at[int(dimension)] = at[int(dimension)] * sizes[inner] + at[inner]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(at[k] for k in range(len(shape)))] = values[:nodes]
    return dense


def _whole(level_table: _Table, field: int) -> np.ndarray:
    """The indices in a union of vectors of 32, 16 or 8 bits."""
    kind, vector = level_table.number(field - 1, "<B"), level_table.table(field)
    if vector is None or kind not in (1, 2, 3):
        raise ValueError("a sparse tensor without its indices")
    return vector.array(0, {1: "<i4", 2: "<u2", 3: "<u1"}[kind]).astype(np.int64)
