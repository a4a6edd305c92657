"""A frame is drawn over without being changed, and a notebook shows pictures of a bounded size."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.config import ConfigError
from app.draw import draw
from pipeline.core.frame import Frame
from tests.support.bodies import bodies, frame, made_up_body, run_info

ESTIMATOR = SimpleNamespace(body=made_up_body(), intrinsics=run_info().camera)


def test_a_drawn_frame_is_a_copy():
    plain = frame(3)
    drawn = draw(plain, bodies([1]), ESTIMATOR, style="skeleton", draw_unseen=True)
    assert not plain.image.any()
    assert drawn.image.any()
    assert (drawn.id, drawn.pts_s, drawn.size) == (plain.id, plain.pts_s, plain.size)
    assert not draw(plain, bodies([]), ESTIMATOR).image.any()


def test_a_style_that_there_is_not_is_one_line():
    with pytest.raises(ConfigError, match="--style: one of mannequin, .*did you mean skeleton"):
        draw(frame(0), bodies([1]), ESTIMATOR, style="skelton")


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_notebook_shows_a_frame_at_1280_pixels_or_less(height, width):
    image = np.full((height, width, 3), (200, 30, 90), np.uint8)
    shown = Image.open(io.BytesIO(Frame(0, "a", 0, 0.0, image)._repr_jpeg_()))
    assert max(shown.size) == min(max(height, width), 1280)
    # A side has one pixel at least, and is off by half a pixel at most.
    scale = max(shown.size) / max(height, width)
    for side, whole in zip(shown.size, (width, height)):
        assert side == pytest.approx(max(whole * scale, 1), abs=0.5)
    np.testing.assert_allclose(np.asarray(shown)[0, 0], (200, 30, 90), atol=6)


def test_frames_and_bodies_say_what_they_are_in_a_line():
    assert repr(frame(50)) == "Frame 50 of clip.mp4: 64x48 at 2.000 s"
    assert repr(bodies([1, 7])) == "Bodies of tracks [1, 7]"
    assert bodies([1, 7])._repr_html_().count("<tr>") == 3
    assert bodies([])._repr_html_().count("<tr>") == 1
