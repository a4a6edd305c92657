"""Dictionaries of numpy arrays that others pickled: SMPL's files, and truths of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.npz import MOST_BYTES
from pipeline.weights.safe_unpickle import ARRAYS, UnpickleError, as_array, read_pickle


def unpickled(data: bytes) -> Any:
    """Return the values and records of a pickle; no code of it is run. Raises ValueError."""
    try:
        return read_pickle(data, ARRAYS)
    except UnpickleError as error:
        raise ValueError(f"refused to unpickle: {error}") from error


def read_dictionary(path: Path) -> dict[str, Any]:
    """Return the dictionary that a file pickles, with a record for each array (see `numbers`).

    Raises:
        OSError: It cannot be read.
        ValueError: It is no pickle of a dictionary, or names what arrays do not need.
    """
    with path.open("rb") as file:
        # One byte too many shows that a file is too large.
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError("larger than 1 GiB")
    values = unpickled(data)
    if not isinstance(values, dict):
        raise ValueError("not a dictionary of arrays")
    return values


def numbers(
    values: Mapping[Any, Any], key: str, shape: tuple[int | None, ...], finite: bool = True
) -> np.ndarray:
    """Return an array of a dictionary as float64.

    Args:
        values: The dictionary, as `read_dictionary` returns it.
        key: The array's name in it.
        shape: The shape that it must have, where None matches any length.
        finite: Whether each number must be finite.

    Raises:
        ValueError: It is missing, is no array of numbers, or has another shape.
    """
    if key not in values:
        raise ValueError(f"{key} is missing")
    return as_numbers(values[key], key, shape, finite)


def as_numbers(
    value: Any, name: str, shape: tuple[int | None, ...], finite: bool = True
) -> np.ndarray:
    """Return an array's record as float64. Arguments and errors as of `numbers`."""
    try:
        array = as_array(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    matches = array.ndim == len(shape) and all(
        expected in (None, actual) for expected, actual in zip(shape, array.shape)
    )
    if not matches:
        expected_shape = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {array.shape}, not ({expected_shape})")
    if array.dtype.kind not in "biuf" or (finite and not np.isfinite(array).all()):
        raise ValueError(f"{name} holds values that are not finite numbers")
    return array.astype(np.float64)
