"""The output of a run for people: progress while it works, a table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from app.progress_bars import ProgressBar, bar_for
from app.track_log import TrackSummary

if TYPE_CHECKING:
    import rich.table

    from pipeline.tracking.extrapolate import PredictionError

_PLAIN_EVERY_S = 10.0
_WIDTH = 100
LONGEST_TRACKS = 8
"""Tracks that the table lists; the others are counted."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        frames_read: Frames captured so far.
        frames_drawn: Frames that reached the outputs.
        dropped: Frames dropped, whatever the cause.
        total: The number of frames of the source, None where it is not known.
        seconds: Since the start.
        fps: Frames drawn a second over the last sixty.
        people: People in the last frame.
        stage: What is done before anything is drawn; empty while frames are drawn.
        clips_done: Of clips that are run one after the other, those that have ended; the other
            numbers are those of the clip that is run.
        clips: All of these clips; 0 in any other run.
    """

    frames_read: int
    frames_drawn: int
    dropped: int
    total: int | None
    seconds: float
    fps: float
    people: int
    stage: str = ""
    clips_done: int = 0
    clips: int = 0


@dataclass(frozen=True)
class RunReport:
    """The result of a run.

    Attributes:
        frames_read: Frames captured.
        frames_drawn: Frames that reached the outputs.
        dropped: Frames by "stage: cause".
        fps: Frames drawn a second over the whole run.
        seconds: How long the run took.
        stages: Each stage's time a frame as (p50, p95) milliseconds, in the pipeline's order. That
            of "refit", the second pass over a clip, is a track's mean for each of its frames.
        latency_ms: (p50, p95, p99) from capture to output.
        tracks: The number of tracks.
        people_median: The median number of people in a frame.
        longest_tracks: The tracks with the most frames, the longest first.
        most_unfollowed: The most people at once that were seen and not followed, since all places
            were taken.
        frames_unfollowed: The frames with such people.
        files: The files that were written.
        warnings: The errors that did not end the run, a line each.
        ended: Why the run ended.
        engines: The engines that run the networks, where there was a choice.
        unfitted: With low latency, frames that were shown with predicted bodies alone.
        prediction: With low latency, how far predicted bodies were from those fitted later.
    """

    frames_read: int
    frames_drawn: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    fps: float = 0.0
    seconds: float = 0.0
    stages: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    latency_ms: tuple[float, float, float] | None = None
    tracks: int = 0
    people_median: float = 0.0
    longest_tracks: tuple[TrackSummary, ...] = ()
    most_unfollowed: int = 0
    frames_unfollowed: int = 0
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    ended: str = "end of the source"
    engines: tuple[str, ...] = ()
    unfitted: int = 0
    prediction: PredictionError | None = None

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return the table for a notebook, whose display looks for this name."""
        return _table(self)._repr_mimebundle_((), ())


class ProgressView:
    """Progress: a bar on a terminal and in a notebook, else a line every ten seconds on standard
    error.

    Use it in a ``with`` block and hand it every Progress; it may be called from any one thread.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._clock_s = clock_s
        # A short run prints no line of progress at all.
        self._next_s = clock_s() + _PLAIN_EVERY_S
        self._bar: ProgressBar | None = None

    def __enter__(self) -> ProgressView:
        self._bar = None if self._quiet else bar_for(self._stream)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def building(self, name: str, done: int, of: int) -> None:
        """Show that ``done`` of ``of`` parts of something are built, before the run."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.show(done, of, "starting" if done == of else f"building {name}")
        # Once for each part: a line for every step would fill a log file.
        elif done == 0:
            print(f"building {name}", file=self._stream, flush=True)

    def __call__(self, now: Progress) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            if now.clips and now.total is None:
                # Several clips at once, whose frames are not counted before: the clips are counted.
                note = f"clips done  {_note(replace(now, clips=0))}"
                self._bar.show(now.clips_done, now.clips, note)
            else:
                # Steps before the drawing, as tracks, are no frames.
                unit = "" if now.stage and not now.fps else "frames  "
                self._bar.show(now.frames_drawn, now.total, unit + _note(now))
        elif self._clock_s() >= self._next_s:
            self._next_s = self._clock_s() + _PLAIN_EVERY_S
            of = f"/{now.total}" if now.total else ""
            count = "" if now.stage and not now.fps else f"{now.frames_drawn}{of} frames, "
            print(f"{count}{_note(now)}", file=self._stream, flush=True)


