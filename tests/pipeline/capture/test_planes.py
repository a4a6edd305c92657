"""Pictures that stay planes from the decoder on: their colours are FFmpeg's, all others are RGB."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.capture.picture import Converter, RgbConverter, colour_of
from pipeline.core.yuv import Colour, YuvImage
from tests.support.clips import write_clip
from tests.support.planes import (
    as_frame,
    colours,
    most_apart,
    painting,
    planes_of,
    rgb_by_ffmpeg,
)

TO_PLANES = Converter(planes=True)
MATRICES = (None, (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1))
"""Display matrices: none, a quarter, a half and three quarters of a turn, mirrored."""


@given(
    st.integers(0, 99), st.tuples(st.integers(1, 40), st.integers(1, 40)), colours,
    st.sampled_from(("yuv420p", "nv12", "yuvj420p")),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_planes_are_copied_with_matrix_and_range(seed, size, colour, form):
    if form == "yuvj420p":
        colour = colour._replace(full_range=True)
    image = planes_of(seed, size, colour)
    got = TO_PLANES(as_frame(image, form))
    assert isinstance(got, YuvImage)
    assert (got.size, got.colour) == (size, colour)
    np.testing.assert_array_equal(got.data, image.data)
    assert most_apart(got.rgb, rgb_by_ffmpeg(image)) <= 1


@pytest.mark.parametrize("matrix", MATRICES)
def test_planes_are_turned_as_rgb_is(matrix):
    frame = as_frame(planes_of(0, (36, 64), Colour(1, False)))
    got, rgb = TO_PLANES(frame, None, matrix), RgbConverter()(frame, None, matrix)
    assert isinstance(got, YuvImage)
    # FFmpeg's usual conversion is up to three levels off.
    assert most_apart(got.rgb, rgb) <= 3


@pytest.mark.parametrize(
    "form", ["yuv422p", "yuv444p", "yuvj422p", "yuv420p10le", "gray", "rgb24", "bgr0", "yuyv422"]
)
def test_other_formats_become_rgb(form):
    frame = av.VideoFrame.from_ndarray(painting(0, 36, 64), "rgb24").reformat(format=form)
    got = TO_PLANES(frame)
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, RgbConverter()(frame))


@pytest.mark.parametrize(
    "change",
    [
        {"aspect": Fraction(4, 3)},
        {"matrix": (0, 1, -1, 0), "size": (36, 63)},
        {"transfer": 16},
        {"planes": False},
    ],
    ids=["pixels that are not square", "an odd picture turned", "HDR", "not asked for"],
)
def test_what_needs_more_than_a_copy_becomes_rgb(change: dict[str, Any]):
    frame = as_frame(planes_of(0, change.get("size", (36, 64)), Colour(9, False)))
    frame.color_trc = change.get("transfer", 1)
    arguments = frame, change.get("aspect"), change.get("matrix")
    got = Converter(planes=change.get("planes", True))(*arguments)
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, RgbConverter()(*arguments))


@pytest.mark.parametrize(
    ("size", "transfer", "matrix"),
    [((576, 1279), 2, 5), ((576, 1280), 2, 1), ((577, 64), 2, 1), ((64, 64), 16, 9)],
)
def test_an_unstated_matrix_is_that_of_players(size, transfer, matrix):
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    frame.color_trc = transfer
    assert colour_of(frame) == Colour(matrix, False)
    # BT.2020 with constant luminance is read as the other one; what FFmpeg reserves, as unstated.
    for stated, read in ((9, 9), (10, 9), (3, matrix)):
        frame.colorspace = stated
        assert colour_of(frame).matrix == read


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_a_clip_keeps_its_planes_and_its_colours(tmp_path, matrix, full):
    images = [painting(k, 48, 64) for k in range(3)]
    path = write_clip(
        tmp_path / "a.mp4", images, matrix=matrix, full_range=full, options={"qp": "0"}
    )
    frames = []
    for planes in (False, True):
        source = open_source(str(path), SourceOptions(planes=planes))
        source.open()
        frames.append(list(source.frames()))
        source.close()
    for rgb, planes in zip(*frames, strict=True):
        assert isinstance(rgb.pixels, np.ndarray)
        assert isinstance(planes.pixels, YuvImage)
        assert planes.pixels.colour == Colour(matrix, full)
        assert (planes.id, planes.pts_s, planes.size) == (rgb.id, rgb.pts_s, rgb.size)
        assert most_apart(planes.image, rgb.image) <= 3
