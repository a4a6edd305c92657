"""The picture on which engines are checked and costs are measured."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

_EXAMPLE = Path(__file__).with_name("example.jpg")


def example_image() -> np.ndarray:
    """Return a person's crop from samples/pitch.mp4, RGB uint8 (H, W, 3)."""
    coded = np.frombuffer(_EXAMPLE.read_bytes(), np.uint8)
    image = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)
    assert image is not None, "it comes with the package"
    return np.asarray(image)
