"""Better hands: each is looked at in a crop of its own and joined with the body.

Both hands go through the decoder for right hands, the left one mirrored. A hand that agrees with
the body becomes a prompt for a second pass of the body's decoder, and then replaces the body's
hand. Its wrist is bent so that the hand has the rotation that its own crop shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.sam3d.branch import Branch, Estimate
from pipeline.sam3d.crops import HAND_PADDING, Crops, crops_of_boxes
from pipeline.sam3d.prompt_encoder import NO_PROMPT
from pipeline.sam3d.rig import Rig
from pipeline.sam3d.wrists import angle_between, rotation_of_xzy, within_limits, xzy_of_rotation

# Left, then right. Joints of the rig:
_LOWER_ARMS, _WRIST_TWISTS = (76, 40), (77, 41)
_RIGHT_WRIST_JOINT = 42
# Keypoints of MHR-70:
_WRISTS, _ELBOWS = (62, 41), (7, 8)
_RIGHT_WRIST = 41
# Angles of the wrists among the rig's parameters, about x, z and y:
_WRIST_ANGLES = ((47, 49, 48), (37, 39, 38))
# Scales of the hands, and where scales and shapes begin that both hands share:
_HAND_SCALES = (9, 8)
_SHARED_SCALE, _SHARED_SHAPE = 18, 40
_BODY = slice(6, 136)


@dataclass(frozen=True)
class HandLimits:
    """When a hand replaces the body's.

    Attributes:
        bent_rad: The angle between its rotation and the one that the body's pass gives it is below
            this.
        side_px: Its crop's side is above this, image pixels.
        spread: All its keypoints are nearer to its crop's middle than this, in sides, in x and y.
        apart: Its wrist is nearer to the body's than this, in sides of a hand's crop.
    """

    bent_rad: float = 1.4
    side_px: float = 64
    spread: float = 0.5
    apart: float = 0.25


_DEFAULT_LIMITS = HandLimits()


@dataclass(frozen=True, eq=False)
class Hands:
    """Both hands, left then right, as the body has them. Each attribute begins with (B, 2).

    Attributes:
        sides: Sides of the crops, image pixels.
        spread: The largest distance of a keypoint from the crop's middle in x or y, in sides.
        wrists_px: (x, y) of the wrist in the image.
        rotations: (3, 3) of the wrist, in the rig's axes.
        pose: (54,) of the hand.
        scale: (28,).
        shape: (45,).
    """

    sides: Tensor
    spread: Tensor
    wrists_px: Tensor
    rotations: Tensor
    pose: Tensor
    scale: Tensor
    shape: Tensor


class Decoders(Protocol):
    """The part of `Sam3dBody` that is needed here."""

    body: Branch
    rig: Rig

    def look(self, features: Tensor, crops: Crops, *, hand: bool) -> Any:
        """Return what a decoder needs of crops."""
        ...

    def decode(
        self,
        looked: Any,
        prompts: Tensor | None = None,
        previous: Estimate | None = None,
        hand: bool = False,
    ) -> Estimate:
        """Return the estimate of a decoder."""
        ...


Look = Callable[[Crops], Tensor]
"""Returns the backbone's features of 2 B crops, the first half of them of the B bodies' pictures
mirrored from left to right, the others of the same pictures as they are."""


def with_hands(
    network: Decoders,
    looked: Any,
    body: Estimate,
    widths: Tensor,
    look: Look,
    limits: HandLimits = _DEFAULT_LIMITS,
) -> Estimate:
    """Return the estimate of bodies, with hands from crops of their own where these agree with it.

    Args:
        network: The network's decoders.
        looked: What they made of the body's image features.
        body: The estimate from them.
        widths: (B,) of each body's picture, pixels.
        look: Looks at the crops of hands.
        limits: Which hands are taken.
    """
    hands = look_at_hands(network, looked.crops, body, widths, look)
    bent = rotation_of_xzy(_xzy(body.parameters.rig))
    local = _local_rotations(network, body, hands)
    valid = _agree(body, hands, limits) & (angle_between(bent, local) < limits.bent_rad)
    second = network.decode(looked, _prompts(looked.crops, body, hands, valid), body)
    return _join(network, looked.crops, second, hands, valid, bent, limits)


def look_at_hands(
    network: Decoders, crops: Crops, body: Estimate, widths: Tensor, look: Look
) -> Hands:
    """Return both hands, each from a crop of its own. Arguments as of `with_hands`."""
    last = widths - 1
    left, right = _hand_boxes(crops, body).unbind(1)
    x0, y0, x1, y1 = left.unbind(1)
    mirrored = torch.stack([last - x1, y0, last - x0, y1], dim=1)
    views = [
        crops_of_boxes(boxes, crops.intrinsics, crops.side, HAND_PADDING)
        for boxes in (mirrored, right)
    ]
    both = replace(
        views[0],
        centres=torch.cat([view.centres for view in views]),
        sides=torch.cat([view.sides for view in views]),
        intrinsics=torch.cat([view.intrinsics for view in views]),
    )
    features = look(both)
    return _unmirrored(
        network, both, network.decode(network.look(features, both, hand=True), hand=True), last
    )


def _hand_boxes(crops: Crops, body: Estimate) -> Tensor:
    """Squares (B, 2, 4) around both hands in the image."""
    assert body.hand_boxes is not None
    boxes = body.hand_boxes * crops.side
    centres = crops.to_image(boxes[..., :2])
    half = boxes[..., 2:].amax(-1, keepdim=True) / crops.scales[:, None, None] / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def _unmirrored(network: Decoders, crops: Crops, both: Estimate, last: Tensor) -> Hands:
    """The hands as the body has them, of right hands (2 B) whose first half is mirrored."""

    def pair(left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([left, right], dim=1)

    rotations = _rotations(both, _RIGHT_WRIST_JOINT).chunk(2)
    top, *others = rotations[0].unbind(1)
    left_rotation = torch.stack([top, *(-row for row in others)], dim=1)
    left_wrist, right_wrist = both.keypoints_px[:, _RIGHT_WRIST].chunk(2)
    left_x, left_y = left_wrist.unbind(-1)
    places = crops.from_image(both.keypoints_px) / crops.side - 0.5
    mean, gain = network.body.head_pose.scale_mean, network.body.head_pose.scale_comps
    left_scale, right_scale = both.parameters.scale.chunk(2)
    of_left, of_right = _HAND_SCALES
    scale = mean[of_right] + gain[of_right, of_right] * left_scale[:, of_right]
    scale = (scale - mean[of_left]) / gain[of_left, of_left]
    left_scale = torch.cat(
        [left_scale[:, :of_left], scale[:, None], left_scale[:, of_left + 1 :]], dim=1
    )
    return Hands(
        sides=pair(*crops.sides.chunk(2)),
        spread=pair(*places.abs().amax((1, 2)).chunk(2)),
        wrists_px=pair(torch.stack([last - left_x, left_y], dim=-1), right_wrist),
        rotations=pair(left_rotation, rotations[1]),
        pose=pair(*both.parameters.hands[:, 54:].chunk(2)),
        scale=pair(left_scale, right_scale),
        shape=pair(*both.parameters.shape.chunk(2)),
    )


def _agree(body: Estimate, hands: Hands, limits: HandLimits) -> Tensor:
    """Which hands (B, 2) are large enough, inside their crop, and at the body's wrist."""
    apart = (hands.wrists_px - _picked(body.keypoints_px, _WRISTS)).norm(dim=-1)
    # The original measures each hand in sides of the other's crop.
    near = apart / hands.sides.flip(1) < limits.apart
    return near & (hands.spread < limits.spread) & (hands.sides > limits.side_px)


