"""A window before and after the solver on a GPU, in nine launches, or ten for SMPL's bodies."""

from __future__ import annotations

from pipeline.body.kinematics import Skeleton
from pipeline.body.model import BodyModel
from pipeline.fitting.finish_gpu import Finish
from pipeline.fitting.lifter import Lifter
from pipeline.fitting.prepare_gpu import Preparation
from pipeline.fitting.solver import FitConfig


class WindowKernels:
    """`window_step.WindowParts` in Triton, for windows of one body model.

    Args:
        body: The body model, on a GPU.
        skeleton: Its tables.
        lifter: Corrects world landmarks.
        config: Weights and switches.
    """

    def __init__(
        self, body: BodyModel, skeleton: Skeleton, lifter: Lifter, config: FitConfig
    ) -> None:
        self.prepare = Preparation(skeleton, lifter, config)
        self.finish = Finish(body, skeleton, config)
