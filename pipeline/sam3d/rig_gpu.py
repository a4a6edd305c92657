"""The heads and the rig on a GPU: from the estimate token to keypoints in the image.

What `PoseHead`, `CameraHead`, `Skeleton` and `Crops` compute together, in five kernels and a few
products, all in float32. Of the rig's surface only the keypoints' vertices are computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from pipeline.sam3d import rig_kernels_gpu as kernels
from pipeline.sam3d.branch import HIPS, NEAREST_M, Branch, Estimate
from pipeline.sam3d.config import KEYPOINTS, POSE
from pipeline.sam3d.crops import Crops
from pipeline.sam3d.heads import (
    ANGLE_NUMBERS,
    ANGLE_PLACES,
    BODY,
    FACE,
    HAND,
    HAND_JOINTS,
    HANDS,
    RIGHT_HAND,
    ROTATION_6D,
    ROTATION_NUMBERS,
    ROTATION_PLACES,
    SCALE,
    SCALES,
    TRANSLATION_NUMBERS,
    TRANSLATION_PLACES,
    MhrParameters,
    PoseHead,
)
from pipeline.sam3d.layers import Mlp
from pipeline.sam3d.rig import FIRST_CORRECTING, JOINTS, PARAMETERS, SHAPE, Rig

_ROOT = 6
"""The rig's translation and global rotation; the body's parameters come behind them."""
_FIRST_SCALE = PARAMETERS - SCALES
_GLOBAL_PLACES = (5, 4, 3)
"""The network was trained with these angles in the other order."""
_SHAPE_FROM = ROTATION_6D + BODY
_SCALE_FROM = _SHAPE_FROM + SHAPE
_HANDS_FROM = _SCALE_FROM + SCALE


class Places(NamedTuple):
    """Where keypoints are.

    Attributes:
        in_crop: (B, 70, 2), from the crop's middle, in its sides.
        seen: (B, 70) int8, whether a keypoint is in the crop and before the camera.
        from_hips: (B, 70, 3) metres, from the middle of the hips.
    """

    in_crop: Tensor
    seen: Tensor
    from_hips: Tensor


class FastHeads:
    """The heads of one decoder and the rig. Arguments as of `Branch`."""

    def __init__(self, branch: Branch, rig: Rig) -> None:
        self._hand, self._factor = branch.hand, branch.scale_factor
        head, self._skeleton = branch.head_pose, rig.skeleton
        self._head = head
        self._first = _stacked_first(head.proj, branch.head_camera.proj)
        self._tables(head)
        self._fold_numbers(branch)
        last = cast("Any", branch.head_camera.proj.layers[1])
        self._camera = (last.weight, last.bias + branch.init_camera.weight[0])
        self._sparse_keypoints(head)

    def __call__(self, token: Tensor, crops: Crops) -> tuple[Estimate, Places]:
        """Return the estimate of the normed estimate token (B, C), and where its keypoints are."""
        count, width = token.shape
        hidden = F.linear(token, *self._first).relu_()
        both = F.linear(hidden[:, :width], *self._pose)
        camera = F.linear(hidden[:, width:], *self._camera)
        pose = both[:, :POSE]
        rig = self._parameters(both[:, POSE:])
        maps, turned, keypoints = self._keypoints(rig, pose[:, _SHAPE_FROM:_SCALE_FROM])
        new = token.new_empty
        translation, pixels = new(count, 3), new(count, KEYPOINTS, 2)
        places = Places(
            new(count, KEYPOINTS, 2),
            new(count, KEYPOINTS, dtype=torch.int8),
            new(count, KEYPOINTS, 3),
        )
        kernels.place[(count,)](
            keypoints, camera, crops.centres.contiguous(), crops.sides.contiguous(),
            crops.intrinsics.contiguous(), translation, pixels, *places,
            crops.side, self._factor, NEAREST_M, KEYPOINTS=KEYPOINTS, HIP=HIPS.start,
        )  # fmt: skip
        parameters = MhrParameters(
            rig,
            pose[:, _SHAPE_FROM:_SCALE_FROM],
            pose[:, _SCALE_FROM:_HANDS_FROM],
            pose[:, _HANDS_FROM : _HANDS_FROM + HANDS],
        )
        estimate = Estimate(pose, camera, parameters, translation, keypoints, pixels, maps, turned)
        return estimate, places

    def _parameters(self, numbers: Tensor) -> Tensor:
        """The rig's parameters (B, 204) of the folded numbers."""
        rig, head = numbers.new_zeros(len(numbers), PARAMETERS), self._head
        kernels.parameters[(len(numbers),)](
            numbers, numbers.stride(0), rig, self._keep, self._rotation_places, self._pair_places,
            self._plain_places, head.local_to_world_wrist, self._arm, head.root_coords,
            ROTATIONS=len(self._rotation_places), PAIRS=len(self._pair_places),
            PLAIN=len(self._plain_places), HAND=self._hand, PARAMETERS=PARAMETERS,
        )  # fmt: skip
        return rig

    def _keypoints(self, rig: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The joints' maps and rotations from rest, and the keypoints (B, 70, 3) in metres."""
        count, skeleton, surface = len(rig), self._skeleton, self._head.keypoint_surface
        new = rig.new_empty
        maps, turned = new(count, JOINTS, 4, 4), new(count, JOINTS, 3, 3)
        columns, skin = new(count, (JOINTS - FIRST_CORRECTING) * 6), new(count, JOINTS, 12)
        kernels.joints[(count,)](
            F.linear(rig, skeleton.transform), skeleton.offsets, skeleton.prerotations,
            skeleton.ancestors, surface.inverse_bind, maps, turned, columns, skin,
            JOINTS=JOINTS, ROUNDS=len(skeleton.ancestors), FIRST=FIRST_CORRECTING,
        )  # fmt: skip
        bent = F.linear(columns, surface.hidden).relu_()
        rest = F.linear(shape, surface.shape_vectors.flatten(0, 1), surface.base.flatten())
        rest = torch.addmm(rest, bent, surface.correctives.flatten(0, 1).t())
        keypoints = new(count, KEYPOINTS, 3)
        first, end = RIGHT_HAND if self._hand else (0, KEYPOINTS)
        kernels.keypoints[(count, KEYPOINTS)](
            rest, skin, maps, *self._vertices, *self._influences, *self._own_joints, keypoints,
            len(surface.base), first, end, JOINTS=JOINTS, KEYPOINTS=KEYPOINTS,
            VERTICES=self._vertices[0].shape[1], INFLUENCES=self._influences[0].shape[1],
            OWN=self._own_joints[0].shape[1],
        )  # fmt: skip
        return maps, turned, keypoints

    def _tables(self, head: PoseHead) -> None:
        """Where the rig's parameters come from: rotations, pairs of sine and cosine, and others."""
        rotations = [_GLOBAL_PLACES, *((_ROOT + k for k in each) for each in ROTATION_PLACES)]
        pairs = [_ROOT + k for k in ANGLE_PLACES]
        for indices in (head.hand_joint_idxs_left, head.hand_joint_idxs_right):
            angles = iter(indices.tolist())
            for count in HAND_JOINTS:
                own = [next(angles) for _ in range(count)]
                # Three angles are a rotation; one or two stand each for itself.
                rotations.extend([own] if count == 3 else [])
                pairs.extend([] if count == 3 else own)
        plain = [_ROOT + k for k in TRANSLATION_PLACES]
        plain += [_FIRST_SCALE + k for k in range(SCALES)]
        device = head.scale_mean.device
        self._rotation_places = torch.tensor([list(each) for each in rotations], device=device)
        self._pair_places = torch.tensor(pairs, device=device)
        self._plain_places = torch.tensor(plain, device=device)
        self._keep = torch.ones(PARAMETERS, device=device)
        if self._hand:
            self._keep[head.nonhand_param_idxs] = 0
        self._arm = head.right_wrist_coords - head.root_coords

    def _fold_numbers(self, branch: Branch) -> None:
        """One layer for the 519 numbers and all that follows from them by linear maps: the numbers
        of rotations, of pairs and of other parameters, in the order of the tables."""
        head = branch.head_pose
        # Maps from the 519 numbers; the last column is what is added.
        unit = F.pad(torch.eye(POSE, dtype=torch.float64, device=head.scale_mean.device), (0, 1))
        body = unit[ROTATION_6D:_SHAPE_FROM]
        rotations = [unit[:ROTATION_6D], body[ROTATION_NUMBERS]]
        pairs = [body[part] for part in ANGLE_NUMBERS]
        for first in (_HANDS_FROM, _HANDS_FROM + HAND):
            hand = _affine(head.hand_pose_comps, head.hand_pose_mean, unit[first : first + HAND])
            for part, count in zip(hand.split([2 * n for n in HAND_JOINTS]), HAND_JOINTS):
                (rotations if count == 3 else pairs).append(part)
        scales = _affine(head.scale_comps, head.scale_mean, unit[_SCALE_FROM:_HANDS_FROM])
        rows = torch.cat([*rotations, *pairs, body[TRANSLATION_NUMBERS], scales])
        last = cast("Any", head.proj.layers[1])
        weight, bias = last.weight.double(), (last.bias + branch.init_pose.weight[0]).double()
        # The face is not estimated.
        known = torch.ones_like(bias)
        known[-FACE:] = 0
        weight, bias = weight * known[:, None], bias * known
        linear, offset = rows[:, :-1], rows[:, -1]
        self._pose = (
            torch.cat([weight, linear @ weight]).float(),
            torch.cat([bias, linear @ bias + offset]).float(),
        )

    def _sparse_keypoints(self, head: PoseHead) -> None:
        """The keypoints' shares of vertices and joints, and the vertices' of joints, as tables."""
        self._vertices = _sparse(head.vertex_shares)
        self._own_joints = _sparse(head.joint_shares)
        self._influences = _sparse(head.keypoint_surface.weights)


def _stacked_first(*mlps: Mlp) -> tuple[Tensor, Tensor]:
    """Weight and bias of the first layers of several networks with the same input."""
    layers = [cast("Any", mlp.layers[0])[0] for mlp in mlps]
    return torch.cat([each.weight for each in layers]), torch.cat([each.bias for each in layers])


def _affine(matrix: Tensor, offset: Tensor, rows: Tensor) -> Tensor:
    """``numbers @ matrix + offset`` as rows of a map, where ``rows`` give the numbers."""
    mapped = matrix.double().t() @ rows
    return torch.cat([mapped[:, :-1], mapped[:, -1:] + offset.double()[:, None]], dim=1)


def _sparse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The columns and values (N, M) of a matrix's numbers that are not zero; M is a power of two,
    and rows with fewer of them end with zeros."""
    most = int((matrix != 0).sum(1).max())
    width, count = triton.next_power_of_2(max(most, 1)), matrix.shape[1]
    matrix = F.pad(matrix, (0, max(width - count, 0)))
    columns = matrix.abs().topk(width, dim=1).indices
    return columns.clamp_max(count - 1).contiguous(), matrix.gather(1, columns).contiguous()