def _prompts(crops: Crops, body: Estimate, hands: Hands, valid: Tensor) -> Tensor:
    """Prompts (B, 4, 3): wrists of hands and elbows of the body; none where a hand is not valid."""
    elbows = _picked(body.keypoints_px, _ELBOWS)
    # Right before left, as in the original.
    pixels = torch.cat([hands.wrists_px.flip(1), elbows.flip(1)], dim=1)
    places = crops.from_image(pixels) / crops.side
    used = ((places >= 0) & (places <= 1)).all(-1) & valid.flip(1).repeat(1, 2)
    labels = (*reversed(_WRISTS), *reversed(_ELBOWS))
    columns = [torch.full_like(places[:, 0, 0], label) for label in labels]
    prompts = torch.cat([places, torch.stack(columns, dim=1)[..., None]], dim=-1)
    none = torch.zeros_like(prompts)
    none[..., 2].fill_(NO_PROMPT)
    return torch.where(used[..., None], prompts, none)


def _join(
    network: Decoders,
    crops: Crops,
    body: Estimate,
    hands: Hands,
    valid: Tensor,
    bent: Tensor,
    limits: HandLimits,
) -> Estimate:
    """The body with the hands that are valid."""
    head, had = network.body.head_pose, body.parameters
    every = torch.ones_like(valid)
    offered = _merged(had.scale, had.shape, hands, every)
    root, angles = had.rig[:, :6], had.rig[:, _BODY]
    placed = head.assemble(root, angles, *offered, hands.pose.flatten(1))
    local = _local_rotations(
        network, network.body.place(body.pose, body.camera, placed, crops, network.rig), hands
    )
    valid = valid & (angle_between(bent, local) < limits.bent_rad)
    wrists = torch.where(valid[..., None], within_limits(xzy_of_rotation(local)), _xzy(had.rig))
    columns = list(had.rig.unbind(1))
    for side, places in enumerate(_WRIST_ANGLES):
        for axis, place in enumerate(places):
            columns[place] = wrists[:, side, axis]
    angles = torch.stack(columns, dim=1)[:, _BODY]
    pose = torch.where(valid[..., None], hands.pose, had.hands.unflatten(1, (2, -1)))
    scale, shape = _merged(had.scale, had.shape, hands, valid)
    joined = head.assemble(root, angles, scale, shape, pose.flatten(1))
    return replace(
        network.body.place(body.pose, body.camera, joined, crops, network.rig),
        hand_boxes=body.hand_boxes,
    )


