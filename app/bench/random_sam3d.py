"""SAM 3D Body at full size with random weights, and a made-up rig of MHR's size.

They time `--estimator sam3d` without the released files. Only the first guess is not random: it is
a standing person, so that people are followed and fitted as in a real run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from app.bench.networks import standing
from pipeline.core.skeleton import MHR_70
from pipeline.sam3d.config import CONFIGS, KEYPOINTS
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig import JOINTS, PARAMETERS, RIG_TENSORS, SHAPE, VERTICES, Rig

_HIDDEN, _SPARSE, _INFLUENCES = 3000, 53136, 51337
"""Sizes of the released rig's correctives and skin."""
_DEEPEST = 15
"""Joints of its longest chain."""
_HALF_HEIGHT_CM = 85.0
_HAND_ANGLES = range(68, 122)
"""Places of the hands' angles in the rig's parameters."""


def random_sam3d(backbone: str, device: torch.device | str, seed: int = 0) -> Sam3dBody:
    """Return the network, ready for inference.

    Args:
        backbone: "dinov3" or "vith".
        device: Where it computes. On a GPU the backbone is in half precision, as the release.
        seed: Seed of the weights.
    """
    network, tensors = random_parts(backbone, device, seed)
    if torch.device(device).type == "cuda":
        network.backbone.to(torch.bfloat16)
    # The rig makes tables of its own, which have to be where its tensors are.
    with torch.device(device):
        rig = Rig(tensors)
    return network.prepare(rig)


@torch.no_grad()
def random_parts(
    backbone: str, device: torch.device | str, seed: int = 0
) -> tuple[Sam3dBody, dict[str, Tensor]]:
    """Return the network in single precision before `Sam3dBody.prepare`, and the tensors of its rig
    by their names in `RIG_TENSORS`. Arguments as `random_sam3d`."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        network = Sam3dBody(CONFIGS[backbone])
        for part in network.backbone.modules():
            for name, value in part.named_parameters(recurse=False):
                if name == "gamma":
                    value.fill_(0.1)
                elif "token" in name or name == "pos_embed":
                    nn.init.normal_(value, std=0.02)
        for ending in ("", "_hand"):
            _guess_a_standing_person(network, ending)
        return network, _rig_tensors(device)


def _guess_a_standing_person(network: Sam3dBody, ending: str) -> None:
    head, camera = getattr(network, f"head_pose{ending}"), getattr(network, f"head_camera{ending}")
    for each in (head, camera):
        each.proj.layers[-1].weight.mul_(1e-2)
        each.proj.layers[-1].bias.zero_()
    upright = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(24)
    straight = torch.tensor([0.0, 1.0]).repeat(58)
    guess = torch.zeros(519)
    guess[: len(upright) + len(straight)] = torch.cat([upright, straight])
    getattr(network, f"init_pose{ending}").weight.copy_(guess)
    # The crop spans 2 m at scale 1, and the person with its margin 2 m times 1.25 * 0.85.
    scale = -0.1 if ending else -1 / (1.25 * 0.85)
    getattr(network, f"init_camera{ending}").weight.copy_(torch.tensor([scale, 0.0, 0.0]))
    head.keypoint_mapping[:KEYPOINTS, VERTICES + 1 : VERTICES + 1 + KEYPOINTS] = torch.eye(
        KEYPOINTS
    )
    # A few vertices take part in the keypoints, as in the release.
    vertices = torch.randint(0, VERTICES, (KEYPOINTS, 5))
    head.keypoint_mapping[torch.arange(KEYPOINTS)[:, None], vertices] = 1e-6
    left, right = torch.tensor(list(_HAND_ANGLES)).chunk(2)
    head.hand_joint_idxs_left.copy_(left)
    head.hand_joint_idxs_right.copy_(right)
    head.joint_rotation.copy_(torch.eye(3))
    head.local_to_world_wrist.copy_(torch.eye(3))
    head.nonhand_param_idxs.copy_(
        torch.tensor([*range(6, 68), *range(_HAND_ANGLES.stop - 1, PARAMETERS)])
    )


def _rig_tensors(device: torch.device) -> dict[str, Tensor]:
    """The tensors of a rig whose first joints stand where a person's keypoints are."""
    places = torch.zeros(JOINTS, 3)
    flat = torch.from_numpy(standing(MHR_70)).float() * _HALF_HEIGHT_CM
    places[1 : 1 + KEYPOINTS, 0] = flat[:, 0]
    places[1 : 1 + KEYPOINTS, 1] = -flat[:, 1]
    # The joints behind the keypoints' are a chain as long as the rig's longest.
    first = 1 + KEYPOINTS
    parents = [-1, *[0] * KEYPOINTS]
    parents += [0 if (k - first) % _DEEPEST == 0 else k - 1 for k in range(first, JOINTS)]
    transform = torch.zeros(JOINTS * 7, PARAMETERS + SHAPE)
    for k in range(3):
        transform[k, k] = 1.0
        transform[3 + k, 3 + k] = 1.0
    rotations = torch.randint(7, JOINTS * 7, (130,))
    transform[rotations, torch.arange(6, 136)] = 0.1
    vertices = torch.cat([torch.arange(VERTICES), torch.randint(0, VERTICES, (32898,))])
    joints = torch.randint(0, JOINTS, (_INFLUENCES,))
    shares = 1 / torch.bincount(vertices, minlength=VERTICES).float()
    bind = torch.zeros(JOINTS, 8)
    bind[:, :3] = -places
    bind[:, 6:] = 1
    turns = torch.zeros(JOINTS, 4)
    turns[:, 3] = 1
    cells = torch.randperm(_HIDDEN * 750)[:_SPARSE]
    values = (
        places[torch.randint(1, 1 + KEYPOINTS, (VERTICES,))] + 4 * torch.randn(VERTICES, 3),
        0.2 * torch.randn(SHAPE, VERTICES, 3),
        transform,
        places.clone(),
        turns,
        torch.tensor(parents),
        bind,
        joints,
        shares[vertices],
        vertices,
        torch.stack([cells // 750, cells % 750]),
        0.3 * torch.randn(_SPARSE),
        torch.randn(VERTICES * 3, _HIDDEN) * (0.2 / math.sqrt(_HIDDEN)),
    )
    return {name: value.to(device) for name, value in zip(RIG_TENSORS, values, strict=True)}
