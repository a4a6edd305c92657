"""One of the model's two decoders, body or hand, with its heads and its tokens.

A person's tokens are, in this order: the estimate, the estimate of an earlier pass, the prompts,
the boxes of the two hands, the keypoints in the image, the keypoints in space. An estimate is made
after each layer of the decoder, and its keypoints move the keypoints' tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.config import KEYPOINTS, RAY_FEATURES, ModelConfig
from pipeline.sam3d.crops import Crops
from pipeline.sam3d.decoder import Decoder
from pipeline.sam3d.heads import CameraHead, MhrParameters, PoseHead, without_face
from pipeline.sam3d.layers import BoxMlp, ChannelNorm, Mlp
from pipeline.sam3d.rig import Rig

_HANDS = 2
HIPS = slice(9, 11)
NEAREST_M = 1e-5
"""A keypoint that is nearer to the camera is not in the image."""
_IN_IMAGE, _IN_SPACE = slice(-2 * KEYPOINTS, -KEYPOINTS), slice(-KEYPOINTS, None)
HAND_BOXES = slice(-2 * KEYPOINTS - _HANDS, -2 * KEYPOINTS)
"""The tokens of the hands' boxes."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What a decoder needs of crops. It can be kept, and decoded again with other prompts.

    Attributes:
        crops: The crops.
        cells: (B, C, rows, columns), features that know the rays through their cells.
        keys: For each layer (B, cells, C).
        values: Likewise.
    """

    crops: Crops
    cells: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def repeated(self, times: int) -> ImageFeatures:
        """Return those of each crop ``times`` times, one after another."""
        return replace(
            self,
            crops=self.crops.repeated(times),
            cells=self.cells.repeat_interleave(times, 0),
            keys=tuple(each.repeat_interleave(times, 0) for each in self.keys),
            values=tuple(each.repeat_interleave(times, 0) for each in self.values),
        )


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a decoder says after a layer. Metres are x right, y down, z away from the camera.

    Attributes:
        pose: (B, 519), the pose head's numbers with the first guess; those of the face are zero.
        camera: (B, 3), likewise.
        parameters: What the rig makes the body of.
        translation_m: (B, 3), to be added to the body's points.
        keypoints_m: (B, 70, 3), without the translation.
        keypoints_px: (B, 70, 2) in the image.
        joints: (B, 127, 4, 4) maps of the rig's joints, in its own axes and centimetres.
        turned: (B, 127, 3, 3), the joints' rotations from rest, in its own axes.
        hand_boxes: (B, 2, 4), centre and size of the left and the right hand's box, in parts of
            the crop. Only after the last layer.
    """

    pose: Tensor
    camera: Tensor
    parameters: MhrParameters
    translation_m: Tensor
    keypoints_m: Tensor
    keypoints_px: Tensor
    joints: Tensor
    turned: Tensor
    hand_boxes: Tensor | None = None

    def repeated(self, times: int) -> Estimate:
        """Return the estimate with pose and camera, which a later pass reads, repeated ``times``
        times for each crop."""
        pose, camera = (each.repeat_interleave(times, 0) for each in (self.pose, self.camera))
        return replace(self, pose=pose, camera=camera)


