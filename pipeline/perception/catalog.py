"""The perceivers that ``[perceive] perceiver`` can name.

Each entry is a function ``make(options: PerceiverOptions) -> Perceiver``. One line here adds a
perceiver of this tree; the entry-point group adds those from outside.
"""

from __future__ import annotations

from pipeline.core.catalog import Catalog

PERCEIVERS = Catalog(
    kind="perceiver",
    group="bodystream.perceivers",
    parts={
        "blazepose": "pipeline.perception.blazepose.make:make",
        "instanthmr": "pipeline.perception.onnx_models.instanthmr:make",
        "onnx": "pipeline.perception.onnx_models.landmarks:make",
        "sam3d": "pipeline.perception.sam3d:make",
    },
)

names, check, load = PERCEIVERS.names, PERCEIVERS.check, PERCEIVERS.load
