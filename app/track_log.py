"""The tracks of a run: when each was there, and in how many of the frames between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KEPT = 256
"""Tracks that are kept apart, so that the memory of a run of weeks stays bounded."""


@dataclass(frozen=True)
class TrackSummary:
    """One track of a run.

    Attributes:
        track: Its number, as in the outputs.
        first_s: The source's time of its first body, in seconds.
        last_s: The source's time of its last body, in seconds.
        frames: The number of frames with a body of it.
        span_frames: The number of frames from its first body to its last.
    """

    track: int
    first_s: float
    last_s: float
    frames: int
    span_frames: int


@dataclass
class _Span:
    """A track so far; frames are numbered as they are added."""

    first: int
    first_s: float
    last: int
    last_s: float
    frames: int = 0


class TrackLog:
    """Takes the tracks of one frame after another."""

    def __init__(self) -> None:
        self._spans: dict[int, _Span] = {}
        self._frames = self._forgotten = 0

    def __len__(self) -> int:
        """The number of tracks so far."""
        return len(self._spans) + self._forgotten

    def add(self, time_s: float, tracks: Iterable[int]) -> None:
        """Add a frame at a time of the source, with the tracks that have a body in it."""
        for track in tracks:
            span = self._spans.setdefault(track, _Span(self._frames, time_s, self._frames, time_s))
            span.last, span.last_s = self._frames, time_s
            span.frames += 1
        self._forget()
        self._frames += 1

    def _forget(self) -> None:
        """Forget the shortest of the tracks that are away, while too many are kept; one that comes
        back then counts as another track."""
        while len(self._spans) > KEPT:
            away = [track for track, span in self._spans.items() if span.last < self._frames]
            if not away:
                return
            del self._spans[min(away, key=lambda track: self._spans[track].frames)]
            self._forgotten += 1

    def longest(self, most: int) -> tuple[TrackSummary, ...]:
        """Return the tracks with the most frames, at most ``most``, the longest first."""
        spans = sorted(self._spans.items(), key=lambda item: (-item[1].frames, item[0]))[:most]
        return tuple(
            TrackSummary(track, s.first_s, s.last_s, s.frames, s.last - s.first + 1)
            for track, s in spans
        )
