"""Folders as a release of SAM 3D Body is downloaded, with small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from pipeline.body.load import load_body
from pipeline.body.mhr_surface import smpl_rotations, surface_table
from pipeline.core.skeleton import LANDMARK_NAMES, MHR_70, blazepose_order
from pipeline.sam3d import checkpoint
from pipeline.sam3d.heads import HAND_JOINTS
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import SMPL_JOINTS
from pipeline.sam3d.release import CHECKPOINT, CONFIG, RIG
from tests.pipeline.sam3d.golden_rule import (
    PARENTS,
    REST_POSE,
    TINY,
    VERTICES,
    SyntheticRig,
    fill,
    rig_tensors,
)

_SKIN = "character_torch.linear_blend_skinning."
_PREROTATIONS = "character_torch.skeleton.joint_prerotations"
_BASE = "character_torch.blend_shape.base_shape"
_ZEROS = ("character_torch.blend_shape.shape_vectors", "pose_correctives_model.pose_dirs_predictor")
_REST_HAND = torch.cat(
    [REST_POSE[:6] if n == 3 else torch.tensor([0.0, 1.0]).repeat(n) for n in HAND_JOINTS]
)
_ROOT = 1
_MIDDLE_CM = 92.0
"""How high the root joint of the rig is."""
_CM_PER_M = 100.0


class Part(nn.Module):
    def forward(self, x):
        return x


def program_of(tensors: dict[str, Tensor]) -> nn.Module:
    """Return a module with tensors of these names, for TorchScript."""
    root = Part()
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Part())
            module = module._modules[part]
        module.register_buffer(leaf, value)
    return root


def settings(backbone: str = "dinov3_vith16plus", **decoder: Any) -> str:
    """Return the text of a release's settings."""
    values: dict[str, Any] = {}
    for name, value in checkpoint._SETTINGS.items():
        *path, leaf = name.split(".")
        at = values
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = value
    values["MODEL"]["DECODER"].update(decoder)
    values["MODEL"]["BACKBONE"] = {"TYPE": backbone, "DROP_PATH_RATE": 0.1}
    return yaml.safe_dump(values)


def write_release(folder: Path, weights: dict[str, Tensor], tensors: dict[str, Tensor]) -> Path:
    """Write a release with a network's weights and a rig's tensors; return its folder."""
    torch.save({"state_dict": weights, "epoch": 3}, folder / CHECKPOINT)
    (folder / CONFIG).write_text(settings())
    write_rig(folder / RIG, tensors)
    return folder


