"""The mp4: its times, colours and sizes, and that it plays whatever ended the run."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2

# isort: split
import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.outputs.base import OutputError
from app.outputs.mp4 import Timeline
from app.outputs.video import VideoOutput
from app.outputs.yuv import encoder_frame, fit_into, pad_even
from pipeline.core.yuv import BT709, Colour
from tests.support.bodies import bodies, frame, run_info
from tests.support.clips import BITS, number_of, numbered
from tests.support.paths import ROOT
from tests.support.planes import planes_of

NOBODY = bodies([])


def play(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def picture(index: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    image = np.full((height, width, 3), (200, 60, 30), np.uint8)
    image[:, : 2 * index % width] = (20, 180, 90)
    return image


def write_all(path: Path, times: list[float], height: int = 48, width: int = 64) -> VideoOutput:
    output = VideoOutput(path)
    output.open(run_info(height, width))
    for i, pts_s in enumerate(times):
        output.write(frame(i, pts_s, height, width), NOBODY, picture(i, height, width))
    output.close()
    return output


def test_every_frame_is_there_at_its_own_time(tmp_path):
    times = [7.0, 7.04, 7.10, 7.11, 7.5, 7.54]
    output = write_all(tmp_path / "v.mp4", times)
    shown = [f.time for f in play(tmp_path / "v.mp4")]
    np.testing.assert_allclose(shown, np.subtract(times, 7.0), atol=1e-4)
    assert output.files == (tmp_path / "v.mp4",)


def test_colours_come_back_and_are_tagged(tmp_path):
    write_all(tmp_path / "v.mp4", [0.0], height=64, width=64)
    with av.open(str(tmp_path / "v.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        first = next(container.decode(video=0))
    # ITU-R BT.709-6, limited range: what a decoder that believes the tags turns back.
    red, green, blue = np.array([200, 60, 30]) / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    wanted = (
        16 + 219 * luma,
        128 + 224 * (blue - luma) / 1.8556,
        128 + 224 * (red - luma) / 1.5748,
    )
    planes = first.to_ndarray(format="yuv420p")
    seen = planes[32, 40], planes[64 + 8, 20], planes[64 + 16 + 8, 20]
    np.testing.assert_allclose(seen, wanted, atol=2.5)


@given(st.integers(0, 2**32 - 1), st.integers(8, 20), st.integers(8, 20))
def test_conversion_is_bt709s_formula(seed, half_height, half_width):
    """Against the formula in floats: luma a pixel, chroma the mean of four (ITU-R BT.709-6)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (2 * half_height, 2 * half_width, 3), np.uint8)
    luma = image @ np.array([0.2126, 0.7152, 0.0722]) / 255
    wanted = [16 + 219 * luma]
    for channel, scale in ((2, 1.8556), (0, 1.5748)):
        chroma = 128 + 224 * (image[..., channel] / 255 - luma) / scale
        wanted.append(chroma.reshape(half_height, 2, half_width, 2).mean(axis=(1, 3)))
    for plane, values in zip(encoder_frame(image, image.shape[:2]).planes, wanted):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        np.testing.assert_allclose(rows[:, : plane.width], values, atol=1.5)


def test_planes_are_encoded_as_they_are():
    """No conversion lies between planes of the video's own kind and the encoder."""
    image = planes_of(0, (48, 64), BT709)
    encoded = encoder_frame(image, (48, 64))
    assert (encoded.format.name, encoded.width, encoded.height) == ("yuv420p", 64, 48)
    np.testing.assert_array_equal(encoded.to_ndarray().ravel(), image.data)


