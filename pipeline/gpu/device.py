"""Which device computes, and how a GPU does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.weights.store import cache_folder


@dataclass(frozen=True)
class EngineOptions:
    """How a GPU computes.

    Attributes:
        engine: What runs the networks (`pipeline.gpu.engine.make_engine`): "auto", "triton",
            "tensorrt", "inductor" or "eager"; "eager" keeps torch's own kernels for the fit too.
        half: Run the networks in half precision.
        graphs: Replay networks and fit as CUDA graphs.
        cache: Where engines are kept that take long to build; None is the user's cache folder.
        fp8: Compute the products of SAM 3D Body's backbone in 8 bits.
    """

    engine: str = "auto"
    half: bool = True
    graphs: bool = True
    cache: Path | None = None
    fp8: bool = False

    @property
    def engines_folder(self) -> Path:
        """Where engines are kept."""
        return self.cache or cache_folder() / "engines"


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Args:
        name: "cpu", "cuda", or "auto" for the GPU where torch sees one.

    Raises:
        RuntimeError: "cuda" was asked for and torch sees no CUDA device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device: this torch sees none; use --device cpu, or see doctor")
    return torch.device(name)
