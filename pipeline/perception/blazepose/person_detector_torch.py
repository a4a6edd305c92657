"""The second person detector in torch, for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.perception.blazepose.person_detector import PERSON
from pipeline.perception.blazepose.tflite import Graph
from pipeline.perception.blazepose.tflite_torch import GraphModule


class PersonDetectorNet(nn.Module):
    """Network from stretched images (B, 3, 300, 300) in [-1, 1] to (B, 1917, 5).

    A row is the 4 numbers of a box and the logit of Person, as `person_detector.decode` takes them.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.net = GraphModule(graph)

    def halve(self) -> PersonDetectorNet:
        """Compute in half precision where that costs no accuracy; changes the module in place."""
        self.net.halve()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return boxes and logits (B, 1917, 5) of images (B, 3, 300, 300) in [-1, 1]."""
        boxes, logits = self.net(images)
        return torch.cat((boxes.float(), logits[:, :, PERSON : PERSON + 1].float()), 2)
