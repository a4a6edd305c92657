"""Read weights from PyTorch and safetensors files without running anything in them.

A .pt file is a zip archive with a pickle, and a pickle is a program. ultralytics saves whole
modules that way, so the usual way of reading one runs what it names. Here the pickle becomes
records (`pipeline.weights.safe_unpickle`), whose parameters and buffers are the weights.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.user_file import reading
from pipeline.weights.safe_unpickle import (
    SCRIPTS,
    WEIGHTS,
    Record,
    Storage,
    TensorRecord,
    read_pickle,
    read_pickles,
)

# Far above any real network: they bound what a hostile file can cost.
_MOST_MODULES, _DEEPEST = 20_000, 64
_MOST_PICKLE = 64 << 20
# Weights that share their values are copied apart, and half precision becomes single.
_MOST_COPIED = 4
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class CheckpointError(ValueError):
    """A weights file cannot be used. The message says why, in one line."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, by name. Nothing in the file is executed.

    Args:
        path: A .safetensors file, or a .pt or .pth file of a state dict or a whole module. Either
            may be under "ema", "model" or "state_dict" of a dict, as ultralytics saves them; the
            EMA is preferred.

    Returns:
        Tensors on the CPU: floating point as float32, others in their own type.

    Raises:
        CheckpointError: It is no such file, is damaged, or asks for anything but weights.
        OSError: It cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(4)
    with reading(path, " is no weights file, or a damaged one", CheckpointError):
        if path.suffix == ".safetensors":
            state = _read_safetensors(path)
        elif head == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                state = _Archive(archive, path.stat().st_size).state()
        else:
            state = _Legacy(path).state()
    if not state:
        raise CheckpointError(f"{path} holds no weights")
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def read_script(path: Path) -> dict[str, Tensor]:
    """Return the parameters, buffers and other tensors of a TorchScript program, by name.

    Nothing of the program is executed, and its code is not read.

    Args:
        path: A file as ``torch.jit.save`` writes it.

    Returns:
        Tensors on the CPU, each in its own type.

    Raises:
        CheckpointError: It is no such file, is damaged, or asks for anything but modules.
        OSError: It cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        with (
            reading(path, " is no TorchScript program, or a damaged one", CheckpointError),
            zipfile.ZipFile(file) as archive,
        ):
            return _Archive(archive, size, script=True).state()


def load_exactly(
    module: nn.Module, state: dict[str, Tensor], what: str, assign: bool = False
) -> None:
    """Load weights into a module that has exactly these names and shapes.

    Args:
        module: The module.
        state: The weights, by name.
        what: What the weights should be of, for the error.
        assign: Whether the module gets these tensors themselves, as a module on the meta device
            needs, instead of their values.

    Raises:
        CheckpointError: A name is missing or superfluous, a shape differs, or a value is not
            finite. The module is then unchanged.
    """
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        names = [f"{len(n)} {w} ({n[0]})" for n, w in ((missing, "missing"), (extra, "extra")) if n]
        raise CheckpointError(f"these are not the weights of {what}: {', '.join(names)}")
    for name, value in state.items():
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(own[name].shape)}"
            raise CheckpointError(f"these are not the weights of {what}: {name} is {shapes}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"the weights of {what} are damaged: {name} is not finite")
    module.load_state_dict(state, assign=assign)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError("safetensors is not installed; pip install safetensors") from error
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _tensors_of(root: Any) -> dict[str, Any]:
    """Names and tensors of a state dict or of a module, alone or under one of the usual keys."""
    if isinstance(root, dict):
        for key in ("ema", "model", "state_dict"):
            if isinstance(root.get(key), dict | Record):
                return _tensors_of(root[key])
        if not all(isinstance(value, TensorRecord | Tensor) for value in root.values()):
            raise CheckpointError("neither a state dict nor a module")
        return {str(name): value for name, value in root.items()}
    if not (isinstance(root, Record) and isinstance(root.state, dict)):
        raise CheckpointError("neither a state dict nor a module")
    return _tensors_of_modules(root, _parts_of_module)


_Parts = tuple[dict[str, TensorRecord], dict[str, Any]]
"""The tensors of a module and the modules in it, by name."""


def _parts_of_module(state: dict[Any, Any]) -> _Parts:
    """The parts of a Python module."""
    # Buffers that are not persistent are no part of a state dict.
    transient = state.get("_non_persistent_buffers_set") or ()
    own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
    tensors = {n: t for n, t in own.items() if isinstance(t, TensorRecord) and n not in transient}
    modules = state.get("_modules") or {}
    return tensors, {name: module for name, module in modules.items() if module is not None}


def _parts_of_script(state: dict[Any, Any]) -> _Parts:
    """The parts of a module of TorchScript, whose attributes are all in one."""
    tensors = {name: t for name, t in state.items() if isinstance(t, TensorRecord)}
    return tensors, {
        name: module
        for name, module in state.items()
        if isinstance(module, Record) and name not in tensors and isinstance(module.state, dict)
    }


def _tensors_of_modules(
    root: Record, parts: Callable[[dict[Any, Any]], _Parts]
) -> dict[str, TensorRecord]:
    """Names and tensors of a module and of all modules in it."""
    tensors: dict[str, TensorRecord] = {}
    # With a limit: a module that contains itself would otherwise never end.
    waiting: list[tuple[str, Any]] = [("", root)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return tensors
        prefix, module = waiting.pop()
        state = module.state if isinstance(module, Record) else None
        if not isinstance(state, dict):
            raise CheckpointError("a module without its contents")
        if prefix.count(".") > _DEEPEST:
            break
        own, modules = parts(state)
        tensors.update((f"{prefix}{name}", value) for name, value in own.items())
        waiting += [(f"{prefix}{name}.", module) for name, module in modules.items()]
    raise CheckpointError("a module of more parts than any network has")


class _Tensors:
    """The weights of a file: a pickle that describes them, and values beside it."""

    def __init__(self, size: int) -> None:
        self._bytes_left = _MOST_COPIED * size

    def _records(self) -> dict[str, Any]:
        """What the pickle says of each tensor, by name."""
        raise NotImplementedError

    def _values(self, storage: Storage) -> Tensor:
        """All values of a storage, as one row."""
        raise NotImplementedError

    def _forget(self, key: str) -> None:
        """Called when a storage is not needed any more."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """The weights, by name."""
        records = self._records()
        uses = Counter(_storage_of(record).key for record in records.values())
        tensors = {}
        for name, record in records.items():
            tensors[name] = self._tensor(record)
            key = _storage_of(record).key
            uses[key] -= 1
            if not uses[key]:
                # Files are gigabytes; values that are copied are not kept beside the copy.
                self._forget(key)
        return tensors

    def _tensor(self, record: TensorRecord) -> Tensor:
        """The tensor that a record describes; it must lie within its storage's values."""
        _, offset, size, stride = record.arguments[:4]
        values = self._values(_storage_of(record))
        # `as_strided` reads outside its memory if the numbers say so; they are checked first.
        numbers = (offset, *size, *stride)
        if not all(type(n) is int and 0 <= n < 1 << 40 for n in numbers) or len(size) > 8:
            raise CheckpointError("a tensor of an impossible shape")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count and (last >= len(values) or count > len(values)):
            raise CheckpointError("a tensor that is larger than its values")
        self._bytes_left -= count * values.itemsize
        if self._bytes_left < 0:
            raise CheckpointError("its tensors are larger than the file")
        # Cloned, or a small tensor would keep all of its storage in memory.
        return values.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


