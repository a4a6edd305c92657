"""What comes after the solver on a GPU, in three launches: `WindowFit._finish` in Triton.

Results, steady distance, memory, and meshes. The numbers are torch's to rounding, which the tests
check. `finish_kernels_gpu` and `body.mesh_gpu` have the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.body.kinematics import Skeleton
from pipeline.body.kinematics_gpu import LANES, ROUNDS, ancestors, padded
from pipeline.body.mesh_gpu import Mesher
from pipeline.body.mhr_surface import surface_table
from pipeline.body.model import BodyModel
from pipeline.fitting import finish_kernels_gpu as kernels
from pipeline.fitting.layout import Layout
from pipeline.fitting.solver import BETAS, FitConfig, Observations, Solution
from pipeline.fitting.steady_depth import FADE, MOST, SPEED
from pipeline.fitting.window_step import FROZEN, MEMORY, NEAREST_M, SHAPE_GAIN, SHAPE_LIMIT


class Finish:
    """Finishes windows of one body model. Made once; nothing is copied from the host later.

    Args:
        body: The body model, on a GPU.
        skeleton: Its tables.
        config: Weights and switches.
    """

    def __init__(self, body: BodyModel, skeleton: Skeleton, config: FitConfig) -> None:
        self._config = config
        device = skeleton.bones.device
        self._bones = padded(skeleton.bones.permute(1, 2, 0))
        self._ancestors = ancestors().to(device)
        table = surface_table(body)
        skin = None
        if table is not None:
            skin = torch.from_numpy(table.body_vertices).to(device, torch.int32)
        self._mesher = Mesher(body, skin)

    def __call__(
        self,
        layouts: tuple[Layout, Layout],
        rows: Tensor,
        memory: Tensor,
        after: Tensor,
        observed: Observations,
        solution: Solution,
    ) -> tuple[Tensor, Tensor]:
        """Return the results (P, result.size) and meshes (P, T, M, V, 3) of a solved window.

        Args:
            layouts: Those of observations and results: `WindowFit.inputs`, `WindowFit.result`.
            rows: (P, inputs.size) the observations.
            memory: (P, MEMORY.size) what is remembered before the window.
            after: The same after the window; all but the landmark history in it is written.
            observed: The observations as prepared.
            solution: What the solver found.
        """
        inputs, results = layouts
        out = rows.new_empty(len(rows), results.size)
        parts, result = inputs.split(rows), results.split(out)
        stored, later = MEMORY.split(memory), MEMORY.split(after)
        config, mesher = self._config, self._mesher
        people, frames = solution.transl_m.shape[:2]
        bodies = people * frames
        new = solution.transl_m.new_empty
        transforms, moved, betas = new(bodies, 12, LANES), new(bodies, 3), new(people, BETAS)
        pose = new(bodies, mesher.pose_numbers) if mesher.pose_numbers else None
        found = (
            getattr(solution, name).contiguous()
            for name in (
                "rotations", "transl_m", "betas", "cost", "residual_mean", "shape_information",
            )
        )  # fmt: skip
        kernels.finish[(bodies,)](
            *found, parts["shape_frozen"], inputs.size,
            stored["rotations"], stored["transl_m"], stored["known"], stored["shape_information"],
            stored["steady_depth"], MEMORY.size, parts["interval_30hz"],
            self._bones, self._ancestors, result["turns"], result["betas"], result["transl_m"],
            result["joints_m"], result["residual_mean"], result["cost"], results.size,
            later["rotations"], later["transl_m"], later["known"], later["betas"],
            later["shape_information"], later["steady_depth"], transforms, moved, betas,
            moved if pose is None else pose, SHAPE_LIMIT, SHAPE_GAIN, FROZEN,
            config.shape_weight, 1.0 * config.hold_shape, FADE, SPEED, MOST, NEAREST_M,
            FRAMES=frames, LANES=LANES, ROUNDS=ROUNDS, POSE=mesher.pose_numbers, num_warps=1,
        )  # fmt: skip
        meshes = mesher.meshes_of(transforms, betas, pose)
        surface = None
        if "surface_error_m" in result:
            surface = (
                result["surface_error_m"],
                observed.surface_m.flatten(0, 1),
                observed.surface_weight.flatten(),
                observed.present.flatten(),
            )
        mesher.write_points(meshes, moved, result["landmarks_m"], results.size, surface)
        return out, meshes.unflatten(0, (people, frames))