def _merged(scale: Tensor, shape: Tensor, hands: Hands, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shape with the valid hands' own scales, and the mean of what hands share."""
    columns = list(scale[:, :_SHARED_SCALE].unbind(1))
    for side, place in enumerate(_HAND_SCALES):
        columns[place] = torch.where(valid[:, side], hands.scale[:, side, place], columns[place])
    share = valid[..., None] / (valid.sum(1, keepdim=True)[..., None] + 1e-8)
    some = valid.any(1, keepdim=True)

    def shared(own: Tensor, of_hands: Tensor) -> Tensor:
        return torch.where(some, (of_hands * share).sum(1), own)

    rest = shared(scale[:, _SHARED_SCALE:], hands.scale[..., _SHARED_SCALE:])
    tail = shared(shape[:, _SHARED_SHAPE:], hands.shape[..., _SHARED_SHAPE:])
    return (
        torch.cat([torch.stack(columns, dim=1), rest], dim=1),
        torch.cat([shape[:, :_SHARED_SHAPE], tail], dim=1),
    )


def _local_rotations(network: Decoders, body: Estimate, hands: Hands) -> Tensor:
    """Rotations (B, 2, 3, 3) of the hands against unbent wrists of the body."""
    unbent = torch.stack(
        [
            _rotations(body, arm) @ network.body.head_pose.joint_rotation[twist]
            for arm, twist in zip(_LOWER_ARMS, _WRIST_TWISTS)
        ],
        dim=1,
    )
    return unbent.transpose(2, 3) @ hands.rotations


def _rotations(estimate: Estimate, joint: int) -> Tensor:
    """Rotations (B, 3, 3) of a joint without its scale."""
    linear = estimate.joints[:, joint, :3, :3]
    return linear / linear.norm(dim=-2, keepdim=True)


def _picked(values: Tensor, places: tuple[int, int]) -> Tensor:
    return torch.stack([values[:, place] for place in places], dim=1)


def _xzy(rig: Tensor) -> Tensor:
    """The wrists' angles (B, 2, 3) about x, z and y, of the rig's parameters (B, 204)."""
    return torch.stack([torch.stack([rig[:, i] for i in p], dim=1) for p in _WRIST_ANGLES], dim=1)
