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
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.config import Config as Config
    from app.config import ConfigError as ConfigError
    from app.config import load_config as load_config
    from pipeline.body.load import load_body as load_body
    from pipeline.capture.base import SourceOptions as SourceOptions
    from pipeline.capture.errors import SourceError as SourceError
    from pipeline.capture.open import open_source as open_source
    from pipeline.core.frame import Frame as Frame
    from pipeline.core.frame import Window as Window
    from pipeline.core.people import Bodies as Bodies
    from pipeline.core.people import Mask as Mask
    from pipeline.core.people import Person as Person
    from pipeline.core.skeleton import JOINT_NAMES as JOINT_NAMES
    from pipeline.core.skeleton import LANDMARK_NAMES as LANDMARK_NAMES
    from pipeline.fitting.solver import FitConfig as FitConfig
    from pipeline.runtime.stream import EngineOptions as EngineOptions
    from pipeline.runtime.stream import make_estimator as make_estimator
    from pipeline.runtime.stream import stream as stream
    from pipeline.weights.store import WeightsError as WeightsError

_HOMES = {
    "Bodies": "pipeline.core.people",
    "Config": "app.config",
    "ConfigError": "app.config",
    "EngineOptions": "pipeline.runtime.stream",
    "FitConfig": "pipeline.fitting.solver",
    "Frame": "pipeline.core.frame",
    "JOINT_NAMES": "pipeline.core.skeleton",
    "LANDMARK_NAMES": "pipeline.core.skeleton",
    "Mask": "pipeline.core.people",
    "Person": "pipeline.core.people",
    "SourceError": "pipeline.capture.errors",
    "SourceOptions": "pipeline.capture.base",
    "WeightsError": "pipeline.weights.store",
    "Window": "pipeline.core.frame",
    "load_body": "pipeline.body.load",
    "load_config": "app.config",
    "make_estimator": "pipeline.runtime.stream",
    "open_source": "pipeline.capture.open",
    "stream": "pipeline.runtime.stream",
}
"""Each public name and the module it is defined in."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])


def program() -> str:
    """Return the words that start the program here, for messages and hints.

    Returns:
        ``bodystream`` where that command is installed, else ``python -m bodystream``. After a
        start as a module it is the module too: that most likely means that no command is on the
        path, or one of another version.
    """
    started_as = Path(sys.argv[0]).name if sys.argv else ""
    if started_as in ("__main__.py", "bodystream.py"):
        return "python -m bodystream"
    installed = started_as == "bodystream" or shutil.which("bodystream") is not None
    return "bodystream" if installed else "python -m bodystream"


def version() -> str:
    """Return the version of the installed package, else of this checkout."""
    from importlib import metadata

    try:
        return metadata.version("bodystream")
    except metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).with_name("pyproject.toml")
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


if __name__ == "__main__":
    from app.cli import main

    sys.exit(main())
