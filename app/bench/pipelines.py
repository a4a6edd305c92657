"""Choose the pipeline that a row's settings describe."""

from __future__ import annotations

from app.bench.plan import PlanPipeline
from app.bench.rows import Settings
from app.bench.subject import GpuPipeline, HostPipeline, Pipeline
from app.bench.upstream_sam3d import UpstreamPipeline


def make_pipeline(settings: Settings) -> Pipeline:
    """Load the pipeline that a row's settings describe.

    Raises:
        WeightsError: A network's weights are missing.
        ValueError: A setting does not fit.
        RuntimeError: The engine or the renderer is not available.
    """
    if settings.plan is not None:
        return PlanPipeline(settings)
    if settings.upstream:
        return UpstreamPipeline(settings)
    return HostPipeline(settings) if settings.device == "cpu" else GpuPipeline(settings)
