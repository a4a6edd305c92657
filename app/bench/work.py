"""The least work of each stage of the default pipeline for a window, counted on its real modules.

Torch's own counter counts the operations (products, convolutions and attention; not elementwise
work); formulas here add what it does not know. Bytes are the ones that cannot stay in a cache:
weights, inputs and outputs once; and intermediate results twice if a single image's are larger than
the last-level cache (a batch could be processed image by image).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from app.bench.roofline import Precision, Work
from app.bench.rows import Settings
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.people import Mask, Person
from pipeline.core.yuv import yuv_bytes
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.perception.blazepose import detector, landmarks
from pipeline.perception.blazepose.tflite import read_graph
from pipeline.perception.blazepose.tflite_torch import GraphModule

_PIXEL_BYTES = 14
"""The bytes of a drawn pixel: its colour is read and written, its nearest triangle written and
read."""


def _cholesky(shape: tuple[int, ...], *rest: Any, **more: Any) -> int:
    """Return n^3 / 3 for each matrix (Golub and Van Loan, Matrix Computations, 4.2)."""
    return prod(shape[:-2]) * shape[-1] ** 3 // 3


def _triangular(matrix: tuple[int, ...], right: tuple[int, ...], *rest: Any, **more: Any) -> int:
    """Return n^2 for each right-hand side."""
    return prod(right[:-2]) * right[-2] ** 2 * right[-1]


_FORMULAS = {
    torch.ops.aten.linalg_cholesky_ex: _cholesky,
    torch.ops.aten.linalg_solve_triangular: _triangular,
}


def count_operations(call: Any) -> float:
    """Return the floating-point operations that a call does in torch."""
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with counter:
        call()
    return float(counter.get_total_flops())


class _Spilled(TorchDispatchMode):
    """Counts the bytes of results that are too large for a cache, each written and read again."""

    def __init__(self, cache_bytes: int) -> None:
        super().__init__()
        self._cache_bytes = cache_bytes
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # A view moves no bytes.
        if isinstance(out, torch.Tensor) and not func.is_view:
            size = out.numel() * out.element_size()
            # A result that fits into the cache never reaches the memory.
            self.bytes += 2 * size if size > self._cache_bytes else 0
        return out


def network_work(path: Path, side: int, batch: int, precision: Precision, cache_bytes: int) -> Work:
    """Return the work of one pass of a network. Only shapes are computed, on the meta device.

    Args:
        path: The model file, TFLite.
        side: The side of its images in pixels.
        batch: The number of images.
        precision: The precision of the products.
        cache_bytes: The size of the last-level cache.
    """
    dtype = torch.float16 if precision == "fp16" else torch.float32
    # On the meta device: shapes are all that counts, and nothing is computed.
    module = GraphModule(read_graph(path)).to("meta", dtype)
    image = torch.empty(1, 3, side, side, device="meta", dtype=dtype)
    with torch.no_grad():
        operations = count_operations(lambda: module(image))
        with _Spilled(cache_bytes) as spilled:
            outputs = module(image)
    weights = _bytes(module.buffers())
    per_image = _bytes([image, *outputs]) + spilled.bytes
    return Work(batch * operations, weights + batch * per_image, precision=precision)


def module_work(module: torch.nn.Module, example: Sequence[Tensor], precision: Precision) -> Work:
    """Return the work of one pass of a module, which is run.

    Args:
        module: The module.
        example: Its inputs.
        precision: The precision of the products. Bytes of weights, inputs and outputs are counted
            once and in this precision, whatever type they have here.
    """
    outputs: list[Any] = []
    with torch.no_grad():
        operations = count_operations(lambda: outputs.append(module(*example)))
    made = outputs[0] if isinstance(outputs[0], tuple) else (outputs[0],)
    numbers = sum(t.numel() for t in (*module.parameters(), *module.buffers(), *example, *made))
    size = 2 if precision == "fp16" else 4
    return Work(operations, size * numbers, precision=precision)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _precision(settings: Settings) -> Precision:
    """Return the precision of the networks; FP32 on a CPU."""
    if settings.device == "cpu":
        return "fp32"
    return "fp16" if settings.half else "tf32" if settings.tf32 else "fp32"


def standing_person(fitter: BodyFitter, intrinsics: np.ndarray, place: float) -> Person:
    """Return a person as perceived: the body in its rest pose, four metres away and ``place``
    metres to the right."""
    body = fitter.body
    zero = torch.zeros(1, 3)
    upright = torch.tensor([[np.pi, 0.0, 0.0]])
    out = body.forward(
        torch.zeros(1, 10), upright, torch.zeros(1, 69), zero + torch.tensor([place, 0.0, 4.0])
    )
    points = out.landmarks_m[0].cpu().numpy().astype(np.float32)
    pixels = project(points, intrinsics).astype(np.float32)
    low, high = pixels.min(0), pixels.max(0)
    across = np.linspace(-1.2, 1.2, landmarks.MASK)
    disc = (across[:, None] ** 2 + across[None] ** 2 < 1).astype(np.float32)
    scale = (high - low) / landmarks.MASK
    to_image = np.array([[scale[0], 0, low[0]], [0, scale[1], low[1]]], np.float32)
    world = points - 0.5 * (points[23] + points[24])
    return Person(
        np.concatenate((low, high)), 1.0, pixels, np.ones(33, np.float32), world,
        Mask(disc, to_image),
    )  # fmt: skip


def fit_work(size: tuple[int, int], people: int) -> Work:
    """Return the work of the fit of a window: lifter, first guesses, solver and meshes.

    The count depends only on shapes and on the number of steps, so people who stand still will do.

    Args:
        size: The (width, height) of the frames.
        people: The number of people, all of them known from the window before.
    """
    fitter = BodyFitter(load_body(None), device="cpu")
    lens = default_intrinsics(size[1], size[0])
    perceived = {p: standing_person(fitter, lens, float(p)) for p in range(people)}
    window, memory = [perceived] * WINDOW_FRAMES, FitMemory()
    fitter.fit(window, lens, memory)
    # The second fit: the first one has new people and takes more steps.
    operations = count_operations(lambda: fitter.fit(window, lens, memory))
    vertices = len(fitter.body.v_template)
    arrays = [v for v in vars(fitter.body).values() if isinstance(v, torch.Tensor)]
    model = _bytes([*fitter.lifter.weights.values(), *arrays])
    maps = people * WINDOW_FRAMES * 3 * 64 * 64 * 4
    # Twelve bytes a vertex: three numbers in single precision.
    meshes = people * WINDOW_FRAMES * vertices * 12
    return Work(operations, model + maps + meshes)


def draw_work(people: int, covered_px: float) -> Work:
    """Return the work of drawing a window: every vertex and triangle is read once for each picture,
    and the covered pixels are written. The few operations for each pixel are never the limit."""
    body = load_body(None)
    meshes = people * WINDOW_FRAMES * (12 * len(body.v_template) + 12 * len(body.faces))
    return Work(memory_bytes=meshes + _PIXEL_BYTES * covered_px)


def stage_work(
    settings: Settings,
    files: Mapping[str, Path],
    size: tuple[int, int],
    people: int,
    covered_px: float,
    cache_bytes: int,
) -> dict[str, Work]:
    """Return the work of every stage for one window.

    The detector runs on one view of the key frame, the landmark network on every person in every
    frame.

    Args:
        settings: The row's settings.
        files: The model files by name.
        size: The (width, height) of the frames.
        people: The number of people.
        covered_px: How many pixels of the window's pictures are drawn.
        cache_bytes: The size of the last-level cache.
    """
    precision = _precision(settings)
    frames = 3 * size[0] * size[1] * WINDOW_FRAMES
    picture = yuv_bytes((size[1], size[0])) if settings.planes else 3 * size[0] * size[1]
    bus = picture * WINDOW_FRAMES if settings.device == "cuda" else 0
    detect = network_work(
        files["pose_detection.tflite"], detector.INPUT, 1, precision, cache_bytes
    ) + Work(memory_bytes=frames / WINDOW_FRAMES)
    marks = network_work(
        files["pose_landmark_full.tflite"],
        landmarks.INPUT,
        max(people, 1) * WINDOW_FRAMES,
        precision,
        cache_bytes,
    )
    return {
        "upload": Work(up_bytes=bus),
        "detect": detect,
        "landmarks": marks,
        # The GPU's pipeline times both networks as one stage.
        "perceive": detect + marks,
        "fit": fit_work(size, max(people, 1)),
        "draw": draw_work(max(people, 1), covered_px),
        "download": Work(down_bytes=bus),
    }
