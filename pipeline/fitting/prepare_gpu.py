"""What comes before the solver on a GPU, in six launches: `WindowFit._prepare` in Triton.

Edge maps, landmark history, the lifter's network, observations, and the first guess. The numbers
are torch's to rounding, which the tests check. `prepare_kernels_gpu`, `edge_kernels_gpu` and
`lifter_kernels_gpu` have the kernels.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Skeleton
from pipeline.body.kinematics_gpu import LANES, ROUNDS, ancestors, padded, point_tables
from pipeline.body.prior import LIMIT_SIGMA
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting import prepare_kernels_gpu as kernels
from pipeline.fitting.edge_kernels_gpu import edges
from pipeline.fitting.edges import REACH
from pipeline.fitting.initialise import LIMB_AXES, LIMB_JOINTS, LIMB_LANDMARKS, MAX_LOG_SIZE
from pipeline.fitting.layout import Layout
from pipeline.fitting.lifter import (
    BARELY_VISIBLE,
    CONTEXT,
    PERCEIVED_SHARE,
    STILL_M,
    LandmarkHistory,
    Lifter,
)
from pipeline.fitting.lifter_gpu import LifterKernel
from pipeline.fitting.observations import BLUR, EDGE_SIZE
from pipeline.fitting.solver import BETAS, FitConfig, Observations, TemporalPrior
from pipeline.fitting.window_step import MEMORY

_STRIP = 8
"""Columns of an edge map that a program computes."""
FRAME = Layout(
    image=(LANDMARKS, 2),
    visible=(LANDMARKS,),
    world_m=(LANDMARKS, 3),
    world_spread_m=(LANDMARKS, 3),
    world_weight=(LANDMARKS,),
    view=(3, 3),
    present=(),
    size=(),
    edge_from=(2, 3),
    masked=(),
    root_depth_m=(),
    image_spread=(),
    world_known=(),
    world_sigma_m=(),
    surface_weight=(),
)
"""One frame's observations of a person as a row; the fields of `Observations` are views of it."""
_PLACES = {
    constant: FRAME.places[name].start
    for constant, name in {
        "WORLD": "world_m", "SPREAD": "world_spread_m", "WEIGHT": "world_weight", "VIEW": "view",
        "PRESENT": "present", "IMAGE_SPREAD": "image_spread",
    }.items()
}  # fmt: skip
"""Where the kinds that two kernels read begin in a row."""