class RayConditioning(nn.Module):
    """Joins image features with the rays through their cells."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(config.width + RAY_FEATURES, config.width, 1, bias=False)
        self.norm = ChannelNorm(config.width)

    def forward(self, features: Tensor, rays: Tensor) -> Tensor:
        return self.norm(self.conv(torch.cat([features, rays], dim=1)))


@dataclass(frozen=True, eq=False)
class Branch:
    """The modules of one decoder, by their names in the release, and what they compute together.

    Attributes:
        hand: Whether it is the one for hands.
        scale_factor: As in `Crops.camera_translation`.
    """

    config: ModelConfig
    hand: bool
    scale_factor: float
    decoder: Decoder
    head_pose: PoseHead
    head_camera: CameraHead
    init_pose: nn.Embedding
    init_camera: nn.Embedding
    init_to_token_mhr: nn.Linear
    prev_to_token_mhr: nn.Linear
    ray_cond_emb: RayConditioning
    keypoint_embedding: nn.Embedding
    keypoint_posemb_linear: Mlp
    keypoint_feat_linear: nn.Linear
    keypoint3d_embedding: nn.Embedding
    keypoint3d_posemb_linear: Mlp
    hand_box_embedding: nn.Embedding
    bbox_embed: BoxMlp

    def look(self, features: Tensor, rays: Tensor, crops: Crops) -> ImageFeatures:
        """Return what the decoder needs of crops.

        Args:
            features: (B, C, rows, columns) of the backbone, with what a mask adds.
            rays: (B, 99, rows, columns), see `ray_features`.
            crops: The crops.
        """
        cells = self.ray_cond_emb(features, rays)
        return ImageFeatures(crops, cells, *self.decoder.image_keys_values(cells))

    def decode(
        self, image: ImageFeatures, prompts: Tensor, rig: Rig, previous: Estimate | None = None
    ) -> Estimate:
        """Return the estimate after the last layer.

        Args:
            image: Of `look`.
            prompts: (B, P, C) tokens.
            rig: The rig.
            previous: An estimate of the same crops that prompts are to correct.
        """
        x, augment = self.first_tokens(image.crops, prompts, previous)
        layers = self.decoder.layers
        for i, layer in enumerate(layers):
            x = layer(x, augment, image.keys[i], image.values[i])
            estimate = self.estimate(self.decoder.norm_final(x[:, 0]), image.crops, rig)
            if i + 1 < len(layers):
                x, augment = self.move_keypoints(x, augment, image, estimate)
        boxes = self.bbox_embed(self.decoder.norm_final(x[:, HAND_BOXES])).sigmoid()
        return replace(estimate, hand_boxes=boxes)

    def first_tokens(
        self, crops: Crops, prompts: Tensor, previous: Estimate | None
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens before the first layer and their positions, both (B, N, C)."""
        count = len(prompts)
        guess = torch.cat([self.init_pose.weight, self.init_camera.weight], dim=1)
        guess = guess.expand(count, -1)
        last = guess if previous is None else torch.cat([previous.pose, previous.camera], dim=1)
        own = self.init_to_token_mhr(torch.cat([crops.condition(), guess], dim=1))[:, None]
        placed = torch.cat([self.prev_to_token_mhr(last)[:, None], prompts], dim=1)
        learned = torch.cat(
            [
                self.hand_box_embedding.weight,
                self.keypoint_embedding.weight,
                self.keypoint3d_embedding.weight,
            ]
        ).expand(count, -1, -1)
        zeros = torch.zeros_like
        x = torch.cat([own, placed, learned], dim=1)
        return x, torch.cat([zeros(own), placed, zeros(learned)], dim=1)

    def estimate(self, token: Tensor, crops: Crops, rig: Rig) -> Estimate:
        """Return the estimate of the normed estimate token (B, C)."""
        pose = without_face(self.head_pose(token) + self.init_pose.weight)
        camera = self.head_camera(token) + self.init_camera.weight
        return self.estimate_of(pose, camera, crops, rig)

    def estimate_of(self, pose: Tensor, camera: Tensor, crops: Crops, rig: Rig) -> Estimate:
        """Return the estimate of its numbers, (B, 519) and (B, 3)."""
        parameters = self.head_pose.mhr_parameters(pose, self.hand)
        return self.place(pose, camera, parameters, crops, rig)

    def place(
        self, pose: Tensor, camera: Tensor, parameters: MhrParameters, crops: Crops, rig: Rig
    ) -> Estimate:
        """Return the estimate whose body has these parameters and stands where the camera's three
        numbers say."""
        joints, turned = rig.skeleton(parameters.rig)
        keypoints = self.head_pose.keypoints(joints, turned, parameters.shape, self.hand)
        translation = crops.camera_translation(camera, self.scale_factor)
        pixels = crops.project(keypoints + translation[:, None])
        return Estimate(pose, camera, parameters, translation, keypoints, pixels, joints, turned)

    def move_keypoints(
        self, x: Tensor, augment: Tensor, image: ImageFeatures, estimate: Estimate
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens and positions with the keypoints where an estimate has them."""
        crops = image.crops
        places = crops.from_image(estimate.keypoints_px) / crops.side
        depth = estimate.keypoints_m[..., 2] + estimate.translation_m[:, 2:]
        seen = ((places >= 0) & (places <= 1)).all(-1) & (depth >= NEAREST_M)
        seen = seen[..., None]
        sampled = torch.where(seen, self._sample(image.cells, places), 0.0)
        offsets = places - 0.5
        in_image = torch.where(seen, self.keypoint_posemb_linear(offsets), 0.0)
        hips = estimate.keypoints_m[:, HIPS].mean(dim=1, keepdim=True)
        in_space = self.keypoint3d_posemb_linear(estimate.keypoints_m - hips)
        tokens = x[:, _IN_IMAGE] + self.keypoint_feat_linear(sampled)
        x = torch.cat([x[:, : _IN_IMAGE.start], tokens, x[:, _IN_SPACE]], dim=1)
        return x, torch.cat([augment[:, : _IN_IMAGE.start], in_image, in_space], dim=1)

    def _sample(self, cells: Tensor, places: Tensor) -> Tensor:
        """Features (B, 70, C) at places (B, 70, 2) of the square crop, x and y from 0 to 1."""
        # The features may cover only the middle columns of the square.
        x, y = (2 * places - 1).unbind(-1)
        grid = torch.stack([x * (self.config.rows / self.config.columns), y], dim=-1)[:, :, None]
        return F.grid_sample(cells, grid, align_corners=False)[..., 0].transpose(1, 2)
