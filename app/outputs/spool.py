"""Rows of arrays on disk, a file for each column, so that a long run needs little memory."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.outputs.atomic_file import written_whole
from app.outputs.base import OutputError
from app.outputs.locks import lock
from pipeline.core.npz import read_npz
from pipeline.core.problem import printable
from pipeline.core.program import program
from pipeline.core.user_file import read_text, reading

_CHUNK = 1 << 20
_ABOUT = "columns.json"
_EXTRA = "extra.npz"
_SINGLE = {"fps", "model", "gender", "export"}
"""Extra arrays of one value."""


_ROWS = 4096
"""Rows of a derived column that are made at once."""


@dataclass(frozen=True)
class Derived:
    """A column that is made of others when the file is: its dtype, the shape of a row, and a
    function that returns some rows."""

    dtype: type
    shape: tuple[int, ...]
    make: Callable[[slice], np.ndarray]


def is_written(folder: Path) -> bool:
    """Return whether a process still writes rows into this folder."""
    try:
        with open(folder / _ABOUT, "rb") as mark:
            return lock(mark.fileno()) is False
    except OSError:
        return False


class ColumnSpool:
    """Named columns, each with rows of one shape and dtype, in a hidden folder until `save`.

    The rows outlive a killed process: ``left_behind`` reads them. Every method raises OutputError.

    Args:
        beside: The file or folder that the hidden folder is made beside.
        shapes: The (dtype, shape of a row) of each column.
        extra: Arrays of the whole file.
    """

    def __init__(
        self,
        beside: Path,
        shapes: Mapping[str, tuple[np.dtype | type, tuple[int, ...]]],
        extra: Mapping[str, np.ndarray | np.generic] | None = None,
    ) -> None:
        self.beside = beside
        self.extra = dict(extra or {})
        self.rows = 0
        self._shapes = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}
        self._files: dict[str, IO[bytes]] = {}
        self._mark: IO[bytes] | None = None
        try:
            # Hidden, and beside the output, where `recover` looks for it.
            name = f".{beside.name}."
            self._folder = Path(tempfile.mkdtemp(prefix=name, suffix=".rows", dir=beside.parent))
        except OSError as error:
            raise OutputError(f"{beside}: cannot be written: {error.strerror}") from None
        try:
            np.savez(self._folder / _EXTRA, **self.extra)  # type: ignore[arg-type]
            about = {name: (dtype.str, shape) for name, (dtype, shape) in self._shapes.items()}
            text = json.dumps({"of": beside.name, "columns": about})
            (self._folder / _ABOUT).write_text(text, encoding="utf-8")
            # Marks the folder as being written, for as long as the process lives.
            self._mark = open(self._folder / _ABOUT, "rb")  # noqa: SIM115 (see `close`)
            lock(self._mark.fileno())
            for name in self._shapes:
                self._files[name] = open(self._folder / name, "wb")  # noqa: SIM115 (see `close`)
        except OSError as error:
            # There are no rows in it yet.
            self.close()
            raise OutputError(f"{beside}: cannot be written: {error.strerror}") from None

    @classmethod
    def left_behind(cls, folder: Path) -> ColumnSpool:
        """Return the rows that a killed process left in a folder, or that a running one has there.

        Only the rows that are whole in every column count. The folder is only read. Raises
        OutputError.
        """
        columns = cls.__new__(cls)
        columns._mark, columns._folder = None, folder
        # Where files are missing, the reason of the system is enough.
        try:
            with reading(folder, ": cannot be read: not rows of a run", OutputError):
                columns._read_about(json.loads(read_text(folder / _ABOUT)))
                columns.extra = read_npz(folder / _EXTRA)
                if any(columns.extra[name].shape for name in _SINGLE & columns.extra.keys()):
                    raise ValueError("several values where one should be")
                # A process killed in `append` has written a row to some of the columns only.
                columns.rows = min(
                    (folder / name).stat().st_size // columns._row_bytes(name)
                    for name in columns._shapes
                )
        except FileNotFoundError as error:
            raise OutputError(f"{folder}: cannot be read: {error.strerror}") from None
        columns._files = {}
        return columns

    def _read_about(self, about: Any) -> None:
        """Take the columns and the output's name from a description. Raises ValueError."""
        self._shapes = {
            name: (np.dtype(dtype), tuple(shape))
            for name, (dtype, shape) in about["columns"].items()
        }
        self.beside = self._folder.parent / about["of"]
        # The names are joined to a folder, in which they must stay.
        names = [*self._shapes, about["of"]]
        if any(Path(name).name != name or printable(name) != name for name in names):
            raise ValueError("a name that is no file's")
        for dtype, shape in self._shapes.values():
            if dtype.kind not in "biuf" or not all(type(n) is int and n > 0 for n in shape):
                raise ValueError("a column without numbers")

    @property
    def folder(self) -> Path:
        """The hidden folder of the rows."""
        return self._folder

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self._shapes)

    def _row_bytes(self, name: str) -> int:
        dtype, shape = self._shapes[name]
        return dtype.itemsize * math.prod(shape)

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Add rows and hand them to the system at once.

        Every column's array is (rows, *shape), with the same number of rows in all.
        """
        count = len(next(iter(values.values())))
        for name, (dtype, shape) in self._shapes.items():
            rows = np.ascontiguousarray(values[name], dtype)
            if rows.shape != (count, *shape):
                raise ValueError(f"{name} is {(count, *shape)}, not {rows.shape}")
            try:
                self._files[name].write(rows.data)
                # Out of this process: a kill then loses nothing that was appended.
                self._files[name].flush()
            except OSError as error:
                raise OutputError(f"{self.beside}: cannot write: {error.strerror}") from None
        self.rows += count

    def read(self, name: str) -> np.ndarray:
        """Return a column (rows, *shape), read-only and mapped from disk."""
        dtype, shape = self._shapes[name]
        if self.rows == 0:
            # An empty file cannot be mapped.
            return np.zeros((0, *shape), dtype)
        return np.memmap(self._folder / name, dtype, "r", shape=(self.rows, *shape))

    def save(
        self,
        path: Path,
        derived: Mapping[str, Derived] | None = None,
        facts: Mapping[str, np.ndarray | np.generic] | None = None,
    ) -> None:
        """Write all columns and the extra arrays as one npz, which is complete or not there.

        Args:
            path: The file.
            derived: More columns.
            facts: More arrays of the whole file.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            with (
                written_whole(path) as part,
                zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
            ):
                for name in self._shapes:
                    self._store(archive, name)
                for name, column in (derived or {}).items():
                    self._store_derived(archive, name, column)
                for name, array in {**self.extra, **(facts or {})}.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def _store(self, archive: zipfile.ZipFile, name: str) -> None:
        # By the number of whole rows: a column of a killed run may be longer.
        left = self.rows * self._row_bytes(name)
        with (
            archive.open(f"{name}.npy", "w", force_zip64=True) as entry,
            open(self._folder / name, "rb") as column,
        ):
            self._store_header(entry, *self._shapes[name])
            # In chunks, because a column may be larger than the memory.
            while left and (chunk := column.read(min(_CHUNK, left))):
                entry.write(chunk)
                left -= len(chunk)

    def _store_derived(self, archive: zipfile.ZipFile, name: str, column: Derived) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            self._store_header(entry, np.dtype(column.dtype), column.shape)
            for start in range(0, self.rows, _ROWS):
                rows = column.make(slice(start, min(start + _ROWS, self.rows)))
                entry.write(np.ascontiguousarray(rows, column.dtype).data)

    def _store_header(self, entry: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (self.rows, *shape),
        }
        np.lib.format.write_array_header_1_0(entry, header)

    @contextmanager
    def kept_after_errors(self, given: Path) -> Iterator[None]:
        """Delete the rows at the end of the block; after an error in it keep them for `recover`.

        Args:
            given: What `recover` is called with.

        Raises:
            OutputError: As raised in the block, with where the rows are and, where the system
                refused to write (it was raised on an OSError), how to get the file later.
        """
        try:
            yield
        except OutputError as error:
            self._close_files()
            kept = f"in {self._folder}"
            # Of other errors `recover` would meet the same one again.
            if isinstance(error.__context__, OSError):
                kept = f"with more room, {program()} recover {given}"
            raise OutputError(f"{error}; its rows are kept: {kept}") from None
        self.close()

    def close(self) -> None:
        """Delete the spooled rows. Safe to call twice."""
        self._close_files()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close_files(self) -> None:
        if self._mark is not None:
            self._mark.close()
        for file in self._files.values():
            # What no longer fits the disk is an incomplete row, which `recover` leaves out.
            with suppress(OSError):
                file.close()
