"""``doctor``: what this machine can do, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from app.cli.flags import command
from app.cli.signals import unwind_by_signal
from app.cli.system import library_remedy
from app.options import DoctorOptions

OK, MISSING, ABSENT = "ok", "MISSING", "-"
_DECODERS = {"h264": "H.264", "hevc": "H.265", "vp9": "VP9", "av1": "AV1", "mjpeg": "MJPEG"}
_EGL_PROBE = """
from render.reference import PyrenderRenderer
import numpy as np
renderer = PyrenderRenderer()
corners = np.array([[[0, 0, 2], [1, 0, 2], [0, 1, 2]]], float)
depth = renderer.depth(corners, np.array([[0, 1, 2], [0, 2, 1]]), np.diag([50.0, 50, 1]), (64, 64))
renderer.close()
assert depth.max() > 1.9
"""
_FOR_FETCHING = "huggingface_hub"
_SAM3D_PACKAGES = {"safetensors": "safetensors", "yaml": "PyYAML", _FOR_FETCHING: _FOR_FETCHING}
"""What the extra sam3d installs: modules and their packages."""
_SAM3D_EXTRA = "pip install 'bodystream[sam3d]'"
_PROBE_S = 60.0
_CACHE_BYTES = 1 << 20
"""More than the compiled loops take."""
_WRITABLE = "a folder that can be written"


@dataclass(frozen=True)
class Check:
    """One line. ``state`` is OK, MISSING (a plain run needs it) or ABSENT (an option is not here);
    ``remedy`` says how to get it."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def run(options: DoctorOptions) -> int:
    """Print all checks; return the exit code."""
    return doctor()


app = command(
    "doctor",
    DoctorOptions,
    run,
    epilogue="Exits with 1 if something is missing that a plain run needs.",
)


def doctor() -> int:
    """Print all checks as they are made; return 1 where a plain run lacks something, else 0."""
    missing = 0
    for check in checks():
        missing += check.state == MISSING
        remedy = f"  [{check.remedy}]" if check.remedy and check.state != OK else ""
        # Flushed at once: a later check may crash the process.
        print(f"{check.state:8}{check.name:15} {check.detail}{remedy}", flush=True)
    print(f"{missing} missing" if missing else "a plain run has all it needs")
    return 1 if missing else 0


def checks() -> Iterator[Check]:
    """Yield all checks, the quick and the needed ones first. One that fails is a finding."""
    # Each group by itself: a broken library in one must not hide what the others find.
    for name, group in _GROUPS.items():
        try:
            yield from group()
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            lacks, _, remedy = (library_remedy(error) or "").partition("\n")
            detail = lacks or f"{type(error).__name__}: {line}"
            yield Check(name, MISSING, detail, remedy or "reinstall the app")


def _python() -> Iterator[Check]:
    fine = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", OK if fine else MISSING, detail, "install Python 3.11 or later")
    yield Check("processor", OK, f"{os.cpu_count()} cores")


def _torch() -> Iterator[Check]:
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    yield Check("torch", OK, f"{torch.__version__}, {built}")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("gpu", OK, ", ".join(names))
        yield _optional("triton", "pip install 'bodystream[gpu]'")
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        remedy = "install gcc or clang: Triton compiles with it when it first runs"
        yield Check("c compiler", OK if compiler else ABSENT, compiler or "none", remedy)
    else:
        remedy = (
            "a CUDA build of torch and NVIDIA's driver"
            if torch.version.cuda is None
            else ("NVIDIA's driver, or a GPU")
        )
        yield Check("gpu", ABSENT, "none that torch can use; the CPU does the work", remedy)
    yield _tensorrt()


def _tensorrt() -> Check:
    from pipeline.gpu.tensorrt_install import TensorrtError, describe, installed

    try:
        return Check("tensorrt", OK, describe(installed()))
    except TensorrtError as error:
        detail, _, remedy = str(error).partition("; ")
        return Check("tensorrt", ABSENT, detail, remedy)


def _video() -> Iterator[Check]:
    import cv2  # before av: the other way round its windows can hang

    # isort: split
    import av

    yield Check("opencv", OK, cv2.__version__)
    reads = [label for codec, label in _DECODERS.items() if _has_codec(av, codec, "r")]
    lacks = [label for label in _DECODERS.values() if label not in reads]
    detail = f"PyAV {av.__version__} reads {', '.join(reads)}"
    state = OK if "H.264" in reads else MISSING
    yield Check("decoders", state if not lacks else ABSENT, detail, "a PyAV wheel from PyPI")
    has_x264 = _has_codec(av, "libx264", "w")
    detail = "libx264 writes --video" if has_x264 else "no libx264 for --video"
    yield Check("encoder", OK if has_x264 else MISSING, detail, "a PyAV wheel from PyPI")


