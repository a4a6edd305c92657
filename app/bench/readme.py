"""Write the benchmark's files as Markdown tables into a document; the same files always give the
same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.bench import results
from app.bench.rows import ROWS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
STAGES = (
    "upload", "detect", "segment", "perceive", "landmarks", "depth", "fit", "draw", "download",
)  # fmt: skip


def update(readme: Path, folder: Path) -> bool:
    """Write the tables of all files of a folder between a document's marks `BEGIN` and `END`.

    Args:
        readme: The path of the document.
        folder: The folder of the benchmark's files.

    Returns:
        Whether the document changed.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: The marks are missing, or a file is not a benchmark's.
    """
    text = readme.read_text()
    # Refused, because text between wrong marks would be lost.
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme} has no place for the table: the lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    new = f"{before}{BEGIN}\n{tables(folder)}{END}{after}"
    # An unchanged document keeps its time stamp.
    if new != text:
        results.write_text(readme, new)
    return new != text


def tables(folder: Path) -> str:
    """Return the tables of all machines, sorted by file name."""
    documents = [results.read(path) for path in sorted(folder.glob("*.json"))]
    if not documents:
        return "Nothing has been measured yet; `bodystream bench` does it.\n"
    return "\n".join(_machine(document) for document in documents)


def _machine(document: Mapping[str, Any]) -> str:
    hardware, rows = document["hardware"], document["rows"]
    latency = [row for row in rows if "streams" not in row]
    parts = [_heading(hardware)]
    for size in dict.fromkeys((row["size"], row["people"]) for row in latency):
        chosen = [row for row in latency if (row["size"], row["people"]) == size]
        parts.append(_latency(chosen, *size))
    held = [row for row in rows if "streams" in row]
    if held:
        parts.append(_streams(held))
    if latency:
        # One table of floors is enough; the default pipeline's says the most.
        parts.append(_floors(next((r for r in latency if r["id"] == "default"), latency[0])))
    absent = [row.id for row in ROWS if row.id not in {r["id"] for r in rows}]
    if absent:
        parts.append(
            f"Not measured on this machine: {', '.join(f'`{name}`' for name in absent)}.\n"
        )
    return "\n".join(parts)


def _heading(hardware: Mapping[str, Any]) -> str:
    gpu = [hardware["gpu"], f"driver {hardware['driver']}", f"CUDA {hardware['cuda']}"]
    cpu = [f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB"]
    versions = [f"torch {hardware['torch']}", f"Python {hardware['python']}"]
    if hardware.get("triton"):
        versions.insert(1, f"triton {hardware['triton']}")
    return f"**{'; '.join([*(gpu if hardware['gpu'] else []), *cpu, *versions])}**\n"


def _latency(rows: Sequence[Mapping[str, Any]], size: str, people: int) -> str:
    used = {stage for row in rows for stage in row["stages_ms"]}
    # Known stages in the pipeline's order, and any others behind them.
    stages = [s for s in STAGES if s in used] + sorted(used - set(STAGES))
    predicted = any(row.get("predicted_rtx4090_ms") is not None for row in rows)
    who = "one person" if people == 1 else f"{people} people"
    head = ["row", "", "p50", "p95", *stages, "faster", "the plan"]
    head += ["RTX 4090, *predicted*"] if predicted else []
    lines = [
        f"Milliseconds for four {size} frames with {who}, from host memory to finished overlays in"
        " host memory; stages are medians of a second pass.\n",
        _line(head),
        _line(["---", "---", *["--:"] * (len(head) - 2)]),
    ]
    for row in rows:
        cells = [f"`{row['id']}`", _remark(row), ms(row["total_ms_p50"]), ms(row["total_ms_p95"])]
        cells += [ms(row["stages_ms"].get(stage)) for stage in stages]
        cells += [f"{row['speedup']:.1f}x" if row["speedup"] else "", ms(row["plan_ms"])]
        cells += [ms(row.get("predicted_rtx4090_ms"))] if predicted else []
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _remark(row: Mapping[str, Any]) -> str:
    old = ", ".join(f"{key} {value}" for key, value in row.get("measured_on", {}).items())
    random = "random weights, speed only" if row["weights"] == "random" else ""
    return "; ".join(text for text in (row["name"], random, old) if text)


def _streams(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "30 Hz streams held with every window of four frames finished within its 133 ms at the 95th"
        " percentile; all sources deliver at the same moment.\n",
        _line(["row", "people", "size", "streams", "p50 ms", "p95 ms"]),
        _line(["---", *["--:"] * 5]),
    ]
    for row in rows:
        cells = [f"`{row['id']}`", str(row["people"]), row["size"], str(row["streams"])]
        lines.append(_line([*cells, ms(row["total_ms_p50"]), ms(row["total_ms_p95"])]))
    return "\n".join(lines) + "\n"


def _floors(row: Mapping[str, Any]) -> str:
    lines = [
        f"The stages of `{row['id']}` against their floors (`app/bench/roofline.py`):\n",
        _line(
            ["stage", "ms", "roofline floor", "kernels", "launch floor", "floor / ms", "bound by"]
        ),
        _line(["---", *["--:"] * 5, "---"]),
    ]
    for stage, taken in row["stages_ms"].items():
        lines.append(_line(floor_cells(row, stage, taken)))
    return "\n".join(lines) + "\n"


def floor_cells(row: Mapping[str, Any], stage: str, taken: float) -> list[str]:
    """Return the cells of a stage in the table of floors."""
    efficiency = row.get("efficiency", {}).get(stage)
    return [
        stage,
        ms(taken),
        ms(row.get("floors_ms", {}).get(stage)),
        str(row.get("kernels", {}).get(stage, "")),
        ms(row.get("launch_floors_ms", {}).get(stage)),
        "" if efficiency is None else f"{100 * efficiency:.2g} %",
        row.get("bound", {}).get(stage, ""),
    ]


def ms(value: float | None) -> str:
    """Return milliseconds with three digits; an empty text for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
