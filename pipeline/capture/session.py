"""One pass through a clip: an open container whose first picture is decoded already."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from pipeline.capture.decode import Decoder, video_stream
from pipeline.capture.errors import SourceNotVideo, reason
from pipeline.capture.files import open_clip
from pipeline.capture.seek import Start
from pipeline.capture.timeline import FrameIndex


@dataclass
class Session:
    """``first`` and then ``rest`` are the pictures; ``decoder.index`` numbers them."""

    container: InputContainer
    decoder: Decoder
    first: VideoFrame
    rest: Generator[VideoFrame, None, None]

    def pictures(self) -> Iterator[VideoFrame]:
        return chain((self.first,), self.rest)

    def end(self) -> None:
        self.rest.close()
        self.container.close()


def begin(spec: str, name: str, decode: str = "software") -> Session:
    """From the first picture on, decoded as `SourceOptions.decode` says. Raises SourceError when
    there is none."""
    session = _open(spec, name, None, decode)
    if session is None:
        raise SourceNotVideo(f"{name}: its video is there, but no frame of it can be decoded")
    return session


def begin_at(spec: str, name: str, start: Start, decode: str = "software") -> Session | None:
    """From the picture of ``start`` on; None when seeking does not lead to exactly that one."""
    return _open(spec, name, start, decode)


def _open(spec: str, name: str, start: Start | None, decode: str) -> Session | None:
    container = open_clip(spec, name, decode)
    try:
        stream = video_stream(container, name)
        index = FrameIndex() if start is None else FrameIndex(start.number, start.pts)
        decoder = Decoder(container, stream, "AUTO", index)
        if start is not None:
            container.seek(start.seek, stream=stream)
        pictures = decoder.pictures()
        for picture in pictures:
            if start is None or picture.pts == start.pts:
                return Session(container, decoder, picture, pictures)
            if picture.pts is None or picture.pts > start.pts:
                break
        container.close()
        return None
    except av.error.FFmpegError as error:
        container.close()
        raise SourceNotVideo(f"{name}: cannot be decoded: {reason(error)}") from error
    except BaseException:
        container.close()
        raise
