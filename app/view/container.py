"""A file of arrays for the page: a header in JSON, then the arrays' bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_ALIGN = 8


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a file that the page reads without copying an array.

    It begins with the header's length as uint32. The header is JSON; its ``arrays`` give each
    array's type, place in the file and number of entries. All numbers are little-endian.

    Args:
        header: What is written as JSON.
        arrays: The arrays, of any shape, by name.
    """
    blocks = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    # A place depends on the header's length, which depends on the digits of the places: written
    # with as many as any file needs.
    room = len(_head(header, blocks, dict.fromkeys(blocks, 10**9)))
    at, places = _aligned(4 + room), {}
    for name, block in blocks.items():
        places[name] = at
        at = _aligned(at + block.nbytes)
    data = bytearray(at)
    head = _head(header, blocks, places).ljust(room)
    data[:4] = len(head).to_bytes(4, "little")
    data[4 : 4 + len(head)] = head
    for name, block in blocks.items():
        data[places[name] : places[name] + block.nbytes] = block.tobytes()
    return bytes(data)


def _head(
    header: Mapping[str, Any], blocks: Mapping[str, np.ndarray], places: Mapping[str, int]
) -> bytes:
    arrays = {
        name: {"type": block.dtype.name, "at": places[name], "count": block.size}
        for name, block in blocks.items()
    }
    return json.dumps({**header, "arrays": arrays}, allow_nan=False).encode()


def _aligned(at: int) -> int:
    return -(-at // _ALIGN) * _ALIGN
