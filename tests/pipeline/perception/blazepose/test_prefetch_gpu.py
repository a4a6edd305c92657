"""Queries run ahead on a GPU against those that plans make; else in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.core.frame import Frame, Window
from pipeline.perception.blazepose import landmarks
from pipeline.perception.blazepose.landmarks_torch import WIDTH, reading_of_row
from pipeline.perception.blazepose.queries import LandmarkQuery, PrefetchHint
from pipeline.perception.blazepose.resample import sample_roi
from pipeline.perception.blazepose.resample_gpu import describe
from pipeline.perception.blazepose.roi import Roi

prefetch_gpu = pytest.importorskip(
    "pipeline.perception.blazepose.prefetch_gpu", exc_type=ImportError
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE = (720, 1280)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The stub network reads no pixel, and Triton's interpreter is slow at pictures."""
    if DEVICE == "cpu":
        monkeypatch.setattr(prefetch_gpu, "take_views", lambda *args: None)


def window_of(count, key, size=SIZE):
    image = np.zeros((*size, 3), np.uint8)
    there = torch.zeros(*size, 3, dtype=torch.uint8, device=DEVICE)
    frames = [Frame(k, "s", 0, k / 30, image, on_device=there) for k in range(count)]
    return Window(tuple(frames), key)


class Wanderer:
    """A stub network: every person has moved, rotated and grown a little."""

    def __init__(self):
        self.batches = []

    def __call__(self, views):
        self.batches.append(len(views))
        random = np.random.default_rng(len(self.batches))
        rows = random.uniform(0.2, 0.8, (len(views), WIDTH)).astype(np.float32)
        rows[:, 66:70] = [0.5, 0.55, 0.53, 0.05]
        rows[:, 66:70] += random.normal(0, 0.03, (len(views), 4))
        return (torch.from_numpy(rows).to(DEVICE),)


@pytest.mark.parametrize(("count", "key"), [(4, 2), (4, 0), (1, 0), (3, 1)])
def test_every_query_of_the_plans_was_prefetched(count, key):
    """Tracking from answer to answer on the host names the ROIs that the device computed."""
    random = np.random.default_rng(key)
    window, net = window_of(count, key), Wanderer()
    rois = tuple(
        Roi(*random.uniform(200, 600, 2), random.uniform(50, 1500), random.uniform(-3, 3), 0.0)
        for _ in range(3)
    )
    prefetch = prefetch_gpu.LandmarkPrefetch([PrefetchHint(window, rois)], net)
    assert sum(net.batches) == 3 * count
    assert len(net.batches) == 1 + max(key, count - 1 - key)
    for roi in rois:
        for direction in (1, -1):
            next_roi, k = roi, key
            while 0 <= k < count:
                row = prefetch.find(LandmarkQuery(window.frames[k], next_roi))
                assert row is not None
                next_roi = landmarks.read_person(next_roi, reading_of_row(row))[1]
                k += direction


def test_other_queries_were_not():
    window, roi = window_of(4, 2), Roi(640, 360, 300, 0.1, 0.0)
    prefetch = prefetch_gpu.LandmarkPrefetch([PrefetchHint(window, (roi,))], Wanderer())
    key = window.key_frame
    assert prefetch.find(LandmarkQuery(key, roi)) is not None
    assert prefetch.find(LandmarkQuery(key, roi, mirrored=True)) is None
    assert prefetch.find(LandmarkQuery(key, replace(roi, x=roi.x + 0.5))) is None
    assert prefetch.find(LandmarkQuery(key, replace(roi, angle=roi.angle + 0.01))) is None
    assert prefetch.find(LandmarkQuery(window.frames[1], roi)) is None
    assert prefetch.find(LandmarkQuery(replace(key, id=7), roi)) is None


def test_without_tracked_people_nothing_runs():
    net = Wanderer()
    prefetch = prefetch_gpu.LandmarkPrefetch([PrefetchHint(window_of(4, 2), ())], net)
    assert net.batches == []
    assert prefetch.find(LandmarkQuery(window_of(1, 0).key_frame, Roi(1, 1, 9, 0, 0))) is None


@pytest.mark.parametrize("size", [(720, 1280), (90, 3000), (2160, 200)])
def test_views_to_come_are_described_as_on_the_host(size):
    """The table that the device writes is the one that `sample_roi` describes."""
    random = np.random.default_rng(3)
    image = torch.zeros(*size, 3, dtype=torch.uint8, device=DEVICE)
    window = window_of(4, 0, size)
    for _ in range(12):
        count, columns = 2, prefetch_gpu.COLUMNS + prefetch_gpu.PLACE + 1
        before = Roi(
            *random.uniform(-100, 1500, 2), 10 ** random.uniform(1, 3.7), random.uniform(-4, 4), 0.0
        )
        row = random.uniform(0, 1, WIDTH).astype(np.float32)
        table = torch.zeros(count, columns, dtype=torch.float64, device=DEVICE)
        table[1, 0], table[1, 1], table[1, 2] = image.data_ptr(), size[1], size[0]
        rows = torch.zeros(count, WIDTH, device=DEVICE)
        rows[0] = torch.from_numpy(row)
        places = torch.zeros(count, prefetch_gpu.PLACE, dtype=torch.float64, device=DEVICE)
        turn = np.cos(before.angle), np.sin(before.angle)
        places[0] = torch.tensor([before.x, before.y, before.side, *turn])
        prefetch_gpu.next_views(table, rows, places, 1, 1)
        after = landmarks.read_person(before, reading_of_row(row))[1]
        assert prefetch_gpu._is_at(places[1].cpu().numpy(), after)
        expected = describe(image, sample_roi(window.key_frame.size, after, 256))
        got = table[1, : prefetch_gpu.COLUMNS].cpu().numpy()
        np.testing.assert_allclose(got[:15], expected[:15], rtol=1e-7, atol=1e-6)
