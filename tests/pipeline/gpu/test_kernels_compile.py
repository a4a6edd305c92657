"""Triton's kernels compile for GPUs, which needs none: the interpreter takes what a compiler does
not, as variables that change their shape from branch to branch."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
KERNELS = {
    "pipeline.fitting.kernels_gpu": (
        "pose", "points", "residuals", "priors", "smoothness", "sums", "assemble", "retract",
    ),
    "pipeline.fitting.edge_kernels_gpu": ("edges",),
    "pipeline.fitting.lifter_kernels_gpu": ("network",),
    "pipeline.fitting.prepare_kernels_gpu": ("remember", "observe", "poses", "guess"),
    "pipeline.fitting.finish_kernels_gpu": ("finish",),
    "pipeline.body.mesh_gpu": ("mesh", "regress"),
}  # fmt: skip
CONSTANTS = {
    "FRAMES": 4, "LANES": 32, "ROUNDS": 4, "WIDTH": 348, "SIDE": 64, "ROWS": 262, "LANDMARKS": 33,
    "COLUMNS": 80, "SIZE": 331, "PRESENT": 330, "MASKED": 338, "EDGE_FROM": 332, "PLACES": 512,
    "MASK": 192, "IMAGE": 0, "VISIBLE": 66, "WORLD": 99, "SPREAD": 198, "WEIGHT": 297, "VIEW": 330,
    "DEPTH": 340, "RESIDUAL": 64, "TOTAL_WEIGHT": 128, "SURFACE": 96, "DIM": 69, "BLOCK": 512,
    "STRIDE": 22, "IMAGE_SPREAD": 341, "STRIP": 8, "REACH": 3, "LAYERS": 3, "WINDOW": 4,
    "FEATURES": 201, "HEAD": 32, "ROW": 256, "CONTEXT": 16, "KNOWN": 350, "SIGMA": 351, "SKIN": 352,
    "POINTS": 256, "USE_LIFTER": True, "USE_DEPTH": True, "POSE": 207, "MESHES": 2, "INFLUENCES": 4,
    "HAS_POSE": True,
}  # fmt: skip
OWN_CONSTANTS = {
    "pipeline.fitting.lifter_kernels_gpu": {"FRAMES": 16, "WIDTH": 192},
    "pipeline.fitting.prepare_kernels_gpu": {"ROWS": 4, "SURFACE": 256},
    "pipeline.body.mesh_gpu": {"WIDTH": 256, "SURFACE": 256, "BLOCK": 128},
}
"""Constants that have other values in these modules."""
NUMBERS = {
    "mask_sigma", "mask_weight", "robust", "depth_sigma", "use_world", "use_depth",
    "prior_weight", "limit_weight", "limit_sigma", "use", "turn_accel", "root_accel",
    "root_depth_accel", "across", "down", "blur", "total", "image_sigma", "default_sigma_m",
    "default_depth_sigma_m", "model_sigma_m", "surface_model_m", "shape_weight", "perceived_share",
    "barely_visible", "still_m", "most_log_size", "use_prior", "shape_limit", "gain", "frozen",
    "hold_shape", "fade", "half_speed", "most", "nearest",
}  # fmt: skip
TYPES = {
    "ancestors": "*i32", "begin": "i32", "table": "*fp64", "places": "*fp64", "order": "*i32",
    "limbs": "*i32", "sources": "*i32", "picked": "*i32", "skin": "*i32", "row": "i32",
    "memory_row": "i32", "interval_row": "i32", "result_row": "i32", "mesh_row": "i32",
    "weight_row": "i32", "tries": "i32", "vertices": "i32", "frames": "i32",
}  # fmt: skip
OWN_TYPES = {
    "pipeline.fitting.lifter_kernels_gpu": {"weights": "*fp16"},
    "pipeline.body.mesh_gpu": {"joints": "*i32"},
}


def compile_all(module: str, capability: int) -> None:
    """Runs in a process of its own, in which kernels are not interpreted."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    known = CONSTANTS | OWN_CONSTANTS.get(module, {})
    types = TYPES | OWN_TYPES.get(module, {})
    for name in KERNELS[module]:
        kernel = getattr(importlib.import_module(module), name)
        signature, constants = {}, {}
        for each in inspect.signature(kernel.fn).parameters.values():
            if "constexpr" in str(each.annotation):
                constants[each.name] = known[each.name]
                signature[each.name] = "constexpr"
            else:
                number = "fp32" if each.name in NUMBERS else "*fp32"
                signature[each.name] = types.get(each.name, number)
        source = ASTSource(kernel, signature, constants)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert made.asm["cubin"], name
        print(name, "compiled")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [89])
@pytest.mark.parametrize("module", KERNELS)
def test_kernels_compile(module, capability, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, __file__, module, str(capability)],
        capture_output=True, text=True, env=environment, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("compiled") == len(KERNELS[module])


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    compile_all(sys.argv[1], int(sys.argv[2]))
