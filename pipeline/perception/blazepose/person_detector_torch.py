"""The second person detector in torch, for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.perception.blazepose.person_detector import PERSON
from pipeline.perception.blazepose.tflite import Graph
from pipeline.perception.blazepose.tflite_torch import GraphModule


class PersonDetectorNet(nn.Module):
    """Network from stretched images (B, 3, 300, 300) in [-1, 1] to (B, 1917, 5).

    A row is the 4 numbers of a box and the logit of Person, as `person_detector.decode` takes them.
    """

    def __init__(self, graph: Graph, net: Any = None) -> None:
        super().__init__()
        self.net = GraphModule(graph) if net is None else net

    def halve(self) -> PersonDetectorNet:
        """Compute in half precision where that costs no accuracy; changes the module in place."""
        self.net.halve()
        return self

    def with_kernels(self) -> PersonDetectorNet:
        """Return a module that computes the same in our own kernels on a GPU."""
        # Imported here: Triton is only sure to be there with a GPU.
        from pipeline.perception.blazepose.tflite_gpu import FusedGraph

        return PersonDetectorNet(self.net.graph, FusedGraph(self.net))

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes and logits (B, 1917, 5) of images (B, 3, 300, 300) in [-1, 1]."""
        boxes, logits = self.net(images)
        return torch.cat((boxes.float(), logits[:, :, PERSON : PERSON + 1].float()), 2)
