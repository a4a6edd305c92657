"""SAM 3D Body (Yang et al., SAM 3D Body, 2025), for inference: from crops to MHR bodies.

This is our own implementation. `docs/design/sam3d.md` says what differs from the original.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.sam3d.backbone_dinov3 import DinoV3
from pipeline.sam3d.backbone_vith import VitH
from pipeline.sam3d.branch import Branch, Estimate, ImageFeatures, RayConditioning
from pipeline.sam3d.config import CAMERA, CONDITION, KEYPOINTS, POSE, ModelConfig
from pipeline.sam3d.crops import Crops, cell_centres, normalise, ray_features
from pipeline.sam3d.decoder import Decoder
from pipeline.sam3d.heads import CameraHead, PoseHead, to_camera_axes
from pipeline.sam3d.layers import BoxMlp, Mlp
from pipeline.sam3d.prompt_encoder import FourierCode, PromptEncoder
from pipeline.sam3d.rig import Rig

_HANDS = 2
_SCALE_FACTOR, _HAND_SCALE_FACTOR = 1.0, 10.0
_OF_HAND = "_hand"


class Sam3dBody(nn.Module):
    """The network. Names in its state dict are those of the releases."""

    body: Branch
    hand: Branch
    rig: Rig
    cells: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        image, token = config.width, config.token_width
        self.backbone = DinoV3(config) if config.backbone == "dinov3" else VitH(config)
        self.prompt_encoder = PromptEncoder(config)
        self.prompt_to_token = nn.Linear(image, token)
        self.hand_box_embedding = nn.Embedding(_HANDS, token)
        # Says whether a hand is there; the release computes it and does not use it.
        self.hand_cls_embed = nn.Linear(token, 2)
        self.bbox_embed = BoxMlp(token, 4)
        self.hand_pe_layer = FourierCode(image)
        for ending in ("", _OF_HAND):
            for name, make in _branch_parts(config).items():
                self.add_module(name + ending, make())

    @torch.no_grad()
    def prepare(self, rig: Rig) -> Sam3dBody:
        """Compute what follows from the weights; call it once, when they are loaded.

        Weights of the backbone are fused, so the state dict is that of the release no longer.

        Args:
            rig: The rig, which moves with this module from now on.

        Returns:
            This module.
        """
        self.rig = rig
        self.backbone.fold()
        # Not persistent: it follows from the sizes.
        cells = cell_centres(self.config).to(self.hand_cls_embed.weight.device)
        self.register_buffer("cells", cells, persistent=False)
        self.body, self.hand = self._branch(""), self._branch(_OF_HAND)
        codes = (self.prompt_encoder.pe_layer, self.hand_pe_layer)
        for branch, code in zip((self.body, self.hand), codes):
            branch.decoder.prepare(code.of_cells(self.config))
            branch.head_pose.prepare(rig)
        return self.requires_grad_(False).eval()

    def features(self, pixels: Tensor) -> Tensor:
        """Return the backbone's features (B, C, rows, columns) float32, for body and hands alike.

        Args:
            pixels: (B, 3, side, side) crops, 0 to 255.
        """
        images = normalise(pixels, self.config)
        precision = next(self.backbone.parameters()).dtype
        return self.backbone(images.to(precision)).float()

    def look(
        self,
        features: Tensor,
        crops: Crops,
        masks: Tensor | None = None,
        scores: Tensor | None = None,
        hand: bool = False,
    ) -> ImageFeatures:
        """Return what a decoder needs of crops.

        Args:
            features: Of `features`.
            crops: The crops.
            masks: (B, 1, side, side), 1 on the person; None: there are none.
            scores: (B,) how far each mask is trusted; at 0 it counts as none.
            hand: Whether it is for the hands' decoder.
        """
        if masks is None or scores is None:
            added = self.prompt_encoder.without_mask()
        else:
            added = self.prompt_encoder.of_masks(masks, scores)
            first = self.config.first_column
            added = added[..., first : first + self.config.columns]
        branch = self.hand if hand else self.body
        return branch.look(features + added, ray_features(crops, self.cells, self.config), crops)

    def decode(
        self,
        looked: ImageFeatures,
        prompts: Tensor | None = None,
        previous: Estimate | None = None,
        hand: bool = False,
    ) -> Estimate:
        """Return the estimate of a decoder.

        Args:
            looked: Of `look`.
            prompts: (B, P, 3), as in `PromptEncoder.forward`; None: there are none.
            previous: An estimate of the same crops that the prompts are to correct.
            hand: Whether it is the hands' decoder.
        """
        encoder = self.prompt_encoder
        codes = encoder.no_prompt(len(looked.cells)) if prompts is None else encoder(prompts)
        tokens = self.prompt_to_token(codes)
        branch = self.hand if hand else self.body
        return branch.decode(looked, tokens, self.rig, previous)

    def vertices(self, estimate: Estimate) -> Tensor:
        """Return the mesh (B, 18439, 3) of an estimate in metres, without its translation."""
        surface = self.rig.surface
        shape = estimate.parameters.shape
        return to_camera_axes(surface(estimate.joints, estimate.turned, shape))

    def _branch(self, ending: str) -> Branch:
        parts = {name: getattr(self, name + ending) for name in _branch_parts(self.config)}
        hand = ending == _OF_HAND
        return Branch(
            config=self.config,
            hand=hand,
            scale_factor=_HAND_SCALE_FACTOR if hand else _SCALE_FACTOR,
            hand_box_embedding=self.hand_box_embedding,
            bbox_embed=self.bbox_embed,
            **parts,
        )


def _branch_parts(config: ModelConfig) -> dict[str, Callable[[], nn.Module]]:
    """How to make each module that body and hand have each of their own."""
    image, token = config.width, config.token_width
    return {
        "decoder": lambda: Decoder(config),
        "head_pose": lambda: PoseHead(config),
        "head_camera": lambda: CameraHead(config),
        "init_pose": lambda: nn.Embedding(1, POSE),
        "init_camera": lambda: nn.Embedding(1, CAMERA),
        "init_to_token_mhr": lambda: nn.Linear(CONDITION + POSE + CAMERA, token),
        "prev_to_token_mhr": lambda: nn.Linear(POSE + CAMERA, token),
        "ray_cond_emb": lambda: RayConditioning(config),
        "keypoint_embedding": lambda: nn.Embedding(KEYPOINTS, token),
        "keypoint_posemb_linear": lambda: Mlp(2, token, token, nn.ReLU()),
        "keypoint_feat_linear": lambda: nn.Linear(image, token),
        "keypoint3d_embedding": lambda: nn.Embedding(KEYPOINTS, token),
        "keypoint3d_posemb_linear": lambda: Mlp(3, token, token, nn.ReLU()),
    }
