"""Which pipeline a row's settings describe."""

from __future__ import annotations

from app.bench.plan import PlanPipeline
from app.bench.rows import Settings
from app.bench.subject import GpuPipeline, HostPipeline, Pipeline


def make_pipeline(settings: Settings) -> Pipeline:
    """The pipeline that a row's settings describe, loaded and ready. Raises WeightsError,
    ValueError, RuntimeError."""
    if settings.plan is not None:
        return PlanPipeline(settings)
    return HostPipeline(settings) if settings.device == "cpu" else GpuPipeline(settings)
