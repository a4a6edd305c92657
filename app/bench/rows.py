"""The rows of the benchmark: what each one runs, declared. A new row is a new line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.config import ConfigError


@dataclass(frozen=True)
class Settings:
    """What a row's pipeline is made of; ``app.bench.subject.make_pipeline`` reads it.

    ``engine`` is how torch modules are run ("auto": the best that is installed), ``graphs``
    whether CUDA graphs are used, ``half`` whether the networks run in half precision, ``tf32``
    whether FP32 products may be rounded to TF32 (None: as the pipeline decides). ``people`` is
    the most to follow, ``weights_folder`` is searched for model files first.
    """

    device: Literal["cpu", "cuda"] = "cuda"
    engine: Literal["auto", "tensorrt", "inductor", "eager"] = "auto"
    graphs: bool = True
    half: bool = True
    tf32: bool | None = None
    renderer: str = "gpu"
    people: int = 1
    weights_folder: Path | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, Any]:
        """All that changes what is measured."""
        return {name: value for name, value in vars(self).items() if name != "weights_folder"}


@dataclass(frozen=True)
class Row:
    """One named measurement.

    ``measure`` "latency": four frames in host memory to four overlays in host memory, one window
    after another; "streams": how many 30 Hz sources one machine holds. ``people`` None takes the
    command's. ``plan_ms`` is what the plan had estimated for four frames. The speed-up is over
    the row ``against``. ``packages`` are modules that must be installed, each with its extra.
    """

    id: str
    name: str
    settings: Settings
    measure: Literal["latency", "streams"] = "latency"
    people: int | None = None
    plan_ms: float | None = None
    against: str = "default-cpu"
    packages: tuple[tuple[str, str], ...] = ()


_TENSORRT = (("torch_tensorrt", "tensorrt"),)

ROWS: tuple[Row, ...] = (
    Row("default", "everything on the GPU", Settings()),
    Row("default-nograph", "without CUDA graphs", Settings(graphs=False)),
    Row("default-fp32", "networks in FP32, TF32 off", Settings(half=False, tf32=False)),
    Row("default-tensorrt", "TensorRT engines", Settings(engine="tensorrt"), packages=_TENSORRT),
    Row("default-cpu", "everything on the CPU", Settings("cpu", renderer="numba", half=False)),
    Row("streams-p1", "30 Hz streams, one person each", Settings(), "streams", people=1),
    Row("streams-p4", "30 Hz streams, four people each", Settings(), "streams", people=4),
    Row("streams-p8", "30 Hz streams, eight people each", Settings(), "streams", people=8),
)


def choose(names: str | None, rows: Sequence[Row] = ROWS) -> list[Row]:
    """Rows by their ids, separated by commas, in the table's order; None is all of them. Raises
    ConfigError for an unknown one."""
    if names is None:
        return list(rows)
    known = [row.id for row in rows]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--rows: there is no row '{name}'; there are: {', '.join(known)}")
    if not wanted:
        raise ConfigError(f"--rows: name one or more of {', '.join(known)}")
    return [row for row in rows if row.id in wanted]
