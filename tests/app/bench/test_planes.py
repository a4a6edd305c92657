"""Rows whose pictures are planes of YUV: which they are, what crosses the bus, what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from app.bench import footage
from app.bench.measure import drawn_px
from app.bench.rows import ROWS
from pipeline.core.yuv import to_yuv
from tests.support.planes import most_apart, painting


def test_rows_that_read_frames_on_the_host_have_rgb():
    planes = {row.id for row in ROWS if row.settings.planes}
    assert {"default", "default-nograph", "full", "sam-full", "sam3d", "streams-p1"} <= planes
    assert not {"default-cpu", "baseline", "instanthmr", "onnx", "sam3d-upstream"} & planes


def test_the_samples_planes_show_what_its_rgb_frames_show():
    frames = footage.load_frames(None, (320, 240), 1, 4)
    for rgb, planes in zip(frames, [to_yuv(frame) for frame in frames]):
        # Made RGB of planes before, so that nothing is left to lose but rounding.
        assert np.abs(rgb.astype(int) - planes.rgb).mean() < 1
        assert most_apart(to_yuv(planes.rgb).data, planes.data) <= 4


def test_what_was_drawn_is_counted_in_planes_too():
    before = painting(0, 48, 64)
    after = before.copy()
    after[10:20, 20:40] = 255 - after[10:20, 20:40]
    exact = drawn_px(after, before)
    assert exact == pytest.approx(200, abs=5)
    for one, other in ((to_yuv(after), to_yuv(before)), (to_yuv(after), before)):
        assert drawn_px(one, other) == pytest.approx(exact, rel=0.25)
    assert drawn_px(to_yuv(to_yuv(before).rgb), to_yuv(before)) == 0


@pytest.mark.gpu
def test_planes_are_locked_one_by_one():
    import torch

    frames = np.stack([painting(k, 48, 64) for k in range(3)])
    ready = footage.ready_frames(frames, next(row.settings for row in ROWS if row.id == "default"))
    for frame, planes in zip(frames, ready, strict=True):
        assert torch.from_numpy(planes.data).is_pinned()
        np.testing.assert_array_equal(planes.data, to_yuv(frame).data)