def write_rig(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write a rig's TorchScript file; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.script(program_of(tensors)), path)
    return path


def upright_network() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights and the rig of a network that sees the free body, upright with its arms
    stretched out, in every crop, as large as the crop allows: at widths of `TINY`."""
    points_m, keypoints = _free_body()
    network = Sam3dBody(TINY)
    fill(network)
    weights = network.state_dict()
    for name in ("head_pose", "head_camera"):
        weights[f"{name}.proj.layers.1.weight"].zero_()
        weights[f"{name}.proj.layers.1.bias"].zero_()
    weights["init_pose.weight"].copy_(REST_POSE)
    weights["head_pose.scale_mean"].zero_()
    weights["head_pose.hand_pose_mean"].copy_(_REST_HAND)
    mapping = weights["head_pose.keypoint_mapping"].zero_()
    mapping[torch.arange(len(MHR_70)), torch.from_numpy(keypoints)] = 1.0
    # The keypoints with `in_picture`'s margin fill the crop as the person's box did.
    size = np.ptp(points_m[keypoints, :2], axis=0)
    width, height = size + 0.1 * size.max()
    scale = 2 / (1.25 * max(height, 4 / 3 * width))
    middle = points_m[keypoints, 1].min() + size[1] / 2
    weights["init_camera.weight"].copy_(torch.tensor([[-scale, 0.0, -middle]]))
    return weights, _rigid_rig(points_m * _CM_PER_M)


def keypoint_vertices() -> np.ndarray:
    """Return which vertices (70,) of that rig are MHR's keypoints, none of them the skin's."""
    table = surface_table(load_body())
    assert table is not None, "the free body has one"
    return np.setdiff1d(np.arange(VERTICES), table.vertices)[-len(MHR_70) :]


def _free_body() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (18439, 3) in metres, y up, on points of the free body at rest; and which of them
    are MHR's 70 keypoints."""
    body = load_body()
    rest = body.v_template.numpy()
    landmarks = body.landmark_regressor.numpy() @ rest
    table = surface_table(body)
    assert table is not None, "the free body has one"
    points = np.zeros((VERTICES, 3), np.float32)
    # Points of the skin share corners, so all corners are found together.
    used, places = np.unique(table.vertices, return_inverse=True)
    shares = np.zeros((len(table.vertices), len(used)))
    np.put_along_axis(shares, places.reshape(table.vertices.shape), table.weights, axis=1)
    on_body = rest[table.body_vertices]
    # Near the points that they are corners of, so that the mesh is as tall as the body.
    near = shares.T @ on_body / np.maximum(shares.sum(0), 1e-6)[:, None]
    points[used] = near + np.linalg.lstsq(shares, on_body - shares @ near, rcond=None)[0]
    keypoints = keypoint_vertices()
    own, known = blazepose_order(MHR_70)
    points[keypoints[own[known]]] = landmarks[known]
    for row in set(range(len(MHR_70))) - set(own[known]):
        points[keypoints[row]] = landmarks[_stand_in(MHR_70.names[row])].mean(0)
    points[:, 1] -= rest[:, 1].min()
    return points, keypoints


def _stand_in(name: str) -> list[int]:
    """The landmarks in whose middle a keypoint of MHR that BlazePose lacks is put."""
    side = name.split("_")[0]
    parts = {
        "toe": "foot_index", "olecranon": "elbow", "fossa": "elbow", "acromion": "shoulder",
        "neck": "shoulder",
    }  # fmt: skip
    part = next((other for word, other in parts.items() if word in name), "wrist")
    sides = ("left", "right") if side == "neck" else (side,)
    return [LANDMARK_NAMES.index(f"{each}_{part}") for each in sides]


def _rest_turns() -> list[Rotation]:
    """How the rig's joints are turned at rest, so that SMPL's are not."""
    own = Rotation.from_matrix(smpl_rotations(np.tile(np.eye(3), (len(SMPL_JOINTS), 1, 1)))).inv()
    of_joint = dict(zip(SMPL_JOINTS, own))
    turns: list[Rotation] = []
    for joint, parent in enumerate(PARENTS):
        inherited = turns[parent] if parent >= 0 else Rotation.identity()
        turns.append(of_joint.get(joint, inherited))
    return turns


def _rigid_rig(points_cm: np.ndarray) -> dict[str, Tensor]:
    """A rig's tensors whose whole surface is fixed to the root."""
    tensors = rig_tensors(SyntheticRig(seed=0, hidden=8))
    for name, value in tensors.items():
        if name.startswith(_ZEROS) and value.is_floating_point():
            value.zero_()
    turns = _rest_turns()
    local = [
        turns[parent].inv() * turn if parent >= 0 else turn for turn, parent in zip(turns, PARENTS)
    ]
    tensors[_PREROTATIONS].copy_(torch.from_numpy(np.array([each.as_quat() for each in local])))
    tensors[_BASE].copy_(torch.from_numpy(points_cm))
    back = turns[_ROOT].inv()
    bind = [*back.apply([0, -_MIDDLE_CM, 0]), *back.as_quat(), 1]
    tensors[f"{_SKIN}inverse_bind_pose"][_ROOT] = torch.tensor(bind)
    tensors[f"{_SKIN}skin_indices_flattened"].fill_(_ROOT)
    return tensors
