"""Import ultralytics. No other module of this project does."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

_SETTINGS = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}


class UltralyticsError(RuntimeError):
    """ultralytics is not installed or cannot be imported. The message is one line."""


def ultralytics(module: str) -> ModuleType:
    """Import ``ultralytics.MODULE`` with settings that keep it offline, quiet and from installing.

    Raises:
        UltralyticsError: It cannot be imported. The message says what to do.
    """
    # ultralytics reads these when it is first imported. The user's own settings have priority.
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module(f"ultralytics.{module}")
    except (ImportError, RuntimeError, OSError) as error:
        # A torchvision built for another torch fails with a RuntimeError.
        reason = " ".join(str(error).split("\n")[0].split())[:160]
        raise UltralyticsError(
            "ultralytics cannot be imported; pip install 'bodystream[ultralytics]', with the "
            f"torchvision that belongs to this torch ({reason})"
        ) from error
