"""An event of a fitted body, made without a run."""

from __future__ import annotations

import math

import numpy as np
import torch

from app.body_renderer import BodyRenderer
from app.config import RenderConfig
from app.outputs.base import RunInfo
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.events.detect import DetectedEvent
from pipeline.events.motion import load_motion
from pipeline.runtime.event_buffer import Event

THROW = load_motion("throw")
K = np.array([[400.0, 0, 160], [0, 400.0, 120], [0, 0, 1]])


def renderer_of(body) -> BodyRenderer:
    return BodyRenderer("numba", RenderConfig(), body)


def a_person(body) -> Bodies:
    rest = [torch.zeros(1, n) for n in (10, 3, 69)]
    out = body.forward(
        rest[0], torch.tensor([[math.pi, 0, 0]]), rest[2], torch.tensor([[0, 0, 4.0]])
    )
    parts = (out.joints_m, out.landmarks_m, out.vertices_m)
    return Bodies(
        np.array([3]), np.array([0.9], np.float32), np.array([[math.pi, 0, 0]], np.float32),
        np.zeros((1, 69), np.float32), np.zeros((1, 10), np.float32),
        np.array([[0, 0, 4.0]], np.float32), *(part.numpy() for part in parts),
        np.ones((1, 24), np.float32),
    )  # fmt: skip


def event_of(body, present=(True,) * 4, key: int = 2, live: bool = False):
    frames = tuple(
        Frame(50 + k, "x", 0, (50 + k) / 30, np.full((240, 320, 3), 90, np.uint8))
        for k in range(len(present))
    )
    nobody = Bodies.none(len(body.v_template))
    fitted = [(f, a_person(body) if here else nobody) for f, here in zip(frames, present)]
    seen = DetectedEvent(THROW, 3, "right", frames[key].id, frames[key].pts_s, 53, 0, 0.9, {}, 0.0)
    info = RunInfo("süd/tor", 30.0, 320, 240, K, "free", body.faces, "neutral", live=live)
    return Event(seen, Window(frames, key), fitted), info
