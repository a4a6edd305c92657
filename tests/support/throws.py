"""Throws made of a few numbers: people whose hands rise and fall, and what a detector sees of
them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.core.skeleton import LANDMARK_NAMES
from pipeline.events.detect import DetectedEvent, Detector, Refusal
from pipeline.events.motion import load_motion

L = {name: index for index, name in enumerate(LANDMARK_NAMES)}
_IMAGE = np.zeros((4, 4, 3), np.uint8)


def a_person(hand: float, side: float, yaw_deg: float, torso: float = 1.0, aside: float = 0.0):
    """A person of 100 px of torso whose right hand is so high and so far aside (torso lengths)."""
    px = np.zeros((33, 2), np.float32)
    unit = 100.0
    for name, (x, y) in {
        "left_shoulder": (-0.3, 0), "right_shoulder": (0.3, 0),
        "left_hip": (-0.2, torso), "right_hip": (0.2, torso),
        "left_wrist": (-0.4, 0.6), "left_elbow": (-0.4, 0.3),
        "right_wrist": (side, -hand), "right_elbow": (0.4, min(0.2, 0.3 - hand / 2)),
    }.items():  # fmt: skip
        px[L[name]] = 500 + unit * (x + aside), 400 + unit * y
    world = np.zeros((33, 3), np.float32)
    yaw = math.radians(yaw_deg)
    right = np.array([-math.cos(yaw), 0, math.sin(yaw)])  # of who faces (-sin yaw, 0, -cos yaw)
    ahead = np.array([-math.sin(yaw), 0, -math.cos(yaw)])
    for name, across in (("left_shoulder", -0.2), ("right_shoulder", 0.2)):
        world[L[name]] = across * right + [0, -0.5, 0]
    world[L["right_wrist"]] = 0.3 * ahead + [0, -0.5 - 0.5 * hand, 0]
    box = np.array([400, 300, 600, 700], np.float32)
    return Person(box, 0.9, px, np.ones(33, np.float32), world)


def throw(fps: float = 30.0, release_s: float = 1.0, seconds: float = 1.6, tempo: float = 1.0):
    """A throw as heights over time; the ball leaves the hand at ``release_s``."""
    frames = []
    for k in range(round(seconds * fps)):
        t = tempo * (k / fps - release_s)
        hand = float(np.interp(t, (-0.6, -0.3, -0.12, -0.05, 0.0, 0.05, 0.12, 0.3),
                               (-0.9, -0.9, 0.3, 0.5, 0.6, -0.5, -1.0, -1.0)))  # fmt: skip
        yaw = float(np.interp(t, (-0.15, 0.02), (100.0, 0.0)))
        torso = float(np.interp(t, (-0.1, 0.1), (1.0, 0.75)))
        frames.append((k / fps, a_person(hand, 0.9, yaw, torso)))
    return frames


def on_a_bat(person: Person) -> Person:
    """The left hand is beside the right one."""
    px = person.landmarks_px.copy()
    px[L["left_wrist"]] = px[L["right_wrist"]] + [20.0, 10.0]
    return replace(person, landmarks_px=px)


def backwards():
    """A throw of a person whose chest is not where it should be: as from behind."""
    away = a_person(0.0, 0.9, 180.0).world_m * np.array([-1, 1, 1], np.float32)
    return [(t, replace(p, world_m=away)) for t, p in throw()]


def watch(
    frames: Sequence, motion=None, track: int = 1
) -> tuple[list[DetectedEvent], list[Refusal]]:
    detector, found, shown, grey = Detector(motion or load_motion()), [], None, 0
    for k, (pts_s, person) in enumerate(frames):
        people = person if isinstance(person, dict) else {track: person}
        grey += 0 if person is shown else 50  # the same person twice is the same picture
        shown, image = person, np.full_like(_IMAGE, grey % 200)
        found += detector.see(Frame(k, "x", k, pts_s, image), people, k == 0)
    detector.finish()
    return found, list(detector.refused)


def mirrored(person: Person, width: float = 1000.0) -> Person:
    """As a mirror shows a person: sides change places."""
    order = [
        L[name.replace("left", "*").replace("right", "left").replace("*", "right")]
        for name in LANDMARK_NAMES
    ]
    px = person.landmarks_px[order] * np.array([-1, 1], np.float32) + [width, 0]
    world = person.world_m[order] * np.array([-1, 1, 1], np.float32)
    return replace(person, landmarks_px=px.astype(np.float32), world_m=world)