@pytest.mark.parametrize(
    ("size", "colour"),
    [((48, 64), Colour(5, True)), ((49, 63), BT709), ((8, 64), BT709), ((24, 32), BT709)],
    ids=["other colours", "an odd size", "smaller than the encoder takes", "another size"],
)
def test_other_planes_are_converted(tmp_path, size, colour):
    output = VideoOutput(tmp_path / "v.mp4", crf=0)
    whole = (48, 64) if size == (24, 32) else size
    output.open(run_info(*whole))
    image = planes_of(0, size, colour)
    output.write(replace(frame(0, 0.0, *size), pixels=image), NOBODY, image)
    output.close()
    with av.open(str(tmp_path / "v.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_range) == (1, 1)
        (first,) = container.decode(video=0)
    wanted = encoder_frame(image.rgb, whole).to_ndarray()
    # x264's crf 0 is lossless in 8 bits.
    np.testing.assert_array_equal(first.to_ndarray(format="yuv420p"), wanted)


def test_a_closed_file_is_a_plain_mp4(tmp_path):
    write_all(tmp_path / "v.mp4", [i / 25 for i in range(60)])
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 60
        assert float(stream.duration * stream.time_base) == pytest.approx(60 / 25, abs=0.05)
    # Players ask OpenCV's way too.
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 60


@pytest.mark.parametrize(("height", "width"), [(49, 65), (48, 65), (1, 1), (16, 16), (7, 200)])
def test_odd_and_tiny_sizes_play(tmp_path, height, width):
    write_all(tmp_path / "v.mp4", [0.0, 0.04, 0.08], height, width)
    frames = play(tmp_path / "v.mp4")
    assert len(frames) == 3
    assert frames[0].height >= height
    assert frames[0].width - width in (0, 1) or width < 16


def test_another_size_in_the_middle_is_fitted_into_the_first(tmp_path):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info(64, 64))
    output.write(frame(0, 0.0, 64, 64), NOBODY, picture(0, 64, 64))
    output.write(frame(1, 0.04, 32, 128), NOBODY, picture(0, 32, 128))
    output.close()
    _, second = play(tmp_path / "v.mp4")
    gray = second.to_ndarray(format="gray").astype(int)
    assert gray.shape == (64, 64)
    assert gray[:16].mean() < 30
    assert gray[26:38].mean() > 60


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_fitting_keeps_the_shape_and_fills_one_side(height, width, into_height, into_width):
    image = np.full((height, width, 3), 255, np.uint8)
    out = fit_into(image, (into_height, into_width))
    assert out.shape == (into_height, into_width, 3)
    rows, columns = out.any(axis=(1, 2)).sum(), out.any(axis=(0, 2)).sum()
    assert rows == into_height or columns == into_width
    even = pad_even(image)
    assert even.shape[0] % 2 == even.shape[1] % 2 == 0
    np.testing.assert_array_equal(even[:height, :width], image)


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.booleans()), min_size=1, max_size=30))
def test_ticks_always_rise_from_zero(times):
    timeline = Timeline(30.0)
    ticks = [timeline.place(pts_s, broken) for pts_s, broken in times]
    assert ticks[0] == 0
    assert all(b > a for a, b in zip(ticks, ticks[1:], strict=False))


def test_a_leap_in_the_sources_time_is_one_step_and_time_goes_on_from_there():
    timeline = Timeline(25.0)
    times = [(5.0, False), (5.04, False), (90_000.0, True), (90_000.04, False), (1.0, True)]
    assert [timeline.place(*t) for t in times] == [0, 3600, 7200, 10800, 14400]
    # A pause without a break is the source's own, and kept.
    assert Timeline(25.0).place(0.0, False) == 0
    kept = Timeline(25.0)
    assert [kept.place(0.0, False), kept.place(9.0, False)] == [0, 810_000]


