"""How well a key frame's mask fits its neighbours: moving it, the limbs, and the whole."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli import main
from app.evaluate import reuse
from tests.support.paths import SAMPLES


def landmarks(x, y, width, height):
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (33, 2)) * (width, height) + (x, y)
    points[:2] = [[x, y], [x + width, y + height]]
    return points


@settings(deadline=None, max_examples=30)
@given(
    st.integers(-30, 30), st.integers(-20, 20), st.floats(0.7, 1.4), st.floats(0.7, 1.4)
)  # fmt: skip
def test_a_box_takes_its_mask_along(dx, dy, wider, higher):
    """A rectangle filling its box fills the moved box."""
    old = landmarks(60, 50, 40, 60)
    new = (old - (60, 50)) * (wider, higher) + (60 + dx, 50 + dy)
    mask = np.zeros((200, 260), bool)
    mask[50:111, 60:101] = True
    wanted = np.zeros_like(mask)
    x1, y1 = new[1].round().astype(int)
    wanted[50 + dy : y1 + 1, 60 + dx : x1 + 1] = True
    moved = reuse.moved_by_box(mask, old, new)
    assert (moved & wanted).sum() / (moved | wanted).sum() > 0.9


def test_a_box_that_stays_changes_nothing():
    mask = np.random.default_rng(1).random((90, 70)) > 0.5
    still = landmarks(5, 5, 50, 70)
    assert (reuse.moved_by_box(mask, still, still) == mask).all()


def test_flow_takes_a_mask_along():
    texture = cv2.GaussianBlur(
        np.random.default_rng(2).integers(0, 255, (160, 200), dtype=np.uint8), (0, 0), 2
    )
    shifted = np.roll(texture, 6, 1)
    mask = np.zeros(texture.shape, bool)
    mask[40:120, 60:120] = True
    whole = (slice(0, 160), slice(0, 200))
    moved = reuse.warped(mask, texture, shifted, whole)
    wanted = np.roll(mask, 6, 1)
    assert (moved & wanted).sum() / (moved | wanted).sum() > 0.95
    assert (mask & wanted).sum() / (mask | wanted).sum() < 0.85


def test_a_pixel_belongs_to_the_nearest_limb():
    points = landmarks(0, 0, 10, 10) + 500
    points[[11, 12, 23, 24]] = [[40, 20], [60, 20], [40, 60], [60, 60]]
    points[[13, 15, 19]] = [[80, 25], [100, 25], [104, 25]]
    points[0], points[7], points[8] = (50, 5), (48, 5), (52, 5)
    limbs = reuse.limb_of(points, (slice(0, 80), slice(0, 120)))
    names = list(reuse.LIMBS)
    for (x, y), name in {
        (50, 40): "torso", (50, 2): "head", (92, 26): "forearms, hands",
    }.items():  # fmt: skip
        assert names[limbs[y, x]] == name


def test_the_sample_is_measured(tmp_path, capsys):
    """Flow is better than the box, the box is hardly better than nothing for a thrower, and limbs
    that move have the largest errors."""
    file = tmp_path / "reuse.json"
    assert main(["evaluate", "--reuse", str(SAMPLES), "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "warped by flow" in said
    figures = json.loads(file.read_text())
    whole = {(row["way"], row["frames_apart"]): row for row in figures["windows"]}
    assert whole["warped by flow", 1]["iou"] > whole["moved by the box", 1]["iou"]
    for way in reuse.WAYS:
        assert whole[way, 1]["iou"] > whole[way, 2]["iou"]
        assert whole[way, 1]["count"] == 2 * whole[way, 2]["count"]
    limbs = {(r["way"], r["limb"], r["motion"][0]): r["iou"] for r in figures["limbs"]}
    box, torso = "moved by the box", "torso"
    assert limbs[box, torso, 0.0] > limbs[box, torso, 0.04]
    assert "the key frame's true joints" in said
    bodies = {(row["of"], row["way"]): row for row in figures["bodies"]}
    slow, fast = (bodies[moved, "as it is"] for moved in ("0 to 0.01", "0.08 to inf"))
    assert slow["joints_mm"] < fast["joints_mm"] < fast["wrists_ankles_mm"]
    assert bodies["one apart", "as it is"]["count"] == whole["as it is", 1]["count"]


def test_a_folder_without_clips_is_one_line(tmp_path, capsys):
    assert main(["evaluate", "--reuse", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3


@pytest.mark.parametrize("limb", list(reuse.LIMBS))
def test_limbs_are_lines_between_landmarks(limb):
    assert all(0 <= end < 33 for line in reuse.LIMBS[limb] for end in line)
