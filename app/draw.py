"""One frame with its bodies drawn over it, for notebooks and programs of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.body_renderer import BodyRenderer
from app.config import load_config
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.runtime.estimator import BodyEstimator


def draw(frame: Frame, bodies: Bodies, estimator: BodyEstimator, **settings: Any) -> Frame:
    """Return a copy of a frame with the bodies drawn over its picture.

    It makes a renderer for this one picture; a video is made by `run`.

    Args:
        frame: The frame.
        bodies: Its bodies.
        estimator: The one that fitted them; its lens and body model are used.
        **settings: The settings of a profile's ``[render]``: ``style="skeleton"``,
            ``labels=True``. The renderer is "numba", the CPU's, unless it is named.

    Raises:
        ConfigError: A setting is unknown or wrong.
        RuntimeError: The renderer is not available.
    """
    settings = {"renderer": "numba", **settings}
    keys = {f"render.{name}": value for name, value in settings.items()}
    config = load_config(flags=keys).render
    renderer = BodyRenderer(config.renderer, config, estimator.body)
    try:
        (picture,) = renderer.draw([frame.image], [bodies], estimator.intrinsics(frame))
    finally:
        renderer.close()
    return replace(frame, pixels=picture, on_device=None)
