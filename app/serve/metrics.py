"""Prometheus' text format, by its own client library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.serve.hub import SourceView
from pipeline.capture.status import State


def metrics_text(sources: Sequence[SourceView]) -> str:
    """Every source's figures now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(sources))  # type: ignore[arg-type]
    return generate_latest(registry).decode()


class _Collected:
    def __init__(self, sources: Sequence[SourceView]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily("bodystream_state", "1 for its state", labels=("source", "state"))
        fps = GaugeMetricFamily("bodystream_fps", "frames drawn a second", labels=("source",))
        people = GaugeMetricFamily("bodystream_people", "in the last frame", labels=("source",))
        latency = GaugeMetricFamily(
            "bodystream_latency_seconds", "capture to output", labels=("source", "quantile")
        )
        stage = GaugeMetricFamily(
            "bodystream_stage_seconds", "median a frame", labels=("source", "stage")
        )
        read = CounterMetricFamily("bodystream_frames_read", "captured", labels=("source",))
        drawn = CounterMetricFamily("bodystream_frames_drawn", "shown", labels=("source",))
        dropped = CounterMetricFamily(
            "bodystream_frames_dropped", "never shown", labels=("source", "cause")
        )
        back = CounterMetricFamily("bodystream_reconnects", "times back", labels=("source",))
        damaged = CounterMetricFamily(
            "bodystream_packets_damaged", "stepped over", labels=("source",)
        )
        lost = CounterMetricFamily(
            "bodystream_recording_dropped", "left out of recordings", labels=("source",)
        )
        for view in self._sources:
            name = view.name
            lost.add_metric((name,), view.not_recorded)
            for each in State:
                state.add_metric((name, str(each)), float(view.state == each))
            fps.add_metric((name,), view.fps)
            people.add_metric((name,), view.people)
            for quantile, ms in zip(("0.5", "0.95", "0.99"), view.latency_ms or ()):
                latency.add_metric((name, quantile), ms / 1e3)
            for label, ms in view.stages_ms.items():
                stage.add_metric((name, label), ms / 1e3)
            read.add_metric((name,), view.read)
            drawn.add_metric((name,), view.drawn)
            for cause, number in view.dropped.items():
                dropped.add_metric((name, cause), number)
            back.add_metric((name,), view.reconnects)
            damaged.add_metric((name,), view.damaged)
        return [state, fps, people, latency, stage, read, drawn, dropped, back, damaged, lost]
