"""Runs SAM 3D Body on people of many frames at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.gpu.device import EngineOptions
from pipeline.gpu.transfer import AsyncCopy
from pipeline.sam3d.crops import BODY_PADDING, Crops, crop_images, crops_of_boxes
from pipeline.sam3d.hands import with_hands
from pipeline.sam3d.heads import to_camera_axes
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import MhrPeople, Packer, unpack, with_neighbours
from pipeline.sam3d.prompt_encoder import NO_PROMPT

if TYPE_CHECKING:
    from pipeline.sam3d.engine_gpu import GpuPasses

_FP8 = (8, 9)
"""The least compute capability that has 8-bit products."""
Image = np.ndarray | Tensor
"""RGB uint8 (H, W, 3), in host memory or on the device."""


class Sam3dEngine:
    """The network with what it needs to answer for boxes in frames. It remembers nothing.

    Args:
        network: The network, loaded and prepared; the engine computes where it is.
        skin: The vertices (S, 3) and shares (S, 3) of the points of the skin that are wanted; None
            for none.
        hands: Whether hands are read from crops of their own, at three times the cost.
        options: How a GPU computes; None for the defaults. With the engine "eager" the modules run
            as they are; else our kernels do.

    Attributes:
        network: The network.
        has_skin: Whether it answers with points of the skin.
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
        options = options or EngineOptions()
        self.network = network
        self._hands = hands
        self._device = network.cells.device
        self._pack = Packer(network.rig.surface, skin)
        self.has_skin = skin is not None
        self._passes: GpuPasses | None = None
        if self._device.type == "cuda" and options.engine != "eager":
            if options.fp8 and torch.cuda.get_device_capability(self._device) < _FP8:
                raise RuntimeError("[engine] fp8 needs an NVIDIA GPU of Ada, Hopper or later")
            # Imported here: a machine without a GPU need not have Triton.
            from pipeline.sam3d.engine_gpu import GpuPasses

            self._passes = GpuPasses(
                network, self._pack, hands=hands, graphs=options.graphs, fp8=options.fp8
            )
        self.reports = (self._report(options),)

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
        return self.begin(frames, numbers, boxes, intrinsics)()

    @torch.inference_mode()
    def begin(
        self,
        frames: Sequence[Image],
        numbers: Sequence[int],
        boxes: np.ndarray,
        intrinsics: np.ndarray,
    ) -> Callable[[], MhrPeople]:
        """Queue the work on a GPU, and return what waits for the bodies. Arguments as of a call;
        frames must not be deleted before the bodies are there."""
        pictures, crops = self._inputs(frames, numbers, boxes, intrinsics)
        passes = self._plain if self._passes is None else self._passes
        copy = AsyncCopy(passes(pictures, crops))

        def bodies() -> MhrPeople:
            # A copy: people would keep the page-locked memory of the whole batch.
            numbers = copy.result().copy()
            # The GPU reads the pictures by their addresses, which keep nothing alive.
            pictures.clear()
            return unpack(numbers)

        return bodies

    @torch.inference_mode()
    def with_neighbours(
        self,
        frames: Sequence[Image],
        numbers: Sequence[int],
        boxes: np.ndarray,
        intrinsics: np.ndarray,
        points_px: np.ndarray,
        labels: np.ndarray,
    ) -> MhrPeople:
        """Return the bodies of people in their frames and in M neighbouring ones.

        The backbone looks at the frames alone. For a neighbour the decoder runs once more on what
        it saw there, prompted with keypoints. The prompts say where joints are in the neighbour;
        the features are still the frame's.

        Args:
            frames: As of a call, and so are ``numbers``, ``boxes`` and ``intrinsics``.
            numbers: B numbers.
            boxes: (B, 4).
            intrinsics: (B, 3, 3).
            points_px: (B, M, P, 2) places of prompts in the neighbours, image pixels.
            labels: (B, M, P) which of MHR's 70 keypoints each is; `NO_PROMPT` for none.

        Returns:
            B * (1 + M) bodies: each person's in its frame, then in its neighbours.
        """
        pictures, crops = self._inputs(frames, numbers, boxes, intrinsics)
        flat = torch.as_tensor(np.asarray(points_px, np.float32)).flatten(1, 2)
        places = (crops.from_image(flat) / crops.side).unflatten(1, points_px.shape[1:3])
        kinds = torch.as_tensor(np.asarray(labels, np.float32))[..., None]
        # The network knows no places beyond the crop.
        inside = ((places >= 0) & (places <= 1)).all(-1, keepdim=True)
        kinds = torch.where(inside, kinds, float(NO_PROMPT))
        passes = self._plain if self._passes is None else self._passes
        return unpack(AsyncCopy(passes(pictures, crops, torch.cat([places, kinds], -1))).result())

    @torch.inference_mode()
    def vertices(self, people: MhrPeople) -> np.ndarray:
        """Return people's meshes (B, 18439, 3) float32 in metres, without their translations."""
        body = (
            torch.from_numpy(each).to(self._device) for each in (people.parameters, people.shape)
        )
        return to_camera_axes(self.network.rig(*body)[0]).cpu().numpy()

    def warm_up(self, people: int, neighbours: tuple[int, int] = (0, 0)) -> None:
        """Capture the graphs of batches of up to ``people``; on a CPU do nothing.

        Args:
            people: The most people in a call.
            neighbours: (M, P) of `with_neighbours`; (0, 0): for calls without.
        """
        if self._passes is not None:
            self._passes.warm_up(people, neighbours)

    def _inputs(
        self, frames: Sequence[Image], numbers: Sequence[int], boxes: np.ndarray, lenses: np.ndarray
    ) -> tuple[list[Tensor], Crops]:
        """Each person's picture on the device, and their crops in host memory."""
        crops = crops_of_boxes(
            torch.as_tensor(np.asarray(boxes, np.float32)),
            torch.as_tensor(np.asarray(lenses, np.float32)),
            self.network.config.side,
            BODY_PADDING,
        )
        used = {number: self._picture(frames[number]) for number in dict.fromkeys(numbers)}
        return [used[number] for number in numbers], crops

    def _picture(self, frame: Image) -> Tensor:
        return torch.as_tensor(frame).to(self._device, non_blocking=True).contiguous()

    def _report(self, options: EngineOptions) -> str:
        backbone = {"dinov3": "DINOv3", "vith": "ViT-H"}[self.network.config.backbone]
        precision = str(next(self.network.backbone.parameters()).dtype).removeprefix("torch.")
        eight = options.fp8 and self._passes is not None
        how = precision + (", products in 8 bits" if eight else "")
        if self._passes is None:
            how = f"eager, {how}"
        else:
            graphs = "CUDA graphs" if options.graphs else "no CUDA graphs"
            how = f"own kernels, {graphs}, {how}"
        return f"SAM 3D Body ({backbone}): {how}, on {self._device}"

    def _plain(
        self, pictures: Sequence[Tensor], crops: Crops, prompts: Tensor | None = None
    ) -> Tensor:
        """The packed answers, computed by torch's modules as they are."""
        network = self.network
        crops = crops.to(self._device)
        looked = network.look(self._features(pictures, crops), crops)
        body = network.decode(looked)
        if self._hands:
            widths = torch.tensor([picture.shape[1] for picture in pictures], device=self._device)
            both = [picture.flip(1) for picture in pictures] + list(pictures)
            body = with_hands(
                network, looked, body, widths, lambda hands: self._features(both, hands)
            )
        if prompts is None:
            return self._pack(body)
        return with_neighbours(network, looked, body, prompts.to(self._device), self._pack)

    def _features(self, pictures: Sequence[Tensor], crops: Crops) -> Tensor:
        pixels = [
            crop_images(picture[None], torch.zeros(1, dtype=torch.long, device=self._device), crop)
            for picture, crop in zip(pictures, crops.singles())
        ]
        return self.network.features(torch.cat(pixels))
