"""What every perceiver does: find the people in windows of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.body.model import BodyModel
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Window
from pipeline.core.people import Person
from pipeline.gpu.device import EngineOptions
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.sam3d.options import Sam3dOptions

People = list[tuple[Person, ...]]
"""The people of each frame of a window, in the window's order."""


@dataclass(frozen=True)
class PerceiverOptions:
    """What a perceiver is made with; each uses what concerns it.

    Attributes:
        people: The most people to track at once.
        device: Where to compute.
        model_folder: A folder that is searched first for model files.
        engine: How a GPU computes.
        on_progress: Called with (name, done, of) while something long is built.
        areas: Where people are looked for. People outside are left out by the estimator in any
            case; a perceiver that knows it earlier spends nothing on them.
        model: The user's own model file, or folder of them.
        keypoints: The name of the keypoints that it reports, where the file does not say.
        fov_deg: The field of view across the picture's longer side, if known.
        focal_px: The focal length in pixels, if known; not both.
        intrinsics: K (3, 3) in pixels of every frame, if known; it wins over both.
        body: The body that will be fitted, for perceivers that report points of its skin.
        sam3d: How SAM 3D Body is used.
        mhr_mesh: Whether MHR bodies are wanted with their meshes.
    """

    people: int = 8
    device: torch.device = torch.device("cpu")
    model_folder: Path | None = None
    engine: EngineOptions = EngineOptions()
    on_progress: Callable[[str, int, int], None] | None = None
    areas: Areas = EVERYWHERE
    model: Path | None = None
    keypoints: str = "coco17"
    fov_deg: float | None = None
    focal_px: float | None = None
    # Arrays have no single truth value, so options are compared without it.
    intrinsics: np.ndarray | None = field(default=None, compare=False)
    body: BodyModel | None = None
    sam3d: Sam3dOptions = Sam3dOptions()
    mhr_mesh: bool = False

    def intrinsics_of(self, size: tuple[int, int]) -> np.ndarray:
        """Return K (3, 3) float64 pixels of a picture.

        Args:
            size: Its height and width.
        """
        if self.intrinsics is not None:
            return self.intrinsics
        return default_intrinsics(*size, self.fov_deg, self.focal_px)


class Perceiver:
    """Finds people in windows of frames; subclass it and write `decode`, or `embed` and `decode`.

    A perceiver holds no state of any source: its memory of a source goes in and comes out as
    ``memory`` (None for a new source), so one perceiver serves many sources. It belongs to one
    thread at a time.

    Attributes:
        name: Its name in reports.
        reports: One line for each engine that was chosen for it; empty where there was no choice.
        has_mhr: Whether its people have MHR bodies, with meshes where those are asked for.
        has_skin: Whether its people have points of an MHR body's skin (`Person.surface_m`).
    """

    name = "perceiver"
    has_mhr = False
    has_skin = False
    reports: tuple[Any, ...] = ()

    def prepare(self, window: Window) -> Window:
        """Return the window with its frames where `embed` and `decode` compute, such as on a GPU.

        The default returns the window as it is.
        """
        return window

    def embed(self, window: Window, memory: Any) -> Any:
        """Return the embedding of ``window.key_frame``, the heavy half of the work.

        The light half, `decode`, reuses it for every frame of the window. The default keeps only
        the memory, for perceivers that treat all frames alike.

        Args:
            window: One to four frames of one source, as `prepare` returned it.
            memory: What `decode` returned for the source's window before; None for the first one.
        """
        return memory

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        """Return the people of every frame, and the memory for the next window's `embed`.

        Args:
            embedding: What `embed` returned for this window.
            window: The same window.

        Returns:
            A tuple of `Person` for each frame, in the window's order, in any keypoint set; and the
            memory, which may be anything.
        """
        raise NotImplementedError

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Any]
    ) -> list[tuple[People, Any]]:
        """Return what `decode` returns for one window of each of several sources.

        The default takes one window after another; a perceiver on a GPU answers them in one batch.

        Args:
            windows: One window of each source, as `prepare` returned it.
            memories: Each source's memory, in the same order.
        """
        return [self.decode(self.embed(w, memory), w) for w, memory in zip(windows, memories)]

    def unfollowed(self, memory: Any) -> int:
        """Return how many people the last window showed that are not followed, since all places
        are taken.

        The default is 0, for perceivers that do not count them.

        Args:
            memory: What `decode` returned with the window's people.
        """
        return 0

    def close(self) -> None:
        """Release what the models hold; the perceiver cannot be used afterwards."""
