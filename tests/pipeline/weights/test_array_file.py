"""Pickled dictionaries of arrays: as others wrote them, and wrong ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.weights.array_file import numbers, read_dictionary
from tests.support.datasets import python2_pickle


def written(folder: Path, data: bytes) -> Path:
    path = folder / "a.pkl"
    path.write_bytes(data)
    return path


def test_python_2_files_are_read_as_they_are(tmp_path):
    values = {"text": "caf\xe9", "array": np.arange(6.0).reshape(2, 3), "one": np.float32(1.5)}
    path = written(tmp_path, python2_pickle(values))
    assert b"_codecs" not in path.read_bytes()
    read = read_dictionary(path)
    assert read["text"] == "caf\xe9"
    np.testing.assert_array_equal(numbers(read, "array", (2, None)), values["array"])
    assert numbers(read, "one", ()) == 1.5


@given(
    arrays.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
        arrays.array_shapes(min_dims=1, max_dims=3, max_side=5),
    ),
    st.sampled_from(["python 2", 0, 2, 4, 5]),
)
def test_numbers_come_as_they_were_written(tmp_path_factory, array, writer):
    value = {"a": array, "b": array[(0,) * array.ndim]}
    data = python2_pickle(value) if writer == "python 2" else pickle.dumps(value, writer)
    read = read_dictionary(written(tmp_path_factory.mktemp("p"), data))
    for key, wanted in value.items():
        found = numbers(read, key, wanted.shape, finite=False)
        np.testing.assert_array_equal(found, wanted.astype(np.float64))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "a is missing"),
        ({"a": "far"}, "a: "),
        ({"a": np.zeros(3)}, r"a has shape \(3,\), not \(any, 3\)"),
        ({"a": np.array([[1.0, np.nan, 0.0]])}, "not finite"),
        ({"a": np.array([["x", "y", "z"]])}, "a: "),
        ([1, 2], "not a dictionary"),
        (np.zeros(3), "not a dictionary"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, value: Any, why):
    path = written(tmp_path, pickle.dumps(value, 2))
    with pytest.raises(ValueError, match=why):
        numbers(read_dictionary(path), "a", (None, 3))
