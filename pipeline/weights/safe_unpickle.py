"""Read pickles without running what they say.

A pickle is a program: the standard unpickler imports and calls whatever the pickle names. This
module interprets the same opcodes, but a name in the pickle only looks up an entry of a table.
No module is imported for it and no function of another library is called; the entry makes a
record of the arguments. A name that is not in the table ends the reading with `UnpickleError`.

There are two tables, one for each kind of file that is read here:

* `ARRAYS`: the official SMPL files, which hold numpy, scipy.sparse and chumpy arrays. `as_array`
  turns a record into a numpy array afterwards, and only if it holds plain numbers.
* `WEIGHTS`: the pickle inside a PyTorch checkpoint, a state dict or a whole module. The tensors'
  values lie beside the pickle; a `TensorRecord` says where.

Memory stays in proportion to the pickle's size. Python's own C unpickler does not promise that: it
reserves as much memory as an opcode asks for before it looks at what the pickle holds.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import sparse

_MOST_REASON = 120
# A sparse matrix of a few bytes can state any size; these are 24 joints by 100,000 vertices.
_MOST_DENSE = 2_400_000
# An object takes a hundred bytes of memory and one of the pickle. Files of bodies and networks have
# some ten thousand objects.
_MOST_READS = 2_000_000
_DEEPEST_ARRAY = 8
_DEEPEST_KEY, _LONGEST_KEY = 4, 16
_NUMBERS = re.compile(r"[biuf][1248]")


class UnpickleError(ValueError):
    """The pickle is damaged, is no pickle, or names something that it has no business to name.

    The message is one line.
    """


# --- records ----------------------------------------------------------------------------------


class Record:
    """One object of a pickle: the arguments and the state that the pickle gives it.

    The pickle may also append to the object or set items of it. Nothing here needs these, so they
    are dropped.
    """

    __slots__ = ("arguments", "state")

    def __init__(self, arguments: tuple[Any, ...] = ()) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


class Array(Record):
    """A numpy array: its state is (version, shape, dtype, Fortran order, data)."""

    __slots__ = ()


class Dtype(Record):
    """``numpy.dtype(code, ...)``; the state's second item is the byte order."""

    __slots__ = ()


class Buffer(Record):
    """``numpy._frombuffer(data, dtype, shape, order)``."""

    __slots__ = ()


class Scalar(Record):
    """``numpy.core.multiarray.scalar(dtype, data)``: one number."""

    __slots__ = ()


class Encoded(Record):
    """``_codecs.encode(text, "latin1")``: the way Python 3 writes bytes for older readers."""

    __slots__ = ()


class Chumpy(Record):
    """An array of chumpy, the library that the oldest SMPL files were written with."""

    __slots__ = ()


class Columns(Record):
    """A scipy matrix stored by column (CSC)."""

    __slots__ = ()


class Rows(Record):
    """A scipy matrix stored by row (CSR)."""

    __slots__ = ()


class Coordinates(Record):
    """A scipy matrix stored as coordinates (COO)."""

    __slots__ = ()


class TensorRecord(Record):
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)``."""

    __slots__ = ()


class Storage:
    """The values of a tensor: the file that holds them, their type and their number."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, key: str, dtype: torch.dtype, count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count


# --- tables of the allowed globals ------------------------------------------------------------

Maker = Callable[[tuple[Any, ...]], Any]
"""Makes what a call in a pickle stands for, out of the call's arguments. Does nothing else."""


