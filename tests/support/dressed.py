"""Standing people in clothes of their own colours, and pictures of them."""

from __future__ import annotations

import numpy as np

from pipeline.core.people import Person


def dressed(seed, x, y=300.0, scale=1.0, roi=-1):
    """A standing person, and the colours of hair, shirt and trousers, which follow from the
    seed."""
    mark = {
        0: (0, -95), 7: (9, -92), 8: (-9, -92), 11: (25, -70), 12: (-25, -70), 13: (33, -40),
        14: (-33, -40), 15: (36, -10), 16: (-36, -10), 23: (14, -5), 24: (-14, -5), 25: (15, 45),
        26: (-15, 45), 27: (15, 92), 28: (-15, 92),
    }  # fmt: skip
    points = np.array([mark.get(k, mark[0]) for k in range(33)], np.float32) * scale + [x, y]
    points = points.astype(np.float32)
    box = np.concatenate((points.min(0), points.max(0)))
    visible, world = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
    colours = np.random.default_rng(seed).uniform(15, 240, (3, 3))
    return Person(box, 1.0, points, visible, world, roi=roi), colours


def picture(people, gain=1.0, size=(480, 1280)):
    """A grey picture of dressed people."""
    image = np.full((*size, 3), 110.0, np.float32)
    for person, (hair, shirt, trousers) in people:
        x0, y0, x1, y1 = person.box_px.astype(int)
        high = y1 - y0
        for top, bottom, colour in ((-8, 20, hair), (12, 50, shirt), (48, 108, trousers)):
            rows = slice(max(y0 + high * top // 100, 0), max(y0 + high * bottom // 100, 0))
            image[rows, max(x0 - 8, 0) : max(x1 + 8, 0)] = colour
    return np.clip(image * gain, 0, 255).astype(np.uint8)
