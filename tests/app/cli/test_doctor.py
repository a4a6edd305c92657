"""The doctor: a line a finding, and an exit code that is about a plain run only."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest

from app.cli import doctor
from pipeline.gpu import tensorrt_install


def run(monkeypatch, **groups) -> None:
    monkeypatch.setattr(doctor, "_GROUPS", groups)


def test_what_a_plain_run_needs_decides_the_exit_code(monkeypatch, capsys):
    option = doctor.Check("gpu", doctor.ABSENT, "none", "buy one")
    needed = doctor.Check("body", doctor.MISSING, "no file", "reinstall")
    run(monkeypatch, a=lambda: iter([option, doctor.Check("torch", doctor.OK, "2.13", "unused")]))
    assert doctor.doctor() == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:2]] == ["-", "ok"]
    assert "[buy one]" in out[0]
    assert "unused" not in out[1]
    run(monkeypatch, a=lambda: iter([option, needed]))
    assert doctor.doctor() == 1
    assert "MISSING body" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_finding_and_the_others_still_run(monkeypatch, capsys):
    def broken():
        raise ImportError("libGL.so.1: cannot open shared object file\nmore")
        yield

    run(monkeypatch, video=broken, python=doctor._python)
    assert doctor.doctor() == 1
    out = capsys.readouterr().out
    assert "MISSING video" in out
    assert "this system lacks libGL.so.1  [On Debian and Ubuntu: apt install libgl1 " in out
    assert "more" not in out
    assert "ok      python" in out


@pytest.mark.slow
def test_here_and_now(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    code = doctor.doctor()
    lines = {line[8:].split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in ("python", "torch", "opencv", "decoders", "encoder", "litert", "numba", "body"):
        assert lines[name].startswith("ok "), lines[name]
    if sys.platform.startswith("linux"):
        assert lines["display"].startswith("- ")
    carried = importlib.util.find_spec("mediapipe") is not None
    assert lines["blazepose"].startswith("ok " if carried else "MISSING ")
    # A run does without it, so it is no reason to fail.
    assert lines["person-detector"].startswith("- ")
    assert "weights fetch person-detector" in lines["person-detector"]
    assert code == (0 if carried else 1)
    if not carried:
        assert "weights fetch blazepose" in lines["blazepose"]


def test_onnx_runtime_and_what_it_computes_by(monkeypatch):
    check = doctor._onnx()
    assert check.state == doctor.OK
    assert check.detail.endswith("CPU")
    assert "Azure" not in check.detail
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check = doctor._onnx()
    assert check.state == doctor.ABSENT
    assert check.remedy == "pip install 'bodystream[onnx]'"


def test_tensorrt_names_the_pair_that_is_here_or_the_one_to_install(monkeypatch):
    installed = {"torch-tensorrt-rtx": "2.14.0", "tensorrt_rtx": "1.6.1.120"}
    monkeypatch.setattr(tensorrt_install, "version_of", installed.get)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace())
    monkeypatch.setattr("torch.__version__", "2.14.0+cu130")
    check = doctor._tensorrt()
    assert (check.state, check.detail) == (
        doctor.OK,
        "torch-tensorrt-rtx 2.14.0 with tensorrt-rtx 1.6.1.120, for torch 2.14.0+cu130",
    )
    monkeypatch.setattr("torch.__version__", "2.13.0")
    check = doctor._tensorrt()
    assert check.state == doctor.ABSENT
    assert check.detail == "torch-tensorrt-rtx 2.14.0 is for torch 2.14, and this is 2.13.0"
    assert check.remedy == "pip install 'torch-tensorrt-rtx==2.13.*'"
    installed["torch-tensorrt"] = "2.14.0"
    check = doctor._tensorrt()
    assert "both editions" in check.detail
    assert check.remedy.startswith("pip uninstall torch-tensorrt-rtx torch-tensorrt, then pip")


@pytest.fixture
def sam3d(monkeypatch, tmp_path):
    """A machine with a GPU, all packages and a release of SAM 3D Body; returns its folder."""
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(doctor, "_installed", lambda package: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    for name in ("model.ckpt", "model_config.yaml", "assets/mhr_model.pt"):
        path = tmp_path / "sam3d-vith" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a file")
    return tmp_path / "sam3d-vith"


def test_sam3d_with_all_it_needs_computes_on_the_gpu(sam3d):
    files, packages, would = doctor._sam3d()
    assert {files.state, packages.state, would.state} == {doctor.OK}
    assert files.detail == f"{sam3d}, rig {sam3d / 'assets/mhr_model.pt'}"
    assert would.detail == "--estimator sam3d would compute on a GPU"


def test_sam3d_without_its_files_or_a_gpu_is_blazepose(sam3d, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    files, _, would = doctor._sam3d()
    assert files.state == doctor.OK
    assert would.state == doctor.ABSENT
    assert "BlazePose's keypoints: there is no GPU" in would.detail
    (sam3d / "model.ckpt").unlink()
    files, _, would = doctor._sam3d()
    assert files.state == doctor.ABSENT
    assert "weights fetch sam3d-dinov3" in files.remedy
    assert "BlazePose's keypoints: its files are not here" in would.detail


def test_sam3d_without_the_rig_says_how_to_get_it(sam3d):
    (sam3d / "assets/mhr_model.pt").unlink()
    files, _, _ = doctor._sam3d()
    assert "assets/mhr_model.pt is missing" in files.detail
    assert "weights fetch mhr-rig" in files.remedy


@pytest.mark.parametrize(
    ("module", "name", "state"),
    [
        ("yaml", "PyYAML", doctor.ABSENT),
        ("safetensors", "safetensors", doctor.ABSENT),
        # It fetches files, which are here.
        ("huggingface_hub", "huggingface_hub", doctor.OK),
    ],
)
def test_sam3d_without_a_package(sam3d, monkeypatch, module, name, state):
    monkeypatch.setattr(doctor, "_installed", lambda package: package != module)
    _, packages, would = doctor._sam3d()
    assert packages.state == doctor.ABSENT
    assert packages.detail == f"not installed: {name}"
    assert packages.remedy == "pip install 'bodystream[sam3d]'"
    assert would.state == state


def test_cameras_without_permission_say_so(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("cameras are listed on Linux only")
    monkeypatch.setattr(doctor.Path, "glob", lambda self, pattern: [doctor.Path("/dev/video7")])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (check,) = doctor._cameras()
    assert check.state == doctor.ABSENT
    assert "/dev/video7" in check.detail
    assert "group video" in check.remedy


@pytest.mark.parametrize(("folder", "free", "says"), [
    ("/cache", 1 << 30, "ok      cache           compiled loops are in /cache"),
    ("/cache", 9 << 10, "-       cache           none on disk: /cache has 9 kB left"),
    (None, 0, "-       cache           none on disk: neither installation nor home can be written"),
])  # fmt: skip
def test_it_says_where_there_is_no_disk_cache_and_why(monkeypatch, capsys, folder, free, says):
    monkeypatch.setattr("render.kernels.cache_folder", lambda: folder)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    run(monkeypatch, cache=doctor._cache)
    assert doctor.doctor() == 0, "a plain run needs none"
    assert capsys.readouterr().out.startswith(says)
