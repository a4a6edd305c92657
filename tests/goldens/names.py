"""The names that users and programs rely on: flags, routes, metrics, columns."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

from tests.support.bodies import bodies, frame, mhr_body, run_info
from tests.support.paths import ROOT

COMMANDS = (
    "", "run", "serve", "view", "events", "evaluate", "bench", "weights", "weights list",
    "weights fetch", "weights check", "export", "recover", "doctor",
)  # fmt: skip


def flags(command: str) -> list[str]:
    """The flags that a command's --help names."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *command.split(), "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", done.stdout)))


def routes() -> dict[str, list[str]]:
    """The HTTP API's routes and methods, with their parameters."""
    from fastapi.testclient import TestClient

    from app.serve.poses_jobs import PosesJobs
    from app.serve.web import create_app

    app = create_app(SimpleNamespace(), PosesJobs())  # type: ignore[arg-type]
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    paths = client.get("/openapi.json").json()["paths"]
    return {
        f"{method.upper()} {path}": sorted(p["name"] for p in operation.get("parameters", []))
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def metrics() -> list[str]:
    """The names of what /metrics tells, for one source."""
    from app.serve.metrics import metrics_text
    from app.serve.source_view import SourceView
    from pipeline.core.stats import Stats

    stats = Stats()
    stats.read(0)
    stats.timed("fit", 1.0)
    stats.drew(0)
    view = SourceView(
        "a", "x", "live", "", 0.0, 1.0, 1, 0, (1.0, 1.0, 1.0), 1, 1, {"ring full": 1}, {"fit": 1.0},
        0, 0, {"lost": 1}, 1, None, 0, 0, (1.0, 1.0), (1.0, 1.0), 0, 0, True, True, "disk full",
        {"disk full": 1}, False, {},
    )  # fmt: skip
    text = metrics_text([(view, stats.snapshot())])
    return sorted(set(re.findall(r"(?m)^# TYPE (\S+ \S+)", text)))


def columns() -> dict[str, list[str]]:
    """The keys of the files of bodies."""
    import json
    import tempfile
    from pathlib import Path

    import numpy as np

    from app.outputs.jsonl import line_of
    from app.outputs.mhr import MhrOutput
    from app.outputs.poses import AmassOutput, PosesOutput

    line = json.loads(line_of(run_info(), frame(0), bodies([1])))
    out = {"jsonl": sorted(line), "jsonl body": sorted(line["bodies"][0])}
    found = replace(bodies([1]), mhr={1: mhr_body()})
    with tempfile.TemporaryDirectory() as folder:
        poses, mhr, amass = (Path(folder) / name for name in ("p.npz", "m.npz", "amass"))
        outputs = (PosesOutput(poses, vertices=True), MhrOutput(mhr, True), AmassOutput(amass))
        for output in outputs:
            output.open(run_info())
            output.write(frame(0), found, None)
            output.close()
        for name, path in (("npz", poses), ("mhr", mhr)):
            with np.load(path) as file:
                out[name] = sorted(file.files)
        with np.load(next(amass.glob("*.npz"))) as file:
            out["amass"] = sorted(file.files)
    return out


def all_names() -> dict[str, object]:
    """Everything, as the golden holds it."""
    return {
        "flags": {command: flags(command) for command in COMMANDS},
        "routes": routes(),
        "metrics": metrics(),
        "columns": columns(),
    }
