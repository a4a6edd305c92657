"""Triton's kernels compile for GPUs, which needs none: the interpreter takes what a compiler does
not, as variables that change their shape from branch to branch."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")
KERNELS = {
    "pipeline.fitting.kernels_gpu": ("pose", "points", "motion"),
    "pipeline.fitting.system_kernels_gpu": ("system", "eliminate", "take", "solve"),
    "pipeline.fitting.edge_kernels_gpu": ("edges",),
    "pipeline.fitting.lifter_kernels_gpu": ("network",),
    "pipeline.fitting.prepare_kernels_gpu": ("remember", "observe", "poses", "guess"),
    "pipeline.fitting.finish_kernels_gpu": ("finish",),
    "pipeline.body.mesh_gpu": ("mesh", "regress"),
    "pipeline.perception.blazepose.landmarks_gpu": ("read",),
    "pipeline.perception.blazepose.tflite_kernels_gpu": ("convolution", "depthwise", "enlarge"),
    "pipeline.perception.ultralytics_models.sam_kernels_gpu": ("_position_terms", "_attention"),
    "pipeline.gpu.yuv_gpu": ("_to_rgb", "_to_planes"),
    "render.kernels_gpu": ("copy", "place", "fill_small", "fill_large", "resolve"),
}  # fmt: skip
CONSTANTS = {
    "FRAMES": 4, "LANES": 32, "ROUNDS": 4, "WIDTH": 348, "SIDE": 64, "ROWS": 262, "SIZE": 331,
    "PRESENT": 330, "MASKED": 338, "EDGE_FROM": 332, "PLACES": 165, "IMAGE": 0, "VISIBLE": 66,
    "WORLD": 99, "SPREAD": 198, "WEIGHT": 297, "VIEW": 330, "DEPTH": 340, "SURFACE": 96,
    "SKIN": 256, "DIM": 69, "BLOCK": 1024, "IMAGE_SPREAD": 341, "MOVES": True, "COST": 163,
    "ENDS": 2, "FINAL": False, "STATE": 1024,
}  # fmt: skip
NUMBERS = {
    "mask_sigma", "mask_weight", "robust", "depth_sigma", "use_world", "use_depth",
    "prior_weight", "limit_weight", "limit_sigma", "use_prior", "use_smoothness",
    "smooth_robust", "turn_accel", "root_accel", "root_depth_accel",
    "across", "down",
    "ry", "ru", "rv", "r1", "gy", "gu", "gv", "g1", "by", "bu", "bv", "b1",
    "yr", "yg", "yb", "y1", "ur", "ug", "ub", "u1", "vr", "vg", "vb", "v1",
}  # fmt: skip
TYPES = {"ancestors": "*i32", "begin": "i32", "table": "*fp64", "places": "*fp64"}
PLANES = {"planes": "*u8", "images": "*u8", "height": "i32", "width": "i32", "size": "i32"}
DRAWING = {
    "COUNT": 6890, "VALENCE": 9, "BLOCK": 32, "FACES": 13776, "LARGE": 512, "COLUMNS": 64,
    "FADES": True, "TILE": 32, "ROWS": 4, "table": "*i64", "samples": "*i64", "items": "*i32",
    "faces": "*i32", "neighbours": "*i32",
}  # fmt: skip
LAYERS = dict.fromkeys(
    ("batch_pixels", "in_height", "in_width", "out_height", "out_width", "channels8", "outputs",
     "padded", "added", "stride", "top", "left", "height", "width"), "i32",
) | dict.fromkeys(
    ("low", "high", "deep_low", "deep_high", "min_heat", "unit"), "fp32",
) | dict.fromkeys(("image", "weights", "bias", "addend", "out"), "*fp16") | {
    "KIND": 2, "SIDE": 3, "ROWS": 16, "COLUMNS": 32, "DEPTH": 32, "LANDMARKS": 39, "KERNEL": 7,
    "PIXELS": 16384, "CHUNK": 1024, "WIDTH": 16619, "MASK_AT": 235, "LANES": 64,
}  # fmt: skip
AROUND_THE_SOLVER = {
    "LANDMARKS": 33, "COLUMNS": 80,
    "STRIP": 8, "REACH": 3, "LAYERS": 3, "WINDOW": 4, "FEATURES": 201, "HEAD": 32, "ROW": 256,
    "CONTEXT": 16, "KNOWN": 350, "SIGMA": 351, "SKIN": 352, "POINTS": 256, "USE_LIFTER": True,
    "USE_DEPTH": True, "POSE": 207, "MESHES": 2, "INFLUENCES": 4, "HAS_POSE": True, "ROWS": 4,
    "SURFACE": 256, "BLOCK": 128, "order": "*i32", "limbs": "*i32", "sources": "*i32",
    "picked": "*i32", "skin": "*i32",
} | dict.fromkeys(
    ("row", "memory_row", "interval_row", "result_row", "mesh_row", "weight_row", "tries",
     "vertices", "frames"), "i32",
) | dict.fromkeys(
    ("blur", "total", "image_sigma", "default_sigma_m", "default_depth_sigma_m", "model_sigma_m",
     "surface_model_m", "shape_weight", "perceived_share", "barely_visible", "still_m",
     "most_log_size", "use_prior", "shape_limit", "gain", "frozen", "hold_shape", "fade",
     "half_speed", "most", "nearest"), "fp32",
)  # fmt: skip
ATTENTION = dict.fromkeys(("qkv", "tables", "terms", "bias", "out"), "*fp16") | {
    "HEADS": 16, "CHANNELS": 80, "LINE": 64, "KEYS": 64, "DEPTH": 128, "LOW": 64, "HIGH": 16,
    "height": "i32", "width": "i32", "scale": "fp32",
}  # fmt: skip
NETWORK = {"FRAMES": 16, "WIDTH": 192, "weights": "*fp16"}
OWN = {
    "pipeline.fitting.system_kernels_gpu": {"slot": "i32", "frozen_step": "i32"},
    "pipeline.fitting.edge_kernels_gpu": AROUND_THE_SOLVER,
    "pipeline.fitting.lifter_kernels_gpu": AROUND_THE_SOLVER | NETWORK,
    "pipeline.fitting.prepare_kernels_gpu": AROUND_THE_SOLVER,
    "pipeline.fitting.finish_kernels_gpu": AROUND_THE_SOLVER,
    "pipeline.body.mesh_gpu": AROUND_THE_SOLVER | {"WIDTH": 256, "joints": "*i32"},
    "pipeline.perception.blazepose.landmarks_gpu": LAYERS,
    "pipeline.perception.blazepose.tflite_kernels_gpu": LAYERS,
    "pipeline.perception.ultralytics_models.sam_kernels_gpu": ATTENTION,
    "pipeline.gpu.yuv_gpu": PLANES,
    "render.kernels_gpu": DRAWING,
}
"""Constants and types that differ in these modules."""
VARIANTS = {
    "eliminate": ({"IS_END": True}, {"IS_END": False}),
    "take": ({"FIRST": True}, {"FIRST": False}),
    "solve": ({"FINAL": False}, {"FINAL": True}),
    "_attention": (
        {"IS_ROW": True, "SIDE": 64, "QUERIES": 64, "TERMS": 64},
        {"IS_ROW": False, "SIDE": 14, "QUERIES": 64, "TERMS": 32},
        {"IS_ROW": False, "SIDE": 14, "QUERIES": 64, "TERMS": 32, "CHANNELS": 64, "HIGH": 0},
    ),
}
"""Constants of kernels that are compiled for more than one of them."""


_THREE_DIGITS = re.compile(r"inputPrecision = tf32 : tensor<[^>]*xf32>")
"""A product of single precision whose factors are rounded to TF32."""


def compile_all(module: str, capability: int) -> None:
    """Runs in a process of its own, in which kernels are not interpreted."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from triton_launch import DirectKernel

    own = OWN.get(module, {})
    given, types = CONSTANTS | own, TYPES | own
    for name in KERNELS[module]:
        kernel = getattr(importlib.import_module(module), name)
        kernel = kernel.jit if isinstance(kernel, DirectKernel) else kernel
        for variant in VARIANTS.get(name, ({},)):
            signature, constants = {}, {}
            for each in inspect.signature(kernel.fn).parameters.values():
                if "constexpr" in str(each.annotation):
                    constants[each.name] = (given | variant)[each.name]
                    signature[each.name] = "constexpr"
                else:
                    number = "fp32" if each.name in NUMBERS else "*fp32"
                    signature[each.name] = types.get(each.name, number)
            source = ASTSource(kernel, signature, constants)
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert made.asm["cubin"], name
            # Triton makes such products of some sums as well, where none was asked for.
            assert not _THREE_DIGITS.search(made.asm["ttir"]), f"{name} rounds to three digits"
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
