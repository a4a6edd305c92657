"""Any file in the place of a user's: its reader returns a value, or raises one line naming it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli import recover
from app.config import ConfigError, load_config
from app.evaluate.datasets import emdb as emdb_format
from app.evaluate.datasets import threedpw as threedpw_format
from app.evaluate.datasets.smpl_files import SmplFiles, read_lsp_regressor
from app.evaluate.truth import TruthError, load_truth
from app.outputs.base import OutputError
from app.outputs.spool import ColumnSpool
from pipeline.body.load import load_body
from pipeline.events.estimate import Estimator
from pipeline.events.find import MOTIONS
from pipeline.events.motion import load_motion
from pipeline.perception.ultralytics_models.checkpoint import CheckpointError, read_state
from tests.support.datasets import emdb, python2_pickle, threedpw

THROW = MOTIONS / "throw"


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def small_truth() -> bytes:
    zeros = np.zeros
    return npz(
        frame=np.arange(2), person=zeros(2, int), landmarks_m=np.ones((2, 33, 3)),
        landmarks_good=np.ones((2, 33), bool), intrinsics=np.eye(3), image_size=[24, 32],
        mask=zeros((2, 96), np.uint8), mask_shape=[24, 32],
    )  # fmt: skip


def weights(zipped: bool) -> bytes:
    out = io.BytesIO()
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()}
    torch.save(state, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def small_body() -> bytes:
    return pickle.dumps({"v_template": np.zeros((4, 3)), "kintree_table": np.zeros((2, 24))}, 2)


def small_regressor() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros((17, 40)))
    return out.getvalue()


THREEDPW = threedpw([np.zeros((2, 24, 3))])
EMDB = emdb(2)
SMPL = SmplFiles({}, {"female": load_body()}, None)

PROFILE = b'device = "cpu"\n[perceive]\npeople = 3\n[capture]\nfps = 12.5\nretry_s = 3\n'

READERS: dict[str, tuple[bytes, str, Callable[[Path], Any], type[Exception]]] = {
    "body npz": (
        npz(kintree_table=np.zeros((2, 24)), v_template=np.zeros((4, 3))), "b.npz", load_body,
        ValueError,
    ),
    "body pickle": (small_body(), "b.pkl", load_body, ValueError),
    "truth": (small_truth(), "t.npz", load_truth, TruthError),
    "3dpw": (python2_pickle(THREEDPW), "a_00.pkl", threedpw_format.read, TruthError),
    "emdb": (
        pickle.dumps(EMDB), "P0_a_data.pkl", lambda path: emdb_format.read(path, SMPL), TruthError
    ),
    "joint regressor": (small_regressor(), "j.npy", read_lsp_regressor, TruthError),
    "corrections": ((THROW / "estimator.npz").read_bytes(), "e.npz", Estimator.load, ValueError),
    "weights": (weights(True), "w.pt", read_state, CheckpointError),
    "old weights": (weights(False), "w.pt", read_state, CheckpointError),
    "motion": ((THROW / "motion.toml").read_bytes(), "m.toml", load_motion, ValueError),
    "profile": (PROFILE, "p.toml", lambda path: load_config(str(path)), ConfigError),
}  # fmt: skip
readers = pytest.mark.parametrize("kind", READERS)
PARTS = (
    b"\x00", b"\xff\xff\xff\xff", b"\x80\x04", b"nan", b"-inf", b"1e999", b"9" * 400, b"9" * 5000,
    b"[" * 3000, b"{a=" * 3000, b'"', b"\n", b"true", b"\xe9", b"PK\x05\x06", b"PK\x01\x02",
    b"\x93NUMPY", b"(1000000000000,)", b"'|O'", b"-1", b"\\u0000", b"=",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        part = draw(st.one_of(st.sampled_from(PARTS), st.binary(max_size=8)))
        # In the place of as many bytes, between others, or in the place of all that follows.
        end = draw(st.sampled_from([at + len(part), at, len(data)]))
        data[at:end] = part
    return bytes(data)


def check(kind: str, folder: Path, data: bytes) -> None:
    _, name, read, error = READERS[kind]
    path = folder / name
    path.write_bytes(data)
    try:
        read(path)
    except error as caught:
        text = str(caught)
        assert name in text  # noqa: PT017
        assert text.isprintable()  # noqa: PT017
        assert len(text) < 800  # noqa: PT017


@readers
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_a_value_or_a_line(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("damaged")
    check(kind, folder, data.draw(damaged(READERS[kind][0])))


@readers
@pytest.mark.parametrize("part", [*PARTS, b""])
def test_a_file_of_something_else_is_a_value_or_a_line(tmp_path, kind, part):
    check(kind, tmp_path, part)
    check(kind, tmp_path, READERS[kind][0] + part)


@readers
def test_a_file_of_another_kind_is_a_value_or_a_line(tmp_path, kind):
    for other, *_ in READERS.values():
        check(kind, tmp_path, other)


@readers
def test_a_folder_and_what_is_not_there_are_named(tmp_path, kind):
    _, name, read, error = READERS[kind]
    for path in (tmp_path / name, tmp_path / "none" / name):
        with pytest.raises((error, OSError)) as caught:
            read(path)
        assert name in str(caught.value)
    (tmp_path / name).mkdir()
    with pytest.raises((error, OSError), match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("array", ["frame", "landmarks_m", "mask", "mask_shape", "intrinsics"])
@settings(deadline=None, max_examples=25)
@given(
    value=st.sampled_from(
        [np.nan, np.inf, -1.0, 1e300, [], [np.nan] * 2, np.zeros((0, 33, 3)), "text", [2**62] * 2,
         np.zeros((2, 33, 3), complex), [True, False], b"x", np.zeros(10**5)]
    )
)  # fmt: skip
def test_an_array_of_a_truth_may_be_anything(tmp_path_factory, array, value):
    parts = dict(np.load(io.BytesIO(small_truth())))
    check("truth", tmp_path_factory.mktemp("truth"), npz(**{**parts, array: value}))


ANYTHING = [
    None, True, -1, 10**400, float("nan"), "", "m", [], [None], [[]], {}, {"a": 1}, b"x", np.nan,
    np.zeros(0), np.zeros((2, 24, 3)), np.full((2, 72), np.nan), np.full((3, 3), np.inf),
    np.array("m"), np.array([None]), [np.zeros((2, 72), complex)], [np.zeros((2, 72))] * 99,
]  # fmt: skip


@pytest.mark.parametrize("key", THREEDPW)
def test_a_part_of_3dpw_s_file_may_be_anything(tmp_path, key):
    for value in ANYTHING:
        check("3dpw", tmp_path, python2_pickle(THREEDPW | {key: value}))


@pytest.mark.parametrize("key", [*EMDB, *(("smpl", k) for k in EMDB["smpl"]),
                                 *(("camera", k) for k in EMDB["camera"])])  # fmt: skip
def test_a_part_of_emdb_s_file_may_be_anything(tmp_path, key):
    for value in ANYTHING:
        changed = EMDB | {key: value}
        if isinstance(key, tuple):
            changed = EMDB | {key[0]: EMDB[key[0]] | {key[1]: value}}
        check("emdb", tmp_path, pickle.dumps(changed))


ABOUT = {"of": "o.npz", "columns": {"frame": ["<i8", []], "betas": ["<f4", [10]]}}
CHANGES = [
    {"of": "../o.npz"}, {"of": 3}, {"of": "a\0b"}, {"columns": []},
    {"columns": {"frame": ["O", []]}},
    {"columns": {"../frame": ["<i8", []]}}, {"columns": {"frame": ["<i8", [-1]]}},
    {"columns": {"frame": ["<i8", [1e9]]}}, {"columns": {"frame": ["V999999999", []]}},
    {"columns": {"frame": ["<i8", [0]]}}, {"columns": {"frame": None}}, {"columns": {}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_a_killed_run_may_be_anything(tmp_path, change):
    folder = tmp_path / "run"
    folder.mkdir()
    spool = ColumnSpool(
        folder / "o.npz",
        {"frame": (np.int64, ()), "betas": (np.float32, (10,))},
        {"fps": np.float64(30)},
    )
    spool.append({"frame": np.arange(3), "betas": np.zeros((3, 10))})
    rows = tmp_path / ".o.npz.x.rows"
    shutil.copytree(spool._folder, rows)
    spool.close()
    assert ColumnSpool.left_behind(rows).rows == 3
    (rows / "columns.json").write_text(json.dumps({**ABOUT, **change}))
    with pytest.raises(OutputError, match="not rows of a run"):
        recover.recover(rows)
    assert list(folder.iterdir()) == []
    for text in (b"", b"\xff", b"[" * 10**5, b"9" * 5000, b"{}", b"null"):
        (rows / "columns.json").write_bytes(text)
        with pytest.raises(OutputError, match="not rows of a run"):
            recover.recover(rows)
