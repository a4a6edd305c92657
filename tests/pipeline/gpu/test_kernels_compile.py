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
    "render.kernels_gpu": ("place", "fill_small", "fill_large", "resolve"),
}  # fmt: skip
CONSTANTS = {
    "FRAMES": 4, "LANES": 32, "ROUNDS": 4, "WIDTH": 348, "SIDE": 64, "ROWS": 262, "LANDMARKS": 33,
    "COLUMNS": 80, "SIZE": 331, "PRESENT": 330, "MASKED": 338, "EDGE_FROM": 332, "PLACES": 512,
    "MASK": 192, "IMAGE": 0, "VISIBLE": 66, "WORLD": 99, "SPREAD": 198, "WEIGHT": 297, "VIEW": 330,
    "DEPTH": 340, "RESIDUAL": 64, "TOTAL_WEIGHT": 128, "SURFACE": 96, "DIM": 69, "BLOCK": 512,
    "STRIDE": 22, "IMAGE_SPREAD": 341,
}  # fmt: skip
NUMBERS = {
    "mask_sigma", "mask_weight", "robust", "depth_sigma", "use_world", "use_depth",
    "prior_weight", "limit_weight", "limit_sigma", "use", "turn_accel", "root_accel",
    "root_depth_accel", "across", "down",
}  # fmt: skip
TYPES = {"ancestors": "*i32", "begin": "i32", "table": "*fp64", "places": "*fp64"}
DRAWING = {
    "COUNT": 6890, "VALENCE": 9, "BLOCK": 32, "FACES": 13776, "LARGE": 512, "COLUMNS": 64,
    "FADES": True, "TILE": 32, "ROWS": 4, "table": "*i64", "samples": "*i64", "items": "*i32",
    "faces": "*i32", "neighbours": "*i32",
}  # fmt: skip


def compile_all(module: str, capability: int) -> None:
    """Runs in a process of its own, in which kernels are not interpreted."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    own = DRAWING if module == "render.kernels_gpu" else {}
    given, types = CONSTANTS | own, TYPES | own
    for name in KERNELS[module]:
        kernel = getattr(importlib.import_module(module), name)
        signature, constants = {}, {}
        for each in inspect.signature(kernel.fn).parameters.values():
            if "constexpr" in str(each.annotation):
                constants[each.name] = given[each.name]
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
