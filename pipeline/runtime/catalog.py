"""The estimators that the setting ``estimator`` can name.

Each entry is a function ``make(**settings) -> BodyEstimator`` (`pipeline.runtime.estimator`) that
takes what `pipeline.runtime.make.make_estimator` takes. One line here adds an estimator of this
tree; the entry-point group adds those from outside.
"""

from __future__ import annotations

from pipeline.core.catalog import Catalog

ESTIMATORS = Catalog(
    kind="estimator",
    group="bodystream.estimators",
    parts={
        "keypoints": "pipeline.runtime.make:make_keypoint_estimator",
        "instanthmr": "pipeline.runtime.make:make_instanthmr_estimator",
        "onnx": "pipeline.runtime.make:make_onnx_estimator",
        "sam3d": "pipeline.runtime.make:make_sam3d_estimator",
    },
)

names, check, load = ESTIMATORS.names, ESTIMATORS.check, ESTIMATORS.load
