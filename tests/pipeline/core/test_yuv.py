"""Planes of YUV: FFmpeg's own conversions both ways, and parts of a picture that become RGB."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.core import yuv
from pipeline.core.frame import Frame
from pipeline.core.yuv import BT709, Colour, YuvImage, every, pixels_at, rgb_from_yuv, yuv_bytes
from tests.support.planes import (
    colours,
    most_apart,
    painting,
    planes_by_ffmpeg,
    planes_of,
    rgb_by_ffmpeg,
)

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**32 - 1)


@given(seeds, sizes, colours)
@settings(max_examples=60, deadline=None)
def test_rgb_is_ffmpegs_within_a_level(seed, size, colour):
    image = planes_of(seed, size, colour)
    assert most_apart(image.rgb, rgb_by_ffmpeg(image)) <= 1


@given(seeds, st.tuples(st.integers(4, 20), st.integers(4, 20)), colours)
@settings(max_examples=60, deadline=None)
def test_planes_are_ffmpegs_within_a_level(seed, halves, colour):
    picture = painting(seed, 2 * halves[0], 2 * halves[1])
    made = yuv.to_yuv(picture, colour)
    for mine, theirs in zip(made.planes, planes_by_ffmpeg(picture, colour)):
        assert most_apart(mine, theirs) <= 1


@given(seeds, sizes)
@settings(max_examples=30, deadline=None)
def test_a_block_of_one_colour_comes_back(seed, size):
    """An odd edge is a block too: its chroma is of the pixels that there are."""
    few = np.random.default_rng(seed).integers(0, 256, (size[0], size[1], 3), np.uint8)
    picture = few.repeat(2, 0).repeat(2, 1)[: 2 * size[0] - 1, : 2 * size[1] - 1]
    # A level of luma or chroma is up to 2.2 levels of blue.
    assert most_apart(yuv.to_yuv(picture).rgb, picture) <= 3


@pytest.mark.parametrize(
    ("colour", "red"),
    [
        # The digital codes of pure red: ITU-R BT.601-7, BT.709-6 and BT.2020-2.
        (Colour(5, False), (81, 90, 240)),
        (Colour(1, False), (63, 102, 240)),
        (Colour(9, False), (74, 97, 240)),
        (Colour(5, True), (76, 85, 255)),
    ],
)
def test_pure_red_has_the_codes_of_the_standards(colour, red):
    image = yuv.to_yuv(np.full((2, 2, 3), (255, 0, 0), np.uint8), colour)
    np.testing.assert_allclose([plane[0, 0] for plane in image.planes], red, atol=1)
    np.testing.assert_allclose(rgb_from_yuv(colour) @ [*red, 1], (255, 0, 0), atol=2.5)


@given(seeds, sizes, st.integers(1, 9), colours)
@settings(max_examples=50, deadline=None)
def test_parts_of_a_picture_are_those_of_the_whole(seed, size, step, colour):
    image, rng = planes_of(seed, size, colour), np.random.default_rng(seed)
    rows, columns = (rng.integers(0, side, 20) for side in size)
    for part in (every, pixels_at):
        arguments = (step,) if part is every else (rows, columns)
        np.testing.assert_array_equal(part(image, *arguments), part(image.rgb, *arguments))


@given(seeds, sizes, st.tuples(st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=50, deadline=None)
def test_only_a_corner_is_replaced(seed, size, halves):
    image = planes_of(seed, size, BT709)
    before = image.data.copy()
    height, width = (min(2 * half, side) for half, side in zip(halves, size))
    corner = image.corner((height, width))
    np.testing.assert_array_equal(corner.rgb, image.rgb[:height, :width])
    # There and back a colour beyond RGB is lost.
    assume(corner.rgb.min() > 0 and corner.rgb.max() < 255)
    fresh = YuvImage(before.copy(), size, BT709)
    fresh.put_corner(corner.rgb)
    assert most_apart(fresh.data, before) <= 4
    fresh.put_corner(np.zeros((height, width, 3), np.uint8))
    assert (fresh.rgb[:height, :width] == 0).all()
    np.testing.assert_array_equal(fresh.rgb[height:], image.rgb[height:])
    np.testing.assert_array_equal(fresh.rgb[:, width:], image.rgb[:, width:])


def test_rgb_is_made_once_for_all_threads(monkeypatch):
    made, convert = [], yuv._to_rgb
    monkeypatch.setattr(yuv, "_to_rgb", lambda *args: made.append(0) or convert(*args))
    frame = Frame(0, "s", 0, 0.0, planes_of(1, (480, 640), BT709))
    barrier, seen = threading.Barrier(4), []

    def read():
        barrier.wait()
        seen.append(frame.image)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(image is seen[0] for image in seen)
    assert frame.size == (480, 640) == frame.image.shape[:2]


def test_data_of_another_size_is_refused():
    assert yuv_bytes((3, 5)) == 15 + 2 * 6
    for data in (np.zeros(26, np.uint8), np.zeros((9, 3), np.uint8), np.zeros(27, np.int8)):
        with pytest.raises(ValueError, match="no YUV 4:2:0 picture"):
            YuvImage(data, (3, 5), BT709)
    with pytest.raises(ValueError, match="no YUV 4:2:0 picture"):
        YuvImage(np.zeros(0, np.uint8), (0, 5), BT709)