class Global:
    """A name in a pickle. It stands where the class or function itself would be."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Maker) -> None:
        self.name, self.make = name, make


@dataclass(frozen=True)
class Table:
    """The globals that a pickle may name.

    Attributes:
        makers: For patterns that match the whole of ``module.name``: what a call stands for. The
            first pattern that matches counts.
        constants: Names that stand for a value themselves.
        storages: Whether the pickle may refer to tensors' values beside it (persistent ids).
        refusal: Ends the message about a name that is not in the table.
    """

    makers: tuple[tuple[re.Pattern[str], Maker], ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    storages: bool = False
    refusal: str = ""


def _makers(patterns: dict[str, Maker]) -> tuple[tuple[re.Pattern[str], Maker], ...]:
    return tuple((re.compile(pattern), make) for pattern, make in patterns.items())


def _rebuild(arguments: tuple[Any, ...]) -> Any:
    """``copyreg._reconstructor(class, base, state)``: an empty object of that class."""
    kind = arguments[0]
    if not (isinstance(kind, Global) and isinstance(kind.make, type)):
        raise UnpickleError("an object of an unknown class")
    return kind.make(())


def _parameter(arguments: tuple[Any, ...]) -> Any:
    """``torch._utils._rebuild_parameter(tensor, ...)``: the tensor."""
    return arguments[0] if arguments else None


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    items = arguments[0] if arguments else ()
    return {_checked_key(item) for item in items}


def _dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    items = arguments[0] if arguments else ()
    return {_checked_key(key): value for key, value in items}


ARRAYS = Table(
    _makers(
        {
            r"numpy(\._?core\.multiarray)?\.(ndarray|_reconstruct)": Array,
            r"numpy\.dtype": Dtype,
            r"numpy\._?core\.multiarray\.scalar": Scalar,
            r"numpy\._?core\.numeric\._frombuffer": Buffer,
            r"chumpy\..+": Chumpy,
            r"scipy\.sparse(\.\w+)*\.csc_(matrix|array)": Columns,
            r"scipy\.sparse(\.\w+)*\.csr_(matrix|array)": Rows,
            r"scipy\.sparse(\.\w+)*\.coo_(matrix|array)": Coordinates,
            r"(copy_reg|copyreg)\._reconstructor": _rebuild,
            r"(__builtin__|builtins)\.object": Record,
            r"_codecs\.encode": Encoded,
        }
    )
)
"""Numbers in arrays of numpy, scipy.sparse and chumpy, pickled by Python 2 or 3."""

_DTYPES = "|".join(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))

WEIGHTS = Table(
    _makers(
        {
            r"torch\._utils\._rebuild_tensor(_v2)?": TensorRecord,
            r"torch\._utils\._rebuild_parameter.*": _parameter,
            r"collections\.OrderedDict": _dict,
            r"(__builtin__|builtins)\.set": _set,
            # The rest is what honest files hold beside weights: the modules themselves, settings
            # of the training, paths. It is read over.
            r"(ultralytics|torch\.nn|torchvision\.transforms)\..+": Record,
            rf"torch\.(Size|device|{_DTYPES})": Record,
            r"(__builtin__|builtins)\.(getattr|object)|builtins\.slice": Record,
            r"_codecs\.encode|copyreg\._reconstructor|functools\.partial": Record,
            r"types\.SimpleNamespace|argparse\.Namespace": Record,
            r"numpy\.(dtype|ndarray)|numpy\._?core\.multiarray\.(scalar|_reconstruct)": Record,
            r"pathlib\.Path|pathlib(\._local)?\.(Posix|Windows)Path": Record,
        }
    ),
    constants={
        "torch.FloatStorage": torch.float32,
        "torch.HalfStorage": torch.float16,
        "torch.DoubleStorage": torch.float64,
        "torch.BFloat16Storage": torch.bfloat16,
        "torch.LongStorage": torch.int64,
        "torch.IntStorage": torch.int32,
        "torch.ShortStorage": torch.int16,
        "torch.CharStorage": torch.int8,
        "torch.ByteStorage": torch.uint8,
        "torch.BoolStorage": torch.bool,
    },
    storages=True,
    refusal=", which weights never need",
)
"""State dicts and modules of PyTorch and ultralytics, as ``torch.save`` writes them."""


# --- the machine ------------------------------------------------------------------------------


def read_pickle(data: bytes, table: Table) -> Any:
    """Return the plain values and the records of a pickle.

    Text, numbers, lists, sets and dicts come as they are (Python 2's text decoded as Latin-1),
    every other object as a `Record`.

    Args:
        data: The whole pickle, of any protocol.
        table: The globals that it may name: `ARRAYS` or `WEIGHTS`.

    Raises:
        UnpickleError: The pickle is damaged, is none, or names what is not in ``table``.
    """
    return read_pickles(data, table, 1).values[0]


@dataclass(frozen=True)
class Pickles:
    """Several pickles, one after another.

    Attributes:
        values: What each holds, as `read_pickle` returns it.
        storages: The tensors' values that they refer to, by key.
        end: Where the last one ends, in bytes.
    """

    values: list[Any]
    storages: dict[str, Storage]
    end: int


def read_pickles(data: bytes | bytearray, table: Table, count: int) -> Pickles:
    """Return the first pickles of a file.

    Args:
        data: The pickles, and what follows them.
        table: As in `read_pickle`.
        count: How many to read.

    Raises:
        UnpickleError: As `read_pickle`.
    """
    stream, storages = _Counted(data), dict[str, Storage]()
    try:
        values = [_Machine(stream, len(data), table, storages).load() for _ in range(count)]
        return Pickles(values, storages, stream.tell())
    # A damaged pickle may trip over anything: types, indices, numbers, memory, recursion. No code
    # of the pickle runs, so every error is the pickle's fault and means the same.
    except Exception as error:
        raise UnpickleError(_one_line(error)) from error


# The opcodes that only push, pop, copy or collect plain values. The machine has its own version of
# those that call something, and of those that could reserve too much. All others are refused, those
# of future protocols too: extension codes (EXT1, EXT2, EXT4) and buffers out of band.
_PLAIN_OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1,
    pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT,
    pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE,
    pickle.BINUNICODE8, pickle.SHORT_BINUNICODE, pickle.BINBYTES, pickle.BINBYTES8,
    pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2,
    pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS,
    pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.GET, pickle.BINGET, pickle.LONG_BINGET,
    pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL,
    pickle.STACK_GLOBAL, pickle.INST, pickle.OBJ, pickle.PERSID, pickle.BINPERSID,
)  # fmt: skip


# The unpickler written in Python, not the one in C: its memo is a dict, so that an opcode cannot
# have a table of four thousand million entries made, and each opcode can be replaced.
_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class _Counted(io.BytesIO):
    """The bytes of a pickle, which are read at most `_MOST_READS` times, once for each opcode."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise UnpickleError("it holds too many objects")
        return super().read(size)


class _Machine(_PythonUnpickler):
    def __init__(
        self, stream: _Counted, size: int, table: Table, storages: dict[str, Storage]
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._table, self._storages = table, storages
        # Every item of an honest set or dict has a byte of its own in the pickle. A call, though,
        # can be given the same list again and again, for a copy of it each time.
        self._items_left = size

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._table.constants:
            return self._table.constants[full]
        for pattern, make in self._table.makers:
            if pattern.fullmatch(full):
                return Global(full, make)
        raise UnpickleError(f"it asks for {full}{self._table.refusal}")

    def persistent_load(self, pid: Any) -> Storage:
        if not self._table.storages:
            raise UnpickleError("it refers to something outside of it")
        # Files of torch before 1.6 add a view, which is None in all that are still around.
        what, dtype, key, _, count = pid[:-1] if len(pid) == 6 and pid[5] is None else pid
        if what != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
            raise UnpickleError("it refers to something that is not stored in it")
        # torch names storages by numbers; anything else could be a path.
        if not (isinstance(key, str) and key.isdecimal()):
            raise UnpickleError("it refers to values outside its own")
        return self._storages.setdefault(key, Storage(key, dtype, count))

    def _call(self, function: Any, arguments: Any) -> Any:
        """The one place where a pickle's call becomes one of ours."""
        if not (isinstance(function, Global) and isinstance(arguments, tuple)):
            raise UnpickleError("it calls something that is no function")
        if function.make in (_set, _dict) and arguments:
            self._items_left -= len(arguments[0])
            if self._items_left < 0:
                raise UnpickleError("it holds more than fits into it")
        return function.make(arguments)

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        """The end of the opcodes INST and OBJ, which give a list of arguments."""
        self.append(self._call(kind, tuple(arguments)))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _new_with_names(self) -> None:
        self.stack.pop()  # arguments by name, which no record keeps
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        # Anything else (a dict with attributes) is only used for its items.
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif isinstance(self.stack[-1], Global):
            raise UnpickleError("it changes a class")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_checked_key(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._put_in(self.stack[-1], items)

    def _marked_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put_in(self.stack[-1], items)

    @staticmethod
    def _put_in(target: Any, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def _add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise UnpickleError("it adds to something that is no set")
        self.stack[-1].update(_checked_key(item) for item in items)

    def _frozen_set(self) -> None:
        self.append(frozenset(_checked_key(item) for item in self.pop_mark()))

    def _byte_array(self) -> None:
        # The original reserves all that the length says before it reads any of it.
        (length,) = struct.unpack("<Q", self.read(8))
        data = self.read(length)
        if len(data) != length:
            raise EOFError
        self.append(data)

    def _frame(self) -> None:
        # A frame says how much to read ahead, which bytes in memory do not need.
        self.read(8)

    def _refuse(self) -> None:
        raise UnpickleError("an opcode that plain data never needs")

    dispatch = {
        **dict.fromkeys(range(256), _refuse),
        **{code[0]: _PythonUnpickler.dispatch[code[0]] for code in _PLAIN_OPCODES},
        pickle.FRAME[0]: _frame,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_with_names,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _marked_dict,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.BYTEARRAY8[0]: _byte_array,
    }


def _checked_key(key: Any, depth: int = 0) -> Any:
    """The key itself. A tuple's hash descends into it without a limit and could overrun the stack,
    so tuples nested too deeply (or too long, for the time it takes) are refused."""
    if isinstance(key, tuple | frozenset):
        if depth >= _DEEPEST_KEY or len(key) > _LONGEST_KEY:
            raise UnpickleError("a key of too many parts")
        for part in key:
            _checked_key(part, depth + 1)
    return key


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:_MOST_REASON] or type(error).__name__


# --- arrays out of records --------------------------------------------------------------------


def as_array(value: Any) -> np.ndarray:
    """Return the array of numbers that a value of `read_pickle` describes.

    Args:
        value: An array's record, or an array of numbers, which is returned as it is. Sparse
            matrices become dense.

    Raises:
        UnpickleError: It is no array of numbers, or its parts disagree.
    """
    try:
        return _convert(value, depth=0)
    except Exception as error:  # as in `read_pickle`: the record's parts may be anything
        raise UnpickleError(_one_line(error)) from error


def _convert(value: Any, depth: int) -> np.ndarray:
    if depth > _DEEPEST_ARRAY:
        raise ValueError("arrays nested too deeply")
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    if isinstance(value, Array):
        return _array(value, depth)
    if isinstance(value, Buffer):
        data, dtype, shape, order = value.arguments
        return _shaped(data, dtype, shape, order == "F")
    if isinstance(value, Scalar):
        dtype, data = value.arguments
        return _shaped(data, dtype, (), False)
    if isinstance(value, Chumpy):
        return _chumpy(_attributes(value), depth)
    if isinstance(value, Columns | Rows | Coordinates):
        return _dense(value, depth)
    raise ValueError(f"a {type(value).__name__.lower()} where an array should be")


def _array(record: Array, depth: int) -> np.ndarray:
    _, shape, dtype, fortran, data = record.state
    if isinstance(data, list):
        if tuple(shape) == () and len(data) == 1:
            return _convert(data[0], depth + 1)
        raise ValueError("an array of objects")
    return _shaped(data, dtype, shape, bool(fortran))


def _shaped(data: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray:
    return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(shape, order="F" if fortran else "C")


def _bytes(data: Any) -> bytes:
    """The bytes of an array, which Python 2 wrote as text."""
    if isinstance(data, Encoded):
        data, encoding = data.arguments
        if encoding not in ("latin1", "latin-1"):
            raise ValueError("an unexpected text encoding")
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes):  # a number would be taken as a length
        raise ValueError("an array without bytes")
    return data


def _chumpy(attributes: dict[Any, Any], depth: int) -> np.ndarray:
    """A chumpy array's values; a ``Select`` holds another array and indices into it."""
    if "x" in attributes:
        return _convert(attributes["x"], depth + 1)
    source = _convert(attributes["a"], depth + 1).ravel()
    selected = source[_convert(attributes["idxs"], depth + 1)]
    return selected.reshape([int(n) for n in attributes.get("preferred_shape", selected.shape)])


def _dtype(record: Any) -> np.dtype:
    if not isinstance(record, Dtype):
        raise ValueError("an array without a number type")
    code = record.arguments[0]
    order = record.state[1] if record.state else "="
    if not (isinstance(code, str) and _NUMBERS.fullmatch(code) and order in ("<", ">", "|", "=")):
        raise ValueError(f"an array of {code!r}, not of numbers")
    return np.dtype(order + code)


def _attributes(record: Record) -> dict[Any, Any]:
    """An object's attributes. Its state is a dict, or two of which the second holds the slots."""
    state = record.state
    if isinstance(state, tuple) and len(state) == 2:
        state = state[0] or state[1]
    if not isinstance(state, dict):
        raise ValueError("an object without its contents")
    return state


def _dense(record: Record, depth: int) -> np.ndarray:
    attributes = _attributes(record)
    # scipy renamed the attribute; both spellings are in files.
    shape = attributes["_shape"] if "_shape" in attributes else attributes["shape"]
    rows, columns = (int(n) for n in shape)
    if rows * columns > _MOST_DENSE:
        raise ValueError(f"a {rows} x {columns} matrix")

    def part(name: str) -> np.ndarray:
        return _convert(attributes[name], depth + 1)

    if isinstance(record, Coordinates):
        places = (
            (part("row"), part("col"))
            if "row" in attributes
            else tuple(_convert(axis, depth + 1) for axis in attributes["coords"])
        )
        matrix = sparse.coo_matrix((part("data"), places), shape=(rows, columns))
    else:
        kind = sparse.csc_matrix if isinstance(record, Columns) else sparse.csr_matrix
        matrix = kind((part("data"), part("indices"), part("indptr")), shape=(rows, columns))
        # Indices out of range would be written past the end of the dense matrix.
        matrix.check_format(full_check=True)
    return matrix.toarray()
