"""The whole pipeline on a GPU against the one on a CPU, on the shipped sample."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.frame import Frame, Window
from pipeline.stream import EngineOptions, make_inference

SAMPLE = Path(__file__).parent.parent / "samples" / "pitch.mp4"
pytestmark = [pytest.mark.gpu, pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def windows():
    with av.open(str(SAMPLE)) as container:
        images = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    frames = [Frame(k, "sample", 0, k / 30, image) for k, image in enumerate(images)]
    return [Window(tuple(frames[k : k + 4]), 2, k == 0) for k in range(0, len(frames) - 3, 4)]


def meshes(windows, device, **engine):
    """The sample's bodies (frames, V, 3) in metres; nan where there is none."""
    inference = make_inference(people=1, device=device, engine=EngineOptions("eager", **engine))
    state, out = inference.begin(), []
    for window in windows:
        for _, bodies in inference(window, state):
            count = len(inference.fitter.body.v_template)
            out.append(bodies.vertices_m[0] if len(bodies) else np.full((count, 3), np.nan))
    return np.stack(out)


def apart_mm(some, others):
    """Mean distance of the same vertices in frames where both have a body, and the share of frames
    in which only one has."""
    distance = 1e3 * np.linalg.norm(some - others, axis=-1).mean(-1)
    one_only = np.isnan(some[:, 0, 0]) != np.isnan(others[:, 0, 0])
    return float(np.nanmean(distance)), float(np.mean(one_only))


def test_half_precision_moves_meshes_little(windows):
    half, single = (meshes(windows, "cuda", half=half) for half in (True, False))
    mean_mm, one_only = apart_mm(half, single)
    print(f"half against single precision: {mean_mm:.3f} mm a vertex")
    assert one_only == 0
    assert mean_mm < 1.0


def test_a_gpu_finds_the_bodies_a_cpu_finds(windows):
    mean_mm, one_only = apart_mm(
        meshes(windows, "cuda", half=False), meshes(windows, "cpu", half=False)
    )
    print(f"GPU against CPU: {mean_mm:.3f} mm a vertex")
    assert one_only < 0.02
    assert mean_mm < 10.0


def test_graphs_change_nothing(windows):
    some = windows[:6]
    mean_mm, one_only = apart_mm(
        meshes(some, "cuda", half=True, graphs=True), meshes(some, "cuda", half=True, graphs=False)
    )
    assert one_only == 0
    assert mean_mm < 0.1
