"""Take each n-th frame of a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.capture.base import Source, SourceInfo, WrappedSource
from pipeline.core.frame import Frame


class EveryNth(WrappedSource):
    """A source at a part of its rate: the first of each ``step`` frames, numbered from 0.

    A discontinuity in a frame that is left out passes to the next one that is taken.

    Args:
        source: The source.
        step: 1 takes every frame.

    Raises:
        ValueError: ``step`` is below 1.
    """

    def __init__(self, source: Source, step: int) -> None:
        if step < 1:
            raise ValueError("the step is 1 or more")
        super().__init__(source)
        self._step = step

    @property
    def info(self) -> SourceInfo:
        """The source's, with the rate and the number of frames that are taken."""
        info, step = self._source.info, self._step
        fps = None if info.fps is None else info.fps / step
        count = None if info.frame_count is None else -(-info.frame_count // step)
        return replace(info, fps=fps, frame_count=count)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames. Raises SourceError."""
        broken = False
        for number, frame in enumerate(self._source.frames()):
            broken |= frame.discontinuity
            if number % self._step:
                continue
            yield replace(frame, id=number // self._step, discontinuity=broken)
            broken = False
