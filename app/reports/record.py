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

from app.outputs.base import RunInfo
from app.outputs.jsonl import bodies_of
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.events.detect import Release
from pipeline.events.estimate import FRAMES, LEARNED, Estimate, Estimator, fitted_measures
from pipeline.events.motions.throw.measures import LEAST_FLEXION, MEASURES
from render.base import Renderer
from render.overlay import track_color

Fitted = Sequence[tuple[Frame, Bodies]]

SCHEMA = "bodystream.release/1"
"""Of the JSON object; another number where an older reader would go wrong."""
_MARGIN = 0.2
_LEARNED_STEP_S = 0.06
"""Corrections were learned at 30 frames a second; those of 20 a second and more pass."""
_SOME = 16
"""Every so many vertices say where somebody is."""
_PICTURE_PX = 480
_QUALITY = 88
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MARK = (255, 196, 60)


@dataclass(frozen=True, eq=False)
class Record:
    """An event ready to be told: ``data`` is the JSON object without pictures, ``pictures`` JPEGs
    of the window's frames about the person, all of one size, ``joints_m`` (T, 24, 3), NaN where
    they were not seen."""

    key: str
    data: Mapping[str, Any]
    pictures: tuple[bytes, ...]
    joints_m: np.ndarray

    def with_pictures(self) -> dict[str, Any]:
        """The object with its pictures as base64."""
        told = [base64.b64encode(each).decode() for each in self.pictures]
        frames = self.data["frames"]
        return {
            **self.data,
            "pictures": [{"frame": k, "jpeg": each} for k, each in zip(frames, told)],
        }


def record_of(
    seen: Release, window: Window, fitted: Fitted, info: RunInfo, renderer: Renderer, alpha: float
) -> Record:
    """What an event measured, told and drawn: as it was ``seen``, with its window ``fitted``."""
    there = [(frame, bodies) for frame, bodies in fitted if len(bodies)]
    nobody = np.full((24, 3), np.nan)
    joints = np.array([bodies.joints_m[0] if len(bodies) else nobody for _, bodies in fitted])
    when = _wall_time(window.key_frame) if info.live else None
    frames = [frame.id for frame in window.frames]
    which = info.mark if when is None else when
    parts = [info.source, *([which] if which else []), str(seen.frame_id), str(seen.track)]
    # Fit for an HTTP header and a file's name.
    key = quote("-".join(parts), safe="")[-200:]
    pictures = tuple(_pictures(fitted, info, renderer, alpha))
    after = window.frames[window.key + 1 :]
    since_ns = after[0].captured_ns if after else seen.told_ns
    data = {
        "schema": SCHEMA,
        "id": key,
        "source": info.source,
        "motion": seen.motion,
        "release_frame": seen.frame_id,
        "pts_s": round(seen.pts_s, 6),
        "time": when,
        "person": seen.track,
        "hand": seen.hand,
        "confidence": round(seen.confidence, 3),
        "frames": frames,
        "told_frame": seen.told_id,
        "measures": measures_of(fitted, seen),
        "model": info.model,
        "bodies": [
            {"frame": frame.id, "pts_s": round(frame.pts_s, 6), **bodies_of(info, frame, bodies)[0]}
            for frame, bodies in there
        ],
        "latency_ms": round((time.monotonic_ns() - since_ns) / 1e6, 1),
    }
    return Record(key, data, pictures, joints)


def measures_of(fitted: Fitted, seen: Release) -> dict[str, dict[str, Any]] | None:
    """`MEASURES` with intervals and definitions; None where the person is not in all four frames of
    the window. Only what the fitted body shows of a motion whose corrections were not learned, and
    where frames are too far apart for those that were."""
    if len(fitted) != FRAMES or not all(len(bodies) for _, bodies in fitted):
        return None
    joints = np.array([bodies.joints_m[0] for _, bodies in fitted])
    times = [frame.pts_s for frame, _ in fitted]
    key = next(k for k, (frame, _) in enumerate(fitted) if frame.id == seen.frame_id)
    if seen.motion == LEARNED and max(np.diff(times)) <= _LEARNED_STEP_S:
        told = Estimator.load()(joints, times, seen.hand, key)
        straight = told["elbow_flexion"].value < LEAST_FLEXION
    else:
        fits, nan = fitted_measures(joints, times, seen.hand, key), math.nan
        told = {name: Estimate(nan, nan, nan, value) for name, value in fits.items()}
        straight = fits["elbow_flexion"] < LEAST_FLEXION
    return {
        name: _told(name, estimate, straight and name == "shoulder_external_rotation")
        for name, estimate in told.items()
    }


