"""The public names of bodystream: video in, SMPL bodies out.

```python
import bodystream

with bodystream.stream("clip.mp4") as run:
    for frame, bodies in run:
        print(frame.id, bodies.track, bodies.joints_m.shape)
```

A name is imported when it is first used, so that ``import bodystream`` alone loads no torch.
``python -m bodystream`` runs the command line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.config import Config as Config
    from app.config import ConfigError as ConfigError
    from app.config import load_config as load_config
    from app.draw import draw as draw
    from app.exports.recording import Recording as Recording
    from app.exports.recording import read_recording as read_recording
    from app.exports.table import table as table
    from app.outputs.base import OutputError as OutputError
    from app.run import run as run
    from app.view.notebook import RecordingView as RecordingView
    from app.view.notebook import view as view
    from pipeline.body.load import load_body as load_body
    from pipeline.capture.base import SourceOptions as SourceOptions
    from pipeline.capture.errors import SourceError as SourceError
    from pipeline.capture.open import open_source as open_source
    from pipeline.core.frame import Frame as Frame
    from pipeline.core.frame import Window as Window
    from pipeline.core.people import Bodies as Bodies
    from pipeline.core.people import Mask as Mask
    from pipeline.core.people import MhrBody as MhrBody
    from pipeline.core.people import Person as Person
    from pipeline.core.skeleton import BLAZEPOSE_33 as BLAZEPOSE_33
    from pipeline.core.skeleton import COCO_17 as COCO_17
    from pipeline.core.skeleton import JOINT_NAMES as JOINT_NAMES
    from pipeline.core.skeleton import LANDMARK_NAMES as LANDMARK_NAMES
    from pipeline.core.skeleton import MHR_70 as MHR_70
    from pipeline.core.skeleton import SMPL_24 as SMPL_24
    from pipeline.core.skeleton import KeypointSet as KeypointSet
    from pipeline.fitting.solver import FitConfig as FitConfig
    from pipeline.gpu.device import EngineOptions as EngineOptions
    from pipeline.perception.base import Perceiver as Perceiver
    from pipeline.perception.base import PerceiverOptions as PerceiverOptions
    from pipeline.runtime.estimator import BodyEstimator as BodyEstimator
    from pipeline.runtime.estimator import EstimatorOptions as EstimatorOptions
    from pipeline.runtime.make import make_estimator as make_estimator
    from pipeline.runtime.runner import Runner as Runner
    from pipeline.runtime.stream import stream as stream
    from pipeline.weights.store import WeightsError as WeightsError

_HOMES = {
    "BLAZEPOSE_33": "pipeline.core.skeleton",
    "Bodies": "pipeline.core.people",
    "BodyEstimator": "pipeline.runtime.estimator",
    "COCO_17": "pipeline.core.skeleton",
    "Config": "app.config",
    "ConfigError": "app.config",
    "EngineOptions": "pipeline.gpu.device",
    "EstimatorOptions": "pipeline.runtime.estimator",
    "FitConfig": "pipeline.fitting.solver",
    "Frame": "pipeline.core.frame",
    "JOINT_NAMES": "pipeline.core.skeleton",
    "KeypointSet": "pipeline.core.skeleton",
    "LANDMARK_NAMES": "pipeline.core.skeleton",
    "MHR_70": "pipeline.core.skeleton",
    "Mask": "pipeline.core.people",
    "MhrBody": "pipeline.core.people",
    "Perceiver": "pipeline.perception.base",
    "PerceiverOptions": "pipeline.perception.base",
    "OutputError": "app.outputs.base",
    "Person": "pipeline.core.people",
    "Recording": "app.exports.recording",
    "RecordingView": "app.view.notebook",
    "Runner": "pipeline.runtime.runner",
    "SMPL_24": "pipeline.core.skeleton",
    "SourceError": "pipeline.capture.errors",
    "SourceOptions": "pipeline.capture.base",
    "WeightsError": "pipeline.weights.store",
    "Window": "pipeline.core.frame",
    "draw": "app.draw",
    "load_body": "pipeline.body.load",
    "load_config": "app.config",
    "make_estimator": "pipeline.runtime.make",
    "open_source": "pipeline.capture.open",
    "read_recording": "app.exports.recording",
    "run": "app.run",
    "stream": "pipeline.runtime.stream",
    "table": "app.exports.table",
    "view": "app.view.notebook",
}
"""Each public name and the module it is defined in."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from pipeline.core.program import version

        return version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])


if __name__ == "__main__":
    from app.__main__ import start

    start()