class Preparation:
    """Prepares windows of one body model. Made once; nothing is copied from the host later.

    Args:
        skeleton: The body model's tables, on a GPU.
        lifter: The lifter's network, there too.
        config: Weights and switches.
    """

    def __init__(self, skeleton: Skeleton, lifter: Lifter, config: FitConfig) -> None:
        self._config = config
        self._network = LifterKernel(lifter)
        device = skeleton.bones.device
        self._order = lifter.order.to(torch.int32)
        self._rest = skeleton.rest.contiguous()
        self._limbs, self._axes = (table.to(device) for table in _limb_tables())
        self._bones = padded(skeleton.bones.permute(1, 2, 0))
        self._ancestors = ancestors().to(device)
        self._moments, self._mass = point_tables(skeleton.landmarks)
        self._prior = padded(skeleton.prior.permute(0, 2, 1))

    def __call__(
        self, inputs: Layout, rows: Tensor, memory: Tensor, after: Tensor
    ) -> tuple[Observations, TemporalPrior, tuple[Tensor, Tensor]]:
        """Prepare a window of P people.

        Args:
            inputs: The layout of the observations, `WindowFit.inputs`.
            rows: (P, inputs.size) the observations.
            memory: (P, MEMORY.size) what is remembered before the window.
            after: The same after the window; the landmark history in it is written.

        Returns:
            The observations, what is known before the window, and the first guess: rotations
            (P, T, 24, 3, 3) and translations (P, T, 3).
        """
        parts, stored, later = inputs.split(rows), MEMORY.split(memory), MEMORY.split(after)
        people, frames = parts["present"].shape
        names = ("rays", "visible", "world_m", "sighted")
        kernels.remember[(people, CONTEXT)](
            parts["image"], parts["visible"], parts["world_m"], parts["view"], parts["present"],
            inputs.size, *(stored[name] for name in names), MEMORY.size,
            *(later[name] for name in names),
            FRAMES=frames, CONTEXT=CONTEXT, LANDMARKS=LANDMARKS, num_warps=2,
        )  # fmt: skip
        answers = None
        if self._config.use_lifter:
            history = LandmarkHistory(*(later[name] for name in names))
            interval = parts["interval_30hz"]
            answers = self._network(history, MEMORY.size, interval, inputs.size, frames)
        packed, skin, past = self._observe(parts, stored, answers, inputs.size)
        fields = {name: _field(packed, name) for name in FRAME.shapes}
        edge = self._edges(parts, inputs.size) if "inside" in parts else parts["edge"]
        observed = Observations(**fields, edge=edge, surface_m=skin)
        return observed, past, self._guess(packed, past, parts, inputs.size)

    def _edges(self, parts: dict[str, Tensor], row: int) -> Tensor:
        """The edge maps (P, T, 3, n, n) of outlines."""
        people, frames = parts["scale"].shape
        strips = EDGE_SIZE // _STRIP
        new = parts["scale"].new_empty
        scratch = new(people * frames, strips, 2, EDGE_SIZE, 2 * _STRIP)
        out = new(people, frames, 3, EDGE_SIZE, EDGE_SIZE)
        edges[(people * frames, strips)](
            parts["inside"], parts["inverse"], parts["scale"], row, scratch, out, BLUR,
            sum(math.exp(-0.5 * (k / BLUR) ** 2) for k in range(-REACH, REACH + 1)),
            FRAMES=frames, SIDE=EDGE_SIZE, STRIP=_STRIP, REACH=REACH, num_warps=8,
        )  # fmt: skip
        return out

    def _observe(
        self,
        parts: dict[str, Tensor],
        stored: dict[str, Tensor],
        answers: Tensor | None,
        row: int,
    ) -> tuple[Tensor, Tensor, TemporalPrior]:
        """Packed observations (P, T, FRAME.size), the skin (P, T, S, 3), and what is known."""
        config = self._config
        people, frames = parts["present"].shape
        new = parts["present"].new_empty
        packed = new(people, frames, FRAME.size)
        points = parts["surface_m"].shape[2] if "surface_m" in parts else 0
        skin = new(people, frames, points, 3)
        past = TemporalPrior(
            new(people, 2, JOINTS, 3, 3), new(people, 2, 3), new(people, 2), new(people, BETAS),
            new(people, BETAS, BETAS), new(people), parts["shape_frozen"],
        )  # fmt: skip
        # Where there is no skin, an array that is there anyway stands for it.
        unused = parts["present"]
        kernels.observe[(people,)](
            parts["image"], parts["visible"], parts["world_m"], parts["view"], parts["present"],
            parts["size"], parts["masked"], parts["root_depth_m"], parts["world_known"],
            parts["world_sigma_m"], parts["edge_from"], row,
            unused if answers is None else answers, self._order, packed,
            parts.get("surface_m", unused), parts.get("surface_sigma_m", unused),
            skin if points else unused,
            stored["rotations"], stored["transl_m"], stored["known"], stored["betas"],
            stored["shape_information"], MEMORY.size, parts["interval_30hz"],
            past.rotations, past.transl_m, past.known, past.betas, past.shape_information,
            past.interval_30hz, config.image_sigma, config.world_sigma_m,
            config.world_depth_sigma_m, config.model_sigma_m, config.surface_model_m,
            config.shape_weight, PERCEIVED_SHARE, BARELY_VISIBLE, STILL_M, MAX_LOG_SIZE,
            FRAMES=frames, ROWS=triton.next_power_of_2(frames), LANDMARKS=LANDMARKS,
            WIDTH=FRAME.size, EDGE_FROM=FRAME.places["edge_from"].start,
            MASKED=FRAME.places["masked"].start, DEPTH=FRAME.places["root_depth_m"].start,
            KNOWN=FRAME.places["world_known"].start, SIGMA=FRAME.places["world_sigma_m"].start,
            SKIN=FRAME.places["surface_weight"].start, SURFACE=points,
            POINTS=triton.next_power_of_2(max(points, 1)), USE_LIFTER=answers is not None,
            USE_DEPTH=config.use_depth, **_PLACES, num_warps=4,
        )  # fmt: skip
        return packed, skin, past

    def _guess(
        self, packed: Tensor, past: TemporalPrior, parts: dict[str, Tensor], row: int
    ) -> tuple[Tensor, Tensor]:
        """The first guess of rotations (P, T, 24, 3, 3) and translations (P, T, 3)."""
        config = self._config
        people, frames = packed.shape[:2]
        rotations = packed.new_empty(people, frames, JOINTS, 3, 3)
        transl = packed.new_empty(people, frames, 3)
        sources = packed.new_empty(people * frames, dtype=torch.int32)
        posed = packed.new_empty(people * frames, 2, 22, LANES)
        unused, tries = parts["present"], 1 + config.use_warm_start
        places = {name: _PLACES[name] for name in ("WORLD", "VIEW", "PRESENT")}
        # A program has 32 lanes, which is one warp.
        kernels.poses[(people * frames, tries)](
            packed, past.rotations, past.betas,
            parts.get("start_rotations", unused), parts.get("start_known", unused), row,
            self._rest, self._limbs, self._axes, self._bones, self._ancestors, self._prior,
            sources, posed, config.prior_weight, config.limit_weight, LIMIT_SIGMA,
            FRAMES=frames, SURFACE="start_rotations" in parts, LANES=LANES, ROUNDS=ROUNDS,
            WIDTH=FRAME.size, **places, num_warps=1,
        )  # fmt: skip
        kernels.guess[(people * frames,)](
            packed, past.known, past.betas, sources, posed, self._moments, self._mass,
            rotations, transl, config.robust, 1.0 * config.use_world, 1.0 * config.use_prior, tries,
            FRAMES=frames, LANES=LANES, LANDMARKS=LANDMARKS, WIDTH=FRAME.size, **_PLACES,
            num_warps=4,
        )  # fmt: skip
        return rotations, transl


def _field(packed: Tensor, name: str) -> Tensor:
    """One kind of observation (P, T, ...) in packed rows, as a view."""
    shape, part = FRAME.shapes[name], packed[..., FRAME.places[name]]
    return part.unflatten(-1, shape) if shape else part[..., 0]


def _limb_tables() -> tuple[Tensor, Tensor]:
    """For each joint, its limb's three landmarks and its part (4, LANES) int32, and the limb's
    hinge at rest (3, LANES); `prepare_kernels_gpu._shown` says what they mean."""
    limbs = torch.zeros(4, LANES, dtype=torch.int32)
    axes = torch.zeros(3, LANES)
    # Joints without a limb compute with any of them, so that nothing is divided by zero.
    limbs[:3] = torch.tensor(LIMB_LANDMARKS[0])[:, None]
    axes[:] = torch.tensor(LIMB_AXES[0])[:, None]
    limbs[3, 0] = 1
    for landmarks, axis, joints in zip(LIMB_LANDMARKS, LIMB_AXES, LIMB_JOINTS):
        for part, joint in enumerate(joints, 2):
            limbs[:3, joint] = torch.tensor(landmarks)
            limbs[3, joint] = part
            axes[:, joint] = torch.tensor(axis)
    return limbs, axes
