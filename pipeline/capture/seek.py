"""Find where in a clip to start decoding, so that every frame keeps its exact number."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import av

from pipeline.capture.decode import packets, video_stream
from pipeline.capture.errors import SourceEmpty
from pipeline.capture.files import open_clip


@dataclass(frozen=True, slots=True)
class StartFrame:
    """The first frame to deliver.

    ``number`` is its index in the clip, ``pts`` its time stamp, ``seek`` the time stamp of the key
    frame to seek to. ``times_s`` are the times of this and all later frames, in seconds.
    """

    number: int
    pts: int
    seek: int
    times_s: tuple[float, ...]


def find_start_frame(
    spec: str, name: str, origin: int, start_s: float, track: int | None = None
) -> StartFrame | None:
    """Return the first frame at or after ``start_s`` seconds from ``origin``, the first pts.

    Reads all packets and decodes none; frames must not be interlaced (each field may have a packet
    of its own). None if the packets do not identify the frames (time stamps missing or out of
    order): then frames can only be counted from the first one.
    Raises SourceEmpty when the clip ends before ``start_s``.
    """
    with open_clip(spec, name) as container:
        stream = video_stream(container, name, track)
        if stream.time_base is None:
            return None
        time_base_s = float(stream.time_base)
        shown: list[int] = []
        keys: list[tuple[int, int]] = []
        last_dts = None
        try:
            for packet in packets(container, stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    # Without a time stamp a packet does not tell its frame.
                    return None
                dts = packet.pts if packet.dts is None else packet.dts
                if last_dts is not None and dts < last_dts:
                    return None
                last_dts = dts
                shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append((packet.pts, dts))
        except av.error.FFmpegError:
            return None
    # Packets before the first frame are never shown: leading pictures without a reference.
    shown = sorted(pts for pts in shown if pts >= origin)
    if not shown or shown[0] != origin or len(set(shown)) != len(shown):
        return None
    times_s = [(pts - origin) * time_base_s for pts in shown]
    number = bisect.bisect_left(times_s, start_s - 1e-6)
    if number == len(shown):
        raise SourceEmpty(f"{name}: ends at {times_s[-1]:.2f} s, before {start_s:g} s")
    earlier_keys = [key for key in keys if key[0] <= shown[number]]
    if not earlier_keys:
        return None
    # FFmpeg seeks by the decoding time of the key frame.
    return StartFrame(number, shown[number], max(earlier_keys)[1], tuple(times_s[number:]))
