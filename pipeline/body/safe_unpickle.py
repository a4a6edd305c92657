"""Reading arrays out of pickles without letting a pickle do anything.

A pickle is a program: an ordinary unpickler runs whatever it names. Here every name stands for an
inert record of ours; no module is imported and no function of another library is called while
reading. Only afterwards are the records of numpy arrays, scipy sparse matrices and chumpy arrays
(the official SMPL files hold all three) turned into numpy arrays, and only of plain numbers.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np
from scipy import sparse

_NUMBERS = re.compile(r"[biuf][1248]")
_ARRAY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_BROKEN = (
    ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
    pickle.UnpicklingError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class _Record:
    """What a pickle says about one object: the arguments and the state given, nothing done."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    __slots__ = ()


class _Dtype(_Record):
    __slots__ = ()


class _Buffer(_Record):
    __slots__ = ()


class _Chumpy(_Record):
    __slots__ = ()


class _Compressed(_Record):
    __slots__ = ()


class _ByColumn(_Compressed):
    __slots__ = ()


class _ByRow(_Compressed):
    __slots__ = ()


class _Coordinates(_Record):
    __slots__ = ()


class _Nothing(_Record):
    __slots__ = ()


class _Rebuild(_Record):
    """``copyreg._reconstructor(class, base, state)``: an empty object of that class."""

    __slots__ = ()

    def __new__(cls, kind: Any = None, *rest: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise pickle.UnpicklingError("an object of an unknown class")
        return kind()


class _Encode(_Record):
    """``_codecs.encode(text, "latin1")``: how Python 3 writes bytes for older readers."""

    __slots__ = ()

    def __new__(cls, text: Any = "", encoding: Any = "latin1") -> Any:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("an unexpected text encoding")
        return text.encode("latin1")


_SPARSE = {"csc": _ByColumn, "csr": _ByRow, "coo": _Coordinates}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in ("ndarray", "_reconstruct"):
            return _Array
        if module == "numpy" and name == "dtype":
            return _Dtype
        if module in _BUFFER_MODULES and name == "_frombuffer":
            return _Buffer
        if module == "chumpy" or module.startswith("chumpy."):
            return _Chumpy
        if (
            module.startswith("scipy.sparse")
            and name[:3] in _SPARSE
            and name[3:]
            in (
                "_matrix",
                "_array",
            )
        ):
            return _SPARSE[name[:3]]
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return _Rebuild
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return _Nothing
        if (module, name) == ("_codecs", "encode"):
            return _Encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(data: bytes) -> Any:
    """The plain values and inert records of a pickle (Python 2's included).

    Text, numbers, lists and dicts come as they are; arrays as records for `as_array`. ValueError
    if the pickle names anything but arrays, or is not a pickle.
    """
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"refused to unpickle: {reason}") from error


def as_array(value: Any) -> np.ndarray:
    """A number array out of a value of `read_pickle`; sparse matrices become dense.

    ValueError if it is no array of numbers, or its parts disagree.
    """
    try:
        return _convert(value, depth=0)
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(reason) from error


def _convert(value: Any, depth: int) -> np.ndarray:
    if depth > 8:
        raise ValueError("arrays nested too deeply")
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    if isinstance(value, _Array):
        return _array(value, depth)
    if isinstance(value, _Buffer):
        data, dtype, shape, order = value.arguments
        return np.frombuffer(bytes(data), _dtype(dtype)).reshape(shape, order=_order(order))
    if isinstance(value, _Chumpy):
        return _chumpy(_state(value), depth)
    if isinstance(value, (_Compressed, _Coordinates)):
        return _dense(value, depth)
    raise ValueError(f"a {type(value).__name__.strip('_').lower()} where an array should be")


def _array(record: _Array, depth: int) -> np.ndarray:
    _, shape, dtype, fortran, data = record.state
    if isinstance(data, list):
        if tuple(shape) == () and len(data) == 1:
            return _convert(data[0], depth + 1)
        raise ValueError("an array of objects")
    if isinstance(data, str):
        data = data.encode("latin1")
    return np.frombuffer(data, _dtype(dtype)).reshape(shape, order="F" if fortran else "C")


def _chumpy(state: dict[Any, Any], depth: int) -> np.ndarray:
    """A chumpy array's values; a ``Select`` holds another array and places within it."""
    if "x" in state:
        return _convert(state["x"], depth + 1)
    chosen = _convert(state["a"], depth + 1).ravel()[_convert(state["idxs"], depth + 1)]
    return chosen.reshape([int(n) for n in state.get("preferred_shape", chosen.shape)])


def _order(order: Any) -> Any:
    return "F" if order == "F" else "C"


def _dtype(record: Any) -> np.dtype:
    if not isinstance(record, _Dtype):
        raise ValueError("an array without a number type")
    code = record.arguments[0]
    order = record.state[1] if record.state else "="
    if not (isinstance(code, str) and _NUMBERS.fullmatch(code) and order in ("<", ">", "|", "=")):
        raise ValueError(f"an array of {code!r}, not of numbers")
    return np.dtype(order + code)


def _state(record: _Record) -> dict[Any, Any]:
    state = record.state
    if isinstance(state, tuple) and len(state) == 2:
        state = state[0] or state[1]
    if not isinstance(state, dict):
        raise ValueError("an object without its contents")
    return state


def _dense(record: _Record, depth: int) -> np.ndarray:
    state = _state(record)
    shape = state["_shape"] if "_shape" in state else state["shape"]
    rows, columns = (int(n) for n in shape)
    if rows * columns > 50_000_000:
        raise ValueError(f"a {rows} x {columns} matrix")

    def part(name: str) -> np.ndarray:
        return _convert(state[name], depth + 1)

    if isinstance(record, _Coordinates):
        inside = (
            (part("row"), part("col"))
            if "row" in state
            else tuple(_convert(axis, depth + 1) for axis in state["coords"])
        )
        matrix = sparse.coo_matrix((part("data"), inside), shape=(rows, columns))
    else:
        kind = sparse.csc_matrix if isinstance(record, _ByColumn) else sparse.csr_matrix
        matrix = kind((part("data"), part("indices"), part("indptr")), shape=(rows, columns))
        matrix.check_format(full_check=True)
    return matrix.toarray()
