"""Pictures as sources: EXIF's orientation, TIFF, animations, pictures in tiles."""

from __future__ import annotations

import http.server
import io
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.capture.errors import SourceNotVideo
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip

UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: np.rot90(image),
}
"""EXIF 2.3, 4.6.4, tag 0x0112: how a stored picture becomes the upright one."""


def corners() -> np.ndarray:
    """A BGR picture whose four corners differ, (48, 80, 3)."""
    image = np.full((48, 80, 3), 128, np.uint8)
    image[:24, :40], image[:24, 40:], image[24:, :40] = (0, 0, 200), (0, 200, 0), (200, 0, 0)
    return image


def with_exif(jpeg: bytes, orientation: int, order: str) -> bytes:
    """The JPEG with an APP1 segment in front that holds one tag, in either byte order."""
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    tiff += struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def photo(orientation: int, order: str = "<") -> bytes:
    jpeg = cv2.imencode(".jpg", corners(), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return with_exif(jpeg, orientation, order)


def assert_upright(image: np.ndarray, orientation: int) -> None:
    expected = UPRIGHT[orientation](corners()[..., ::-1])
    assert image.shape == expected.shape
    # Away from the edges between the corners, where JPEG rings.
    at = np.ix_((6, expected.shape[0] - 7), (6, expected.shape[1] - 7))
    assert np.abs(image[at].astype(int) - expected[at]).max() < 12


def frames_of(path: Path) -> list[np.ndarray]:
    source = open_source(str(path))
    source.open()
    info = source.info
    images = [frame.image for frame in source.frames()]
    source.close()
    assert {image.shape[:2] for image in images} == {(info.height, info.width)}
    return images


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photo_stands_upright_whatever_its_exif_says(tmp_path, orientation, order):
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(orientation, order))
    (image,) = frames_of(path)
    assert_upright(image, orientation)


