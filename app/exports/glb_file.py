"""Writes glTF 2.0 as one binary file (GLB): a JSON document and one buffer.

Specification: Khronos, glTF 2.0, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from app.outputs.atomic_file import written_whole

_COMPONENTS = {"float32": 5126, "uint8": 5121, "uint16": 5123}
_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTICES, INDICES = 34962, 34963
"""The targets of a buffer's part: what a GPU reads it as."""


class GlbFile:
    """A glTF document that is being made; `write` makes the file.

    Args:
        asset: The document's ``asset`` beside its version.
    """

    def __init__(self, **asset: str) -> None:
        self._document: dict[str, Any] = {"asset": {"version": "2.0", **asset}}
        self._parts: list[np.ndarray] = []
        self._bytes = 0

    def add(self, kind: str, **item: Any) -> int:
        """Return the index of a new item of the list ``kind``, such as "nodes"."""
        items = self._document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_array(self, array: np.ndarray, target: int | None = None, limits: bool = False) -> int:
        """Return the index of an accessor of an array.

        Args:
            array: (N, ...) float32, uint8 or uint16, whose rows are numbers, vectors or matrices
                (in glTF's order: column by column).
            target: `VERTICES` or `INDICES` for arrays of a mesh.
            limits: Whether the accessor states the least and the greatest values, as those of
                positions and times must.
        """
        array = np.ascontiguousarray(array)
        view: dict[str, Any] = {
            "buffer": 0, "byteOffset": self._bytes, "byteLength": array.nbytes,
        }  # fmt: skip
        if target is not None:
            view["target"] = target
        self._parts.append(array)
        # Each part begins at a multiple of four bytes, as floats must.
        self._bytes += -(-array.nbytes // 4) * 4
        accessor: dict[str, Any] = {
            "bufferView": self.add("bufferViews", **view),
            "componentType": _COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": _TYPES[array.shape[1:]],
        }
        if limits:
            rows = array.reshape(len(array), -1)
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        return self.add("accessors", **accessor)

    def write(self, path: Path) -> None:
        """Write the file, complete or not at all. Raises OSError.

        The scene's nodes are those that are no other node's child.
        """
        nodes = self._document["nodes"]
        children = {child for node in nodes for child in node.get("children", ())}
        self._document["scenes"] = [{"nodes": sorted(set(range(len(nodes))) - children)}]
        self._document |= {"scene": 0, "buffers": [{"byteLength": self._bytes}]}
        text = json.dumps(self._document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + self._bytes
        with written_whole(path) as part, part.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, total))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", self._bytes, b"BIN\0"))
            for array in self._parts:
                file.write(array.data)
                file.write(bytes(-array.nbytes % 4))
