"""The GPU's conversions are those of `pipeline.core.yuv` and of FFmpeg; without a GPU the kernels
run in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.frame import Frame, Window
from pipeline.core.yuv import BT709, Colour, YuvImage, to_yuv, yuv_bytes
from pipeline.gpu.transfer import PlanesCopy, upload
from tests.support.planes import (
    colours,
    most_apart,
    painting,
    planes_by_ffmpeg,
    planes_of,
    rgb_by_ffmpeg,
)

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Wider than a kernel's block of columns, too.
sizes = st.tuples(st.integers(1, 9), st.sampled_from((1, 2, 31, 255, 256, 257, 515)))
seeds = st.integers(0, 2**32 - 1)


def rgb_there(pictures: list[YuvImage]) -> np.ndarray:
    from pipeline.gpu.yuv_gpu import to_rgb

    planes = torch.from_numpy(np.stack([each.data for each in pictures])).to(DEVICE)
    shape = len(pictures), *pictures[0].size, 3
    images = torch.full(shape, 77, dtype=torch.uint8, device=DEVICE)
    to_rgb(planes, images, pictures[0].colour)
    return images.cpu().numpy()


@given(seeds, sizes, colours, st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_rgb_is_the_cpus_and_ffmpegs(seed, size, colour, count):
    pictures = [planes_of(seed + k, size, colour) for k in range(count)]
    for picture, rgb in zip(pictures, rgb_there(pictures)):
        # Both round single precision: where a level is nearly halfway, either is right.
        assert most_apart(rgb, picture.rgb) <= 1
        assert most_apart(rgb, rgb_by_ffmpeg(picture)) <= 1


@given(seeds, sizes, colours, st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_planes_are_the_cpus(seed, size, colour, count):
    images = np.stack([painting(seed + k, *size) for k in range(count)])
    made = PlanesCopy(torch.from_numpy(images).to(DEVICE), colour).result()
    assert [(each.size, each.colour) for each in made] == [(size, colour)] * count
    for image, planes in zip(images, made):
        # The CPU's chroma is the mean of four rounded ones.
        assert most_apart(planes.data, to_yuv(image, colour).data) <= 1


@given(seeds, colours)
@settings(max_examples=10, deadline=None)
def test_planes_are_ffmpegs(seed, colour):
    image = painting(seed, 16, 258)
    (made,) = PlanesCopy(torch.from_numpy(image[None]).to(DEVICE), colour).result()
    for mine, theirs in zip(made.planes, planes_by_ffmpeg(image, colour)):
        assert most_apart(mine, theirs) <= 1


def test_a_window_without_a_gpu_is_rgb():
    frames = tuple(Frame(k, "s", 0, k / 30, planes_of(k, (6, 8), BT709)) for k in range(3))
    for before, after in zip(frames, upload(Window(frames), torch.device("cpu")).frames):
        np.testing.assert_array_equal(after.on_device.numpy(), before.image)
        assert after.pixels is before.pixels


@pytest.mark.gpu
def test_a_window_of_all_kinds_of_pictures_is_uploaded_as_rgb():
    size = (90, 160)
    kinds = (
        planes_of(0, size, BT709), planes_of(1, size, BT709), painting(2, *size),
        planes_of(3, size, Colour(5, True)),
    )  # fmt: skip
    frames = tuple(Frame(k, "s", 0, k / 30, kind) for k, kind in enumerate(kinds))
    there = upload(Window(frames), torch.device("cuda"))
    for before, after in zip(frames, there.frames):
        assert most_apart(after.on_device.cpu().numpy(), before.image) <= 1
    # One tensor: work on all frames needs no copy.
    first = there.frames[0].on_device
    apart = [frame.on_device.data_ptr() - first.data_ptr() for frame in there.frames]
    assert apart == [k * first.numel() for k in range(4)]


@pytest.mark.gpu
def test_pictures_cross_the_bus_as_half_the_bytes():
    images = torch.randint(0, 256, (4, 1080, 1920, 3), dtype=torch.uint8, device="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        PlanesCopy(images).result()
    names = [event.name for event in profile.events() if "DtoH" in event.name]
    assert len(names) == 1
    assert 2 * 4 * yuv_bytes((1080, 1920)) == images.numel()