def _storage_of(record: TensorRecord) -> Storage:
    storage = record.arguments[0]
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor without values")
    return storage


class _Archive(_Tensors):
    """A zip archive as torch writes it: ``NAME/data.pkl``, and a file for each storage."""

    def __init__(self, archive: zipfile.ZipFile, size: int, script: bool = False) -> None:
        super().__init__(size)
        entries = [entry for entry in archive.infolist() if not _is_code(entry.filename, script)]
        names = [entry.filename for entry in entries]
        if script != any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                "weights alone" if script else "a TorchScript program, not weights"
            )
        self._script = script
        # torch stores entries uncompressed. Compressed or overlapping ones could have any size.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError("its contents are packed, which torch never does")
        if sum(entry.file_size for entry in entries) > size:
            raise CheckpointError("its contents are larger than the file")
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("a zip archive, but not of torch")
        self._archive, self._pickle = archive, pickles[0]
        self._folder = pickles[0].removesuffix("data.pkl")
        self._values_by_key: dict[str, Tensor] = {}
        order = f"{self._folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise CheckpointError("written on a big-endian machine")

    def _records(self) -> dict[str, Any]:
        if self._archive.getinfo(self._pickle).file_size > _MOST_PICKLE:
            raise CheckpointError("its pickle is too large for one of weights")
        data = self._archive.read(self._pickle)
        if not self._script:
            return _tensors_of(read_pickle(data, WEIGHTS))
        root = read_pickle(data, SCRIPTS)
        if not isinstance(root, Record):
            raise CheckpointError("not a module")
        return _tensors_of_modules(root, _parts_of_script)

    def _forget(self, key: str) -> None:
        del self._values_by_key[key]

    def _values(self, storage: Storage) -> Tensor:
        if storage.key not in self._values_by_key:
            entry = self._archive.getinfo(f"{self._folder}data/{storage.key}")
            data = bytearray(entry.file_size)
            if entry.file_size != storage.count * storage.dtype.itemsize:
                raise CheckpointError("values of another number than it says")
            # Read to the end of the entry, because only then zipfile compares its checksum.
            with self._archive.open(entry) as file:
                view = memoryview(data)
                while view:
                    count = file.readinto(view)  # type: ignore[attr-defined]
                    if not count:
                        raise CheckpointError("it ends before its values do")
                    view = view[count:]
                file.read(1)
            empty = torch.empty(0, dtype=storage.dtype)
            values = torch.frombuffer(data, dtype=storage.dtype) if data else empty
            self._values_by_key[storage.key] = values
        return self._values_by_key[storage.key]


