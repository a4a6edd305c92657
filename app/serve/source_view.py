"""What the page and the API say of a served source: its state and its figures."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.serve.served import ServedSource, is_live
from app.serve.settings import settings_of
from pipeline.capture.errors import CAUSES
from pipeline.capture.status import State
from pipeline.core.stats import Snapshot


@dataclass(frozen=True)
class SourceView:
    """The state and the figures of a source. ``address`` and ``reason`` hold no logins.

    ``since_s`` is the time in the current ``state``. ``latency_ms`` holds p50, p95 and p99 from
    capture to output, ``stages_ms`` the median of each stage for a frame, ``dropped`` the number of
    frames by cause. ``failures`` counts the connections that failed, by their causes
    (`errors.CAUSES`); ``decoder_bytes`` is the memory of the process that decodes the source, 0 if
    this process does. ``recording`` is the name of the video that is written now.
    ``recording_wanted`` says whether the source is to be recorded, ``recording_missing`` whether it
    is and does not succeed, ``recording_cause`` why in a word or two, ``recording_failures`` how
    many recordings failed, by cause. ``not_recorded`` counts frames that are in no file though a
    recording was wanted. With low latency, ``unfitted`` counts frames that were shown with
    predicted bodies only; ``predicted_ms`` is how far ahead of the last fit they were predicted,
    and ``predicted_off_px`` the distance of a joint from where it was fitted later (each p50 and
    p95; None otherwise). ``events`` counts the events so far, ``events_lost`` those that were
    detected and not reported; None if none are detected. ``not_followed`` is the number of people
    who are seen now and not followed, since all places are taken. ``clip`` says that the source is
    a clip, which ends; ``settings`` are those that ``PATCH /api/sources/NAME`` changes. In a
    cluster, ``worker`` is the worker that runs the source, None while there is none, ``moves`` how
    often it was moved, ``failovers`` how often it lost its worker, and of its frames only each
    ``every``-th is taken.
    """

    name: str
    address: str
    state: str
    reason: str
    since_s: float
    fps: float
    people: int
    not_followed: int
    latency_ms: tuple[float, float, float] | None
    read: int
    drawn: int
    dropped: dict[str, int]
    stages_ms: dict[str, float]
    reconnects: int
    damaged: int
    failures: dict[str, int]
    decoder_bytes: int
    recording: str | None
    not_recorded: int
    unfitted: int
    predicted_ms: tuple[float, float] | None
    predicted_off_px: tuple[float, float] | None
    events: int | None
    events_lost: int | None
    recording_wanted: bool
    recording_missing: bool
    recording_cause: str
    recording_failures: dict[str, int]
    clip: bool
    settings: dict[str, bool | float | str]
    worker: str | None = None
    moves: int = 0
    failovers: int = 0
    every: int = 1


def view_of(name: str, served: ServedSource, figures: Snapshot) -> SourceView:
    """Return the state and the figures of a source.

    Args:
        name: Its name.
        served: The source.
        figures: Its counters.
    """
    stream, events = served.stream, served.events
    # Only live sources report a status; a clip's state follows from its counters.
    status = stream.source.status
    counts = stream.source.counts
    state, reason = (State.LIVE if figures.read else State.CONNECTING), ""
    since_s = time.monotonic() - served.added_s
    if status is not None:
        state, reason = status.state, status.reason
        since_s = max(time.monotonic() - status.since_ns / 1e9, 0.0)
    # Last, because it overrides what the source still reports.
    if stream.ended.is_set() or served.error:
        state = State.RECONNECTING if served.paused else State.ENDED
        reason = served.error
    latency, recording = figures.latency_ms, served.channel.recordings.state()
    predicted = served.show.prediction_error()
    return SourceView(
        name=name,
        address=served.address,
        state=str(state),
        reason=recording.trouble
        or (events.trouble if events else "")
        or reason
        or stream.faults.trouble,
        since_s=round(since_s, 1),
        fps=round(stream.stats.live_fps(), 1) if state is State.LIVE else 0.0,
        people=served.channel.people if state is State.LIVE else 0,
        not_followed=figures.unfollowed if state is State.LIVE else 0,
        latency_ms=(None if latency is None else (latency.p50_ms, latency.p95_ms, latency.p99_ms)),
        read=figures.read,
        drawn=figures.drawn,
        dropped=dict(figures.dropped),
        stages_ms={stage: time_ms.p50_ms for stage, time_ms in figures.stages_ms.items()},
        reconnects=counts.get("reconnected", 0),
        damaged=counts.get("damaged", 0),
        failures={cause: counts[cause] for cause in CAUSES if counts[cause]},
        decoder_bytes=stream.source.decoder_bytes,
        recording=None if recording.path is None else recording.path.name,
        not_recorded=recording.dropped,
        unfitted=figures.unfitted,
        predicted_ms=(
            None if predicted is None else (predicted.ahead_p50_ms, predicted.ahead_p95_ms)
        ),
        predicted_off_px=None if predicted is None else (predicted.p50_px, predicted.p95_px),
        events=None if events is None else events.log.count,
        events_lost=None if events is None else figures.lost_events + events.lost,
        recording_wanted=recording.wanted or served.recording_wanted,
        recording_missing=recording.missing,
        recording_cause=recording.cause,
        recording_failures=recording.failures,
        clip=not is_live(served.config.source),
        settings=settings_of(served.config),
    )
