"""Import the original SAM 3D Body from a clone, without the packages that only its training needs.

None of its code is here: the clone is the user's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

_MOMENTUM = "MOMENTUM_ENABLED"
"""With this variable set, the original loads its rig as TorchScript, without momentum."""
_CLONES = {"sam_3d_body", "dinov3"}
_NEEDED = {"torchvision": "torchvision", "einops": "einops", "roma": "roma", "PIL": "pillow"}
"""Modules that its inference uses, and the packages that they come in."""


def missing(folder: Path | None, backbone: str) -> str | None:
    """Return why the original cannot be run, in a few words; None if it can.

    Args:
        folder: The clone of facebookresearch/sam-3d-body; None where none was given.
        backbone: "dinov3" or "vith".
    """
    if folder is None:
        return "needs --upstream DIR"
    if not (folder / "sam_3d_body" / "__init__.py").is_file():
        return f"{folder} has no sam_3d_body: give a clone of facebookresearch/sam-3d-body"
    if backbone == "dinov3" and _dinov3(folder) is None:
        return f"needs DINOv3: clone facebookresearch/dinov3 to {folder / 'dinov3'}"
    for module, package in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            return f"needs {module}: pip install {package}"
    return None


@contextmanager
def original(folder: Path) -> Iterator[Callable[[str], Any]]:
    """Give a function that imports the clone's modules by name, within a ``with`` block.

    After it ``sys.modules``, the path and the environment are as before, apart from packages that
    the original needs too. What was imported goes on working.

    Args:
        folder: The clone; `missing` found nothing.
    """
    stand_ins = _stand_ins()
    roots = _CLONES | {name.partition(".")[0] for name in stand_ins}
    path, hub, momentum = list(sys.path), torch.hub.load, os.environ.get(_MOMENTUM)
    before = _taken_out(roots)
    sys.modules.update(stand_ins)
    sys.path[:0] = [str(folder), *filter(None, [_dinov3(folder)])]
    os.environ[_MOMENTUM] = "0"
    torch.hub.load = _load_dinov3
    importlib.invalidate_caches()
    try:
        yield importlib.import_module
    finally:
        torch.hub.load = hub
        os.environ.pop(_MOMENTUM)
        if momentum is not None:
            os.environ[_MOMENTUM] = momentum
        sys.path[:] = path
        _taken_out(roots)
        sys.modules.update(before)


def _dinov3(folder: Path) -> str | None:
    """Return the clone of DINOv3 inside the folder, beside it, or where torch.hub put it."""
    hub = Path(torch.hub.get_dir()) / "facebookresearch_dinov3_main"
    places = (folder / "dinov3", folder.absolute().parent / "dinov3", hub)
    return next((str(place) for place in places if (place / "dinov3" / "hub").is_dir()), None)


def _load_dinov3(*names: Any, **_: Any) -> Any:
    """Build the network of that name from the clone of DINOv3; torch.hub would download it."""
    return getattr(importlib.import_module("dinov3.hub.backbones"), names[1])(pretrained=False)


def _taken_out(roots: set[str]) -> dict[str, ModuleType]:
    """Return the loaded modules of packages, and forget that they are loaded."""
    names = [name for name in sys.modules if name.partition(".")[0] in roots]
    return {name: sys.modules.pop(name) for name in names}


class _Module(nn.Module):
    """What inference uses of a ``LightningModule``."""

    def save_hyperparameters(self, **_: object) -> None:
        """Keep nothing: no checkpoint is written."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class _StandIn(ModuleType):
    """A package of which only names are needed."""

    __path__: list[str] = []

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def _stand_ins() -> dict[str, ModuleType]:
    """Return modules by name for packages of training, configuration files and augmentation."""
    lightning = {"LightningModule": _Module, "callbacks": _StandIn("callbacks")}
    helpers = {
        "trunc_normal_": nn.init.trunc_normal_,
        "to_2tuple": lambda value: value if isinstance(value, tuple) else (value, value),
        # It drops paths in training only.
        "drop_path": lambda values, *_: values,
    }
    names: dict[str, dict[str, Any]] = {
        "pytorch_lightning": lightning,
        "pytorch_lightning.loggers": {},
        "pytorch_lightning.utilities": {"rank_zero_only": lambda function: function},
        "yacs": {},
        "yacs.config": {},
        "omegaconf": {},
        "omegaconf.errors": {},
        "braceexpand": {},
        # Newer versions of timm have its helpers under another name.
        "timm": {},
        "timm.models": {},
        "timm.models.layers": helpers,
    }
    return {name: _StandIn(name, **given) for name, given in names.items()}