def _has_codec(av, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _cameras() -> Iterator[Check]:
    if not sys.platform.startswith("linux"):
        yield Check("cameras", OK, "not listed on this system; try `run 0`")
        return
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    closed = [path for path in found if not os.access(path, os.R_OK)]
    if closed:
        yield Check("cameras", ABSENT, f"no permission: {', '.join(closed)}", "join group video")
    elif found:
        yield Check("cameras", OK, ", ".join(found))
    else:
        yield Check("cameras", ABSENT, "none; lavfi:testsrc2 stands in", "plug one in")


def _models() -> Iterator[Check]:
    for name, package in (("litert", "ai-edge-litert"), ("numba", "numba")):
        yield Check(name, OK, metadata.version(package))
        # Installed is not enough: a system library may be missing, which only the import shows.
        importlib.import_module(package.replace("-", "_"))

    from pipeline.body.load import load_body

    body = load_body()
    yield Check("body", OK, f"{body.name}, {len(body.v_template)} vertices")

    yield _onnx()

    from pipeline.weights import store as weights

    for name, model in weights.REGISTRY.items():
        states = weights.status(name)
        right = all(state.right for state in states)
        wrong = [str(state.path) for state in states if state.path and not state.right]
        detail = f"{states[0].path and states[0].path.parent} ({model.licence})"
        if not right:
            detail = f"not here: {model.without}" if model.without else "not here"
        detail = f"{', '.join(wrong)}: not the right file" if wrong else detail
        # A file that is there but wrong stops every run.
        lacking = ABSENT if model.without and not wrong else MISSING
        yield Check(f"{name}", OK if right else lacking, detail, model.how)


def _onnx() -> Check:
    from pipeline.perception.onnx_models.session import onnxruntime

    try:
        runtime = onnxruntime()
    except RuntimeError:
        return _optional("onnxruntime", "pip install 'bodystream[onnx]'")
    # AzureExecutionProvider calls a service; it computes nothing here.
    names = [name.removesuffix("ExecutionProvider") for name in runtime.get_available_providers()]
    names = [name for name in names if name != "Azure"]
    return Check("onnxruntime", OK, f"{runtime.__version__}, computes by {', '.join(names)}")


def _sam3d() -> Iterator[Check]:
    import torch

    from pipeline.sam3d.release import find_release
    from pipeline.weights.store import WeightsError

    reason = ""
    try:
        files = find_release()
        yield Check("sam3d files", OK, f"{files.checkpoint.parent}, rig {files.rig}")
    except WeightsError as error:
        detail, _, remedy = str(error).partition("; ")
        yield Check("sam3d files", ABSENT, detail, remedy)
        reason = "its files are not here"
    lacks = [name for module, name in _SAM3D_PACKAGES.items() if not _installed(module)]
    detail = f"not installed: {', '.join(lacks)}" if lacks else "here"
    yield Check("sam3d packages", ABSENT if lacks else OK, detail, _SAM3D_EXTRA)
    if not reason and not torch.cuda.is_available():
        reason = "there is no GPU (--device cpu takes seconds for each person and frame)"
    would = "--estimator sam3d would"
    if reason:
        detail = f"{would} fit bodies to BlazePose's keypoints: {reason}"
        yield Check("sam3d", ABSENT, detail)
    elif set(lacks) - {_FOR_FETCHING}:
        yield Check("sam3d", ABSENT, f"{would} stop: a package is not installed", _SAM3D_EXTRA)
    else:
        yield Check("sam3d", OK, f"{would} compute on {torch.cuda.get_device_name()}")


def _cache() -> Iterator[Check]:
    from render.kernels import cache_folder

    folder = cache_folder()
    if folder is None:
        why = "none on disk: neither installation nor home can be written; starts are slower"
        yield Check("cache", ABSENT, why, f"set NUMBA_CACHE_DIR to {_WRITABLE}")
    elif (free := shutil.disk_usage(folder).free) < _CACHE_BYTES:
        why = f"none on disk: {folder} has {free >> 10} kB left; starts are slower"
        yield Check("cache", ABSENT, why, f"make room, or set NUMBA_CACHE_DIR to {_WRITABLE}")
    else:
        yield Check("cache", OK, f"compiled loops are in {folder}")


def _screen() -> Iterator[Check]:
    from app.outputs.window import display_problem

    problem = display_problem()
    detail = problem or "windows can be shown"
    remedy = "a desktop session, or xvfb-run (apt install xvfb)"
    yield Check("display", ABSENT if problem else OK, detail, remedy)


def _reference() -> Iterator[Check]:
    if not _installed("pyrender"):
        yield _optional("pyrender", "pip install 'bodystream[pyrender]'")
        return
    # In a process of its own: OpenGL drivers crash rather than raise.
    try:
        with unwind_by_signal():
            done = subprocess.run(
                [sys.executable, "-c", _EGL_PROBE],
                capture_output=True, timeout=_PROBE_S, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Check("pyrender", ABSENT, f"no picture within {_PROBE_S:g} s", "apt install libegl1")
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it crashed"]
    detail = "draws offscreen" if done.returncode == 0 else lines[-1][:160]
    remedy = "apt install libegl1 libgl1-mesa-dri"
    yield Check("pyrender", OK if done.returncode == 0 else ABSENT, detail, remedy)


def _serve() -> Iterator[Check]:
    for package in ("fastapi", "uvicorn", "websockets"):
        yield _optional(package, "pip install 'bodystream[serve]'")


def _export() -> Iterator[Check]:
    yield _optional("ezc3d", "pip install 'bodystream[export]'")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _optional(package: str, remedy: str) -> Check:
    here = _installed(package)
    return Check(package, OK if here else ABSENT, "here" if here else "not installed", remedy)


_GROUPS: dict[str, Callable[[], Iterator[Check]]] = {
    "python": _python,
    "torch": _torch,
    "video": _video,
    "cameras": _cameras,
    "models": _models,
    "sam3d": _sam3d,
    "cache": _cache,
    "display": _screen,
    "serve": _serve,
    "pyrender": _reference,
    "export": _export,
}