def test_where_it_cannot_be_written_is_one_line(tmp_path):
    output = VideoOutput(tmp_path / "no" / "v.mp4")
    output.open(run_info())
    # The file is opened by the thread that writes it.
    output.write(frame(0), bodies([1]), np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(OutputError, match=r"v\.mp4: cannot be written: No such file"):
        output.close()
    output.close()


def test_opened_without_a_frame_leaves_nothing(tmp_path):
    output = VideoOutput(tmp_path / "v.mp4")
    output.open(run_info())
    output.close()
    output.close()
    assert list(tmp_path.iterdir()) == []
    assert output.files == ()


ENDLESS = f"""
import sys, time, resource, signal
import numpy as np
from pathlib import Path
BITS = {BITS}
{inspect.getsource(numbered)}
"""
ENDLESS += """
from pipeline.core.yuv import BT709, Colour
from tests.support.bodies import bodies, frame, run_info
from app.outputs.video import VideoOutput
path, live, step_s, most_bytes = Path(sys.argv[1]), *map(float, sys.argv[2:])
output = VideoOutput(path)
output.open(run_info(240, 320, fps=25, live=bool(live)))
rng = np.random.default_rng(0)
# A still texture: the encoder takes no change of the number for a cut.
texture = rng.integers(0, 40, (240, 320, 3), np.uint8)
if most_bytes:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes),) * 2)
try:
    for i in range(1000):
        picture = numbered(i, 320, 240) // 5 * 4 + texture
        if most_bytes:
            picture //= 2
            picture += rng.integers(0, 99, (240, 320, 3), np.uint8)
        else:
            time.sleep(0.01)
        output.write(frame(i, i * step_s, 240, 320), bodies([]), picture)
        print(i, flush=True)
except OSError as error:
    print(type(error).__name__, error, file=sys.stderr)
try:
    output.close()
except OSError as error:
    print(type(error).__name__, error, file=sys.stderr)
"""


def endless(path: Path, live: bool, step_s: float = 0.04, most_bytes: int = 0):
    arguments = [str(path), str(int(live)), str(step_s), str(most_bytes)]
    return subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("live", "step_s", "lost_s"), [(False, 0.04, 2.0), (True, 0.04, 2.0), (True, 0.2, 3.0)]
)
def test_a_killed_process_leaves_a_video_that_plays_to_its_last_seconds(
    tmp_path, live, step_s, lost_s
):
    """Also where frames come far slower than their nominal rate."""
    path = tmp_path / "v.mp4"
    with endless(path, live, step_s) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 150:
                writer.send_signal(signal.SIGKILL)
                break
    frames = play(path)
    assert [number_of(f.to_ndarray(format="rgb24")) for f in frames] == list(range(len(frames)))
    np.testing.assert_allclose([f.time for f in frames], np.arange(len(frames)) * step_s, atol=1e-4)
    assert (151 - len(frames)) * step_s <= lost_s


@pytest.mark.parametrize("live", [False, True])
def test_a_full_disk_is_one_line_and_what_fitted_plays(tmp_path, live):
    path = tmp_path / "v.mp4"
    with endless(path, live, most_bytes=3_000_000) as writer:
        _, errors = writer.communicate(timeout=60)
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"OutputError {path}: cannot write: ")
    assert len(play(path)) > 50


def test_a_disk_of_two_megabytes_that_fills_up(tmp_path):
    """A real one, where this user may mount it."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    try:
        output = VideoOutput(tmp_path / "v.mp4")
        output.open(run_info(240, 320))
        rng = np.random.default_rng(0)
        noise = (rng.integers(0, 99, (240, 320, 3), np.uint8) for _ in range(1000))
        told = None
        for i, image in enumerate(noise):
            try:
                output.write(frame(i, None, 240, 320), NOBODY, image)
            except OutputError as error:
                told = str(error)
                break
        output.close()
        assert told == f"{tmp_path / 'v.mp4'}: cannot write: No space left on device"
        assert len(play(tmp_path / "v.mp4")) > 20
    finally:
        busy = subprocess.run(["umount", str(tmp_path)], capture_output=True).returncode
        if busy:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert not busy, "a file was left open"


def test_a_file_that_exists_is_replaced_only_where_that_is_asked_for(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("the user's")
    output = VideoOutput(path)
    output.open(run_info())
    output.write(frame(0), bodies([]), np.zeros((48, 64, 3), np.uint8))
    # The thread of the output opens the file, so the error comes later than the frame.
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        output.close()
    assert path.read_text() == "the user's"
    output = VideoOutput(path, existing="overwrite")
    output.open(run_info())
    output.write(frame(0), bodies([]), np.zeros((48, 64, 3), np.uint8))
    output.close()
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 1
