"""`BodyEstimator`: the interface of what turns frames into bodies, for the scheduler and the app.

`KeypointEstimator` (keypoint_estimator.py) is the one that ships: a perceiver finds keypoints, the
fit makes bodies of them. A network that regresses bodies directly is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.body.model import BodyModel
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.solver import FitConfig
from pipeline.gpu.device import EngineOptions
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.sam3d.options import Sam3dOptions

FittedWindow = list[tuple[Frame, Bodies]]
"""The frames of a window, each with its bodies."""


@dataclass(frozen=True, eq=False)
class DetectedWindow:
    """A window and, for each of its frames, the people by track id.

    Attributes:
        window: The window.
        people: The people of each frame, in BlazePose's 33 landmarks, whatever set the estimator's
            networks report.
        unfollowed: The number of people who were seen and are not followed, since all places are
            taken.
    """

    window: Window
    people: tuple[dict[int, Person], ...]
    unfollowed: int = 0


class BodyEstimator(Protocol):
    """Turns windows of frames into bodies, in two halves that run in threads of their own.

    It holds no state of any source: `begin` makes a source's state, and every call is handed the
    states of its windows, which it updates. `perceive` and `fit` touch different parts of a state,
    so one thread may perceive a source's next window while another fits its last.

    An error may be one source's fault: after one, the same windows and states are handed in again,
    a source at a time. So a call changes a state only once nothing can fail any more.

    Attributes:
        body: The body model whose parameters come out; its faces, name and gender are shown and
            written.
        device: Where bodies are fitted.
        reports: One line for each engine that was chosen; empty where there was no choice.
    """

    body: BodyModel
    device: torch.device

    @property
    def reports(self) -> tuple[str, ...]: ...

    def begin(self) -> Any:
        """Return the state of a new source."""
        ...

    def intrinsics(self, frame: Frame) -> np.ndarray:
        """Return K (3, 3) float64 pixels of the frame's source: the same array for one size."""
        ...

    def perceive(self, windows: Sequence[Window], states: Sequence[Any]) -> list[DetectedWindow]:
        """Return the people in one window of each of several sources."""
        ...

    def fit(self, detected: Sequence[DetectedWindow], states: Sequence[Any]) -> list[FittedWindow]:
        """Return bodies for every frame of windows that `perceive` returned, in their order."""
        ...

    def fit_event(
        self,
        detected: DetectedWindow,
        before: Sequence[dict[int, Person]],
        track: int,
        state: Any,
    ) -> FittedWindow:
        """Return one person's bodies in the frames about an event, at full quality.

        Args:
            detected: The window about the event.
            before: The people by track of the frames before it, oldest first.
            track: Whose bodies.
            state: The source's state, which stays as it is.
        """
        ...

    def warm_up(self, people: int, *, events: bool = False, low_latency: bool = False) -> None:
        """Make ready, so that the first window takes no longer than the others.

        Args:
            people: The most people in the windows of a batch.
            events: Make ready for `fit_event` too.
            low_latency: Make ready for windows of one frame too.
        """
        ...

    def close(self) -> None:
        """Give back what the models hold; nothing can be estimated after it."""
        ...


@dataclass(frozen=True)
class EstimatorOptions:
    """What an estimator is made with; each uses what concerns it.

    Attributes:
        people: The most people to track at once.
        perceiver: What finds the people (`pipeline.perception.catalog`).
        body: An SMPL file of the user's; None is the free body.
        device: "auto", "cpu" or "cuda".
        model_folder: A folder that is searched first for model files.
        fov_deg: The field of view across the image's longer side, if known.
        focal_px: The focal length in pixels, if known; not both.
        intrinsics: K (3, 3) in pixels, where the camera is calibrated; it wins over both.
        fit: Weights and switches of the fit.
        masks: Another network for people's masks ("own": the perceiver's; else a name of
            `ultralytics_models.load.MODELS` that segments).
        reuse: Reuse the key frame's masks and depths for its neighbours.
        depth: A network that says how far people are ("off": none).
        depth_scale: Metres a unit of its maps (None: found for each source). Needs a known lens.
        engine: How a GPU computes.
        on_progress: Called with (name, done, of) while something long is built.
        areas: Where people are looked for, in every source.
        model: The user's own model file, or folder of them, for perceivers that take one.
        keypoints: The name of the keypoints that it reports.
        sam3d: How SAM 3D Body is used.
        mhr_mesh: Whether MHR bodies are wanted with their meshes (`MhrBody.vertices_m`).
    """

    people: int = 8
    perceiver: str = "blazepose"
    body: Path | None = None
    device: str = "auto"
    model_folder: Path | None = None
    fov_deg: float | None = None
    focal_px: float | None = None
    # Arrays have no single truth value, so options are compared without it.
    intrinsics: np.ndarray | None = field(default=None, compare=False)
    fit: FitConfig | None = None
    masks: str = "own"
    reuse: bool = False
    depth: str = "off"
    depth_scale: float | None = None
    engine: EngineOptions = EngineOptions()
    on_progress: Callable[[str, int, int], None] | None = None
    areas: Areas = EVERYWHERE
    model: Path | None = None
    keypoints: str = "coco17"
    sam3d: Sam3dOptions = Sam3dOptions()
    mhr_mesh: bool = False

    def __post_init__(self) -> None:
        # Programs give paths as text too.
        for name in ("body", "model_folder", "model"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
