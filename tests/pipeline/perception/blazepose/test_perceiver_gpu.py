"""BlazePose in torch returns what it returns through LiteRT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.frame import Window
from pipeline.perception.blazepose import landmarks, perceiver_gpu
from pipeline.perception.blazepose.landmarks_torch import LandmarkNet, refine
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch, DetectorNet, example_view
from pipeline.perception.blazepose.queries import DetectionQuery, LandmarkQuery
from pipeline.perception.blazepose.tflite import read_graph
from tests.support.paths import SAMPLES
from tests.support.windows import frames_of, track_rois, windows_of

CUDA = torch.cuda.is_available()


@pytest.fixture(scope="module")
def frames():
    return frames_of(SAMPLES / "pitch.mp4", 16)


@pytest.fixture(scope="module")
def lite(files):
    return BlazePose(files)


@pytest.fixture(scope="module")
def other(files):
    """On the GPU where there is one, in single precision."""
    device = "cuda" if CUDA else "cpu"
    return BlazePoseTorch(files, device=device, engine="eager", half=False, buckets=(1, 2, 4))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_landmarks_are_refined_as_with_numpy(seed):
    random = np.random.default_rng(seed)
    points = random.uniform(-0.2, 1.2, (2, 5, 2)).astype(np.float32)
    heat = (random.normal(size=(2, 16, 16, 5)) * 4 - 4).astype(np.float32)
    got = refine(torch.from_numpy(points), torch.from_numpy(heat)).numpy()
    for k in range(2):
        assert np.allclose(got[k], landmarks.refine(points[k], heat[k]), atol=1e-5)


@pytest.mark.weights
def test_the_same_query_has_the_same_answer(lite, other, frames):
    window = other.prepare(Window(tuple(frames[:4])))
    frame, size = window.frames[2], frames[0].size[::-1]
    query = DetectionQuery(frame, ((0, 0, *size), (300, 60, 600, 600)))
    expected, got = lite.answer([query])[0], other.answer([query])[0]
    assert len(got) == len(expected) >= 1
    for a, b in zip(got, expected):
        assert (a.x, a.y, a.side) == pytest.approx((b.x, b.y, b.side), abs=0.5)
    roi = expected[0]
    queries = [LandmarkQuery(frame, roi, 0.0, mirrored) for mirrored in (False, True, False)]
    person = lite.answer(queries[:1])[0][0]
    queries.append(LandmarkQuery(frame, roi, 0.0, True, without=person))
    for (a, next_a), (b, next_b) in zip(other.answer(queries), lite.answer(queries)):
        # A GPU's crops are not rounded to whole levels.
        limit = 2.0 if CUDA else 0.01
        assert np.abs(a.landmarks_px - b.landmarks_px).max() < limit
        assert np.abs(a.world_m - b.world_m).max() < (0.02 if CUDA else 1e-4)
        assert np.abs(a.mask.values - b.mask.values).mean() < 5e-3
        assert a.score == pytest.approx(b.score, abs=1e-2)
        assert next_a.side == pytest.approx(next_b.side, abs=limit)


@pytest.mark.weights
@pytest.mark.slow
def test_a_clip_has_the_same_people(lite, other, frames):
    """The plans are the same; the networks' last digits move a landmark now and then by a cell of
    its heatmap, so the median is compared, not every landmark."""
    prepared = [other.prepare(w) for w in windows_of(frames)]
    expected, got = track_rois(lite, windows_of(frames)), track_rois(other, prepared)
    assert [[p.roi for p in now] for now in got] == [[p.roi for p in now] for now in expected]
    median_distance = [
        np.linalg.norm(a.landmarks_px - b.landmarks_px, axis=1)
        for x, y in zip(got, expected)
        for a, b in zip(x, y)
    ]
    assert len(median_distance) >= len(frames)
    assert np.median(median_distance) < 1.0


@pytest.mark.weights
@pytest.mark.slow
def test_gathered_sources_are_each_as_alone(other, frames):
    windows = [other.prepare(w) for w in windows_of(frames[:8])]
    both = other.perceive_many(windows, [None, None])
    for window, (people, memory) in zip(windows, both):
        alone, kept = other.decode(other.embed(window, None), window)
        assert len(memory.rois) == len(kept.rois)
        for a, b in zip(people, alone):
            assert [p.roi for p in a] == [p.roi for p in b]
            for p, q in zip(a, b):
                assert np.median(np.abs(p.landmarks_px - q.landmarks_px)) < 0.5


@pytest.mark.weights
@pytest.mark.parametrize(
    ("net", "name", "side"),
    [(DetectorNet, "pose_detection.tflite", 224), (LandmarkNet, "pose_landmark_full.tflite", 256)],
)
def test_the_networks_take_nothing_from_the_host(files, net, name, side):
    """A tensor of host values made on the way is a copy that no CUDA graph can hold; and a module
    that reads a value could not be exported."""
    module = net(read_graph(files[name])).eval()
    exported = torch.export.export(module, (example_view(side, 0.0),))
    assert exported.constants == {}


def test_another_model_is_refused(files):
    wrong = {**files, "pose_detection.tflite": files["pose_landmark_full.tflite"]}
    with pytest.raises(ValueError, match="another model"):
        BlazePoseTorch(wrong, device="cpu")
    with pytest.raises(ValueError, match="at least one"):
        BlazePoseTorch(files, max_people=0, device="cpu")


@pytest.mark.weights
@pytest.mark.parametrize(
    ("engine", "sizes"),
    [("auto", (1, 4, 8, 16)), ("triton", (1, 4, 8, 16)), ("eager", (1, 4, 8, 16)),
     ("tensorrt", (1, 4, 16)), ("inductor", (1, 4, 16))],
)  # fmt: skip
def test_engines_that_are_slow_to_build_have_fewer_batch_sizes(files, engine, sizes, monkeypatch):
    asked = []
    make = perceiver_gpu.make_engines

    def made(modules, **options):
        asked.append(options["buckets"])
        return make(modules, **options | {"engine": "eager", "buckets": (1,)})

    monkeypatch.setattr(perceiver_gpu, "make_engines", made)
    BlazePoseTorch(files, device="cpu", engine=engine)
    assert asked == [sizes]


@pytest.mark.gpu
@pytest.mark.weights
def test_frames_must_be_on_the_gpu(other, frames):
    with pytest.raises(ValueError, match="prepare"):
        other.decode(other.embed(Window(tuple(frames[:4])), None), Window(tuple(frames[:4])))


@pytest.mark.gpu
@pytest.mark.weights
def test_half_precision_is_close(files, other, frames):
    half = BlazePoseTorch(files, engine="eager", half=True, buckets=(1,))
    window = other.prepare(Window(tuple(frames[:4])))
    query = DetectionQuery(window.key_frame, ((0, 0, *frames[0].size[::-1]),))
    roi = other.answer([query])[0][0]
    query = LandmarkQuery(window.key_frame, roi, 0.0)
    (a, _), (b, _) = half.answer([query])[0], other.answer([query])[0]
    assert np.median(np.abs(a.landmarks_px - b.landmarks_px)) < 0.5
    assert np.abs(a.world_m - b.world_m).max() < 0.01


@pytest.mark.weights
def test_closing_releases_the_networks(files):
    perceiver = BlazePoseTorch(files, device="cpu", engine="eager", buckets=(1,))
    perceiver.close()
    perceiver.close()
    assert not hasattr(perceiver, "_landmarker")
