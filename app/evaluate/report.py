"""The `Report` of an evaluation, as tables and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from app.evaluate.outcome import NAN, Row
from app.outputs.streams import open_text

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 110
_SUITE = {
    "coverage_pct": ("covered", "%"), "ghosts_pct": ("ghosts", "%"),
    "tracks_each": ("tracks", ""), "mpjpe_mm": ("mesh", "mm"), "pa_mpjpe_mm": ("PA", "mm"),
    "surface_mm": ("surface", "mm"), "root_mm": ("root", "mm"),
    "recall_pct": ("recall", "%"),
    "mpjpe_lsp14_mm": ("14 joints", "mm"), "pa_mpjpe_lsp14_mm": ("PA", "mm"),
    "mpjpe_smpl24_mm": ("24 joints", "mm"), "pa_mpjpe_smpl24_mm": ("PA", "mm"),
    "pve_mm": ("PVE", "mm"), "fps": ("fps", "frames/s"),
    "close_pct": ("close", "%"), "iou": ("IoU", ""),
    "accel": ("accel", "ratio"), "lag_frames": ("lag", "frames"),
    "wrist_speed_p95": ("wrists", "ratio"), "fit_ms_p50": ("fit", "ms"),
}  # fmt: skip
"""The columns of a suite's table: a figure's key, the heading, and the unit or "ratio"."""
_WORLD = {
    "w_mpjpe_mm": ("W-MPJPE", "mm"), "wa_mpjpe_mm": ("WA-MPJPE", "mm"), "rte_pct": ("drift", "%"),
    "foot_slide_mm": ("slide", "mm/frame"), "foot_height_cm": ("floor", "cm"),
    "gravity_deg": ("gravity", "°"), "jitter": ("jitter", "ratio"), "still_mm": ("still", "mm"),
    "idf1_pct": ("IDF1", "%"),
}  # fmt: skip
"""The columns of a suite's second table, which truths with a world have."""
_SUMS = ("frames", "person_frames", "ghosts", "people", "switches")
"""Figures that are added up over clips; the others are averaged."""


@dataclass(frozen=True)
class Worst:
    """A person-frame with a large error: the MPJPE of the mesh and of the perceived world
    landmarks, in millimetres."""

    frame: int
    person: int
    track: int
    mesh_mm: float
    perceived_mm: float


@dataclass(frozen=True)
class Report:
    """The figures of one clip.

    Attributes:
        clip: The file name of the clip.
        truth: The file name of the truth.
        kind: The kind of truth: "render", "mediapipe", "multi-view" or "nobody".
        rows: The figures.
        weight: The weight of the clip in `pooled`: its person-frames, or its frames if it has no
            people.
        settings: The differences from the default pipeline, such as "without mask".
        notes: Remarks on the figures.
        worst: The person-frames with the largest errors.
    """

    clip: str
    truth: str
    kind: str
    rows: tuple[Row, ...]
    weight: float
    settings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    worst: tuple[Worst, ...] = ()

    def row(self, key: str) -> Row:
        """Return a figure by its key.

        Raises:
            KeyError: There is no such figure.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def has(self, key: str) -> bool:
        """Return whether there is a figure of that key."""
        return any(row.key == key for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object for a JSON file; unknown values are null."""
        values = ("mesh", "perceived", "reference", "ratio")
        return {
            "clip": self.clip,
            "truth": self.truth,
            "kind": self.kind,
            "settings": list(self.settings),
            "figures": {
                row.key: {"label": row.label.strip(), "unit": row.unit}
                | {name: _number(getattr(row, name)) for name in values}
                for row in self.rows
            },
            "notes": list(self.notes),
            "worst": [
                {name: _number(value) for name, value in vars(worst).items()}
                for worst in self.worst
            ],
        }


