"""SAM 3D Body on a GPU: from pictures to packed answers in one CUDA graph for each batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.gpu.batch_sizes import Bucketed
from pipeline.gpu.cuda_graphs import Graphed, Pool
from pipeline.sam3d.backbone_gpu import FastBackbone
from pipeline.sam3d.backbone_vith import PATCH_PADDING, VitH
from pipeline.sam3d.crops import Crops
from pipeline.sam3d.decoder_gpu import FastDecoders
from pipeline.sam3d.hands import with_hands
from pipeline.sam3d.kernels_gpu import crop_patches
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import Packer, with_neighbours

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes; smaller batches are filled up to the next of them. Each has a graph of its own."""


class GpuPasses:
    """Answers batches of people.

    Args:
        network: The network, on a GPU.
        pack: Makes the answers.
        hands: Whether hands are read from crops of their own.
        graphs: Whether passes are replayed as CUDA graphs.
        fp8: Whether the backbone's products compute in 8 bits.
    """

    def __init__(
        self,
        network: Sam3dBody,
        pack: Packer,
        *,
        hands: bool = False,
        graphs: bool = True,
        fp8: bool = False,
    ) -> None:
        self._network, self._pack, self._hands = network, pack, hands
        self._backbone = FastBackbone(network.backbone, fp8)
        self._decoders = FastDecoders(network)
        self._like = next(network.backbone.parameters())
        self._graphs = graphs and self._like.is_cuda
        self._pool = Pool(self._like.device) if self._graphs else None
        self._steps: dict[tuple[int, int], Bucketed] = {}
        self._graphs_of: dict[tuple[tuple[int, int], int], Callable[..., Tensor]] = {}
        side, device = network.config.side, self._like.device
        # A black picture as large as the crop: batches are warmed up on it.
        self._blank = torch.zeros(side, side, 3, dtype=torch.uint8, device=device)

    def warm_up(self, people: int, neighbours: tuple[int, int] = (0, 0)) -> None:
        """Capture the graphs of batches of up to ``people``, those that there are not yet.

        Args:
            people: The most people in a batch.
            neighbours: (M, P) of `with_neighbours`; (0, 0): none.
        """
        largest = next((size for size in BUCKETS if size >= people), BUCKETS[-1])
        made = self._steps.get(neighbours)
        if made is None or largest > made.sizes[-1]:
            sizes = [size for size in BUCKETS if size <= largest]
            make = functools.partial(self._captured, neighbours)
            self._steps[neighbours] = Bucketed(make, sizes)

    def __call__(
        self, frames: Sequence[Tensor], crops: Crops, prompts: Tensor | None = None
    ) -> Tensor:
        """Return the packed answers (B, N); valid until the next call.

        Args:
            frames: Each person's picture, (H, W, 3) uint8 on the GPU; may be repeated.
            crops: Each person's crop, in host memory.
            prompts: (B, M, P, 3) of `with_neighbours`, in host memory; it then returns what that
                function does.
        """
        table = [[f.data_ptr(), f.shape[0], f.shape[1], 0] for f in frames]
        views = torch.cat([crops.centres, crops.sides[:, None], crops.intrinsics.flatten(1)], dim=1)
        inputs = [torch.tensor(table), views]
        neighbours = (0, 0)
        if prompts is not None:
            inputs.append(prompts)
            neighbours = (prompts.shape[1], prompts.shape[2])
        self.warm_up(len(frames), neighbours)
        answers: Tensor = self._steps[neighbours](*map(self._uploaded, inputs))
        return answers.flatten(0, 1)

    def _uploaded(self, values: Tensor) -> Tensor:
        device = self._like.device
        # From page-locked memory the host need not wait for the copy.
        return (
            values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
        )

    def _captured(self, neighbours: tuple[int, int], size: int) -> Callable[..., Tensor]:
        key = (neighbours, size)
        if key not in self._graphs_of:
            self._graphs_of[key] = self._make(neighbours, size)
        return self._graphs_of[key]

    def _make(self, neighbours: tuple[int, int], size: int) -> Callable[..., Tensor]:
        device, side = self._like.device, self._network.config.side
        table = torch.tensor([[self._blank.data_ptr(), side, side, 0]], device=device)
        middle = side / 2
        view = torch.tensor(
            [[middle, middle, side, side, 0, middle, 0, side, middle, 0, 0, 1.0]], device=device
        )
        examples = [table.expand(size, -1), view.expand(size, -1)]
        if neighbours != (0, 0):
            examples.append(torch.zeros(size, *neighbours, 3, device=device))
        return Graphed(self._answer, examples, enabled=self._graphs, pool=self._pool)

    def _answer(self, pictures: Tensor, views: Tensor, prompts: Tensor | None = None) -> Tensor:
        """The packed answers (B, 1 + M, N)."""
        crops = Crops(
            views[:, :2], views[:, 2], views[:, 3:].unflatten(1, (3, 3)), self._network.config.side
        )
        decoders = self._decoders
        looked = decoders.look(self._features(pictures, crops), crops)
        body = decoders.decode(looked)
        if self._hands:
            look = self._looker_at_hands(pictures)
            body = with_hands(decoders, looked, body, pictures[:, 2], look)
        if prompts is None:
            return self._pack(body)[:, None]
        answers = with_neighbours(decoders, looked, body, prompts, self._pack)
        return answers.unflatten(0, (len(pictures), -1))

    def _looker_at_hands(self, pictures: Tensor) -> Callable[[Crops], Tensor]:
        mirrored = torch.cat([pictures[:, :3], torch.ones_like(pictures[:, :1])], dim=1)
        return lambda crops: self._features(torch.cat([mirrored, pictures]), crops)

    def _features(self, pictures: Tensor, crops: Crops) -> Tensor:
        """The backbone's features (B, cells, C)."""
        padding = PATCH_PADDING if isinstance(self._network.backbone, VitH) else 0
        patches = crop_patches(pictures, crops, self._network.config, padding, self._like.dtype)
        return self._backbone(patches, self._decoders.half)
