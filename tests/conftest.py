"""What several tests share: the local clips, small clips made here, an RTSP server."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before av
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support.blender import BLENDER
from tests.support.gltf import VALIDATOR
from tests.support.paths import ROOT
from tests.support.rtsp import RtspServer

# Triton's kernels run in its interpreter where there is no GPU; it is asked when they are defined.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# The words of hints depend on the starter, and tests may be started as `python -m pytest`, as
# `pytest`, or by pytest-xdist, which runs `python -c`. The first holds for all of them.
sys.argv[0] = str(Path(pytest.__file__).with_name("__main__.py"))

# How long an example takes says more about what runs beside the tests than about the code.
# A verdict on a change depends on the change alone, so examples are the same in every run;
# HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile(
    "bodystream", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "bodystream"))

ALONE = (
    "app/bench/test_stream_workers.py", "app/outputs/test_recording.py",
    "app/outputs/test_window.py", "app/reports/test_command.py", "app/serve/",
    "app/test_end_to_end.py", "app/test_soak.py", "app/webhook/", "benchmarks/",
    "pipeline/capture/test_live.py", "pipeline/capture/test_rtsp.py", "pipeline/core/test_ring.py",
    "pipeline/runtime/test_runner.py", "pipeline/runtime/test_scheduler.py",
)  # fmt: skip
"""Tests that measure time, or wait for real servers, windows and signals: beside other work their
limits would have to be wider."""


def _mark_alone(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(ALONE):
            item.add_marker("alone")
    # First, in a process that has done nothing yet: it measures the memory of the whole process,
    # which a hundred other tests leave in pieces.
    items.sort(key=lambda item: item.path.name != "test_soak.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU, TensorRT, Blender or Khronos' validator are skipped without, and fail where
    the environment promises them: ``BODYSTREAM_GPU=1`` and so on."""
    _mark_alone(items)
    here = {
        "gpu": torch.cuda.is_available(),
        "tensorrt": importlib.util.find_spec("torch_tensorrt") is not None,
        "blender": BLENDER.exists(),
        "gltf_validator": VALIDATOR.exists(),
    }
    for item in items:
        for marker, there in here.items():
            promised = os.environ.get(f"BODYSTREAM_{marker.upper()}") == "1"
            if item.get_closest_marker(marker) and not there and not promised:
                item.add_marker(pytest.mark.skip(reason=f"no {marker} here"))


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """What a command of a test leaves out of searches for garbage is searched again."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips."""
    folder = ROOT.parent / "shared" / "data" / "clips"
    if not folder.is_dir():
        pytest.skip("the real clips (../shared/data/clips) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def rtsp_probe() -> None:
    """Skips where GStreamer's RTSP server is not installed."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    python = Path("/usr/bin/python3")
    if not python.exists() or subprocess.run([python, "-c", probe], capture_output=True).returncode:
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0 and python3-gi")


@pytest.fixture
def rtsp_server(rtsp_probe: None) -> Iterator[Callable[..., RtspServer]]:
    """Starts RTSP servers and ends them."""
    started: list[RtspServer] = []

    def start(port: int = 0, *arguments: str) -> RtspServer:
        started.append(RtspServer(port, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """ultralytics' networks; its settings go to a folder of the test's."""
    # Imported here: TRITON_INTERPRET must be set before a kernel is defined.
    from pipeline.perception.ultralytics_models.package import UltralyticsError, ultralytics

    os.environ.setdefault("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
    try:
        return ultralytics("nn.tasks")
    except UltralyticsError as error:
        pytest.skip(str(error))
