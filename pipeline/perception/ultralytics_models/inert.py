"""Pickles of weights read as inert records: names in them are neither imported nor called.

Every name that an honest file may hold stands for a type of ours that keeps what it is given; any
other name is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import torch

_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_INERT_PACKAGES = ("ultralytics.", "torch.nn.", "torchvision.transforms.")
_INERT_NAMES = {
    "builtins.getattr", "__builtin__.getattr", "builtins.object", "__builtin__.object",
    "builtins.slice", "_codecs.encode", "copyreg._reconstructor", "functools.partial",
    "types.SimpleNamespace", "argparse.Namespace", "torch.Size", "torch.device",
    "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.Path", "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
}  # fmt: skip
"""What honest files name beside weights. Each stands for a record; none of it is called."""
_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class Record:
    """What a pickle says about one object: the arguments and the state given, nothing done."""

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class Storage:
    """Which file holds some values, how many there are and of what type."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, key: str, dtype: torch.dtype, count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count


class TensorRecord(Record):
    """``_rebuild_tensor_v2(storage, offset, size, stride, ...)``."""


class _Parameter(Record):
    """``_rebuild_parameter(tensor, ...)``: the tensor."""

    def __new__(cls, tensor: Any = None, *_: Any) -> Any:
        return tensor


class Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        # Made anew for each file: what one does to its records stays its own.
        self._types: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        full, kind = f"{module}.{name}", Record
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            kind = TensorRecord
        elif full.startswith("torch._utils._rebuild_parameter"):
            kind = _Parameter
        elif not (
            full in _INERT_NAMES
            or full.startswith(_INERT_PACKAGES)
            or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))
        ):
            raise pickle.UnpicklingError(f"it asks for {full}, which weights never need")
        if full not in self._types:
            self._types[full] = type(name, (kind,), {})
        return self._types[full]

    def persistent_load(self, pid: Any) -> Storage:
        what, dtype, key, _, count = pid
        if what != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
            raise pickle.UnpicklingError("it refers to something that is not stored in it")
        if not (isinstance(key, str) and key.isdecimal()):
            raise pickle.UnpicklingError("it refers to values outside its own")
        return Storage(key, dtype, count)
