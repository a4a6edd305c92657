"""The compiled loops without a place for numba's cache."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

SCRIPT = """
import numba.core.caching as caching
# As where neither the installation nor a home can be written.
caching.CacheImpl._locator_classes = []
import numpy as np
from render.rasterize_cpu import draw_meshes
image = np.zeros((48, 64, 3), np.uint8)
vertices = np.array([[[-1, -1, 4], [1, -1, 4], [0, 1, 4]]], np.float32)
faces = np.array([[0, 2, 1], [0, 1, 2]])
K = np.array([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]])
out = draw_meshes(image, vertices, faces, np.array([[1.0, 0, 0]]), K)
print(int((out > 0).any(2).sum()))
"""


def test_they_are_compiled_at_every_start():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 100
