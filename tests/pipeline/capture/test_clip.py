"""Clips: every frame once, with its true number, time, colours and the right way up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2  # noqa: F401  before av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.decode import packets
from pipeline.capture.errors import SourceEmpty, SourceError, SourceNotFound, SourceNotVideo
from pipeline.capture.open import open_source
from pipeline.core.frame import Frame
from tests.support.clips import number_of, numbered, write_clip

COUNT = 50
# Name, encoder and its options: with and without B-frames, sparse key frames, times in several
# units, an index or none at all.
KINDS = {
    "h264.mp4": ("libx264", "yuv420p", {"bf": "3", "b-pyramid": "normal"}),
    "h264.mkv": ("libx264", "yuv420p", {"bf": "2"}),
    "h264.ts": ("libx264", "yuv420p", {"bf": "2"}),
    "h264_open.mp4": ("libx264", "yuv420p", {"bf": "2", "x264-params": "open-gop=1"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mpeg4_b.mp4": ("mpeg4", "yuv420p", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "mjpeg.mov": ("mjpeg", "yuvj420p", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "interlaced.ts": ("libx264", "yuv420p", {"x264-params": "tff=1"}),
    "gif.gif": ("gif", "rgb8", {}),
}

SEVERAL = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(spec: Path | str, **options: object) -> list[Frame]:
    source = open_source(str(spec), SourceOptions(**options))
    source.open()
    return list(source.frames())


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    images = [numbered(number) for number in range(COUNT)]
    return {
        name: write_clip(folder / name, images, codec=codec, pix_fmt=pix_fmt, options=options)
        for name, (codec, pix_fmt, options) in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_once_with_its_number_and_time(kinds: dict[str, Path], kind: str) -> None:
    source = open_source(str(kinds[kind]))
    source.open()
    frames = list(source.frames())
    assert [frame.id for frame in frames] == list(range(COUNT))
    assert [number_of(frame.image) for frame in frames] == list(range(COUNT))
    assert [frame.pts_s for frame in frames] == pytest.approx(
        [i / 25 for i in range(COUNT)], abs=2e-3
    )
    assert not any(frame.discontinuity for frame in frames)
    assert (source.info.width, source.info.height, source.info.fps) == (160, 96, 25.0)
    assert source.info.frame_count in (COUNT, None)
    assert source.warnings == []


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_part_keeps_its_numbers(kinds: dict[str, Path], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    first = data.draw(st.integers(0, COUNT - 1))
    count = data.draw(st.integers(1, COUNT - first))
    source = open_source(str(kinds[kind]), SourceOptions(start_s=first / 25, seconds=count / 25))
    source.open()
    frames = list(source.frames())
    expected = list(range(first, first + count))
    assert [frame.id for frame in frames] == expected
    assert [number_of(frame.image) for frame in frames] == expected
    assert [frame.pts_s for frame in frames] == pytest.approx([i / 25 for i in expected], abs=2e-3)
    assert source.info.frame_count is not None
    assert abs(source.info.frame_count - count) <= 1


def test_a_part_is_sought_not_decoded_from_the_beginning(kinds: dict[str, Path]) -> None:
    source = open_source(str(kinds["h264.mp4"]), SourceOptions(start_s=1.5))
    source.open()
    assert next(source.frames()).id == 38
    # Key frames are 12 apart: seeking reads a few packets, counting would read 38 and more.
    assert source._session is None or source._session.decoder.packets < 25


@pytest.mark.parametrize("kind", ["h264.mp4", "h264.ts", "mpeg4.avi"])
def test_a_start_after_the_end_is_an_error(kinds: dict[str, Path], kind: str) -> None:
    with pytest.raises(SourceEmpty, match=r"ends at 1\.9\d s, before 7 s"):
        read(kinds[kind], start_s=7.0)


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times_ms = [0, 10, 50, 90, 300, 340, 350, 800, 1100, 1101, 1200]
    images = [numbered(number) for number in range(len(times_ms))]
    path = write_clip(tmp_path / "vfr.mp4", images, pts_ms=times_ms, options={"bf": "2"})
    frames = read(path)
    assert [round(frame.pts_s * 1000) for frame in frames] == times_ms
    later = read(path, start_s=0.301)
    assert [frame.id for frame in later] == list(range(5, len(times_ms)))
    assert [number_of(frame.image) for frame in later] == list(range(5, len(times_ms)))


def test_time_begins_at_the_first_frame_and_jumps_are_marked(tmp_path: Path) -> None:
    times_ms = [5000 + 40 * i for i in range(10)] + [8000 + 40 * i for i in range(5)]
    images = [numbered(number) for number in range(15)]
    frames = read(write_clip(tmp_path / "gap.mkv", images, pts_ms=times_ms))
    assert frames[0].pts_s == 0.0
    assert frames[10].pts_s == pytest.approx(3.0)
    assert [frame.id for frame in frames if frame.discontinuity] == [10]


def test_joined_recordings_go_on(tmp_path: Path) -> None:
    """Time runs back and the size changes where two transport streams were joined."""
    first = write_clip(tmp_path / "a.ts", [numbered(i) for i in range(20)])
    second = write_clip(tmp_path / "b.ts", [numbered(i, 320, 192) for i in range(20, 30)])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    frames = read(joined)
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.id for frame in frames] == list(range(30))
    assert [frame.id for frame in frames if frame.discontinuity] == [20]
    assert frames[20].image.shape == (192, 320, 3)
    steps = np.diff([frame.pts_s for frame in frames])
    assert (steps > 0).all()
    later = read(joined, start_s=25 / 25)
    assert [number_of(frame.image) for frame in later] == [frame.id for frame in later]


def test_sound_that_begins_later_does_not_end_it(tmp_path: Path) -> None:
    """Transport streams may add streams on the way."""
    silent = write_clip(tmp_path / "a.ts", [numbered(i) for i in range(20)])
    sound = write_clip(tmp_path / "b.ts", [numbered(i) for i in range(20, 40)], audio=True)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(silent.read_bytes() * 3 + sound.read_bytes() * 3)
    assert [number_of(frame.image) for frame in read(joined)] == [
        *[*range(20)] * 3,
        *[*range(20, 40)] * 3,
    ]


def test_streams_that_pyav_has_not_heard_of_do_not_end_in_an_error() -> None:
    class Container:
        def demux(self, stream: object) -> Iterator[str]:
            yield from ("packet", "flush")
            raise IndexError("list index out of range")

    assert list(packets(Container(), None)) == ["packet", "flush"]  # type: ignore[arg-type]


def test_titles_in_any_encoding(kinds: dict[str, Path], tmp_path: Path) -> None:
    data = kinds["h264.mp4"].read_bytes()
    assert data.count(b"Lavf") == 1
    path = tmp_path / "latin.mp4"
    path.write_bytes(data.replace(b"Lavf", b"L\xe4\xff\x80"))
    assert len(read(path)) == COUNT


CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def corners_picture(width: int, height: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    halves = (slice(None, height // 2), slice(height // 2, None))
    sides = (slice(None, width // 2), slice(width // 2, None))
    for colour, (rows, columns) in zip(CORNERS, [(r, c) for r in halves for c in sides]):
        image[rows, columns] = colour
    return image


def corners_of(image: np.ndarray) -> list[tuple[int, ...]]:
    height, width = image.shape[:2]
    at = [(y, x) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [tuple(int(v) for v in np.round(image[y, x] / 255.0) * 255) for y, x in at]


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_and_mirrored_video_comes_upright(tmp_path: Path, turns: int, hflip: bool) -> None:
    image = corners_picture(96, 64)
    degrees = (0, 90, 180, -90)[turns]
    path = write_clip(tmp_path / "r.mp4", [image] * 3, rotation=degrees, hflip=hflip)
    source = open_source(str(path))
    source.open()
    frame = next(source.frames())
    expected = np.rot90(image, turns)
    expected = expected[:, ::-1] if hflip else expected
    assert frame.image.shape == expected.shape
    assert (source.info.height, source.info.width) == frame.size
    assert corners_of(frame.image) == corners_of(expected)
    assert frame.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("size", "matrix", "full_range", "pix_fmt", "codec"),
    [
        ((96, 64), 1, False, "yuv420p", "libx264"),
        ((96, 64), 5, False, "yuv420p", "libx264"),
        ((96, 64), 6, True, "yuv420p", "libx264"),
        ((96, 64), 1, True, "yuv420p", "libx264"),
        ((96, 64), 9, False, "yuv420p10le", "libx264"),
        ((96, 64), 1, False, "yuv422p", "libx264"),
        ((96, 64), 1, False, "yuv444p10le", "ffv1"),
        ((96, 64), None, None, "gbrp", "libx264rgb"),
        ((96, 64), None, None, "bgr0", "ffv1"),
        ((96, 64), None, None, "yuv420p", "libx264"),
        ((1280, 720), 6, False, "yuv420p", "libx264"),
    ],
)
def test_colours(tmp_path: Path, size, matrix, full_range, pix_fmt, codec) -> None:
    """Known colours come back, so the stored matrix and range were the ones used."""
    if codec == "libx264rgb":
        pix_fmt = "rgb24"
    image = corners_picture(*size)
    image[: size[1] // 2, : size[0] // 2] = (200, 40, 90)
    image[size[1] // 2 :, : size[0] // 2] = (30, 160, 120)
    path = write_clip(
        tmp_path / "c.mkv", [image] * 2, codec=codec, pix_fmt=pix_fmt, matrix=matrix,
        full_range=full_range, options={"crf": "4"} if codec == "libx264" else {},
    )  # fmt: skip
    (frame, _) = read(path)
    for y in (0.25, 0.75):
        for x in (0.25, 0.75):
            at = int(y * size[1]), int(x * size[0])
            assert np.abs(frame.image[at].astype(int) - image[at]).max() <= 5, at


def test_untagged_hd_is_bt709(tmp_path: Path) -> None:
    """Players take HD without a tag for BT.709; encode so, say nothing, and look."""
    image = np.full((720, 1280, 3), (200, 40, 90), np.uint8)
    path = write_clip(
        tmp_path / "hd.mp4", [image] * 2, options={"crf": "4"}, prepare=lambda frame: bt709(image)
    )
    (frame, _) = read(path)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 2  # unspecified
    assert np.abs(frame.image[360, 640].astype(int) - image[360, 640]).max() <= 5


def bt709(image: np.ndarray) -> av.VideoFrame:
    """YCbCr by ITU-R BT.709 (3.2 and 3.3), limited range, without a tag."""
    red, green, blue = (image[0, 0] / 255.0).tolist()
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    values = (
        16 + 219 * luma,
        128 + 224 * (blue - luma) / 1.8556,
        128 + 224 * (red - luma) / 1.5748,
    )
    frame = av.VideoFrame(image.shape[1], image.shape[0], "yuv420p")
    for plane, value in zip(frame.planes, values):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    return frame


@pytest.mark.parametrize("size", [(16, 16), (161, 97), (33, 250)])
def test_small_and_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    image = corners_picture(*size)
    frames = read(write_clip(tmp_path / "o.mkv", [image] * 5, codec="ffv1", pix_fmt="yuv444p"))
    assert [frame.size for frame in frames] == [size[::-1]] * 5
    assert corners_of(frames[4].image) == corners_of(image)
    assert frames[4].image.flags.c_contiguous


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 11), (96, 233)), (Fraction(1, 2), (192, 160))]
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mp4", [numbered(7)] * 3, aspect=aspect)
    source = open_source(str(path))
    source.open()
    frame = next(source.frames())
    assert frame.size == (source.info.height, source.info.width) == size


def test_a_still_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "still.png"), numbered(321))
    (frame,) = read(tmp_path / "still.png")
    assert (frame.id, frame.pts_s, number_of(frame.image)) == (0, 0.0, 321)


def test_rgb_frames_are_not_the_decoders_memory(tmp_path: Path) -> None:
    images = [numbered(number) for number in range(8)]
    path = write_clip(tmp_path / "raw.avi", images, codec="rawvideo", pix_fmt="rgb24")
    frames = []
    source = open_source(str(path))
    source.open()
    for frame in source.frames():
        assert (frame.image == images[frame.id]).all()
        frame.image[:] = 0
        frames.append(frame)
    assert len(frames) == 8


def test_sound_is_not_video(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "s.mp4", [numbered(i) for i in range(30)], audio=True)
    assert [number_of(frame.image) for frame in read(path)] == list(range(30))
    only = tmp_path / "only.m4a"
    with av.open(str(path)) as source, av.open(str(only), "w", format="mp4") as made:
        stream = made.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    with pytest.raises(SourceNotVideo, match="only.m4a: has no video in it, only audio"):
        read(only)


def test_a_cover_picture_is_not_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as made:
        sound = made.add_stream("aac", rate=16000, layout="mono")
        cover = made.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(numbered(5)).reformat(format="yuvj420p")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        silence.rate = 16000
        picture.pts = silence.pts = 0
        for stream, frame in ((cover, picture), (sound, silence)):
            made.mux(stream.encode(frame))
            made.mux(stream.encode())
    with pytest.raises(SourceNotVideo, match="has no video in it"):
        read(path)


def test_what_is_no_clip_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("This is not a film.\n" * 50)
    readme = tmp_path / "readme.txt"
    readme.write_text("plain text\n")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {text}\n")
    cases = {
        tmp_path / "absent.mp4": (SourceNotFound, "no such file"),
        tmp_path / ("x" * 300 + ".mp4"): (SourceNotFound, "file name too long"),
        text: (SourceNotVideo, "not a video"),
        readme: (SourceNotVideo, "is text, not a video|not a video"),
        empty: (SourceNotVideo, "is empty"),
        playlist: (SourceNotVideo, "not a video"),
        "": (SourceNotFound, "no source"),
        "with\0nul": (SourceNotFound, "no such file"),
        "gopher://x/y": (SourceNotFound, "not read; these are: rtsp://"),
        "lavfi:nosuchfilter": (SourceNotVideo, "FFmpeg cannot make this"),
        "lavfi:sine": (SourceNotVideo, "no video"),
    }
    for spec, (kind, words) in cases.items():
        with pytest.raises(kind, match=words) as caught:
            read(spec)
        assert "\n" not in str(caught.value)


def test_a_clip_cut_short_plays_what_is_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (96, 160, 3), np.uint8) for _ in range(COUNT)]
    fast = write_clip(
        tmp_path / "fast.mp4", images, gop=5, container_options={"movflags": "+faststart"}
    )
    fast.write_bytes(fast.read_bytes()[: fast.stat().st_size * 6 // 10])
    source = open_source(str(fast))
    source.open()
    frames = list(source.frames())
    assert 20 < len(frames) < COUNT
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert len(source.warnings) >= 1
    assert f"of {COUNT} frames are there" in source.warnings[-1]

    whole = write_clip(tmp_path / "whole.mp4", images)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises(SourceNotVideo, match="cut short: its index .moov. is missing"):
        read(whole)


def test_a_cut_short_file_without_an_index_says_so(tmp_path: Path) -> None:
    images = [numbered(number) for number in range(150)]
    path = write_clip(tmp_path / "cut.mkv", images)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    source.open()
    count = len(list(source.frames()))
    assert 20 < count < 140
    assert "is cut short: it says 6.0 s" in source.warnings[-1]


def overwrite(path: Path, which: slice, byte: bytes) -> bytes:
    """The file with the insides of some of its packets replaced."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for packet in packets[which]:
        # Equal packets are replaced together, so the next of them may be gone already.
        data = data.replace(packet, byte * len(packet))
    return data


