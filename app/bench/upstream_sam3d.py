"""The original SAM 3D Body from a clone, with random weights: what its authors' own code takes.

It has the weights and the rig of `app.bench.random_sam3d`. Frames go through it one after another,
as it does: the crop on the host, the network, and the results on the host. It fits and draws
nothing.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from app.bench import measure
from app.bench.random_sam3d import random_parts
from app.bench.rows import Settings
from app.bench.scripted_rig import write_rig
from app.bench.subject import Finished
from app.bench.timers import Timer
from app.bench.upstream_imports import original
from pipeline.core.frame import Window
from pipeline.sam3d.config import CONFIGS, ModelConfig

_TYPES = {"dinov3": "dinov3_vith16plus", "vith": "vit_hmr_512_384"}
"""The original's names of the backbones."""


class UpstreamPipeline:
    """The original's ``process_one_image`` with given boxes, on each frame of a window.

    Raises:
        RuntimeError: The clone's network is not of the released sizes.
    """

    at_once = 1
    depth = 1
    weights: Literal["real", "random"] = "random"
    engine = "the original's own code, PyTorch eager"

    def __init__(self, settings: Settings) -> None:
        assert settings.upstream_folder is not None, "`missing` asks for the folder"
        self._kind = "full" if settings.sam3d.hands else "body"
        self._people = settings.people
        backbone = settings.network.removeprefix("sam3d-")
        self._estimator = load(settings.upstream_folder, backbone, settings.device)
        # While loading, the weights were there twice; that is not what the original needs.
        measure.reset_memory()

    def warm_up(self, sources: int) -> None:
        """Do nothing: the original captures nothing."""

    def begin(self) -> None:
        """Return nothing: the original follows no one from frame to frame."""

    def submit(
        self, windows: Sequence[Window], states: Sequence[Any], timer: Timer
    ) -> list[Finished]:
        return [self._run(window, timer) for window in windows]

    def collect(self, ticket: list[Finished]) -> list[Finished]:
        return ticket

    def close(self) -> None:
        del self._estimator

    def _run(self, window: Window, timer: Timer) -> Finished:
        images = [frame.image for frame in window.frames]
        # It prints a line for every image.
        with timer("perceive"), redirect_stdout(io.StringIO()):
            found = [self._people_in(image) for image in images]
        return Finished(images, max(found))

    def _people_in(self, image: np.ndarray) -> int:
        boxes = given_boxes(image.shape[1], image.shape[0], self._people)
        kind = self._kind
        return len(self._estimator.process_one_image(image, bboxes=boxes, inference_type=kind))


def given_boxes(width: int, height: int, people: int) -> np.ndarray:
    """Return boxes (people, 4) float32, x0, y0, x1, y1, of people who stand side by side."""
    middles = (np.arange(people) + 0.5) * width / people
    half = 0.5 * min(width / people, 0.4 * height)
    top, bottom = np.full(people, 0.05 * height), np.full(people, 0.95 * height)
    return np.stack([middles - half, top, middles + half, bottom], axis=1).astype(np.float32)


def load(folder: Path, backbone: str, device: str) -> Any:
    """Return the original's estimator with random weights and a made-up rig.

    Args:
        folder: The clone; `app.bench.upstream_imports.missing` found nothing.
        backbone: "dinov3" or "vith".
        device: "cpu" or "cuda".

    Raises:
        RuntimeError: Its network is not of the released sizes.
    """
    network, rig = random_parts(backbone, device)
    with (
        original(folder) as imported,
        TemporaryDirectory() as temporary,
        warnings.catch_warnings(action="ignore"),
        redirect_stdout(io.StringIO()),
    ):
        file = Path(temporary) / "mhr_model.pt"
        write_rig(rig, file)
        settings = _settings(CONFIGS[backbone], file)
        module = imported("sam_3d_body.models.meta_arch").SAM3DBody(settings)
        # Not strict: it keeps the rig, and copies of constants, among its weights.
        module.load_state_dict(network.state_dict(), strict=False)
        module = module.to(device).eval()
        return imported("sam_3d_body").SAM3DBodyEstimator(module, settings)


class _Settings(dict[str, Any]):
    """Settings that are read as attributes too, as the original reads them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _settings(config: ModelConfig, rig: Path) -> _Settings:
    """The released models' settings, under the original's names."""
    heads = {"MLP_DEPTH": 2, "MLP_CHANNEL_DIV_FACTOR": 1}
    model = {
        "IMAGE_SIZE": [config.side, config.side],
        "IMAGE_MEAN": [0.485, 0.456, 0.406],
        "IMAGE_STD": [0.229, 0.224, 0.225],
        "BACKBONE": _Settings(TYPE=_TYPES[config.backbone], FROZEN_STAGES=-1, DROP_PATH_RATE=0.1),
        "DECODER": _decoder(config),
        "PROMPT_ENCODER": _Settings(
            ENABLE=True,
            MAX_NUM_CLICKS=2,
            PROMPT_KEYPOINTS="mhr70",
            MASK_EMBED_TYPE="v2",
            MASK_PROMPT="v1",
            KEYPOINT_SAMPLER=_Settings(TYPE="v1"),
        ),
        "PERSON_HEAD": _Settings(POSE_TYPE="mhr", CAMERA_TYPE="perspective"),
        "MHR_HEAD": _Settings(heads, MHR_MODEL_PATH=str(rig)),
        "CAMERA_HEAD": _Settings(heads, DEFAULT_SCALE_FACTOR_HAND=10),
    }
    return _Settings(MODEL=_Settings(model), TRAIN=_Settings(USE_FP16=True, FP16_TYPE="bfloat16"))


def _decoder(config: ModelConfig) -> _Settings:
    return _Settings(
        TYPE="sam",
        DIM=config.token_width,
        DEPTH=config.layers,
        HEADS=config.token_heads,
        DIM_HEAD=config.token_inner // config.token_heads,
        MLP_DIM=config.token_width,
        LAYER_SCALE_INIT=0.0,
        DROP_RATE=0.0,
        ATTN_DROP_RATE=0.0,
        DROP_PATH_RATE=0.0,
        FFN_TYPE="origin",
        ENABLE_TWOWAY=False,
        REPEAT_PE=True,
        FROZEN=False,
        CONDITION_TYPE="cliff",
        USE_INTRIN_CENTER=True,
        DO_INTERM_PREDS=True,
        DO_KEYPOINT_TOKENS=True,
        DO_KEYPOINT3D_TOKENS=True,
        DO_HAND_DETECT_TOKENS=True,
        KEYPOINT_TOKEN_UPDATE="v2",
    )
