"""Rows of arrays that grow on disk, a file a column, so that a long run needs little memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from app.outputs.base import OutputError

_CHUNK = 1 << 20


class Columns:
    """Named columns, each row of a fixed shape and dtype, spooled to a hidden folder beside
    ``beside``. ``shapes`` maps a name to (dtype, shape of a row). Raises OutputError."""

    def __init__(
        self, beside: Path, shapes: Mapping[str, tuple[np.dtype | type, tuple[int, ...]]]
    ) -> None:
        self._shapes = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}
        self._beside = beside
        self.rows = 0
        try:
            name = f".{beside.name}."
            self._folder = Path(tempfile.mkdtemp(prefix=name, suffix=".rows", dir=beside.parent))
            self._files: dict[str, IO[bytes]] = {
                name: open(self._folder / name, "wb")  # noqa: SIM115 (closed in `close`)
                for name in self._shapes
            }
        except OSError as error:
            raise OutputError(f"{beside}: cannot be written: {error.strerror}") from None

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """Add rows: every column's array is (rows, *shape); its length is the same in all."""
        count = len(next(iter(values.values())))
        for name, (dtype, shape) in self._shapes.items():
            rows = np.ascontiguousarray(values[name], dtype)
            if rows.shape != (count, *shape):
                raise ValueError(f"{name} is {(count, *shape)}, not {rows.shape}")
            try:
                self._files[name].write(rows.data)
            except OSError as error:
                raise OutputError(f"{self._beside}: cannot write: {error.strerror}") from None
        self.rows += count

    def read(self, name: str) -> np.ndarray:
        """A column (rows, *shape), read-only and mapped from disk."""
        dtype, shape = self._shapes[name]
        self._files[name].flush()
        if self.rows == 0:
            return np.zeros((0, *shape), dtype)
        return np.memmap(self._folder / name, dtype, "r", shape=(self.rows, *shape))

    def save(self, path: Path, extra: Mapping[str, np.ndarray | np.generic]) -> None:
        """All columns and ``extra`` arrays as one npz at ``path``, which is complete or not there.

        Raises OutputError.
        """
        part = path.with_name(f".{path.name}.part")
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name in self._shapes:
                    self._store(archive, name)
                for name, array in extra.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def _store(self, archive: zipfile.ZipFile, name: str) -> None:
        dtype, shape = self._shapes[name]
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (self.rows, *shape),
        }
        self._files[name].flush()
        with (
            archive.open(f"{name}.npy", "w", force_zip64=True) as entry,
            open(self._folder / name, "rb") as column,
        ):
            np.lib.format.write_array_header_1_0(entry, header)
            shutil.copyfileobj(column, entry, _CHUNK)

    def close(self) -> None:
        """Take the spooled rows away. Safe to call twice."""
        for file in self._files.values():
            # The rows are thrown away: it is no loss if the last of them no longer fit the disk.
            with contextlib.suppress(OSError):
                file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
