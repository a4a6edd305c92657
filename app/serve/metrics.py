"""The metrics of `serve` in Prometheus' text format, by Prometheus' own client library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from app.serve.source_view import SourceView
from pipeline.capture.decoder_pool import DECODERS
from pipeline.capture.status import State
from pipeline.core.stats import Histogram, Snapshot

Figures = Sequence[tuple[SourceView, Snapshot]]


def metrics_text(sources: Figures) -> str:
    """Return every source's figures as text for Prometheus.

    Args:
        sources: The state and the counters of each source, as `Hub.figures` returns them.
            Histograms and counters count from when the source was added.
    """
    # Not the library's global registry: a removed source would stay in it.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(sources))  # type: ignore[arg-type]
    return generate_latest(registry).decode()


class _Collected:
    """A collector of the figures at one moment: every request has its own registry."""

    def __init__(self, sources: Figures) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily("bodystream_state", "1 for its state", labels=("source", "state"))
        fps = GaugeMetricFamily("bodystream_fps", "frames drawn a second", labels=("source",))
        people = GaugeMetricFamily("bodystream_people", "in the last frame", labels=("source",))
        unfollowed = GaugeMetricFamily(
            "bodystream_people_not_followed", "seen in the last window", labels=("source",)
        )
        latency = HistogramMetricFamily(
            "bodystream_latency_seconds", "capture to output", labels=("source",)
        )
        stage = HistogramMetricFamily(
            "bodystream_stage_seconds", "a frame's time in a stage", labels=("source", "stage")
        )
        read = CounterMetricFamily("bodystream_frames_read", "captured", labels=("source",))
        drawn = CounterMetricFamily("bodystream_frames_drawn", "shown", labels=("source",))
        dropped = CounterMetricFamily(
            "bodystream_frames_dropped", "never shown", labels=("source", "cause")
        )
        back = CounterMetricFamily("bodystream_reconnects", "reconnections", labels=("source",))
        damaged = CounterMetricFamily("bodystream_packets_damaged", "skipped", labels=("source",))
        unconnected = CounterMetricFamily(
            "bodystream_connections_failed", "by cause", labels=("source", "cause")
        )
        decoders = GaugeMetricFamily(
            "bodystream_decoders", "processes that decode, a spare one included", len(DECODERS)
        )
        memory = GaugeMetricFamily(
            "bodystream_decoder_memory_bytes", "resident", labels=("source",)
        )
        lost = CounterMetricFamily(
            "bodystream_recording_dropped", "left out of recordings", labels=("source",)
        )
        failed = CounterMetricFamily(
            "bodystream_recording_failures", "recordings that failed", labels=("source", "cause")
        )
        missing = GaugeMetricFamily(
            "bodystream_recording_missing", "1: wanted and not written", labels=("source",)
        )
        moves = CounterMetricFamily(
            "bodystream_moves", "to another worker of the cluster", labels=("source",)
        )
        failovers = CounterMetricFamily(
            "bodystream_failovers", "workers that died with it", labels=("source",)
        )
        events = CounterMetricFamily("bodystream_events", "reported", labels=("source",))
        lost_events = CounterMetricFamily(
            "bodystream_events_lost", "detected, but not reported", labels=("source",)
        )
        off = GaugeMetricFamily(
            "bodystream_prediction_error_pixels", "low latency", labels=("source", "quantile")
        )
        for view, figures in self._sources:
            name = view.name
            for quantile, px in zip(("0.5", "0.95"), view.predicted_off_px or ()):
                off.add_metric((name, quantile), px)
            lost.add_metric((name,), view.not_recorded)
            # Every cause has a series, so that a rate also finds the first failure.
            for cause, number in view.recording_failures.items():
                failed.add_metric((name, cause), number)
            missing.add_metric((name,), float(view.recording_missing))
            if view.events is not None and view.events_lost is not None:
                events.add_metric((name,), view.events)
                lost_events.add_metric((name,), view.events_lost)
            # Every state has a series, 0 or 1, so that a query also finds the states that ended.
            for value in State:
                state.add_metric((name, str(value)), float(view.state == value))
            fps.add_metric((name,), view.fps)
            people.add_metric((name,), view.people)
            unfollowed.add_metric((name,), view.not_followed)
            latency.add_metric((name,), *_buckets(figures.latency))
            for label, histogram in figures.stages.items():
                stage.add_metric((name, label), *_buckets(histogram))
            read.add_metric((name,), view.read)
            drawn.add_metric((name,), view.drawn)
            for cause, number in view.dropped.items():
                dropped.add_metric((name, cause), number)
            back.add_metric((name,), view.reconnects)
            moves.add_metric((name,), view.moves)
            failovers.add_metric((name,), view.failovers)
            damaged.add_metric((name,), view.damaged)
            for cause, number in view.failures.items():
                unconnected.add_metric((name, cause), number)
            if view.decoder_bytes:
                memory.add_metric((name,), view.decoder_bytes)
        counts = [read, drawn, dropped, back, damaged, unconnected, lost, failed, events]
        gauges = [state, fps, people, unfollowed, missing, decoders, memory, off]
        return [*gauges, latency, stage, *counts, lost_events, moves, failovers]


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return Prometheus' cumulative buckets by upper edge in seconds, and the sum in seconds."""
    edges = [f"{edge / 1e3:g}" for edge in histogram.edges_ms]
    # Prometheus needs a last bucket without a limit, which holds all.
    counts = [*histogram.at_most, histogram.count]
    return list(zip([*edges, "+Inf"], map(float, counts))), histogram.sum_ms / 1e3
