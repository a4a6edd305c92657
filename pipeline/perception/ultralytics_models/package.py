"""The one place that imports ultralytics."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

_SETTINGS = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}


class UltralyticsError(RuntimeError):
    """ultralytics is not here or cannot be imported; one line."""


def ultralytics(module: str) -> ModuleType:
    """``ultralytics.MODULE``, told not to install packages, not to ask the network and to be quiet.

    Raises UltralyticsError, with the remedy, when it cannot be imported.
    """
    # Read when it is first imported. What the user has set stays.
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module(f"ultralytics.{module}")
    except (ImportError, RuntimeError, OSError) as error:
        # A torchvision made for another torch fails with a RuntimeError of its own.
        reason = " ".join(str(error).split("\n")[0].split())[:160]
        raise UltralyticsError(
            "ultralytics cannot be imported; pip install 'bodystream[ultralytics]', with the "
            f"torchvision that belongs to this torch ({reason})"
        ) from error
