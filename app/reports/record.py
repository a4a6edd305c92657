"""An event as one JSON object, and its pictures."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from app.body_renderer import BodyRenderer
from app.outputs.base import RunInfo
from app.outputs.jsonl import bodies_of
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.events.detect import DetectedEvent
from pipeline.events.estimate import FRAMES, Estimate
from pipeline.events.features import Hand
from pipeline.events.measures import Measure, MeasureSet
from pipeline.events.motion import Motion

Fitted = Sequence[tuple[Frame, Bodies]]

_MARGIN = 0.2
_VERTEX_STEP = 16
"""Every n-th vertex is enough to frame a person."""
_PICTURE_PX = 480
_QUALITY = 88
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MARK = (255, 196, 60)


@dataclass(frozen=True, eq=False)
class Record:
    """A measured event.

    Attributes:
        key: Names the event uniquely; fit for an HTTP header and a file's name.
        motion: The motion it is an event of.
        data: Its JSON object, without pictures.
        pictures: JPEGs of the window's frames, cut around the person, all of one size.
        joints_m: (T, 24, 3) metres; NaN in frames where the person was not detected.
    """

    key: str
    motion: Motion
    data: Mapping[str, Any]
    pictures: tuple[bytes, ...]
    joints_m: np.ndarray

    def with_pictures(self) -> dict[str, Any]:
        """Return the JSON object with its pictures as base64."""
        coded = [base64.b64encode(picture).decode() for picture in self.pictures]
        frames = self.data["frames"]
        return {
            **self.data,
            "pictures": [{"frame": k, "jpeg": jpeg} for k, jpeg in zip(frames, coded)],
        }


def record_of(
    event: DetectedEvent,
    window: Window,
    fitted: Fitted,
    info: RunInfo,
    renderer: BodyRenderer,
) -> Record:
    """Return a detected event measured and drawn.

    Args:
        event: As it was detected.
        window: Its window; the key frame is the event's own.
        fitted: The window's frames, each with the person's body, or none.
        info: The facts of the run.
        renderer: Draws the bodies.
    """
    # `fitted` holds the event's own person only, so the first body of a frame is that person.
    present = [(frame, bodies) for frame, bodies in fitted if len(bodies)]
    missing = np.full((24, 3), np.nan)
    joints = np.array([bodies.joints_m[0] if len(bodies) else missing for _, bodies in fitted])
    # A clip's frames have no time of day.
    when = _wall_time(window.key_frame) if info.live else None
    frames = [frame.id for frame in window.frames]
    which = info.mark if when is None else when
    parts = [info.source, *([which] if which else []), str(event.frame_id), str(event.track)]
    # Fit for an HTTP header and a file's name.
    key = quote("-".join(parts), safe="")[-200:]
    pictures = tuple(_pictures(fitted, info, renderer))
    after = window.frames[window.key + 1 :]
    # Latency counts from the frame after the event: only that one shows that it happened.
    since_ns = after[0].captured_ns if after else event.shown_ns
    data = {
        "schema": event.motion.schema,
        "id": key,
        "source": info.source,
        "motion": event.motion.name,
        event.motion.frame_key: event.frame_id,
        "pts_s": round(event.pts_s, 6),
        "time": when,
        "person": event.track,
        "hand": event.hand,
        "confidence": round(event.confidence, 3),
        "frames": frames,
        "told_frame": event.shown_id,
        "measures": measures_of(fitted, event),
        "model": info.model,
        "bodies": [
            {"frame": frame.id, "pts_s": round(frame.pts_s, 6), **bodies_of(info, frame, bodies)[0]}
            for frame, bodies in present
        ],
        "latency_ms": round((time.monotonic_ns() - since_ns) / 1e6, 1),
    }
    return Record(key, event.motion, data, pictures, joints)


def measures_of(fitted: Fitted, event: DetectedEvent) -> dict[str, dict[str, Any]] | None:
    """Return the motion's measures with intervals and definitions, by name, for JSON; None where
    the person is not in all four frames of the window."""
    if len(fitted) != FRAMES or not all(len(bodies) for _, bodies in fitted):
        return None
    measures = event.motion.measures
    joints = np.array([bodies.joints_m[0] for _, bodies in fitted])
    times = [frame.pts_s for frame, _ in fitted]
    key = next(k for k, (frame, _) in enumerate(fitted) if frame.id == event.frame_id)
    estimates = measures.estimates(joints, times, event.hand, key)
    return {
        name: _as_json(estimate, measures.definitions[name]) for name, estimate in estimates.items()
    }


def _as_json(estimate: Estimate, measure: Measure) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else round(value, measure.digits)

    return {
        "value": number(estimate.value),
        "low": number(estimate.low),
        "high": number(estimate.high),
        "fitted": number(estimate.fitted),
        "unit": measure.unit,
        "definition": measure.definition,
    }


def timeline_of(
    frames: Sequence[tuple[float, np.ndarray]], hand: Hand, measures: MeasureSet
) -> dict[str, np.ndarray]:
    """Return every frame's fitted measures, (K,) by name.

    Args:
        frames: K times in seconds and joints (24, 3) in metres. A measure over several
            frames, such as a speed, is taken over the frame and the one before it.
        hand: The event's hand.
        measures: The measures.
    """
    rows = []
    for k in range(len(frames)):
        step = frames[max(k - 1, 0) : k + 1]
        joints = np.stack([each for _, each in step])
        rows.append(measures.fitted(joints, [at for at, _ in step], hand, len(step) - 1))
    return {name: np.array([row[name] for row in rows]) for name in measures.definitions}


def strip_of(record: Record) -> np.ndarray:
    """Return the pictures side by side, RGB uint8 (H, W, 3), each with its frame's number, the
    event's own marked."""
    parts = []
    moment = record.motion.report.moment
    for number, jpeg in zip(record.data["frames"], record.pictures):
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None, "our own JPEG is read"
        picture = np.ascontiguousarray(bgr[..., ::-1])
        own = number == record.data[record.motion.frame_key]
        color = _MARK if own else (235, 235, 235)
        words = f"{number}  {moment}" if own else str(number)
        # A black outline below the letters, to be read on any picture.
        for width, paint in ((4, (0, 0, 0)), (1, color)):
            cv2.putText(picture, words, (12, 28), _FONT, 0.75, paint, width, cv2.LINE_AA)
        if own:
            cv2.rectangle(
                picture, (1, 1), (picture.shape[1] - 2, picture.shape[0] - 2), _MARK, 3
            )  # fmt: skip
        parts.append(picture)
    return np.concatenate(parts, axis=1)


