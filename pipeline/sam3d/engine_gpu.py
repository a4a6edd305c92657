"""SAM 3D Body on a GPU: from pictures to packed answers in one CUDA graph for each batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.gpu.cuda_graphs import Bucketed, Graphed, Pool
from pipeline.sam3d.backbone_gpu import FastBackbone
from pipeline.sam3d.crops import Crops
from pipeline.sam3d.hands import with_hands
from pipeline.sam3d.kernels_gpu import crop_normalised
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import Packer

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
        self._like = next(network.backbone.parameters())
        self._graphs = graphs and self._like.is_cuda
        self._pool = Pool(self._like.device) if self._graphs else None
        self._steps: Bucketed | None = None

    def warm_up(self, people: int) -> None:
        """Capture the graphs of batches of up to so many people."""
        largest = next((size for size in BUCKETS if size >= people), BUCKETS[-1])
        if self._steps is None or largest > self._steps.sizes[-1]:
            self._steps = Bucketed(self._make, [size for size in BUCKETS if size <= largest])

    def __call__(self, frames: Sequence[Tensor], crops: Crops) -> Tensor:
        """Return the packed answers (B, N); valid until the next call.

        Args:
            frames: Each person's picture, (H, W, 3) uint8 on the GPU; may be repeated.
            crops: Each person's crop, in host memory.
        """
        table = [[f.data_ptr(), f.shape[0], f.shape[1], 0] for f in frames]
        views = torch.cat([crops.centres, crops.sides[:, None], crops.intrinsics.flatten(1)], dim=1)
        self.warm_up(len(frames))
        assert self._steps is not None
        answers: Tensor = self._steps(self._uploaded(torch.tensor(table)), self._uploaded(views))
        return answers

    def _uploaded(self, values: Tensor) -> Tensor:
        device = self._like.device
        # From page-locked memory the host need not wait for the copy.
        return (
            values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
        )

    def _make(self, size: int) -> Callable[..., Tensor]:
        device, side = self._like.device, self._network.config.side
        # A black picture as large as the crop: a batch size is warmed up on it.
        self._blank = torch.zeros(side, side, 3, dtype=torch.uint8, device=device)
        table = torch.tensor([[self._blank.data_ptr(), side, side, 0]], device=device)
        middle = side / 2
        view = torch.tensor(
            [[middle, middle, side, side, 0, middle, 0, side, middle, 0, 0, 1.0]], device=device
        )
        examples = [table.expand(size, -1), view.expand(size, -1)]
        return Graphed(self._answer, examples, enabled=self._graphs, pool=self._pool)

    def _answer(self, pictures: Tensor, views: Tensor) -> Tensor:
        network = self._network
        with _tf32():
            crops = Crops(
                views[:, :2], views[:, 2], views[:, 3:].unflatten(1, (3, 3)), network.config.side
            )
            looked = network.look(self._features(pictures, crops), crops)
            body = network.decode(looked)
            if self._hands:
                body = with_hands(
                    network, looked, body, pictures[:, 2], self._looker_at_hands(pictures)
                )
            return self._pack(body)

    def _looker_at_hands(self, pictures: Tensor) -> Callable[[Crops], Tensor]:
        mirrored = torch.cat([pictures[:, :3], torch.ones_like(pictures[:, :1])], dim=1)
        return lambda crops: self._features(torch.cat([mirrored, pictures]), crops)

    def _features(self, pictures: Tensor, crops: Crops) -> Tensor:
        """The backbone's features (B, C, rows, columns) float32."""
        config = self._network.config
        tokens = self._backbone(crop_normalised(pictures, crops, config, self._like))
        return tokens.float().transpose(1, 2).unflatten(2, (config.rows, config.columns))


@contextmanager
def _tf32() -> Iterator[None]:
    """Round the factors of float32 products to TF32: the backbone's features have fewer bits."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, True
    try:
        yield
    finally:
        products.allow_tf32 = before