def _is_code(name: str, script: bool) -> bool:
    """Whether it is a file of a program's code, which is packed and never read."""
    return script and name.count("/") > 1 and name.split("/")[1] == "code"


class _Legacy(_Tensors):
    """A file as torch before 1.6 wrote it: five pickles, and the values of one storage after
    another."""

    def __init__(self, path: Path) -> None:
        self._data = bytearray(path.read_bytes())
        super().__init__(len(self._data))
        pickles = read_pickles(self._data, WEIGHTS, 5)
        magic, version, system, self._described, keys = pickles.values
        if (magic, version) != (_LEGACY_MAGIC, 1001):
            raise CheckpointError("neither a zip archive of torch nor an older file of it")
        if system.get("little_endian") is not True:
            raise CheckpointError("written on a big-endian machine")
        self._places: dict[str, int] = {}
        end = pickles.end
        for key in keys:
            storage = pickles.storages[key]
            # Each begins with its number of values.
            if int.from_bytes(self._data[end : end + 8], "little") != storage.count:
                raise CheckpointError("values of another number than it says")
            self._places[key] = end + 8
            end += 8 + storage.count * storage.dtype.itemsize
        if end > len(self._data):
            raise CheckpointError("it ends before its values do")

    def _records(self) -> dict[str, Any]:
        return _tensors_of(self._described)

    def _forget(self, key: str) -> None:
        """Do nothing: the file is in memory as a whole."""

    def _values(self, storage: Storage) -> Tensor:
        begin = self._places[storage.key]
        if not storage.count:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(
            self._data[begin : begin + storage.count * storage.dtype.itemsize], dtype=storage.dtype
        )
