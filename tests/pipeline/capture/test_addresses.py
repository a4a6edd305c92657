"""Which spellings of a source mean a camera."""

from __future__ import annotations

import pytest

from pipeline.capture.addresses import is_camera
from pipeline.capture.errors import SourceError, SourceNotFound
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip


@pytest.mark.parametrize(
    "spec",
    ["0", "12", "/dev/video3", "camera:HD Webcam", "/dev/v4l/by-id/usb-X-video-index0",
     "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0", "/dev/null"],
)  # fmt: skip
def test_cameras(spec):
    assert is_camera(spec)


def test_a_link_to_a_device_is_a_camera_and_one_to_a_file_is_not(tmp_path):
    (tmp_path / "camera").symlink_to("/dev/null")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert is_camera(str(tmp_path / "camera"))
    for name in ("file", "link", "missing", "."):
        assert not is_camera(str(tmp_path / name))


@pytest.mark.parametrize("spec", ["clip.mp4", "-1", "1.5", "rtsp://0", "x\0y", "x" * 5000])
def test_other_sources(spec):
    assert not is_camera(spec)


def test_a_camera_that_is_not_there_is_one_line(tmp_path):
    for spec in ("/dev/v4l/by-id/usb-none-video-index0", "/dev/null"):
        from pipeline.capture.base import SourceOptions

        source = open_source(spec, SourceOptions(retry_s=0.0))
        with pytest.raises(SourceError) as caught:
            source.open()
        assert len(str(caught.value).splitlines()) == 1
        source.close()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("-", "standard input is not read"),
        ("frames/img_%03d.jpg", "pattern of pictures.*ffmpeg"),
        ("frames/*.png", "pattern of pictures.*ffmpeg"),
        ("https://www.youtube.com/watch?v=x", "download the video first"),
        ("https://youtu.be/x", "download the video first"),
        ("file://elsewhere/a.mp4", "of another machine"),
        ("ftp://a/b.mp4", "ftp:// is not read"),
    ],
)
def test_what_people_try_gets_a_hint(spec, says):
    with pytest.raises(SourceNotFound, match=says) as caught:
        open_source(spec)
    assert len(str(caught.value).splitlines()) == 1


def test_a_files_address_is_its_path(tmp_path):
    path = write_clip(tmp_path / "a clip, 50%.mp4", [numbered(k) for k in range(3)])
    for spec in (path.as_uri(), f"file://localhost{path.as_uri().removeprefix('file://')}"):
        source = open_source(spec)
        source.open()
        assert [number_of(frame.image) for frame in source.frames()] == [0, 1, 2]
        source.close()
    # A file whose own name looks like a pattern is that file.
    source = open_source(str(path))
    source.open()
    source.close()


@pytest.mark.parametrize(
    "spec", ["http://127.0.0.1/a%20b.mp4", "rtsp://127.0.0.1/*", "lavfi:testsrc2,drawtext=%{pts}"]
)
def test_signs_in_an_address_are_no_pattern(spec):
    open_source(spec).close()
