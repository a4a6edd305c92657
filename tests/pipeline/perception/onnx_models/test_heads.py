"""SimCC and heatmaps are read to a part of a cell."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.perception.onnx_models.heads import read_heatmaps, read_simcc

widths = st.floats(1.0, 6.0)


def line(length, peak, width, height=1.0):
    return height * np.exp(-0.5 * ((np.arange(length) - peak) / width) ** 2)


@given(st.floats(3, 380), st.floats(3, 508), widths, st.floats(0.2, 1.0))
def test_simcc_recovers_a_gaussians_peak(x, y, width, height):
    along_x = line(384, x, width, height)[None, None]
    along_y = line(512, y, width, 1.0)[None, None]
    points, confidence = read_simcc(along_x, along_y)
    assert np.allclose(points[0, 0], (x, y), atol=1e-3)
    # The less sure line counts; the cell next to the peak is a little lower.
    assert height * np.exp(-0.125 / width**2) - 1e-9 <= confidence[0, 0] <= height + 1e-9


@given(st.floats(2, 45), st.floats(2, 61), widths)
def test_a_heatmap_recovers_a_gaussians_peak(x, y, width):
    maps = (line(64, y, width)[:, None] * line(48, x, width))[None, None]
    points, confidence = read_heatmaps(maps)
    assert np.allclose(points[0, 0], (x, y), atol=1e-3)
    assert 0.7 < confidence[0, 0] <= 1


@given(st.integers(0, 2**32 - 1))
def test_anything_is_read_inside_of_the_map(seed):
    random = np.random.default_rng(seed)
    maps = random.normal(size=(2, 3, 8, 6)).astype(np.float32)
    points, confidence = read_heatmaps(maps)
    assert np.isfinite(points).all()
    assert (points >= -0.5).all()
    assert (points <= (5.5, 7.5)).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    rounded = np.abs(points - np.rint(points)) <= 0.5
    assert rounded.all()


def test_a_peak_at_the_border_stays_there():
    maps = np.zeros((1, 2, 8, 6))
    maps[0, 0, 0, 0] = maps[0, 1, 7, 5] = 1.0
    points, _ = read_heatmaps(maps)
    assert points.tolist() == [[[0, 0], [5, 7]]]


def test_points_of_a_batch_do_not_mix():
    random = np.random.default_rng(1)
    peaks = random.uniform(4, 40, (5, 7))
    lines = np.array([[line(48, peak, 2.0) for peak in row] for row in peaks])
    points, _ = read_simcc(lines, lines[:, ::-1])
    assert np.allclose(points[..., 0], peaks, atol=1e-3)
    assert np.allclose(points[..., 1], peaks[:, ::-1], atol=1e-3)
