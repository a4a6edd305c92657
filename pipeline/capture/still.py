"""Decode one picture that is whole in memory: JPEG, PNG, WebP, TIFF or BMP."""

from __future__ import annotations

import av
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp")
MOST_PIXELS = 1 << 26
"""The most pixels of a picture in a file: 8192 x 8192, which is 200 MB as RGB."""

_CODECS = {
    b"\xff\xd8\xff": "mjpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"RIFF": "webp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"BM": "bmp",
}
"""FFmpeg's decoder by the bytes that a file begins with."""


class NoPicture(ValueError):
    """The bytes are not a picture that can be decoded. The message says why in a few words."""


def decode_still(data: bytes, most_pixels: int = MOST_PIXELS) -> tuple[VideoFrame, str]:
    """Return the picture and the name of its codec.

    The decoder is named by the first bytes and gets them directly: no probing, which could take
    them for a playlist, and memory only for a picture of at most ``most_pixels``.

    Args:
        data: The encoded picture.
        most_pixels: The most pixels, width times height.

    Raises:
        NoPicture: It is of another kind, damaged or too large.
    """
    name = next((codec for magic, codec in _CODECS.items() if data.startswith(magic)), None)
    if name is None:
        raise NoPicture("it is no JPEG, PNG, WebP, TIFF or BMP")
    context = CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext), "all of these decode pictures"
    context.options = {"max_pixels": str(most_pixels)}
    context.thread_count = 1
    try:
        frames = [*context.decode(Packet(data)), *context.decode(None)]
    except (av.error.FFmpegError, MemoryError) as error:
        raise NoPicture(f"it is damaged, or has more than {most_pixels} pixels") from error
    if not frames:
        raise NoPicture("it is damaged")
    return frames[0], name
