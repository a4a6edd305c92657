"""Single pictures as sources: EXIF's orientation, TIFF."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.capture.open import open_source

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
    stored = corners()
    jpeg = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(jpeg, orientation, order))
    (image,) = frames_of(path)
    expected = UPRIGHT[orientation](stored[..., ::-1])
    assert image.shape == expected.shape
    # Away from the edges between the corners, where JPEG rings.
    at = np.ix_((6, expected.shape[0] - 7), (6, expected.shape[1] - 7))
    assert np.abs(image[at].astype(int) - expected[at]).max() < 12


def test_a_tiff_is_one_frame(tmp_path):
    path = tmp_path / "picture.tiff"
    cv2.imwrite(str(path), corners())
    (image,) = frames_of(path)
    assert np.abs(image.astype(int) - corners()[..., ::-1]).max() <= 1


def test_side_data_that_nothing_here_knows_does_no_harm():
    from av.sidedata.sidedata import Type

    assert Type(10_000).name == "UNKNOWN_10000"
    assert Type(Type.DISPLAYMATRIX.value) is Type.DISPLAYMATRIX
    with pytest.raises(KeyError):
        Type["NOTHING"]