def pooled(reports: Sequence[Report]) -> Report:
    """Return one report of all clips.

    Means are weighted by person-frames; counts are added up. Percentiles and medians are weighted
    means of the clips' own. A figure that some clips lack is that of the others.

    Args:
        reports: The reports of the clips, at least one.
    """
    order = {row.key: row for report in reports for row in report.rows}
    rows = []
    for key, first in order.items():
        # A figure that only some kinds of truth have is not lowered by the others.
        having = [report for report in reports if report.has(key)]
        parts = {}
        for name in ("mesh", "perceived", "reference"):
            values = np.array([getattr(report.row(key), name) for report in having])
            weights = np.array([report.weight for report in having])
            known = np.isfinite(values) & (weights > 0)
            # Weights are for means; a sum of clips needs none.
            if key in _SUMS and name == "mesh":
                parts[name] = float(np.nansum(values))
            elif known.any():
                parts[name] = float(np.average(values[known], weights=weights[known]))
            else:
                parts[name] = NAN
        rows.append(Row(key, first.label, first.unit, **parts, ratio_to=first.ratio_to))
    weight = sum(report.weight for report in reports)
    kinds = {report.kind for report in reports}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    return Report("all", f"{len(reports)} truths", kind, tuple(rows), weight, reports[0].settings)


def _number(value: Any) -> Any:
    # JSON has no NaN: unknown numbers are null.
    return round(value, 6) if isinstance(value, float) and math.isfinite(value) else (
        None if isinstance(value, float) else value
    )  # fmt: skip


def write_json(
    reports: Sequence[Report], path: Path, pool: bool, total: Report | None = None
) -> None:
    """Write reports as JSON.

    Args:
        reports: The reports; only the first one is written without ``pool``.
        path: The file; its folder is made if missing.
        pool: Whether to write all of them: ``{"clips": [...], "all": {...}}``.
        total: The report of all of them; None pools them.

    Raises:
        OSError: The file cannot be written.
    """
    data: dict[str, Any] = reports[0].as_json()
    if pool:
        every = total or pooled(reports)
        data = {"clips": [report.as_json() for report in reports], "all": every.as_json()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_text(path) as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def print_report(report: Report, stream: TextIO) -> None:
    """Print a clip's table, its worst person-frames and the remarks."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False, width=_WIDTH, soft_wrap=True)
    title = f"{report.clip} against {report.truth} ({report.kind})"
    console.print(Text("; ".join([title, *report.settings])))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("", style="dim")
    for name in ("mesh", "perceived", "reference", "ratio"):
        table.add_column(name, justify="right")
    for row in report.rows:
        values = (row.mesh, row.perceived, row.reference, row.ratio)
        table.add_row(Text(row.label), row.unit, *map(_text, values))
    console.print(table)
    for worst in report.worst:
        console.print(
            f"frame {worst.frame:5} person {worst.person} track {worst.track}: "
            f"mesh {worst.mesh_mm:.0f} mm, perceived {_text(worst.perceived_mm)} mm"
        )
    for note in report.notes:
        console.print(Text(note))


def print_suite(reports: Sequence[Report], stream: TextIO, total: Report | None = None) -> None:
    """Print a table with a row for each clip and one for all of them: ``total``, or else the pooled
    ones."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, width=_WIDTH + 30)
    every = [*reports, total or pooled(reports)]
    console.print(_suite_table(every, _SUITE))
    if every[-1].has("w_mpjpe_mm"):
        console.print()
        console.print(_suite_table(every, _WORLD))


def _suite_table(reports: Sequence[Report], columns: Mapping[str, tuple[str, str]]) -> Table:
    """Return a table with a row for each report, the last one apart; of the columns, those that a
    report has."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("clip")
    shown = {k: v for k, v in columns.items() if any(report.has(k) for report in reports)}
    # The world's errors have no perceived value beside them.
    with_seen = [key for key in shown if key.endswith("mpjpe_mm") and columns is _SUITE]
    for key, (label, unit) in shown.items():
        table.add_column(f"{label}\n{unit}", justify="right")
        if key in with_seen:
            table.add_column("seen\nmm", justify="right")
            table.add_column("\nratio", justify="right")
    for report in reports:
        cells = [Path(report.clip).stem]
        for key, (_, unit) in shown.items():
            row = report.row(key) if report.has(key) else Row(key, "", "")
            cells.append(_text(row.ratio if unit == "ratio" else row.mesh))
            if key in with_seen:
                cells += [_text(row.perceived), _text(row.ratio)]
        if report is reports[-1]:
            table.add_section()
        table.add_row(*cells, style="bold" if report is reports[-1] else None)
    return table


def _text(value: float) -> str:
    """Return a value with three or four digits; "-" for an unknown one."""
    if not math.isfinite(value):
        return "-"
    # Counts are whole numbers and have no decimals.
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    size = abs(value)
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"
