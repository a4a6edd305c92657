"""Pickles are read without running what they say, in memory that their size allows."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn

from pipeline.weights import safe_unpickle
from pipeline.weights.safe_unpickle import (
    ARRAYS,
    WEIGHTS,
    Global,
    Record,
    Storage,
    Table,
    TensorRecord,
    UnpickleError,
    as_array,
    read_pickle,
)

TABLES = {"arrays": ARRAYS, "weights": WEIGHTS}
both_tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def short(size: int) -> bytes:
    return struct.pack("<I", size)


def weights_pickle(content: Any) -> bytes:
    """The pickle in the file that ``torch.save`` writes."""
    out = io.BytesIO()
    torch.save(content, out)
    with zipfile.ZipFile(out) as archive:
        return archive.read("archive/data.pkl")


# --- honest pickles -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_as_they_are(protocol: int) -> None:
    value = {"a": [1, -2.5, None, True], "b": ("x", "ä", 2**70), 3: {"c": {}}, (1, "d"): []}
    for table in TABLES.values():
        assert read_pickle(pickle.dumps(value, protocol), table) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "u1", "?", "<f2"])
def test_arrays_of_numbers_are_read_exactly(protocol: int, dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    for one in (
        array,
        np.asfortranarray(array),
        array[..., :2],
        array[:0] if protocol > 2 else array,
    ):
        read = as_array(read_pickle(pickle.dumps(one, protocol), ARRAYS))
        np.testing.assert_array_equal(read, one)
        assert read.dtype == one.dtype


def test_text_of_python_2_is_read_as_bytes_of_an_array() -> None:
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNtbI00\nU\x03\x01\x80\xfftb."
    )
    assert as_array(read_pickle(data, ARRAYS)).tolist() == [1, 128, 255]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array])
def test_every_kind_of_sparse_matrix(kind: Any) -> None:
    matrix = sparse.random(24, 300, density=0.05, random_state=0)
    for protocol in (2, 5):
        read = as_array(read_pickle(pickle.dumps(kind(matrix), protocol=protocol), ARRAYS))
        np.testing.assert_array_equal(read, matrix.toarray())


def test_a_module_becomes_records_of_its_parts() -> None:
    root = read_pickle(weights_pickle({"model": nn.Linear(2, 3), "names": {"a", "b"}}), WEIGHTS)
    assert root["names"] == {"a", "b"}
    weight = root["model"].state["_parameters"]["weight"]
    assert isinstance(weight, TensorRecord)
    storage, offset, size, stride = weight.arguments[:4]
    assert isinstance(storage, Storage)
    assert (storage.dtype, storage.count, offset, size, stride) == (
        torch.float32, 6, 0, (3, 2), (2, 1),
    )  # fmt: skip


def test_a_state_dict_is_a_dict_of_tensors() -> None:
    root = read_pickle(weights_pickle(nn.BatchNorm1d(2).state_dict()), WEIGHTS)
    assert type(root) is dict
    assert set(root) == set(nn.BatchNorm1d(2).state_dict())
    assert all(isinstance(value, TensorRecord) for value in root.values())


# --- hostile pickles ----------------------------------------------------------------------------

HOSTILE = (
    b"cpipeline.body.load\nload_body\n(tR.",
    b"cbuiltins\nexec\n(S'1'\ntR.",
    b"c__builtin__\neval\n(S'1'\ntR.",
    b"cos\nsystem\n(S'true'\ntR.",
    b"(S'true'\nios\nsystem\n.",
    b"(cos\nsystem\nS'true'\no.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.",
    b"\x80\x04cos\nsystem\n)}\x92.",
    # A dotted name must not lead from an allowed module to another one.
    b"cnumpy\ntesting._private.utils.runstring\n(S'1'\nd}tR.",
    b"\x80\x04\x8c\x05torch\x8c\x0dserialization\x93.",
    b"\x80\x04\x8c\x05torch\x8c\x07os.exit\x93.",
    b"\x80\x02\x82\x01.",
    b"\x80\x02\x83\x01\x00.",
    b"\x80\x02\x84\x01\x00\x00\x00.",
    b"\x80\x05\x97.",
    b"\x80\x05C\x01a\x98.",
)


@both_tables
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_names_and_opcodes_outside_the_table_are_refused(table: Table, data: bytes) -> None:
    with watched() as events, pytest.raises(UnpickleError):
        read_pickle(data, table)
    assert not events


def test_a_table_says_which_name_it_refuses() -> None:
    with pytest.raises(UnpickleError, match=r"^it asks for os\.system$"):
        read_pickle(b"cos\nsystem\n.", ARRAYS)
    with pytest.raises(UnpickleError, match=r"^it asks for os\.system, which weights never need$"):
        read_pickle(b"cos\nsystem\n.", WEIGHTS)


def test_arrays_refer_to_nothing_outside() -> None:
    for data in (b"\x80\x02U\x03pidQ.", b"P0\n."):
        with pytest.raises(UnpickleError, match="outside"):
            read_pickle(data, ARRAYS)


def test_a_name_does_not_become_what_it_names() -> None:
    """Not even an allowed one: the pickle holds a stand-in, whose call makes a record."""
    assert isinstance(read_pickle(b"cnumpy\nndarray\n.", ARRAYS), Global)
    for data in (b"cbuiltins\ngetattr\n(S'a'\nS'format'\ntR.", b"cfunctools\npartial\n(S'a'\ntR."):
        assert type(read_pickle(data, WEIGHTS)) is Record


@both_tables
def test_a_pickle_changes_no_class(table: Table) -> None:
    for name in (b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"cbuiltins\nobject\n"):
        for state in (
            b"}X\x0c\x00\x00\x00__setstate__K\x01s",
            b"N}X\x04\x00\x00\x00makeK\x01s\x86",
        ):
            with pytest.raises(UnpickleError):
                read_pickle(b"\x80\x02" + name + state + b"b.", table)


GREEDY = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "objects": b"\x80\x02" + b"]" * 3 * 10**6 + b".",
    "marks": b"\x80\x02" + b"(" * 3 * 10**6 + b".",
    "number": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    # The same text encoded, the same list collected, again and again.
    "encode": b"\x80\x02" + b"c_codecs\nencode\nq\x000X" + short(10**5) + b"x" * 10**5
    + b"X\x06\x00\x00\x00latin1\x86q\x01](" + b"h\x00h\x01R" * 10**4 + b"e.",
    "set": b"\x80\x02" + b"cbuiltins\nset\nq\x000](" + b"".join(b"M" + struct.pack("<H", k)
    for k in range(2**14)) + b"e\x85q\x01](" + b"h\x00h\x01R" * 10**4 + b"e.",
    "dict": b"\x80\x02ccollections\nOrderedDict\nq\x000](" + b"".join(
    b"M" + struct.pack("<H", k) + b"N\x86" for k in range(2**14)) + b"e\x85q\x01]("
    + b"h\x00h\x01R" * 10**4 + b"e.",
}  # fmt: skip


@both_tables
@pytest.mark.parametrize("name", GREEDY)
def test_memory_stays_in_proportion_to_the_pickle(table: Table, name: str) -> None:
    data = GREEDY[name]
    with peak_memory() as peak, suppress(UnpickleError):
        read_pickle(data, table)
    assert peak[0] < min(200 * len(data) + 2**20, 300 << 20)


@pytest.mark.parametrize("shape", [(24, 2_000_000), (10**9, 10**9), (7000, 7000)])
def test_a_sparse_matrix_of_a_few_bytes_fills_no_memory(
    shape: Any,
) -> None:
    matrix = sparse.coo_matrix(([1.0], ([0], [0])), shape=shape)
    data = pickle.dumps(matrix, 4)
    with peak_memory() as peak, pytest.raises(UnpickleError, match=" x .* matrix"):
        as_array(read_pickle(data, ARRAYS))
    assert peak[0] < 2**20


def test_many_honest_objects_are_read() -> None:
    value = [{"name": str(n), "shape": (n, 2)} for n in range(40_000)]
    for protocol in range(2, 6):
        assert read_pickle(pickle.dumps(value, protocol), ARRAYS) == value


def test_a_length_in_place_of_bytes_makes_no_array() -> None:
    buffer = b"\x80\x04cnumpy.core.numeric\n_frombuffer\n(J\xff\xff\xff\x7f"
    buffer += b"cnumpy\ndtype\n\x8c\x02u1\x85RJ\xff\xff\xff\x7f\x85\x8c\x01CtR."
    record = read_pickle(buffer, ARRAYS)
    with peak_memory() as peak, pytest.raises(UnpickleError, match="without bytes"):
        as_array(record)
    assert peak[0] < 2**20


@both_tables
@pytest.mark.parametrize("as_key", [b"}%sNs.", b"}(%sNu.", b"(%sNd.", b"\x8f(%s\x90.", b"(%s\x91."])
def test_a_key_nested_too_deeply_is_refused(table: Table, as_key: bytes) -> None:
    """Its hash would overrun the stack, which ends the process."""
    key = b")" + b"\x85" * 10**6
    with pytest.raises(UnpickleError, match="too many parts"):
        read_pickle(b"\x80\x04" + as_key % key, table)


@both_tables
def test_deep_values_and_loops_are_read_or_refused(table: Table) -> None:
    assert read_pickle(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".", table)
    loop = read_pickle(b"\x80\x02]q\x00h\x00a.", table)
    assert loop[0] is loop
    with pytest.raises(UnpickleError):
        as_array(loop)


@pytest.mark.parametrize("value", [None, 3, "text", [1.0], {"x": 1}, np.array([None]), b"abc"])
def test_what_is_no_array_is_refused_as_one(value: Any) -> None:
    with pytest.raises(UnpickleError):
        as_array(value)


# --- any pickle ---------------------------------------------------------------------------------

SEEDS = [
    *(pickle.dumps({"v": np.arange(12.0), "w": [1, "ä"], "k": (b"a",)}, p) for p in range(6)),
    *(pickle.dumps(sparse.eye(3, format=f), 2) for f in ("csc", "csr", "coo")),
    weights_pickle({"model": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "epoch": 3}),
    weights_pickle(OrderedDict(nn.Linear(2, 2).state_dict())),
    *HOSTILE,
]  # fmt: skip
PARTS = [
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"cbuiltins\nset\n", b"cchumpy.ch\nCh\n",
    b"ccopyreg\n_reconstructor\n", b"ctorch\nFloatStorage\n", b"ctorch.nn\nLinear\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"c_codecs\nencode\n", b"(ios\nsystem\n", b"S'true'\n", b"\x8c\x02os", b"\x8c\x06system",
    b"U\x02f8", b"K\x05", b"J\xff\xff\xff\xff", b"G?\xf0\x00\x00\x00\x00\x00\x00", b"N", b"\x88",
    b"(", b"t", b"\x85", b"\x86", b"\x87", b")", b"]", b"l", b"}", b"d", b"\x8f", b"a", b"e", b"s",
    b"u", b"\x90", b"\x91", b"R", b"\x81", b"\x92", b"b", b"o", b"\x93", b"Q", b"P1\n", b"0", b"1",
    b"2", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"\x94", b"r\xff\xff\xff\x7f", b"\x82\x01",
    b"\x97", b"\x98", b"\x96\x01\x00\x00\x00\x00\x00\x00\x00x", b"C\x02ab",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        else:
            data[at:at] = draw(st.sampled_from(PARTS))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


programs = st.lists(st.sampled_from(PARTS), max_size=30).map(
    lambda parts: b"\x80\x04" + b"".join(parts) + b"."
)


@settings(deadline=None, max_examples=800)
@given(st.one_of(damaged(), programs, st.binary(max_size=60)), st.sampled_from(sorted(TABLES)))
def test_no_pickle_runs_anything_or_raises_another_error(data: bytes, table: str) -> None:
    value = None
    with watched() as events:
        try:
            value = read_pickle(data, TABLES[table])
        except UnpickleError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert not events
    values = value.values() if isinstance(value, dict) else [value]
    for part in values:
        with suppress(UnpickleError):
            assert as_array(part).dtype.kind in "biuf"


# --- helpers --------------------------------------------------------------------------------------

_EVENTS: list[str] | None = None
_HARMFUL = ("import", "open", "exec", "compile", "os.", "subprocess.", "socket.", "ctypes.",
            "shutil.", "pickle.find_class", "marshal.")  # fmt: skip


def _hook(event: str, _: Any) -> None:
    if _EVENTS is not None and event.startswith(_HARMFUL):
        _EVENTS.append(event)


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[str]]:
    """What Python reports meanwhile of imports, files, programs and code."""
    global _EVENTS
    _EVENTS = events = []
    try:
        yield events
    finally:
        _EVENTS = None


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most bytes that Python held meanwhile; there when the block has ended."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


def test_the_watch_sees_what_the_standard_unpickler_does() -> None:
    with watched() as events:
        pickle.loads(pickle.dumps(os.getcwd))
    assert "pickle.find_class" in events


def test_every_opcode_is_allowed_by_name_or_refused() -> None:
    machine = safe_unpickle._Machine
    allowed = {code for code, step in machine.dispatch.items() if step is not machine._refuse}
    extensions = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
    assert not allowed & {code[0] for code in extensions}
    assert allowed | {code[0] for code in extensions} == set(pickle._Unpickler.dispatch)
