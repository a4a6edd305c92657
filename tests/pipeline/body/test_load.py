"""Body model files: official ones old and new, broken ones and hostile ones."""

import io
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.load import FREE_BODY, load_body
from tests.support.smpl import official

# --- official files ---------------------------------------------------------------------------


class Ch:
    """Stands for chumpy's array class while a test writes a pickle."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


class Select(Ch):
    """Stands for chumpy's choice of another array's elements."""

    def __init__(self, array: Ch, shape: tuple[int, ...]) -> None:
        self.a = array
        self.idxs = np.arange(np.prod(shape))
        self.preferred_shape = shape


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> type[Ch]:
    module = types.ModuleType("chumpy.ch")
    module.Ch = Ch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    module.Select = Select  # type: ignore[attr-defined]
    for kind in (Ch, Select):
        monkeypatch.setattr(kind, "__module__", "chumpy.ch")
    return Ch


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_old_pickle_with_chumpy_arrays(tmp_path: Path, chumpy: type[Ch], protocol: int) -> None:
    arrays = official()
    wrapped = arrays | {key: chumpy(arrays[key]) for key in ("v_template", "weights")}
    wrapped["shapedirs"] = Select(chumpy(arrays["shapedirs"]), arrays["shapedirs"].shape)
    path = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(pickle.dumps(wrapped, protocol=protocol))
    check_official(path, arrays, "female")


def test_npz_with_arrays_of_objects(tmp_path: Path) -> None:
    arrays = official()
    path = tmp_path / "SMPL_MALE.npz"
    np.savez(path, **{k: np.array(v, dtype=object) if k == "J_regressor" else v
                      for k, v in arrays.items()})  # fmt: skip
    check_official(path, arrays, "male")


def check_official(path: Path, arrays: dict[str, Any], gender: str) -> None:
    body = load_body(path)
    assert body.gender == gender
    np.testing.assert_allclose(body.v_template, arrays["v_template"], atol=1e-6)
    np.testing.assert_allclose(body.joint_regressor, arrays["J_regressor"].toarray(), atol=1e-6)
    assert body.posedirs is not None
    np.testing.assert_allclose(body.posedirs, arrays["posedirs"], atol=1e-6)
    np.testing.assert_array_equal(body.faces, arrays["f"])
    sums = body.landmark_regressor.sum(1)
    torch.testing.assert_close(sums, torch.ones(33), atol=1e-5, rtol=0)
    nose = body.landmark_regressor[0] @ body.v_template
    np.testing.assert_allclose(nose, arrays["v_template"][332], atol=1e-5)


# --- files that are wrong -----------------------------------------------------------------------


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        load_body(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    for word in words:
        assert word in message, message


def save(path: Path, **changes: Any) -> Path:
    with np.load(FREE_BODY) as file:
        arrays = dict(file) | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def nan(key: str) -> np.ndarray:
    with np.load(FREE_BODY) as file:
        array = file[key].astype(np.float32)
    array.flat[7] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": None}, ["weights is missing"]),
        ({"v_template": np.zeros((5, 2))}, ["v_template", "shape"]),
        ({"v_template": nan("v_template")}, ["v_template", "finite"]),
        ({"shapedirs": nan("shapedirs")}, ["shapedirs", "finite"]),
        ({"shapedirs": np.zeros((6968, 3, 4))}, ["4 shape components"]),
        ({"f": np.array([[0, 1, 9999]])}, ["f points outside"]),
        ({"f": np.array([[0, -1, 2]])}, ["f points outside"]),
        ({"weights": np.zeros((6968, 24))}, ["weights", "sum to one"]),
        ({"kintree_table": np.zeros((2, 52))}, ["52 joints", "SMPL-H"]),
        ({"kintree_table": np.zeros((2, 55))}, ["55 joints", "SMPL-X"]),
        ({"kintree_table": np.zeros((2, 24))}, ["hang together"]),
        ({"kintree_table": np.array("x")}, ["kintree_table"]),
        ({"landmark_regressor_value": None}, ["no landmark_regressor", "6968"]),
        ({"J_regressor_column": np.full(3, 2)}, ["J_regressor_column"]),
        ({"v_template": np.array(["a", "b"], dtype=object)}, ["v_template"]),
    ],
)
def test_wrong_arrays(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    refused(save(tmp_path / "body.npz", **changes), *words)


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x03\x04", b"hello", b"\x80\x04", b"{}"])
def test_not_a_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(data)
    refused(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing.npz"):
        load_body(tmp_path / "nothing.npz")
    with pytest.raises(OSError, match=tmp_path.name):
        load_body(tmp_path)


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path_factory: pytest.TempPathFactory, part: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.npz"
    whole = FREE_BODY.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refused(path)


class Gadget:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


HOSTILE = {
    "system": Gadget(os.system, ("touch {mark}",)),
    "eval": Gadget(eval, ("open('{mark}', 'w')",)),
    "getattr": Gadget(getattr, ("text", "format")),
    "open": Gadget(io.open, ("{mark}", "w")),
    "numpy load": Gadget(np.load, ("{mark}", None, True)),
    "numpy savetxt": Gadget(np.savetxt, ("{mark}", [1.0])),
    "numpy fromfile": Gadget(np.fromfile, ("/etc/hostname", np.uint8)),
    "numpy memmap": Gadget(np.memmap, ("{mark}", "u1", "w+", 0, (4,))),
    "vectorize": Gadget(np.vectorize, (os.system,)),
}


def aimed(gadget: Gadget, mark: Path) -> Gadget:
    call, arguments = gadget.reduced
    filled = [a.replace("{mark}", str(mark)) if isinstance(a, str) else a for a in arguments]
    return Gadget(call, tuple(filled))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["file", "value", "npz", "array"])
def test_hostile_pickles_are_refused_unrun(tmp_path: Path, name: str, where: str) -> None:
    mark = tmp_path / "was_run"
    gadget = aimed(HOSTILE[name], mark)
    path = tmp_path / "hostile.pkl"
    if where == "npz":
        held = np.empty(1, dtype=object)
        held[0] = gadget
        save(path.with_suffix(".npz"), v_template=held)
        path = path.with_suffix(".npz")
    else:
        content = {"file": gadget, "value": {"v_template": gadget}}.get(where)
        if where == "array":
            held = np.empty(1, dtype=object)
            held[0] = gadget
            content = {"v_template": held}
        path.write_bytes(pickle.dumps(content))
    refused(path, "refused to unpickle")
    assert not mark.exists()
