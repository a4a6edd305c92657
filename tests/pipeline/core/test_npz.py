"""Npz files are read exactly, and a hostile one costs no more than its size allows."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.core.npz import read_npy, read_npz
from pipeline.core.user_file import reading
from tests.support.archives import cost, npy, zeros, zipped

KINDS = st.one_of(
    arrays.floating_dtypes(endianness="?"), arrays.integer_dtypes(endianness="?"),
    arrays.boolean_dtypes(), arrays.unicode_string_dtypes(max_len=5),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, min_side=0, max_dims=4)),
    st.booleans(),
    st.booleans(),
)
def test_every_array_of_numbers_comes_as_it_was_saved(tmp_path_factory, array, packed, fortran):
    path = tmp_path_factory.mktemp("npz") / "one.npz"
    array = np.asarray(array, order="F" if fortran else "C")
    (np.savez_compressed if packed else np.savez)(path, one=array, two=np.arange(3))
    read = read_npz(path)
    assert read["one"].dtype == array.dtype
    np.testing.assert_array_equal(read["one"], array)
    assert set(read) == {"one", "two"}
    assert set(read_npz(path, skip=("one",))) == {"two"}


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, min_side=0, max_dims=4)))
def test_a_single_array_comes_as_it_was_saved(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("npy") / "one.npy"
    np.save(path, array)
    read = read_npy(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


LIES = {
    "more than there is": npy("(1000000000000,)", bytes(8)),
    "less than there is": npy("(1,)", bytes(16)),
    "negative": npy("(-1,)", bytes(8)),
    "two negatives": npy("(-2, -1)", bytes(16)),
    "overflow": npy("(4294967296, 4294967296)"),
    "giant items": npy("(1,)", descr="'|V2000000000'"),
    "giant texts": npy("(1,)", descr="'<U500000000'"),
    "objects": npy("(1,)", b"cos\nsystem\n.", descr="'|O'"),
    "fields": npy("(1,)", bytes(8), descr="[('a', '<f8')]"),
    "dates": npy("(1,)", bytes(8), descr="'<M8[s]'"),
    "no shape": npy("[[[[1]]]]"),
    "a long number": npy("(" + "9" * 5000 + ",)"),
    "deep": npy("(" * 4000 + ")" * 4000),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "a long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    "another version": b"\x93NUMPY\x09\x00" + bytes(20),
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused_in_a_line(tmp_path, lie):
    path = tmp_path / "lie.npz"
    path.write_bytes(zipped({"a.npy": lie}))
    with pytest.raises(ValueError, match=r"lie\.npz") as caught, reading(path):
        read_npz(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_single_array_s_header_that_lies_is_refused_in_a_line(tmp_path, lie):
    path = tmp_path / "lie.npy"
    path.write_bytes(lie)
    with pytest.raises(ValueError, match=r"lie\.npy") as caught, reading(path):
        read_npy(path)
    assert "\n" not in str(caught.value)


def test_packings_that_numpy_does_not_use_are_refused(tmp_path):
    for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / "odd.npz"
        path.write_bytes(zipped({"a.npy": npy("(1,)", bytes(8))}, packing))
        with pytest.raises(ValueError, match="packed"):
            read_npz(path)


def test_an_encrypted_array_is_refused(tmp_path):
    data = bytearray(zipped({"a.npy": npy("(1,)", bytes(8))}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "secret.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="packed"):
        read_npz(path)


def overlapping(count: int) -> bytes:
    """An archive that lists one member again and again."""
    one = zipped({"a.npy": npy("(1048576,)", bytes(8 << 20))}, zipfile.ZIP_DEFLATED)
    start, end = one.rindex(b"PK\x01\x02"), one.rindex(b"PK\x05\x06")
    entries = one[start:end] * count
    tail = bytearray(one[end:])
    struct.pack_into("<HHI", tail, 8, count, count, len(entries))
    return one[:start] + entries + bytes(tail)


def lying(size: int) -> bytes:
    """An archive of 8 MiB that says another size."""
    data = npy("(1048576,)", bytes(8 << 20))
    whole = zipped({"a.npy": data}, zipfile.ZIP_DEFLATED)
    return whole.replace(struct.pack("<I", len(data)), struct.pack("<I", size))


BOMBS = {
    "one array": zeros(1, 300),
    "many arrays": zeros(20, 15),
    "one listed often": overlapping(100),
    "says less": lying(1000),
    "says more": lying(2**32 - 2),
    "a giant shape": zipped({"a.npy": npy("(20000000,)")}),
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize(
    "reader",
    ["pipeline.body.load:load_body", "app.evaluate.truth:load_truth",
     "pipeline.events.estimate:Estimator.load"],
    ids=["body", "truth", "corrections"],
)  # fmt: skip
def test_a_bomb_is_refused_before_it_unpacks(tmp_path, reader, bomb):
    path = tmp_path / "bomb.npz"
    path.write_bytes(bomb)
    module, name = reader.split(":")
    imports = f"from pathlib import Path; from {module} import {name.partition('.')[0]}"
    line, peak = cost(imports, f"{name}(Path({str(path)!r}))")
    assert line.startswith(str(path))
    assert peak < 40
