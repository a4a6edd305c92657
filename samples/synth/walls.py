"""The walls behind the people: pictures of upright sheets, sRGB float32 (h, w, 3) in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np

PER_M = 32
"""Pixels of a sheet per metre."""
_PADDING = np.array([(0.07, 0.20, 0.14), (0.08, 0.14, 0.28), (0.26, 0.09, 0.09)])


def _sheet(height_m: float, tone: np.ndarray | tuple) -> np.ndarray:
    """Return an upright sheet, 80 m wide, sRGB float32 in [0, 1]; its lowest row is at the
    ground."""
    sheet = np.empty((int(height_m * PER_M), 80 * PER_M, 3), np.float32)
    sheet[:] = tone
    return sheet


def _stands(random: np.random.Generator) -> np.ndarray:
    """Return a padded wall with a crowd in rows of seats above it."""
    sheet = _sheet(12, (0.16, 0.17, 0.19))
    width, top = sheet.shape[1], sheet.shape[0]
    skins = np.array([(0.85, 0.66, 0.54), (0.72, 0.52, 0.40), (0.45, 0.31, 0.23)])
    wall_m = random.uniform(1.7, 2.4)
    seat = np.array([0.10, 0.17, 0.27]) * random.uniform(0.7, 1.3)
    fans = random.uniform(0.1, 0.8, 3)
    for row in range(11, -1, -1):
        base = top - (wall_m + 0.15 + 0.72 * row) * PER_M
        cv2.rectangle(sheet, (0, int(base - 0.55 * PER_M)), (width, int(base)), seat.tolist(), -1)
        for place in np.arange(0.3 + 0.29 * (row % 2), 80, 0.58):
            if random.random() < 0.12:
                continue
            x = int((place + random.normal(0, 0.05)) * PER_M)
            y = int(base - random.uniform(0.36, 0.5) * PER_M)
            shirt = fans if random.random() < 0.3 else random.beta(1.2, 1.2, 3)
            shirt = 0.7 * (0.4 * shirt + 0.6 * shirt.mean()) + 0.06
            skin = skins[random.integers(3)] * random.uniform(0.8, 1.05)
            hair = skin * 0.25 if random.random() < 0.6 else random.uniform(0.1, 0.8, 3)
            half, head = int(random.uniform(0.19, 0.25) * PER_M), int(0.115 * PER_M)
            shoulders = (half, int(0.13 * PER_M))
            cv2.ellipse(sheet, (x, y), shoulders, 0, 0, 360, shirt.tolist(), -1, cv2.LINE_AA)
            cv2.rectangle(sheet, (x - half, y), (x + half, int(base)), shirt.tolist(), -1)
            for tone, rise in ((hair, 0.30), (skin, 0.26)):
                middle = (x, int(y - rise * PER_M))
                cv2.circle(sheet, middle, head, tone.tolist(), -1, cv2.LINE_AA)
    tone = _PADDING[random.integers(3)]
    low = top - int(wall_m * PER_M)
    cv2.rectangle(sheet, (0, low), (width, top), tone.tolist(), -1)
    for x in range(0, width, int(2.4 * PER_M)):
        cv2.line(sheet, (x, low), (x, top), (0.6 * tone).tolist(), 2)
        if random.random() < 0.5:
            box = (x + 8, low + int(0.35 * PER_M), int(2.4 * PER_M) - 16, int(0.8 * PER_M))
            paint_tone = (0.5 * random.uniform(0.2, 1.0, 3) + 0.2).tolist()
            cv2.rectangle(sheet, box, paint_tone, -1)
            for _ in range(5):
                at = (box[0] + int(random.integers(6, box[2] - 14)), box[1] + box[3] // 2)
                size = (int(random.integers(3, 9)), int(random.integers(5, 10)))
                cv2.ellipse(sheet, at, size, 0, 0, 360, (0.9, 0.9, 0.9), 2, cv2.LINE_AA)
    cv2.rectangle(sheet, (0, low - 4), (width, low + 1), (0.78, 0.68, 0.15), -1)
    return sheet


def _trees(random: np.random.Generator) -> np.ndarray:
    sheet = _sheet(16, (0.66, 0.78, 0.92))
    top, width = sheet.shape[:2]
    fade = np.linspace(0, 0.18, top)[:, None, None]
    sheet[:] = np.clip(sheet + fade, 0, 1)
    for _ in range(420):
        depth = random.random()
        tall = random.uniform(3, 9) * (1.1 - 0.4 * depth)
        x, green = random.uniform(0, 80), random.uniform(0.7, 1.3)
        tone = np.array([0.22, 0.36, 0.15]) * green * (1.25 - 0.5 * depth)
        for _ in range(26):
            spot = random.normal([x, tall * 0.6], [0.9, tall * 0.2])
            radius = int(random.uniform(0.25, 0.8) * PER_M)
            lit = tone * (0.75 + 0.5 * spot[1] / tall) * random.uniform(0.8, 1.2)
            at = (int(spot[0] * PER_M), int(top - max(spot[1], 0.2) * PER_M))
            cv2.circle(sheet, at, radius, np.clip(lit, 0, 1).tolist(), -1, cv2.LINE_AA)
    hedge = int(top - random.uniform(0.6, 1.4) * PER_M)
    cv2.rectangle(sheet, (0, hedge), (width, top), (0.21, 0.30, 0.13), -1)
    return sheet


def _facade(random: np.random.Generator) -> np.ndarray:
    tone = np.array([0.55, 0.50, 0.45]) * random.uniform(0.6, 1.4, 3)
    sheet = _sheet(18, np.clip(tone, 0, 0.95))
    top, width = sheet.shape[:2]
    step_x, step_y = random.uniform(2.2, 3.6), random.uniform(3.0, 3.6)
    for floor in range(int(18 / step_y) + 1):
        for place in np.arange(0, 80, step_x):
            x, y = int(place * PER_M), int(top - (floor * step_y + 0.9) * PER_M)
            wide, high = int(0.55 * step_x * PER_M), int(1.7 * PER_M)
            glass = np.array([0.20, 0.26, 0.33]) * random.uniform(0.5, 1.6)
            cv2.rectangle(sheet, (x, y - high), (x + wide, y), glass.tolist(), -1)
            cv2.rectangle(sheet, (x, y - high), (x + wide, y), (0.85 * tone).tolist(), 3)
    cv2.rectangle(sheet, (0, top - int(0.6 * PER_M)), (width, top), (0.6 * tone).tolist(), -1)
    for _ in range(14):  # doors, shutters, parked things
        x, high = int(random.uniform(0, width)), int(random.uniform(0.8, 2.3) * PER_M)
        box = (x, top - high, int(random.uniform(0.8, 3.5) * PER_M), high)
        cv2.rectangle(sheet, box, (0.7 * random.uniform(0.05, 0.9, 3)).tolist(), -1)
    return sheet


def _inside(random: np.random.Generator) -> np.ndarray:
    tone = np.array([0.72, 0.70, 0.66]) * random.uniform(0.7, 1.15, 3)
    sheet = _sheet(9, np.clip(tone, 0, 0.95))
    top, width = sheet.shape[:2]
    mats = random.uniform(0.1, 0.6, 3)
    cv2.rectangle(sheet, (0, top - int(1.9 * PER_M)), (width, top), mats.tolist(), -1)
    for x in range(0, width, int(1.5 * PER_M)):
        cv2.line(sheet, (x, top - int(1.9 * PER_M)), (x, top), (0.7 * mats).tolist(), 2)
    for place in np.arange(1, 80, random.uniform(4, 7)):  # high windows, bars
        x = int(place * PER_M)
        box = (x, top - int(5.5 * PER_M), int(2.2 * PER_M), int(1.6 * PER_M))
        cv2.rectangle(sheet, box, (0.86, 0.90, 0.95), -1)
    return sheet


WALLS = {"ballpark": _stands, "park": _trees, "plaza": _facade, "hall": _inside}