def _wall_time(frame: Frame) -> str:
    """Return when a live frame was captured, UTC."""
    # Frames carry the monotonic clock; its distance to now gives the time of day.
    ago_s = (time.monotonic_ns() - frame.captured_ns) / 1e9
    when = datetime.fromtimestamp(time.time() - ago_s, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _pictures(fitted: Fitted, info: RunInfo, renderer: BodyRenderer) -> list[bytes]:
    """Return the overlay around the person in every frame, cut alike, as JPEG. It is drawn into the
    cuts: a whole picture would take several times as long."""
    x, y, half = _box(fitted, info)
    scale = _PICTURE_PX / (2 * half)
    # Maps the square around the person to the whole picture.
    place = np.array([[scale, 0, scale * (half - x)], [0, scale, scale * (half - y)], [0, 0, 1.0]])
    size = (_PICTURE_PX, _PICTURE_PX)
    cuts = [
        cv2.warpAffine(frame.image, place[:2], size, borderValue=(14, 16, 19))
        for frame, _ in fitted
    ]
    # The cut is part of the camera, so that the bodies are drawn at its size right away.
    camera = place @ info.camera(fitted[0][0])
    pictures = renderer.draw(cuts, [bodies for _, bodies in fitted], camera)
    return [_jpeg(picture) for picture in pictures]


def _jpeg(picture: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done, "OpenCV writes JPEG"
    return bytes(data)


def _box(fitted: Fitted, info: RunInfo) -> tuple[float, float, float]:
    """Return the middle (x, y) and half a side, px, of a square around the person in all frames."""
    points = [
        project(bodies.vertices_m[0][::_VERTEX_STEP], info.camera(frame))
        for frame, bodies in fitted
        if len(bodies)
    ]
    if not points:
        height, width = fitted[0][0].size
        return width / 2, height / 2, max(width, height) / 2
    every = np.concatenate(points)
    low, high = every.min(0), every.max(0)
    middle = (low + high) / 2
    return float(middle[0]), float(middle[1]), float((high - low).max()) * (0.5 + _MARGIN)


def bodies_present(bodies: Bodies, track: int) -> np.ndarray | None:
    """Return a person's joints (24, 3), metres, in a frame; None where they are not in it."""
    rows = np.flatnonzero(bodies.track == track)
    return bodies.joints_m[rows[0]] if len(rows) else None
