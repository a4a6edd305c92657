"""Load the released checkpoints and the rig: strictly, and without running anything in them.

The first time a checkpoint is read, its weights are written to a safetensors file in the cache, in
the precision that the release computes with: the backbone in bfloat16, all else in float32.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core.user_file import read_text, reading
from pipeline.sam3d.config import CONFIGS
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.release import ReleaseFiles
from pipeline.sam3d.rig import Rig
from pipeline.weights.store import cache_folder
from pipeline.weights.torch_file import CheckpointError, load_exactly, read_script, read_state

_FORMAT = "1"
"""Changes when converted files have to be made again."""

_NOT_USED = re.compile(
    r"backbone\.encoder\.mask_token"
    r"|head_pose(_hand)?\.hand_pose_comps_ori"
    r"|head_pose(_hand)?\.mhr\..+"
)
"""Weights that the original's module has, and that do nothing in inference or are the rig's. The
releases have none of them, but a file that was saved from that module does."""
_FIRST_WEIGHT = {
    "dinov3": "backbone.encoder.patch_embed.proj.weight",
    "vith": "backbone.patch_embed.proj.weight",
}
_BACKBONES = {"dinov3_vith16plus": "dinov3", "vit_hmr_512_384": "vith"}
_FLOAT32_IN_BACKBONE = {"dinov3": re.compile(r"(?!)"), "vith": re.compile(r".*norm\d?\.\w+")}
"""Weights of the backbone that stay in float32."""

_SETTINGS: Mapping[str, Any] = {
    "MODEL.IMAGE_SIZE": [512, 512],
    "MODEL.IMAGE_MEAN": [0.485, 0.456, 0.406],
    "MODEL.IMAGE_STD": [0.229, 0.224, 0.225],
    "MODEL.DECODER.TYPE": "sam",
    "MODEL.DECODER.DIM": 1024,
    "MODEL.DECODER.DEPTH": 6,
    "MODEL.DECODER.HEADS": 8,
    "MODEL.DECODER.DIM_HEAD": 64,
    "MODEL.DECODER.MLP_DIM": 1024,
    "MODEL.DECODER.LAYER_SCALE_INIT": 0,
    "MODEL.DECODER.FFN_TYPE": "origin",
    "MODEL.DECODER.ENABLE_TWOWAY": False,
    "MODEL.DECODER.REPEAT_PE": True,
    "MODEL.DECODER.CONDITION_TYPE": "cliff",
    "MODEL.DECODER.USE_INTRIN_CENTER": True,
    "MODEL.DECODER.DO_INTERM_PREDS": True,
    "MODEL.DECODER.DO_KEYPOINT_TOKENS": True,
    "MODEL.DECODER.DO_KEYPOINT3D_TOKENS": True,
    "MODEL.DECODER.DO_HAND_DETECT_TOKENS": True,
    "MODEL.DECODER.KEYPOINT_TOKEN_UPDATE": "v2",
    "MODEL.PROMPT_ENCODER.ENABLE": True,
    "MODEL.PROMPT_ENCODER.PROMPT_KEYPOINTS": "mhr70",
    "MODEL.PROMPT_ENCODER.MASK_EMBED_TYPE": "v2",
    "MODEL.PROMPT_ENCODER.MASK_PROMPT": "v1",
    "MODEL.PERSON_HEAD.POSE_TYPE": "mhr",
    "MODEL.PERSON_HEAD.CAMERA_TYPE": "perspective",
    "MODEL.CAMERA_HEAD.DEFAULT_SCALE_FACTOR_HAND": 10,
}
"""Settings of the release that change what is computed: their names and the only values that this
implementation has. Most do not show in the shapes of weights."""


def load_sam3d(
    files: ReleaseFiles, device: torch.device, cache: Path | None = None, half: bool = True
) -> Sam3dBody:
    """Return the network with its rig, ready for inference.

    Args:
        files: The files of one release.
        device: Where it shall compute.
        cache: The folder for converted weights; None: ``sam3d`` in the cache of model files.
        half: Whether the backbone computes in bfloat16, as the release does. In float32 nothing is
            converted or kept; that is for comparisons.

    Raises:
        CheckpointError: A file is wrong or damaged, belongs to another release than the others, or
            needs a package that is not installed. The message is one line.
        OSError: A file cannot be read, or the cache cannot be written.
    """
    said = None if files.config is None else read_backbone(files.config)
    if half:
        network = _load_network(files.checkpoint, cache or cache_folder() / "sam3d")
    else:
        network = _read_network(files.checkpoint, half)
    name = network.config.backbone
    if said not in (None, name):
        raise CheckpointError(
            f"{files.checkpoint} has the weights of {name}, but {files.config} is of {said}: "
            "take both from one release"
        )
    return network.to(device).prepare(read_rig(files.rig).to(device))


def read_rig(path: Path) -> Rig:
    """Return the rig of a file, on the CPU. The program in the file is not run.

    Raises:
        CheckpointError: It is no such file, is damaged or has another rig.
        OSError: It cannot be read.
    """
    with reading(path, "", CheckpointError):
        tensors = read_script(path)
        return Rig({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})


def read_backbone(path: Path) -> str:
    """Return which backbone the settings of a release name: a key of `CONFIGS`.

    Raises:
        CheckpointError: It is no file of settings, or has one that this implementation does not.
        OSError: It cannot be read.
    """
    try:
        import yaml
    except ImportError as error:
        raise CheckpointError("PyYAML is not installed; pip install 'bodystream[sam3d]'") from error
    with reading(path, " is no file of settings of SAM 3D Body", CheckpointError):
        settings = yaml.safe_load(read_text(path))
        for name, expected in _SETTINGS.items():
            value = _setting(settings, name)
            # What is not there has the original's default, which the weights then show or not.
            if value is not None and value != expected:
                raise CheckpointError(
                    f"{path}: {name} is {_shown(value)}; only {expected!r} is supported"
                )
        backbone = _setting(settings, "MODEL.BACKBONE.TYPE")
        if not isinstance(backbone, str) or backbone not in _BACKBONES:
            known = ", ".join(_BACKBONES)
            raise CheckpointError(
                f"{path}: MODEL.BACKBONE.TYPE is {_shown(backbone)}, not one of {known}"
            )
        return _BACKBONES[backbone]


def _shown(value: Any) -> str:
    """A value for a message. An alias in a small file can stand for a value without end."""
    return reprlib.repr(value)[:60]


def _setting(settings: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(settings, dict):
            raise CheckpointError(f"{name} is not there")
        settings = settings.get(part)
    return settings


def _load_network(path: Path, cache: Path) -> Sam3dBody:
    """The network with the weights of a checkpoint, out of the cache if they are there."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise CheckpointError(
            "safetensors is not installed; pip install 'bodystream[sam3d]'"
        ) from error
    converted = cache / f"{_key(path)}.safetensors"
    kept = _read_converted(converted)
    if kept is not None:
        return _network_of(kept, converted, half=True)
    network = _read_network(path, half=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as folder:
        part = Path(folder) / converted.name
        save_file(network.state_dict(), part)
        part.replace(converted)
    return network


def _read_network(path: Path, half: bool) -> Sam3dBody:
    """The network with the weights of a checkpoint."""
    with reading(path, "", CheckpointError):
        state = {n: t for n, t in read_state(path).items() if not _NOT_USED.fullmatch(n)}
        return _network_of(state, path, half)


def _read_converted(path: Path) -> dict[str, Tensor] | None:
    """The weights of a converted file; None if there is none, or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError:
        path.unlink()
        return None


def _network_of(state: Mapping[str, Tensor], path: Path, half: bool) -> Sam3dBody:
    """The network with these weights, each in its precision."""
    backbone = next((name for name, first in _FIRST_WEIGHT.items() if first in state), None)
    if backbone is None:
        raise CheckpointError(f"{path} has not the weights of SAM 3D Body")
    with torch.device("meta"):
        network = Sam3dBody(CONFIGS[backbone])
    weights = {
        name: _in_precision(name, value, backbone) if half else _in_float32(value)
        for name, value in state.items()
    }
    load_exactly(network, weights, f"SAM 3D Body ({backbone})", assign=True)
    return network


def _key(path: Path) -> str:
    """A name for the converted file, which changes when the checkpoint does."""
    status = path.stat()
    text = f"{_FORMAT}|{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _in_precision(name: str, value: Tensor, backbone: str) -> Tensor:
    in_half = name.startswith("backbone.") and not _FLOAT32_IN_BACKBONE[backbone].fullmatch(name)
    return value.to(torch.bfloat16) if in_half else value


def _in_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
