"""``python -m benchmarks.renderers``: compare the renderers, in milliseconds for a picture."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from render.base import Renderer
from render.overlay import make_renderer
from render.palette import track_color

_Point = tuple[float, float, float]
# A mannequin of capsules, metres, y down: from, to, radius.
_LIMBS: tuple[tuple[_Point, _Point, float], ...] = (
    ((0, -0.62, 0), (0, -0.58, 0), 0.11), ((0, -0.30, 0), (0, -0.05, 0), 0.15),
    ((-0.1, 0.02, 0), (0.1, 0.02, 0), 0.14), ((0, -0.5, 0), (0, -0.35, 0), 0.06),
    ((-0.2, -0.38, 0), (-0.4, -0.16, 0), 0.05), ((0.2, -0.38, 0), (0.4, -0.16, 0), 0.05),
    ((-0.4, -0.16, 0), (-0.5, 0.08, -0.05), 0.04), ((0.4, -0.16, 0), (0.5, 0.08, -0.05), 0.04),
    ((-0.1, 0.05, 0), (-0.12, 0.45, 0), 0.08), ((0.1, 0.05, 0), (0.12, 0.45, 0), 0.08),
    ((-0.12, 0.45, 0), (-0.13, 0.85, 0.03), 0.055), ((0.12, 0.45, 0), (0.13, 0.85, 0.03), 0.055),
)  # fmt: skip
_HEIGHT_SHARE = 400 / 720
"""The height of a figure as a share of the picture's."""


def mannequin(around: int = 24, along: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Return a figure of twelve capsules, by default with about as many triangles as SMPL.

    Args:
        around: Vertices around each capsule.
        along: Vertices along each capsule.

    Returns:
        Vertices (V, 3) float32, metres, and faces (F, 3) int32; by default 7,200 and 13,824.
    """
    parts = [_capsule(np.array(a), np.array(b), r, around, along) for a, b, r in _LIMBS]
    shape = np.arange(along * around).reshape(along, around)
    a, d = shape[:-1], shape[1:]
    b, c = np.roll(a, -1, axis=1), np.roll(d, -1, axis=1)
    quads = np.stack([np.stack(t, axis=-1) for t in ((a, b, c), (a, c, d))]).reshape(-1, 3)
    faces = [quads + index * along * around for index in range(len(parts))]
    return np.concatenate(parts).astype(np.float32), np.concatenate(faces).astype(np.int32)


def _capsule(
    start: np.ndarray, end: np.ndarray, radius: float, around: int, along: int
) -> np.ndarray:
    """Return a capsule's vertices (along * around, 3), ring by ring from pole to pole."""
    axis = end - start
    length = np.linalg.norm(axis)
    w = axis / length
    u = np.cross(w, (0.0, 0.0, 1.0))
    u /= np.linalg.norm(u)
    slope, angle = np.linspace(-np.pi / 2, np.pi / 2, along), np.arange(around) * 2 * np.pi / around
    height = radius * np.sin(slope) + np.where(slope > 0, length, 0)
    ring = u * np.cos(angle)[:, None] + np.cross(w, u) * np.sin(angle)[:, None]
    wide = np.maximum(radius * np.cos(slope), 1e-4)[:, None, None]
    return (start + height[:, None, None] * w + wide * ring).reshape(-1, 3)


def scene(
    vertices_m: np.ndarray, people: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture of noise (H, W, 3), copies of an upright figure side by side (P, V, 3),
    their colours (P, 3) and K (3, 3)."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    focal_px = 1.2 * width
    low, high = vertices_m.min(axis=0), vertices_m.max(axis=0)
    distance_m = focal_px * (high[1] - low[1]) / (_HEIGHT_SHARE * height)
    centred = vertices_m - (low + high) / 2
    step_m = 0.8 * width / focal_px * distance_m / people
    across = (np.arange(people) - (people - 1) / 2) * step_m
    bodies = np.stack([centred + (x, 0, distance_m) for x in across]).astype(np.float32)
    colors = np.array([track_color(track) for track in range(people)])
    lens = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    return image, bodies, colors, lens


def measure(
    renderers: Sequence[Renderer], drawing: tuple, faces: np.ndarray, rounds: int
) -> dict[str, np.ndarray]:
    """Return the milliseconds of each drawing by renderer. The renderers take turns, so that other
    load on the machine affects all of them."""
    image, bodies, colors, lens = drawing
    times_ms: dict[str, list[float]] = {renderer.name: [] for renderer in renderers}
    for number in range(rounds + 2):
        for renderer in renderers:
            begun = time.perf_counter()
            renderer.draw(image, bodies, faces, colors, lens)
            if number >= 2:  # The first drawings compile and fill caches.
                times_ms[renderer.name].append(1000 * (time.perf_counter() - begun))
    return {name: np.array(values) for name, values in times_ms.items()}


def hardware() -> str:
    """Return the processor's name, the cores that this process may use, and the load."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((x.split(": ")[1] for x in lines if x.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {cores} cores{load}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.renderers", description=__doc__)
    parser.add_argument(
        "--body", type=Path, help="npz with v_template (y up) and f (default: none)"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--numba-only", action="store_true")
    options = parser.parse_args(arguments)
    vertices, faces = mannequin()
    if options.body is not None:
        with np.load(options.body) as body:
            vertices, faces = body["v_template"] * np.array([1, -1, -1], np.float32), body["f"]
    names = ["numba"] if options.numba_only else ["numba", "pyrender"]
    renderers = [make_renderer(name) for name in names]
    print(f"{hardware()}; {len(vertices)} vertices, {len(faces)} triangles a body")
    print(f"{'image':>10} {'people':>6} " + " ".join(f"{n + ' p50/p95 ms':>22}" for n in names))
    for height, width in ((720, 1280), (1080, 1920)):
        for people in (1, 4):
            drawing = scene(vertices, people, height, width)
            times_ms = measure(renderers, drawing, faces, options.rounds)
            p50, p95 = np.quantile(list(times_ms.values()), (0.5, 0.95), axis=1)
            cells = " ".join(f"{f'{a:.2f} / {b:.2f}':>22}" for a, b in zip(p50, p95))
            ratio = f"  {p50[1] / p50[0]:.0f}x" if len(p50) > 1 else ""
            print(f"{f'{width}x{height}':>10} {people:>6} {cells}{ratio}", flush=True)
    for renderer in renderers:
        renderer.close()


if __name__ == "__main__":
    main()