@pytest.mark.parametrize("name", ["s.mjpeg", "s.mjpg", "s.avi", "s.mov", "s.mkv"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_clip_of_photos_stands_upright(tmp_path, name, orientation):
    jpeg, path = photo(orientation), tmp_path / name
    if name.startswith("s.mj"):
        path.write_bytes(3 * jpeg)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuvj420p"
            container.start_encoding()
            for number in range(3):
                packet = av.Packet(jpeg)
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 25), stream
                container.mux(packet)
    images = frames_of(path)
    assert len(images) == 3
    for image in images:
        assert_upright(image, orientation)


@pytest.fixture
def turned_camera() -> Iterator[str]:
    """The address of a camera that sends JPEG pictures with the orientation 6."""
    jpeg, stop = photo(6), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=b")
            self.end_headers()
            head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            try:
                while not stop.wait(0.02):
                    self.wfile.write(head + jpeg + b"\r\n")
            except OSError:  # The reader has gone.
                pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/live"
        stop.set()
        server.shutdown()
        thread.join()


def test_a_live_camera_stands_upright(turned_camera):
    source = open_source(turned_camera)
    source.open()
    assert (source.info.width, source.info.height) == (48, 80)
    frames = source.frames()
    for _ in range(3):
        assert_upright(next(frames).image, 6)
    source.close()


def test_a_tiff_is_one_frame(tmp_path):
    path = tmp_path / "picture.tiff"
    cv2.imwrite(str(path), corners())
    (image,) = frames_of(path)
    assert np.abs(image.astype(int) - corners()[..., ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("name", "pix_fmt"), [("a.apng", "rgb24"), ("a.png", "rgb24"), ("a.gif", "rgb8")]
)
def test_an_animation_is_a_clip(tmp_path, name, pix_fmt):
    codec = "gif" if name.endswith("gif") else "apng"
    made = write_clip(
        tmp_path / f"made.{codec}", [numbered(i) for i in range(6)], codec=codec, pix_fmt=pix_fmt
    )
    assert [number_of(image) for image in frames_of(made.rename(tmp_path / name))] == list(range(6))


def test_a_webp_is_one_frame_and_an_animated_one_says_what_to_do(tmp_path):
    path = tmp_path / "still.webp"
    cv2.imwrite(str(path), numbered(5))
    assert [number_of(image) for image in frames_of(path)] == [5]
    animation = cv2.Animation()
    animation.frames = [numbered(number) for number in range(4)]
    animation.durations = [40] * 4
    path = tmp_path / "moving.webp"
    cv2.imwriteanimation(str(path), animation)
    with pytest.raises(SourceNotVideo, match="moving.webp: is an animated WebP.*convert"):
        open_source(str(path)).open()


def box(kind: bytes, *parts: bytes, version: int | None = None, flags: int = 0) -> bytes:
    """A box of ISO/IEC 14496-12 (4.2); with a version, a full one."""
    head = b"" if version is None else bytes([version]) + flags.to_bytes(3)
    body = head + b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def boxes(data: bytes) -> dict[bytes, bytes]:
    """The content of boxes by kind."""
    found, file = {}, io.BytesIO(data)
    while head := file.read(8):
        found[head[4:]] = file.read(int.from_bytes(head[:4]) - 8)
    return found


def tiled_avif(path: Path, tile: np.ndarray, columns: int, rows: int) -> Path:
    """An AVIF whose picture repeats a tile (ISO/IEC 23008-12, 6.6.2.3: the item `grid`)."""
    height, width = tile.shape[:2]
    size, count = (columns * width, rows * height), columns * rows
    coded = boxes(cv2.imencode(".avif", tile)[1].tobytes())
    config = boxes(boxes(boxes(coded[b"meta"][4:])[b"iprp"])[b"ipco"])[b"av1C"]
    ids = range(2, count + 2)

    def item(number: int, kind: bytes) -> bytes:
        hidden = int(kind != b"grid")
        return box(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2, flags=hidden)

    grid = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", *size)
    extents = [box(b"ispe", struct.pack(">II", *wh), version=0) for wh in (size, (width, height))]
    properties = box(b"ipco", *extents, box(b"av1C", config))
    used = struct.pack(">HBB", 1, 1, 1)
    used += b"".join(struct.pack(">HBBB", number, 2, 2, 0x80 | 3) for number in ids)
    of = struct.pack(f">HH{count}H", 1, count, *ids)

    def meta(begin: int) -> bytes:
        places = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))
        for number in ids:
            places += struct.pack(">HHHHII", number, 0, 0, 1, begin, len(coded[b"mdat"]))
        return box(
            b"meta",
            box(b"hdlr", bytes(4), b"pict", bytes(13), version=0),
            box(b"pitm", struct.pack(">H", 1), version=0),
            box(b"iloc", b"\x44\0", struct.pack(">H", count + 1), places, version=1),
            box(
                b"iinf", struct.pack(">H", count + 1), item(1, b"grid"),
                *(item(number, b"av01") for number in ids), version=0,
            ),
            box(b"iref", box(b"dimg", of), version=0),
            box(b"iprp", properties, box(b"ipma", struct.pack(">I", count + 1), used, version=0)),
            box(b"idat", grid),
            version=0,
        )  # fmt: skip

    kind = box(b"ftyp", b"avif", bytes(4), b"avifmif1")
    begin = len(kind) + len(meta(0)) + 8
    path.write_bytes(kind + meta(begin) + box(b"mdat", coded[b"mdat"]))
    return path


@pytest.mark.parametrize(("columns", "rows"), [(2, 1), (2, 2), (3, 2)])
def test_a_picture_in_tiles_is_never_one_tile_of_it(tmp_path, columns, rows):
    path = tiled_avif(tmp_path / "tiled.avif", numbered(7, 160, 96), columns, rows)
    # Another decoder joins them, so the file is right.
    assert cv2.imread(str(path)).shape == (rows * 96, columns * 160, 3)
    with pytest.raises(SourceNotVideo, match=f"in {columns * rows} tiles.*JPEG"):
        open_source(str(path)).open()


def test_an_avif_of_one_piece_is_one_frame(tmp_path):
    path = tmp_path / "still.avif"
    cv2.imwrite(str(path), numbered(9))
    assert [number_of(image) for image in frames_of(path)] == [9]


def test_side_data_that_nothing_here_knows_does_no_harm():
    from av.sidedata.sidedata import Type

    assert Type(10_000).name == "UNKNOWN_10000"
    assert Type(Type.DISPLAYMATRIX.value) is Type.DISPLAYMATRIX
    with pytest.raises(KeyError):
        Type["NOTHING"]
