"""What a source's text means, and the strict parser of network addresses."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.addresses import (
    NETWORK,
    is_address,
    is_camera,
    parse_address,
)
from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceError, SourceNotFound
from pipeline.capture.open import check_there, open_source
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


@pytest.mark.parametrize("spec", ["clip.mp4", "-1", "1.5", "rtsp://0", "x\0y", "x" * 5000, "٣"])
def test_other_sources(spec):
    assert not is_camera(spec)


def test_a_camera_that_is_not_there_is_one_line(tmp_path):
    for spec in ("/dev/v4l/by-id/usb-none-video-index0", "/dev/null"):
        source = open_source(spec, SourceOptions(retry_s=0.0))
        with pytest.raises(SourceError) as caught:
            source.open()
        assert len(str(caught.value).splitlines()) == 1
        source.close()


# Addresses.

VALID = (
    "rtsp://h/x", "rtsp://ann:p%40w@h:554/x?a=b&c", "rtsps://[::1]:322/x", "rtsp://u@d.com:pw@h/",
    "rtsp://[fe80::1%eth0]/x", "rtsp://h/x?tcp", "rtmp://h/live/key?token=1",
    "http://h", "http://h/ä%20b",
    "https://a-b.c_d:8443/x;y=1?url=http://i/x&z=%7B", "udp://@239.0.0.1:1234", "udp://0.0.0.0:5000",
    "udp://:5000", "udp://@:1?fifo_size=5000&overrun_nonfatal=1", "tcp://127.0.0.1:1", "tcp://h:65535/x",
)  # fmt: skip


@pytest.mark.parametrize("text", VALID)
def test_a_valid_address_is_passed_on_as_it_is(text):
    address = parse_address(text)
    assert address.url == text
    scheme, rest = text.split("://")[0], text.split("://", 1)[1]
    # FFmpeg does not know the scheme in capital letters.
    assert parse_address(f"{scheme.upper()}://{rest}") == address


REFUSED = (
    # Spelled so that FFmpeg would take it for something else.
    "rtsp:x", "http:/h", "http:///x", "://h", "rtsp//:h", " rtsp://h", "async:rtsp://h/x",
    "concat:http://a/x|http://b/x", "subfile,,start,0,end,0,,:http://h/x", "crypto+http://h/x",
    "http,listen,1://h/x", "-rtsp://h/x", "cache:http://h", "tee:http://h", "gopher://h/x",
    # Signs.
    "rtsp://h/a b", "rtsp://h/a\tb", "rtsp://h/x\n", "rtsp://h\r\n/x", "rtsp://h/\0", "rtsp://h\\x/y",
    "rtsp://h/\u200b", "rtsp://h/\u202e", "rtsp://h/\u00a0", "rtsp://h/%0d%0aX:1", "rtsp://a%00@h/x",
    # Hosts and ports.
    "rtsp://h:/x", "rtsp://h:0/x", "rtsp://h:65536/x", "rtsp://h:٥٥٤/x", "rtsp://h:554a/x",
    "rtsp://h:-1/x", "rtsp://h:1:2/x", "rtsp://[::1/x", "rtsp://[::g]/x", "rtsp://::1/x", "rtsp://ä/x",
    "rtsp://-h/x", "rtsp://h,b/x", "rtsp://", "rtsp://@/x", "udp://h", "tcp://h/x", "tcp://:1",
    "rtsp://[fe80::1%e?listen]/x", "rtsp://h" + "x" * 5000,
    # Logins that end elsewhere for FFmpeg than for the user.
    "rtsp://a:b/c@h/x", "rtsp://a:b?c@h/x", "rtsp://a:b#c@h/x", "http://h/x@2x.jpg", "http://h/#x",
    # Options that FFmpeg would read.
    "tcp://0.0.0.0:1?listen=1", "tcp://h:1?listen", "tcp://h:1?timeout=1", "tcp://a?listen=1@h:1",
    "tcp://h:1/x?listen=1", "tcp://h:1?local_addr=1.2.3.4", "udp://h:1?localaddr=1.2.3.4",
    "udp://h:1?sources=1.2.3.4", "udp://h:1?block=1.2.3.4", "udp://h:1?localport=5",
    "udp://h:1?fifo_size=99999999", "udp://h:1?fifo_size=٥", "udp://h:1?fifo_size=5&connect=1",
    "udp://h:1?FIFO_SIZE=5", "udp://h:1?fifo_size", "rtsp://h/x?udp", "rtsp://h/x?a=b&multicast",
    "rtsp://h/x?a?udp", "rtsp://h/x?filter_src", "rtsp://h/x?listen", "rtmp://h/x?listen=1",
    "http://h/x?listen=1", "http://h/x?a=b;listen=1",
)  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_plain_address_is_refused(text):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_address(text)
    assert len(str(caught.value).splitlines()) == 1
    if is_address(text):
        with pytest.raises(SourceNotFound):
            open_source(text)


@given(
    st.sampled_from([*NETWORK, "srt", "RTSP", "foo", ""]),
    st.sampled_from(["://", ":/", ":", "://@", "://a:b@"]),
    st.text("ab.:/@?#&;=[]%\\ \0\n1٥-", max_size=12),
)
def test_what_is_parsed_is_plain_and_what_is_not_is_not_echoed(scheme, colon, rest):
    text = f"{scheme}{colon}{rest}"
    try:
        address = parse_address(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    if said:
        # Short texts are in any sentence.
        assert len(rest) < 6 or rest not in said
        return
    assert parse_address(address.url) == address
    assert address.scheme in NETWORK
    assert re.fullmatch(r"[!-~]+", address.host) or (address.scheme == "udp" and not address.host)
    assert address.port is None or 1 <= address.port <= 65535
    assert address.url.isprintable()
    # FFmpeg splits it at the same places: the first / ? # ends the host, the last @ before that the
    # login.
    authority = re.split("[/?#]", address.url.split("://", 1)[1], maxsplit=1)[0]
    assert authority.rpartition("@")[2].startswith(address.host)


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("udp://@239.0.0.1:1", False), ("udp://[ff02::1]:1", False), ("udp://0.0.0.0:1", True),
        ("udp://:1", True), ("udp://10.0.0.7:1", True), ("udp://[::]:1", True),
        ("udp://cam.lan:1", True),
        ("rtsp://h/x", False), ("tcp://0.0.0.0:1", False),
    ],
)  # fmt: skip
def test_udp_opens_a_port_unless_it_joins_a_group(text, opens):
    assert parse_address(text).opens_port is opens


def test_addresses_import_nothing_heavy():
    # Past the package itself, which must import OpenCV before PyAV.
    code = (
        "import sys, types; package = types.ModuleType('pipeline.capture');"
        "package.__path__ = ['pipeline/capture']; sys.modules['pipeline.capture'] = package;"
        "import pipeline.capture.addresses;"
        "assert not {'cv2', 'numpy', 'av', 'httpx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("https://www.youtube.com/watch?v=x", "download the video first"),
        ("https://youtu.be/x", "download the video first"),
        ("www.youtube.com/watch?v=x", "download the video first"),
        ("https://drive.google.com/file/d/x", "download the file"),
        ("file://elsewhere/a.mp4", "of another machine"),
        ("ftp://a/b.mp4", "ftp:// is not read; download"),
        ("s3://bucket/b.mp4", "s3:// is not read; download"),
        ("srt://h:9000", "srt://.*media server"),
        ("whep://h/x", "whep://.*media server"),
        ("ndi://h", "ndi://.*media server"),
        ("rtp://239.0.0.1:5004", "rtp://.*udp://"),
        ("list.m3u", "one of the addresses in it"),
        ("cam.sdp", "RTSP server"),
        ("frames.zip", "unpack it"),
        ("frames.tar.gz", "unpack it"),
        ("192.168.1.5:554/stream", "begins with its scheme"),
        ("ann:secret9@cam/stream", "begins with its scheme"),
        ("frames/*.png", "no such file"),
        (" ", "no source"),
    ],
)
def test_what_is_not_read_says_what_to_do(spec, says):
    with pytest.raises(SourceNotFound, match=f"(?i){says}") as caught:
        open_source(spec).open()
    assert len(str(caught.value).splitlines()) == 1
    assert "secret9" not in str(caught.value)


def test_a_files_address_is_its_path(tmp_path):
    path = write_clip(tmp_path / "a clip, 50%.mp4", [numbered(k) for k in range(3)])
    for spec in (path.as_uri(), f"file://localhost{path.as_uri().removeprefix('file://')}"):
        source = open_source(spec)
        source.open()
        assert [number_of(frame.image) for frame in source.frames()] == [0, 1, 2]
        source.close()
        check_there(spec)
    # A file whose own name looks like a pattern is that file.
    source = open_source(str(path))
    source.open()
    source.close()
    with pytest.raises(SourceNotFound, match="no such file"):
        check_there(f"{path.as_uri()}x")


@pytest.mark.parametrize(
    "spec", ["http://127.0.0.1/a%20b.mp4", "rtsp://127.0.0.1/*", "lavfi:testsrc2,drawtext=%{pts}"]
)
def test_signs_in_an_address_are_no_pattern(spec):
    open_source(spec).close()
