"""One pass through a clip: an open container and its first decoded picture."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from pipeline.capture.decode import Decoder, video_stream
from pipeline.capture.errors import SourceNotVideo, reason
from pipeline.capture.files import open_clip, why_no_frame
from pipeline.capture.seek import StartFrame
from pipeline.capture.timeline import FrameIndex


@dataclass
class Session:
    """An open clip. Its pictures are ``first``, then ``rest``; ``decoder.index`` numbers them."""

    container: InputContainer
    decoder: Decoder
    first: VideoFrame
    rest: Generator[VideoFrame, None, None]

    def pictures(self) -> Iterator[VideoFrame]:
        """Return all pictures, the first one included."""
        return chain((self.first,), self.rest)

    def close(self) -> None:
        """Close the container."""
        self.rest.close()
        self.container.close()


def start_session(
    spec: str, name: str, decode: str = "software", track: int | None = None
) -> Session:
    """Open a clip at its first picture; ``decode`` and ``track`` are those of `SourceOptions`.

    Raises SourceError when it has no picture.
    """
    return session_in(open_clip(spec, name, decode), name, track)


def session_in(container: InputContainer, name: str, track: int | None = None) -> Session:
    """Return the session of an open container, at its first picture.

    Raises SourceError when it has no picture; then the container is closed.
    """
    session = _at(container, name, None, track)
    if session is None:
        raise SourceNotVideo(f"{name}: {why_no_frame(container)}")
    return session


def start_session_at(
    spec: str, name: str, start: StartFrame, decode: str = "software", track: int | None = None
) -> Session | None:
    """Open a clip at the picture ``start``; None if seeking does not lead to exactly that one."""
    return _at(open_clip(spec, name, decode), name, start, track)


def _at(
    container: InputContainer, name: str, start: StartFrame | None, track: int | None
) -> Session | None:
    """The session at a picture, or the first one; None, and closed, if it does not come."""
    try:
        stream = video_stream(container, name, track)
        index = FrameIndex() if start is None else FrameIndex(start.number, start.pts)
        decoder = Decoder(container, stream, "AUTO", index)
        if start is not None:
            container.seek(start.seek, stream=stream)
        pictures = decoder.pictures()
        for picture in pictures:
            if start is None or picture.pts == start.pts:
                return Session(container, decoder, picture, pictures)
            # It began behind the picture, so this file cannot be sought in exactly.
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
