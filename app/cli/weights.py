"""``weights``: the model files that the profiles can use, and getting them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from app.cli.flags import binder, command
from app.cli.signals import unwind_by_signal
from app.options import CheckOptions, FetchOptions, ListOptions
from pipeline.core.program import program

if TYPE_CHECKING:
    import rich.progress

    from pipeline.weights import store as weights


def run_list(options: ListOptions) -> int:
    """List the models' files; return the exit code."""
    return list_weights(options.weights)


def run_fetch(options: FetchOptions) -> int:
    """Get a model's files; return the exit code."""
    return fetch_weights(options.name)


def run_check(options: CheckOptions) -> int:
    """Check that a network works; return the exit code."""
    return check_weights(options.name, options.weights, options.device)


app = App(name="weights", usage=f"{program()} weights [list | fetch NAME | check NAME]")
# Without an action the files are listed.
app.default(binder("list", ListOptions, run_list))
app.command(
    command(
        "weights list",
        ListOptions,
        run_list,
        help="Show what is found, its size, sha256 and licence, and how to get it.",
    )
)
app.command(command("weights fetch", FetchOptions, run_fetch, help="Get a model's files."))
app.command(
    command(
        "weights check",
        CheckOptions,
        run_check,
        help="Run SAM 3D Body on four drawn people, and say whether its bodies are plausible.",
        epilogue="Exits with 1 if something is not plausible.",
    )
)


def list_weights(folder: Path | None = None) -> int:
    """Print every model's files: found or not, size, sha256, licence, how to get them.

    Args:
        folder: Searched before the usual places.

    Returns:
        The exit code, 0.
    """
    from app.run_report import size_text
    from pipeline.weights import store as weights

    for name, model in (weights.REGISTRY | weights.OPTIONAL).items():
        print(f"{name}: {model.about}; licence {model.licence}")
        for state in weights.status(name, folder):
            size = size_text(state.file.size) if state.file.size else "size unknown"
            print(f"  {state.file.name}  {size}  {_where(state)}")
            print(f"    sha256 {state.file.sha256 or 'unknown'}")
        said = model.page or model.hub
        print(f"  get it: {model.how}" + ("" if said else f"  ({_source(model)})"))
    print(f"kept in {weights.cache_folder()}")
    return 0


def fetch_weights(name: str) -> int:
    """Get the files of a model, or of all that the default profile uses, and print where they are.

    Returns:
        The exit code, 0.

    Raises:
        WeightsError: There is no such model, or one that a run needs could not be fetched.
    """
    from pipeline.weights import store as weights

    for model in weights.chosen(name):
        try:
            _fetch_model(model)
        except weights.WeightsError as error:
            if model.name == name or not model.without:
                raise
            print(f"warning: {error}\n{model.missing}", file=sys.stderr)
    return 0


def check_weights(name: str, folder: Path | None = None, device: str = "auto") -> int:
    """Run a release of SAM 3D Body on drawn people, and print whether its bodies are plausible.

    Args:
        name: The release's name, or its folder.
        folder: Searched before the usual places.
        device: As for `choose_device`.

    Returns:
        The exit code: 0, or 1 where something is not plausible.

    Raises:
        WeightsError: There is no such release.
        CheckpointError: A file is not the release's.
    """
    from app.check.sam3d import check_sam3d
    from pipeline.gpu.device import choose_device
    from pipeline.sam3d.release import find_release

    files, chosen = find_release(name, folder), choose_device(device)
    print(f"{files.checkpoint}\n{files.rig}", flush=True)
    if chosen.type == "cpu":
        print("on a CPU this takes minutes", file=sys.stderr)
    wrong = 0
    for finding in check_sam3d(files, chosen):
        wrong += not finding.right
        state = "ok" if finding.right else "WRONG"
        print(f"{state:8}{finding.name:15} {finding.detail}", flush=True)
    print(f"{wrong} not plausible" if wrong else "its bodies are plausible")
    return 1 if wrong else 0


def _fetch_model(model: weights.Weights) -> None:
    from app.run_report import size_text
    from pipeline.weights import store as weights

    # Only if something has to be fetched, which may take minutes.
    if not model.page and not all(state.right for state in weights.status(model.name)):
        print(f"{model.name}: {_source(model)} ...", file=sys.stderr)
    # The hub's client shows bars of its own.
    with unwind_by_signal(), _bar(sys.stderr.isatty() and not model.hub) as bar:
        tasks: dict[str, Any] = {}

        def tell(file: str, done: int, of: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=of)
            bar.update(tasks[file], completed=done, total=of)

        paths = weights.fetch(model.name, tell)
    for path in paths.values():
        print(f"{path}  {size_text(path.stat().st_size)}")


def _bar(shown: bool) -> rich.progress.Progress:
    """Return a progress bar on standard error."""
    import rich.console
    import rich.progress

    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        console=rich.console.Console(stderr=True),
        # In a log file a bar would be hundreds of lines.
        disable=not shown,
        transient=True,
    )


def _source(model: weights.Weights) -> str:
    if model.wheel or model.npm or model.hub:
        return model.source
    return "from " + ", ".join(file.url for file in model.files)


def _where(state: weights.WeightsStatus) -> str:
    if state.path is None:
        return "not found"
    return f"found: {state.path}" if state.right else f"WRONG FILE: {state.path}"
