"""Runs SAM 3D Body on people of many frames at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.gpu.device import EngineOptions
from pipeline.sam3d.crops import BODY_PADDING, Crops, crop_images, crops_of_boxes
from pipeline.sam3d.hands import with_hands
from pipeline.sam3d.heads import to_camera_axes
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import MhrPeople, SkinPoints, pack, unpack

Image = np.ndarray | Tensor
"""RGB uint8 (H, W, 3), in host memory or on the device."""


class Sam3dEngine:
    """The network with what it needs to answer for boxes in frames. It remembers nothing.

    Args:
        network: The network, loaded and prepared; the engine computes where it is.
        skin: The vertices (S, 3) and shares (S, 3) of the points of the skin that are wanted; None
            for none.
        hands: Whether hands are read from crops of their own, at three times the cost.
        options: How a GPU computes; None for the defaults.

    Attributes:
        network: The network.
        reports: One line on what computes it.
    """

    def __init__(
        self,
        network: Sam3dBody,
        *,
        skin: tuple[np.ndarray, np.ndarray] | None = None,
        hands: bool = False,
        options: EngineOptions | None = None,
    ) -> None:
        self.network = network
        self._options = options or EngineOptions()
        self._hands = hands
        self._device = network.cells.device
        self._skin = None if skin is None else SkinPoints(network.rig.surface, *skin)
        backbone = {"dinov3": "DINOv3", "vith": "ViT-H"}[network.config.backbone]
        self.reports = (f"SAM 3D Body ({backbone}): on {self._device}",)

    @torch.inference_mode()
    def __call__(
        self,
        frames: Sequence[Image],
        numbers: Sequence[int],
        boxes: np.ndarray,
        intrinsics: np.ndarray,
    ) -> MhrPeople:
        """Return the bodies of people.

        Args:
            frames: Pictures, of any sizes.
            numbers: B numbers: which frame each person is in.
            boxes: (B, 4) x0, y0, x1, y1 around each person, pixels.
            intrinsics: (B, 3, 3) K of each person's frame, pixels.
        """
        crops = crops_of_boxes(
            self._on_device(boxes), self._on_device(intrinsics), self.network.config.side,
            BODY_PADDING,
        )  # fmt: skip
        # Pictures of one size are read together.
        sizes = [tuple(frame.shape) for frame in frames]
        parts = []
        for size in dict.fromkeys(sizes[k] for k in numbers):
            rows = [k for k, number in enumerate(numbers) if sizes[number] == size]
            chosen = sorted({numbers[k] for k in rows})
            images = torch.stack([torch.as_tensor(frames[k]).to(self._device) for k in chosen])
            of_rows = torch.tensor([chosen.index(numbers[k]) for k in rows], device=self._device)
            parts.append((rows, self._people(images, of_rows, _rows(crops, rows))))
        answers = np.empty((len(numbers), parts[0][1].shape[1]), np.float32)
        for rows, part in parts:
            answers[rows] = part.cpu().numpy()
        return unpack(answers)

    @torch.inference_mode()
    def vertices(self, people: MhrPeople) -> np.ndarray:
        """Return people's meshes (B, 18439, 3) float32 in metres, without their translations."""
        body = (self._on_device(people.parameters), self._on_device(people.shape))
        return to_camera_axes(self.network.rig(*body)[0]).cpu().numpy()

    def warm_up(self, people: int) -> None:
        """Make ready for up to so many people in a call."""

    def _people(self, images: Tensor, numbers: Tensor, crops: Crops) -> Tensor:
        network = self.network
        looked = network.look(network.features(crop_images(images, numbers, crops)), crops)
        body = network.decode(looked)
        if self._hands:
            body = with_hands(network, images, numbers, looked, body)
        return pack(body, self._skin)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32)).to(self._device)


def _rows(crops: Crops, rows: Sequence[int]) -> Crops:
    chosen = list(rows)
    return Crops(crops.centres[chosen], crops.sides[chosen], crops.intrinsics[chosen], crops.side)
