"""Folders and patterns of pictures as one clip."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceEmpty, SourceNotFound, SourceNotVideo
from pipeline.capture.open import open_source
from pipeline.capture.pictures import DEFAULT_FPS, picture_files
from pipeline.capture.still import NoPicture, decode_still
from pipeline.core.frame import Frame
from tests.support.clips import number_of, numbered


def write(path: Path, number: int, width: int = 160) -> Path:
    assert cv2.imwrite(str(path), numbered(number, width))
    return path


def frames_of(spec: str, **options: object) -> list[Frame]:
    source = open_source(spec, SourceOptions(**options))  # type: ignore[arg-type]
    source.open()
    frames = list(source.frames())
    source.close()
    return frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 1 to 12 without leading zeros, and what is none."""
    for number in range(1, 13):
        write(tmp_path / f"img_{number}{'.png' if number % 2 else '.JPG'}", number)
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("", range(1, 13)),
        ("img_%d.png", range(1, 13, 2)),
        ("img_%02d.png", [11]),
        ("img_*", range(1, 13)),
        ("img_?.png", range(1, 10, 2)),
        ("img_1[0-2].*", range(10, 13)),
        ("*.JPG", range(2, 13, 2)),
    ],
)
def test_pictures_are_a_clip_in_the_order_of_their_numbers(folder, pattern, numbers):
    frames = frames_of(str(folder / pattern))
    assert [number_of(frame.image) for frame in frames] == list(numbers)
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert [frame.pts_s for frame in frames] == [n / DEFAULT_FPS for n in range(len(frames))]
    assert not any(frame.discontinuity for frame in frames)


def test_a_part_and_a_rate(folder):
    frames = frames_of(str(folder), fps=4.0, start_s=0.5, seconds=1.0)
    assert [(frame.id, frame.pts_s) for frame in frames] == [(n, n / 4) for n in range(2, 6)]
    source = open_source(str(folder), SourceOptions(fps=4.0, start_s=0.5, seconds=1.0))
    source.open()
    info = source.info
    assert (info.name, info.live, info.width, info.height) == (folder.name, False, 160, 96)
    assert (info.fps, info.frame_count, info.codec) == (4.0, 4, "png")
    assert source.mark == open_source(str(folder)).mark != ""
    with pytest.raises(SourceEmpty, match=r"ends at 3\.00 s"):
        frames_of(str(folder), fps=4.0, start_s=3.0)


def test_live_plays_them_at_their_rate(folder):
    begun = time.monotonic()
    assert open_source(str(folder), SourceOptions(live=True)).live
    assert len(frames_of(str(folder), live=True, fps=30.0)) == 12
    assert time.monotonic() - begun > 11 / 30


def test_a_change_of_size_is_a_discontinuity(tmp_path):
    for number, width in enumerate((160, 160, 200, 200, 160)):
        write(tmp_path / f"{number}.png", number, width)
    assert [frame.discontinuity for frame in frames_of(str(tmp_path))] == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_what_cannot_be_decoded_is_skipped_and_counted(folder):
    (folder / "img_3.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    (folder / "img_5.png").write_bytes(b"")
    (folder / "img_7.png").unlink()
    os.mkfifo(folder / "img_7.png")
    source = open_source(str(folder))
    source.open()
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == [1, 2, 4, 6, 8, 9, 10, 11, 12]
    assert [frame.id for frame in frames] == [0, 1, 3, 5, 7, 8, 9, 10, 11]
    assert source.counts["damaged"] == 3
    assert source.warnings == [f"{folder.name}: 3 damaged pictures skipped"]


def test_without_a_picture_it_is_one_line(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    cases = {
        str(tmp_path): (SourceNotFound, "a folder without pictures.*give a clip"),
        str(tmp_path / "img_%03d.png"): (SourceNotFound, "no picture.*has such a name"),
        str(tmp_path / "absent" / "*.png"): (SourceNotFound, "no such file or directory"),
    }
    for spec, (kind, words) in cases.items():
        with pytest.raises(kind, match=words) as caught:
            frames_of(spec)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(SourceNotVideo, match="none of its pictures"):
        frames_of(str(tmp_path))


def test_a_picture_whose_name_looks_like_a_pattern_is_that_picture(tmp_path):
    # FFmpeg would read the two others.
    write(tmp_path / "a_1.png", 1)
    write(tmp_path / "a_2.png", 2)
    path = write(tmp_path / "a_%d.png", 3)
    assert [number_of(frame.image) for frame in frames_of(str(path))] == [3]


def test_stopping_ends_it(folder):
    source = open_source(str(folder))
    source.open()
    frames = source.frames()
    next(frames)
    source.close()
    assert list(frames) == []
    with pytest.raises(RuntimeError):
        next(source.frames())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=20, unique=True))
def test_numbers_are_sorted_by_value(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("order")
    for number in numbers:
        (folder / f"a{number}b.png").touch()
    found = [int(path.stem[1:-1]) for path in picture_files(str(folder / "a%db.png"))]
    assert found == sorted(numbers)


# Single pictures in memory.


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_every_kind_is_decoded(suffix):
    data = cv2.imencode(suffix, numbered(5))[1].tobytes()
    frame, _ = decode_still(data)
    assert (frame.width, frame.height) == (160, 96)
    with pytest.raises(NoPicture, match="more than 15359 pixels"):
        decode_still(data, most_pixels=160 * 96 - 1)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"II*\0", b"BM"]),
)
def test_junk_is_no_picture(junk, magic):
    with pytest.raises(NoPicture):
        decode_still(magic + junk)


def test_a_small_file_that_claims_many_pixels_takes_no_memory():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(NoPicture):
        decode_still(png)
