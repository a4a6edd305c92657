"""Views taken on a GPU against those taken on the CPU; without a GPU, in Triton's interpreter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pipeline.perception.blazepose.resample import (
    sample_letterbox,
    sample_roi,
    sample_stretched,
    sampled,
)
from pipeline.perception.blazepose.roi import Roi

CUDA = torch.cuda.is_available()


def noise(height, width, seed=0):
    """An image with detail at every scale."""
    random = np.random.default_rng(seed)
    fine = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.addWeighted(fine, 0.5, cv2.GaussianBlur(fine, (0, 0), 4), 0.5, 0)


def taken(images, samplings, mirrored, side):
    """Views (B, side, side, 3) in levels."""
    from pipeline.perception.blazepose.resample_gpu import COLUMNS, describe, take_views

    device = "cuda" if CUDA else "cpu"
    there = [torch.from_numpy(image).to(device) for image in images]
    rows = [describe(t, s, m) for t, s, m in zip(there, samplings, mirrored)]
    table = torch.tensor(rows, dtype=torch.float64, device=device)
    assert table.shape == (len(images), COLUMNS)
    out = torch.full((len(images), 3, side, side), -7.0, device=device)
    take_views(table, out, 1.0, 0.0)
    return out.permute(0, 2, 3, 1).cpu().numpy()


@pytest.fixture(autouse=True)
def triton():
    pytest.importorskip("triton")


def test_views_are_the_cpus_within_a_level():
    random = np.random.default_rng(1)
    images, samplings, mirrored, side = [], [], [], 40
    for k in range(8):
        images.append(noise(90 + 13 * k, 150 - 11 * k, k))
        size = images[-1].shape[:2]
        if k % 4 == 3:
            samplings.append(sample_stretched(size, (3, 2, size[1] - 5, size[0] - 2), side))
        elif k % 4 == 2:
            samplings.append(sample_letterbox(size, (5, 0, size[1] - 9, size[0]), side)[0])
        else:
            x, y = random.uniform(-20, 140, 2)
            roi = Roi(x, y, random.uniform(20, 400), random.uniform(-3, 3), 0.0)
            samplings.append(sample_roi(size, roi, side))
        mirrored.append(k % 2 == 1)
    assert {s.block for s in samplings} > {1}
    got = taken(images, samplings, mirrored, side)
    for image, sampling, flip, view in zip(images, samplings, mirrored, got):
        expected = sampled(image, sampling, side).astype(float)
        expected = expected[:, ::-1] if flip else expected
        # OpenCV rounds after averaging and after mixing, and places to 1/32 of a pixel.
        apart = np.abs(view - expected)
        assert apart.mean() < 0.6
        assert np.quantile(apart, 0.99) < (1.6 if sampling.block > 1 else 3.5)


def test_far_outside_is_border_or_black():
    image = noise(40, 60)
    far = Roi(900.0, -800.0, 20.0, 0.3, 0.0)
    (view,) = taken([image], [sample_roi((40, 60), far, 16)], [False], 16)
    assert np.allclose(view, image[0, -1])
    sampling, _ = sample_letterbox((40, 60), (0, 0, 60, 40), 24)
    (view,) = taken([image], [sampling], [False], 24)
    assert np.all(view[:3] == 0)
    assert np.all(view[-3:] == 0)
    assert view[8:-8].mean() > 60


@pytest.mark.gpu
def test_a_launch_does_not_wait_and_can_be_replayed():
    from pipeline.perception.blazepose.resample_gpu import describe, take_views

    image = noise(1080, 1920)
    there = torch.from_numpy(image).cuda()
    rois = [Roi(900.0 + k, 500.0, 300.0 + 90 * k, 0.1 * k, 0.0) for k in range(8)]
    plans = [sample_roi((1080, 1920), roi, 256) for roi in rois]
    table = torch.tensor([describe(there, p) for p in plans], dtype=torch.float64).cuda()
    out = torch.empty(8, 3, 256, 256, device="cuda")
    take_views(table, out, 1.0, 0.0)
    first = out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        take_views(table, out, 1.0, 0.0)
    table.copy_(table.flip(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out, first.flip(0))