def _note(now: Progress) -> str:
    people = "1 person" if now.people == 1 else f"{now.people} people"
    dropped = f", {now.dropped} dropped" if now.dropped else ""
    clips = f"{now.clips_done} of {now.clips} clips done" if now.clips else ""
    stage = ", ".join(filter(None, (clips, now.stage)))
    if now.stage and not now.fps:
        return stage
    stage = f"{stage}: " if stage else ""
    return f"{stage}{now.fps:.1f} fps, {people}{dropped}"


def print_report(
    report: RunReport, stream: TextIO, renamed: Mapping[Path, Path] | None = None
) -> None:
    """Print the table at the end of a run; off a terminal no path is cut or wrapped.

    Args:
        report: The result of the run.
        stream: Where it is printed.
        renamed: The path that was asked for, by the file or folder that was written instead.
    """
    from rich.console import Console

    # No wrapping: a script may read the paths.
    console = Console(
        file=stream, width=None if stream.isatty() else _WIDTH, highlight=False, soft_wrap=True
    )
    console.print(_table(report))
    if report.longest_tracks:
        console.print(_tracks_table(report))
    for engine in report.engines:
        console.print(f"  {engine}", markup=False)
    renamed = renamed or {}
    for path in report.files:
        asked = renamed.get(path) or renamed.get(path.parent)
        why = f"; {asked} existed and was kept" if asked is not None else ""
        console.print(f"  wrote {path} ({size_text(_size(path))}){why}", markup=False)


def _table(report: RunReport) -> rich.table.Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("", "frames", "p50 ms", "p95 ms", "p99 ms", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("read", str(report.frames_read))
    table.add_row("drawn", str(report.frames_drawn))
    for cause, count in report.dropped.items():
        table.add_row(f"dropped, {cause}", str(count))
    if not report.dropped:
        table.add_row("dropped", "0")
    for stage, (p50, p95) in report.stages.items():
        table.add_row(f"{stage}, a frame", "", f"{p50:.1f}", f"{p95:.1f}")
    if report.latency_ms is not None:
        p50, p95, p99 = report.latency_ms
        table.add_row("capture to output", "", f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}")
    if report.unfitted:
        table.add_row("shown, not fitted", str(report.unfitted))
    if report.prediction is not None:
        error = report.prediction
        table.add_row(
            "predicted ahead", "", f"{error.ahead_p50_ms:.0f}", f"{error.ahead_p95_ms:.0f}"
        )
        table.add_row("predicted off, px", "", f"{error.p50_px:.1f}", f"{error.p95_px:.1f}")
    table.caption = _summary(report)
    table.caption_justify = "left"
    return table


def _summary(report: RunReport) -> str:
    people = "1 person" if report.people_median == 1 else f"{report.people_median:g} people"
    lines = [
        f"{report.fps:.1f} fps over {report.seconds:.1f} s; {people} in a frame at the median; "
        f"ended: {report.ended}"
    ]
    if report.most_unfollowed:
        lines.append(
            f"seen but not followed: up to {report.most_unfollowed} more people, in "
            f"{report.frames_unfollowed} frames; --people N follows more"
        )
    return "\n".join(lines)


def _tracks_table(report: RunReport) -> rich.table.Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("track", "from", "to", "frames", "with a body", box=SIMPLE_HEAD)
    for column in table.columns:
        column.justify = "right"
    for track in report.longest_tracks:
        # Rounded down: 100% is a track without a gap.
        percent = 100 * track.frames // track.span_frames
        times = clock(track.first_s), clock(track.last_s)
        table.add_row(str(track.track), *times, str(track.span_frames), f"{percent}%")
    others = report.tracks - len(report.longest_tracks)
    if others:
        table.caption = f"and {others} shorter {'one' if others == 1 else 'ones'}"
        table.caption_justify = "left"
    return table


def clock(seconds: float) -> str:
    """Return a time as a player shows it, with tenths: 0:07.5, 12:00.0, 1:02:03.4."""
    # Whole tenths first: 59.96 s are 1:00.0, not 0:60.0.
    tenths = round(10 * abs(seconds))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 and tenths else ""
    head = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{sign}{head}:{rest // 10:02}.{rest % 10}"


def _size(path: Path) -> int:
    # It may have been deleted meanwhile.
    return path.stat().st_size if path.exists() else 0


def size_text(size: int) -> str:
    """Return a number of bytes as people write it: 512 B, 1.5 kB, 3.2 MB."""
    value, units = float(size), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