def _told(name: str, estimate: Estimate, unknown: bool) -> dict[str, Any]:
    what = MEASURES[name]
    digits = 1 if what.unit == "deg" else 2

    def number(value: float) -> float | None:
        return None if unknown or math.isnan(value) else round(value, digits)

    return {
        "value": number(estimate.value),
        "low": number(estimate.low),
        "high": number(estimate.high),
        "fitted": number(estimate.fitted),
        "unit": what.unit,
        "definition": what.definition,
    }


def timeline_of(frames: Sequence[tuple[float, np.ndarray]], hand: Any) -> dict[str, np.ndarray]:
    """Every frame's fitted `MEASURES`, from times in seconds and joints (24, 3); the hand's speed
    is that of the step before."""
    rows = []
    for k in range(len(frames)):
        about = frames[max(k - 1, 0) : k + 1]
        together = np.stack([each for _, each in about])
        rows.append(fitted_measures(together, [at for at, _ in about], hand, len(about) - 1))
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


def strip_of(record: Record) -> np.ndarray:
    """The pictures side by side, RGB uint8 (H, W, 3), each with its frame's number, the event's own
    marked."""
    parts = []
    for number, jpeg in zip(record.data["frames"], record.pictures):
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None, "our own JPEG is read"
        picture = np.ascontiguousarray(bgr[..., ::-1])
        own = number == record.data["release_frame"]
        color = _MARK if own else (235, 235, 235)
        words = f"{number}  release" if own else str(number)
        for width, paint in ((4, (0, 0, 0)), (1, color)):
            cv2.putText(picture, words, (12, 28), _FONT, 0.75, paint, width, cv2.LINE_AA)
        if own:
            cv2.rectangle(
                picture, (1, 1), (picture.shape[1] - 2, picture.shape[0] - 2), _MARK, 3
            )  # fmt: skip
        parts.append(picture)
    return np.concatenate(parts, axis=1)


def _wall_time(frame: Frame) -> str:
    """When a live frame was captured, UTC."""
    ago_s = (time.monotonic_ns() - frame.captured_ns) / 1e9
    when = datetime.fromtimestamp(time.time() - ago_s, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _pictures(fitted: Fitted, info: RunInfo, renderer: Renderer, alpha: float) -> list[bytes]:
    """The overlay about the person in every frame, cut alike, as JPEG. Drawn into the cuts: a
    whole picture would take several times as long."""
    x, y, half = _box(fitted, info)
    scale = _PICTURE_PX / (2 * half)
    place = np.array([[scale, 0, scale * (half - x)], [0, scale, scale * (half - y)], [0, 0, 1.0]])
    size = (_PICTURE_PX, _PICTURE_PX)
    cuts = [
        cv2.warpAffine(frame.image, place[:2], size, borderValue=(14, 16, 19))
        for frame, _ in fitted
    ]
    colors = [
        np.array([track_color(int(track)) for track in bodies.track]).reshape(-1, 3)
        for _, bodies in fitted
    ]
    camera = place @ info.camera(fitted[0][0])
    meshes = [bodies.vertices_m for _, bodies in fitted]
    pictures = renderer.draw_batch(cuts, meshes, info.faces, colors, camera, alpha)
    return [_jpeg(picture) for picture in pictures]


def _jpeg(picture: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done, "OpenCV writes JPEG"
    return bytes(data)


def _box(fitted: Fitted, info: RunInfo) -> tuple[float, float, float]:
    """Middle (x, y) and half a side, px, of a square about somebody in all frames."""
    points = [
        project(bodies.vertices_m[0][::_SOME], info.camera(frame))
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
    """Somebody's joints (24, 3) in a frame, None where they are not."""
    rows = np.flatnonzero(bodies.track == track)
    return bodies.joints_m[rows[0]] if len(rows) else None
