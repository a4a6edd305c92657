"""The least work of each stage."""

from __future__ import annotations

import pytest
import torch

from app.bench import work
from tests.support.bench import blazepose_files


def test_operations_are_counted_and_the_factorisation_is_too():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert work.count_operations(lambda: a @ b) == 2 * 3 * 5 * 7
    eye = torch.eye(30).expand(4, 30, 30)
    assert work.count_operations(lambda: torch.linalg.cholesky_ex(eye)) == 4 * 30**3 // 3
    right = torch.ones(4, 30, 2)
    lower = torch.linalg.solve_triangular
    assert work.count_operations(lambda: lower(eye, right, upper=False)) == 4 * 30**2 * 2

    @torch.inference_mode()
    def inside():
        return a @ b

    assert work.count_operations(inside) == 2 * 3 * 5 * 7, "inference mode hides nothing"


def test_the_fits_work_grows_with_people():
    one, two = (work.fit_work((640, 360), people) for people in (1, 2))
    assert one.operations > 3 * 286**3 / 3, "three factorisations at least"
    assert two.operations == pytest.approx(2 * one.operations, rel=0.05)
    assert one.memory_bytes < two.memory_bytes < 2 * one.memory_bytes


def test_drawings_work_grows_with_what_is_covered():
    assert work.draw_work(1, 100).memory_bytes < work.draw_work(1, 1000).memory_bytes
    assert work.draw_work(1, 100).memory_bytes < work.draw_work(2, 100).memory_bytes


@pytest.mark.weights
def test_networks_work_is_counted_without_running_them():
    files = blazepose_files()
    detector, marks = (
        work.network_work(files[f"pose_{name}.tflite"], side, batch, "fp16", 50 << 20)
        for name, side, batch in (("detection", 224, 1), ("landmark_full", 256, 4))
    )
    assert 5e8 < detector.operations < 2e9
    assert 2e9 < marks.operations < 5e9
    single = work.network_work(files["pose_landmark_full.tflite"], 256, 1, "fp32", 50 << 20)
    assert marks.operations == 4 * single.operations
    assert single.memory_bytes > files["pose_landmark_full.tflite"].stat().st_size, "fp32 weights"
    spilled = work.network_work(files["pose_landmark_full.tflite"], 256, 1, "fp32", 1 << 10)
    assert spilled.memory_bytes > 2 * single.memory_bytes
