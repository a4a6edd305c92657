"""The whole pipeline on a GPU against the one on a CPU, on the shipped sample.

What is perceived in one frame says where to look in the next, so the least change of a number, a
ten-thousandth of a grey level, grows within a second to what the network wavers by: 11 mm a vertex
at the median, most of it along the view. Two runs are therefore compared look by look, each network
being shown the same regions, and as wholes only by what that wavering allows.
"""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest

from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame, Window
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.gpu.device import EngineOptions
from pipeline.perception.blazepose import landmarks
from pipeline.runtime.make import make_estimator
from tests.support.paths import SAMPLE

pytestmark = [pytest.mark.gpu, pytest.mark.weights, pytest.mark.slow]
WAVER_MM = 25.0


@pytest.fixture(scope="module")
def windows():
    with av.open(str(SAMPLE)) as container:
        images = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    frames = [Frame(k, "sample", 0, k / 30, image) for k, image in enumerate(images)]
    return [Window(tuple(frames[k : k + 4]), 2, k == 0) for k in range(0, len(frames) - 3, 4)]


def inference_on(device, **engine):
    return make_estimator(people=1, device=device, engine=EngineOptions(**engine))


def people_and_looks(estimator, windows):
    """The people of each window by track, and the look that each one's mask came from."""
    perceiver, looks = estimator.perceiver, {}
    read = perceiver._read_people

    def noted(queries, rows):
        found = read(queries, rows)
        looks.update((id(f[0].mask.values), (look, f[0])) for look, f in zip(queries, found) if f)
        return found

    perceiver._read_people = noted
    state = estimator.begin()
    people = [estimator.perceive([window], [state])[0].people for window in windows]
    return people, looks


def seen_by(perceiver, people, looks):
    """The same people, each as another perceiver sees them in the same look."""
    out = []
    for window in people:
        frames = []
        for frame in window:
            there = {}
            for track, person in frame.items():
                look, own = looks[id(person.mask.values)]
                other = perceiver.answer([replace(look, min_presence=0.0)])[0][0]
                if not np.array_equal(own.landmarks_px, person.landmarks_px):
                    other = landmarks.exchanged(other)
                there[track] = replace(other, roi=person.roi)
            frames.append(there)
        out.append(tuple(frames))
    return out


def meshes(people, device="cpu"):
    """Bodies (frames, V, 3) in metres; nan where there is none."""
    fitter, memory, out = BodyFitter(load_body(), device=device), FitMemory(), []
    lens = default_intrinsics(720, 1280)
    for window in people:
        for bodies in fitter.fit(window, lens, memory):
            nobody = np.full((1, len(fitter.body.v_template), 3), np.nan)
            out.append((bodies.vertices_m if len(bodies) else nobody)[0])
    return np.stack(out)


def apart_mm(some, others):
    """Mean distance of the same vertices in frames where both have a body."""
    return float(1e3 * np.nanmean(np.linalg.norm(some - others, axis=-1)))


def across_and_along_mm(some, others):
    """Mean distances of the same vertices (frames, V, 3), across the view and along it."""
    apart, ray = some - others, others / np.linalg.norm(others, axis=-1, keepdims=True)
    along = (apart * ray).sum(-1, keepdims=True)
    across = np.linalg.norm(apart - along * ray, axis=-1)
    return float(1e3 * np.nanmean(across)), float(1e3 * np.nanmean(np.abs(along)))


def test_half_precision_moves_meshes_little(windows):
    single, half = (inference_on("cuda", half=half) for half in (False, True))
    people, looks = people_and_looks(single, windows)
    expected = meshes(people, "cuda")
    same = apart_mm(meshes(seen_by(single.perceiver, people, looks), "cuda"), expected)
    halved = meshes(seen_by(half.perceiver, people, looks), "cuda")
    across, along = across_and_along_mm(halved, expected)
    whole = apart_mm(meshes(people_and_looks(half, windows)[0], "cuda"), expected)
    print(f"half precision: {across:.2f} mm across and {along:.2f} along the view, look by look; "
          f"{whole:.1f} mm as a whole")  # fmt: skip
    assert same < 0.01
    # Along the view a millimetre is nothing that one camera sees.
    assert across < 1.0
    assert along < 5.0
    assert whole < WAVER_MM


def test_a_gpu_finds_the_bodies_a_cpu_finds(windows):
    there = inference_on("cuda", half=False)
    people, looks = people_and_looks(there, windows)
    expected = meshes(people)
    assert apart_mm(meshes(people, "cuda"), expected) < 1.0
    here = inference_on("cpu")
    there_then_here = meshes(seen_by(here.perceiver, people, looks))
    across, along = across_and_along_mm(there_then_here, expected)
    print(f"GPU against CPU: {across:.2f} mm across and {along:.2f} along the view, look by look")
    assert across < 1.0
    assert along < 5.0
    state = here.begin()
    whole = apart_mm(meshes([here.perceive([w], [state])[0].people for w in windows]), expected)
    print(f"GPU against CPU: {whole:.1f} mm a vertex as a whole")
    assert whole < WAVER_MM


def test_graphs_change_nothing(windows):
    some = windows[:6]
    with_graphs, without = (
        meshes(people_and_looks(inference_on("cuda", graphs=graphs), some)[0], "cuda")
        for graphs in (True, False)
    )
    assert apart_mm(with_graphs, without) < 0.1
