"""The settings of a served source that can change while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.config import Config, settings

KEYS = {
    "style": "render.style",
    "alpha": "render.alpha",
    "labels": "render.labels",
    "draw_unseen": "render.draw_unseen",
    "loop": "capture.loop",
    "timing": "output.timing",
    "rtsp_transport": "capture.rtsp_transport",
}
"""The keys of a profile that can change, by their names in the API."""
_RESTARTING = ("timing", "rtsp_transport")
"""The settings that a source reads only when it begins."""

Values = Mapping[str, Any]
"""Settings by their names in the API."""


def settings_of(config: Config) -> dict[str, bool | float | str]:
    """Return the settings of a source by their names in the API."""
    return {name: _value(config, key) for name, key in KEYS.items()}


def by_key(values: Values) -> dict[str, Any]:
    """Return settings by their keys of a profile."""
    return {KEYS[name]: value for name, value in values.items()}


def needs_restart(before: Config, after: Config) -> bool:
    """Return whether a source has to begin again to go from one configuration to another."""
    return any(_value(before, KEYS[name]) != _value(after, KEYS[name]) for name in _RESTARTING)


def fields() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the type of each setting, and its help and range as JSON Schema names them."""
    found = {}
    for name, key in KEYS.items():
        declared = settings()[key]
        note = declared.setting
        about: dict[str, Any] = {"description": note.help}
        if declared.type is float:
            about |= {"ge": note.low, "le": note.high}
        found[name] = (declared.type, about)
    return found


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