@pytest.mark.parametrize("kind", ["h264.mp4", "mpeg4.avi", "vp9.webm", "ffv1.mkv", "mpeg4_b.mp4"])
def test_damage_is_stepped_over_and_numbers_stay_true(
    kinds: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Whole packets overwritten: whatever still decodes cleanly has the number it shows."""
    path = tmp_path / kind
    path.write_bytes(overwrite(kinds[kind], slice(14, 17), b"\xa7"))
    source = open_source(str(path))
    source.open()
    frames = list(source.frames())
    ids = [frame.id for frame in frames]
    assert ids == sorted(set(ids))
    assert ids == [round(frame.pts_s * 25) for frame in frames]
    assert ids[-1] == COUNT - 1
    # What cannot be decoded is left out or made up from its neighbours until the next key frame.
    assert sum(number_of(frame.image) == frame.id for frame in frames) >= 25
    if kind != "mpeg4.avi":  # its decoder makes up whatever is missing and says nothing
        assert "damaged packets skipped" in source.warnings[0]


def test_nothing_but_damage_is_an_error(kinds: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    path.write_bytes(overwrite(kinds["h264.mp4"], slice(None), b"\xff"))
    with pytest.raises(SourceNotVideo, match="no frame of it can be decoded"):
        read(path)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_hostile_bytes_end_in_frames_or_one_line(
    kinds: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    """Any bytes anywhere: frames with rising numbers, or a SourceError, never anything else."""
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    content = bytearray(kinds[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    path = tmp_path / kind
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    start_s = data.draw(st.sampled_from([0.0, 0.8]))
    message, frames = "", []
    try:
        frames = read(path, start_s=start_s)
    except SourceError as error:
        message = str(error)
    assert bool(frames) != bool(message)
    assert "\n" not in message
    assert all(a.id < b.id and a.pts_s < b.pts_s for a, b in zip(frames, frames[1:]))


def test_odd_file_names(kinds: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "100%d.mp4", "späce here.mp4", "rtsp:x.mp4", "-dash.mp4", "0.mp4"):
        (tmp_path / name).write_bytes(kinds["h264.mp4"].read_bytes())
        assert len(read(name)) == COUNT


def test_close_from_another_thread_ends_it(kinds: dict[str, Path]) -> None:
    source = open_source(str(kinds["h264.mp4"]))
    source.open()
    seen = []
    for frame in source.frames():
        seen.append(frame)
        if frame.id == 3:
            closer = threading.Thread(target=source.close)
            closer.start()
            closer.join(5)
            assert not closer.is_alive()
    assert len(seen) == 4
    source.close()
    with pytest.raises(RuntimeError, match="not open, or was read already"):
        next(source.frames())


def test_stop_from_outside_ends_it(kinds: dict[str, Path]) -> None:
    stop = threading.Event()
    source = open_source(str(kinds["h264.mp4"]), stop=stop)
    source.open()
    for frame in source.frames():
        if frame.id == 3:
            stop.set()
    assert frame.id == 3


def test_a_source_that_was_never_read_can_be_closed(kinds: dict[str, Path]) -> None:
    source = open_source(str(kinds["h264.mp4"]))
    with pytest.raises(RuntimeError, match="not open"):
        _ = source.info
    source.close()
    source = open_source(str(kinds["h264.mp4"]))
    source.open()
    source.close()
    source.close()


def test_the_real_clips(clips: Path) -> None:
    for path in (clips / "taiji.mp4", clips / "lab_two_people_cam1.mp4"):
        source = open_source(str(path))
        source.open()
        frames = list(source.frames())
        assert source.info.frame_count == len(frames)
        assert [frame.id for frame in frames] == list(range(len(frames)))
        assert not any(frame.discontinuity for frame in frames)
        assert source.warnings == []
        last = read(path, start_s=frames[-5].pts_s)
        assert [frame.id for frame in last] == [frame.id for frame in frames[-5:]]
        assert (last[0].image == frames[-5].image).all()
