"""Frames and bodies for the tests of outputs, random and small."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from app.outputs.base import RunInfo
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies, MhrBody

VERTICES = 12
FACES = np.array([[0, 1, 2], [2, 3, 4]], np.int32)


def made_up_body() -> Any:
    """What a renderer reads of the body model of `bodies`."""
    return SimpleNamespace(
        faces=FACES,
        weights=torch.eye(VERTICES, 24),
        v_template=torch.zeros(VERTICES, 3),
        joint_template=torch.arange(72.0).view(24, 3),
    )


def run_info(height: int = 48, width: int = 64, fps: float | None = 25.0, **more) -> RunInfo:
    camera = default_intrinsics(height, width)
    return RunInfo("clip.mp4", fps, width, height, camera, "free", FACES, "neutral", **more)


def frame(index: int, pts_s: float | None = None, height: int = 48, width: int = 64, **more):
    image = np.zeros((height, width, 3), np.uint8)
    pts_s = index / 25 if pts_s is None else pts_s
    return Frame(index, "clip.mp4", 1_000_000 * index, pts_s, image, **more)


def mhr_body(seed: int = 0, *, mesh: bool = True, scale: bool = True) -> MhrBody:
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    ahead = np.array([0, 0, 4], np.float32)
    return MhrBody(
        random(204), random(45), ahead, random(70, 3) / 10 + ahead, random(70, 2),
        random(28) if scale else None, random(VERTICES, 3) / 10 + ahead if mesh else None,
        FACES if mesh else None,
    )  # fmt: skip


def bodies(tracks: list[int], seed: int = 0) -> Bodies:
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=(len(tracks), *shape)).astype(np.float32)

    ahead = np.array([0, 0, 4], np.float32)
    return Bodies(
        np.array(tracks, np.int64),
        rng.uniform(size=len(tracks)).astype(np.float32),
        random(3),
        random(69) / 10,
        random(10),
        random(3) + ahead,
        random(24, 3) / 10 + ahead,
        random(33, 3) / 10 + ahead,
        random(VERTICES, 3) / 10 + ahead,
        rng.uniform(size=(len(tracks), 24)).astype(np.float32),
    )


def standing(tracks=(1,), beside_m: float = 0.0) -> Bodies:
    """People of the free body who face the camera, side by side."""
    count = len(tracks)
    turn = torch.tensor([[np.pi, 0, 0]], dtype=torch.float32).repeat(count, 1)
    place = np.array([[beside_m * k, 0, 2.5] for k in range(count)], np.float32)
    zero = torch.zeros(count, 10), torch.zeros(count, 69)
    out = load_body()(zero[0], turn, zero[1], torch.from_numpy(place))
    return Bodies(
        np.array(tracks), np.ones(count, np.float32), turn.numpy(), zero[1].numpy(),
        zero[0].numpy(), place, out.joints_m.numpy(), out.landmarks_m.numpy(),
        out.vertices_m.numpy(), np.ones((count, 24), np.float32), out.shown_m.numpy(),
    )  # fmt: skip
