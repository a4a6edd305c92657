"""The catalog of outputs: data only, light to import.

One entry gives an output its flag, its key in a profile's ``[output]`` table, its help and its
checks. The module that writes it is imported when it is used. An output from another package comes
in through the entry-point group ``bodystream.outputs``, whose entries load to an `OutputEntry`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

GROUP = "bodystream.outputs"

RESERVED: list[type] = []
"""Dataclasses of declared settings, whose names and flags an output from outside cannot have."""


_OTHER_SUFFIXES = (
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz"),
    *(".htm", ".html", ".pdf", ".md", ".svg", ".xlsx", ".wav", ".mp3"),
)
"""Endings of formats that no output is of, or is near to."""


@dataclass(frozen=True)
class OutputEntry:
    """An output that is written to a file or a folder.

    Attributes:
        name: Its flag without the dashes and its key in ``[output]``: a Python identifier.
        metavar: The word for its path in the help.
        help: One sentence on the files that it writes.
        format: The format of its files, in a word or two: ``mp4``, ``JSON lines``.
        target: ``module:Class``, imported when it is used and called with the path and the
            ``options``. It is an `app.outputs.base.Output`.
        kind: Whether its path is a file, a file or ``-`` for standard output, or a folder. Of
            several sources each has a file OUT_NAME.ext, or a folder of its name in the folder.
        suffixes: Endings of the names of its files, the usual one first.
        strict: Whether a file's name must end in one of them.
        related: Endings of files of the same sort that it cannot write.
        options: Settings of ``[output]`` that ``target`` takes beside the path, by keyword.
        continues: Whether it continues a file that has a mark of `app.outputs.unfinished`.
        exports: Whether ``target`` is an `app.exports.outputs.ExportOutput`: the command `export`
            has its flag too.
    """

    name: str
    metavar: str
    help: str
    format: str
    target: str
    kind: Literal["file", "file or -", "folder"] = "file"
    suffixes: tuple[str, ...] = ()
    strict: bool = False
    related: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    continues: bool = False
    exports: bool = False

    @property
    def flag(self) -> str:
        """The flag as it is typed."""
        return "--" + self.name.replace("_", "-")

    def load(self) -> Callable[..., Any]:
        """Return the class that writes it."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)

    def make(self, path: Path, settings: Any) -> Any:
        """Return the output of a path with its ``options`` of settings of ``[output]``."""
        # Imported by `load`, so that an output that is not used costs no import.
        return self.load()(path, **{name: getattr(settings, name) for name in self.options})

    def path_of(self, path: Path, source: str) -> Path:
        """Return the path for one of several sources, by the source's name."""
        if self.kind == "folder":
            return path / source
        return path.with_name(f"{path.stem}_{source}{path.suffix}")


_OUTPUTS = (
    OutputEntry(
        name="video",
        metavar="OUT.mp4",
        help="Write the overlay as a video.",
        format="mp4",
        target="app.outputs.video:VideoOutput",
        suffixes=(".mp4", ".m4v", ".mov"),
        strict=True,
        related=(
            *(".avi", ".mkv", ".webm", ".gif", ".ts", ".mpg", ".mpeg", ".flv", ".wmv", ".ogv"),
            *(".3gp", ".h264", ".hevc", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
        ),
        options=("crf", "preset", "rotation", "existing"),
    ),
    OutputEntry(
        name="poses",
        metavar="OUT.npz",
        help="Write all bodies of all frames as one npz file.",
        format="npz",
        target="app.outputs.poses:PosesOutput",
        suffixes=(".npz",),
        strict=True,
        related=(*(".npy", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".mat"),),
        options=("vertices",),
    ),
    OutputEntry(
        name="mhr",
        metavar="OUT.npz",
        help="Write the MHR bodies of all frames, as the network reports them, as one npz file.",
        format="npz",
        target="app.outputs.mhr:MhrOutput",
        suffixes=(".npz",),
        strict=True,
        options=("mhr_vertices",),
    ),
    OutputEntry(
        name="jsonl",
        metavar="OUT|-",
        help="Write one JSON object a frame; - is standard output.",
        format="JSON lines",
        target="app.outputs.jsonl:JsonlOutput",
        kind="file or -",
        suffixes=(".jsonl", ".json", ".ndjson"),
        related=(".tsv", ".xml", ".yaml", ".yml", ".parquet"),
        options=("existing",),
        continues=True,
    ),
    OutputEntry(
        name="amass",
        metavar="DIR",
        help="Write one AMASS-style npz file a track into a folder.",
        format="a folder of npz files",
        target="app.outputs.poses:AmassOutput",
        kind="folder",
    ),
    OutputEntry(
        name="bvh",
        metavar="DIR",
        help="Write one BVH file a track into a folder, for Blender and other animation tools.",
        format="a folder of BVH files",
        target="app.exports.outputs:BvhOutput",
        kind="folder",
        related=(".bvh",),
        exports=True,
    ),
    OutputEntry(
        name="glb",
        metavar="OUT.glb",
        help="Write all people as animated meshes in one GLB (glTF) file, for Blender and Unity.",
        format="GLB",
        target="app.exports.outputs:GlbOutput",
        suffixes=(".glb",),
        strict=True,
        related=(".gltf", ".fbx", ".usd", ".usdz", ".obj", ".ply", ".stl"),
        exports=True,
    ),
    OutputEntry(
        name="trc",
        metavar="DIR",
        help="Write one TRC file of markers a track into a folder, for OpenSim and Pose2Sim.",
        format="a folder of TRC files",
        target="app.exports.outputs:TrcOutput",
        kind="folder",
        related=(".trc",),
        exports=True,
    ),
    OutputEntry(
        name="c3d",
        metavar="DIR",
        help="Write one C3D file of markers a track into a folder, for motion laboratories.",
        format="a folder of C3D files",
        target="app.exports.outputs:C3dOutput",
        kind="folder",
        related=(".c3d",),
        exports=True,
    ),
    OutputEntry(
        name="angles",
        metavar="OUT.csv",
        help="Write the joint angles of all bodies of all frames as one CSV file.",
        format="CSV",
        target="app.exports.outputs:AnglesOutput",
        suffixes=(".csv",),
        strict=True,
        exports=True,
    ),
)


@cache
def entries() -> tuple[OutputEntry, ...]:
    """Return this project's outputs and those of installed packages.

    An entry point that cannot be loaded, or whose name is taken, is left out with a warning: a
    broken package must not stop the program.
    """
    # This project's own first, so that no package can take their names.
    found = {entry.name: entry for entry in _OUTPUTS}
    for point in entry_points(group=GROUP):
        try:
            entry = point.load()
            problem = _problem(entry, found)
        except Exception as error:
            # Of any kind: code from outside runs here.
            problem = f"{type(error).__name__}: {error}"
        if problem:
            warnings.warn(f"output {point.name} ({point.value}): {problem}", stacklevel=2)
        else:
            found[entry.name] = entry
    return tuple(found.values())


def _problem(entry: Any, taken: dict[str, OutputEntry]) -> str:
    if not isinstance(entry, OutputEntry):
        return "not an app.outputs.catalog.OutputEntry"
    # The name becomes a field of the settings.
    if not entry.name.isidentifier():
        return f"its name {entry.name!r} is not a Python identifier"
    from app.setting import declared

    # An output from outside must not take over a setting's key or flag.
    settings = [setting for part in RESERVED for setting in declared(part)]
    words = {word for setting in settings for word in (setting.name, *setting.flags)}
    if entry.name in taken or not words.isdisjoint((entry.name, entry.flag)):
        return f"the name {entry.name!r} is taken"
    return ""


def suffix_problem(entry: OutputEntry, path: Path) -> str:
    """Return why a path's suffix does not fit an output, and the flag that fits; else nothing."""
    suffix = path.suffix.lower()
    if str(path) == "-":
        return "" if entry.kind == "file or -" else "standard output takes --jsonl - alone"
    # No suffix promises nothing, except to players of videos.
    if suffix in entry.suffixes or (not suffix and entry.name != "video"):
        return ""
    # An unusual suffix is the user's choice, but one that promises another format is a slip.
    if not entry.strict and not promises_other(path, entry.suffixes):
        return ""
    if entry.kind == "folder":
        words = f"writes {entry.format}, so give the name of a folder"
    else:
        words = f"writes {entry.format}"
        words += f", so end its name in {entry.suffixes[0]}" if entry.suffixes else ""
    other = _output_of(suffix)
    if other is not None and other is not entry:
        usual = other.suffixes[0] if other.suffixes else ""
        name = path if suffix in other.suffixes else path.with_suffix(usual)
        words += f"; for {other.format} use {other.flag} {name}"
    return words


def promises_other(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a path's suffix belongs to a format, and is none of the suffixes."""
    suffix = path.suffix.lower()
    known = suffix in _OTHER_SUFFIXES or _output_of(suffix) is not None
    return known and suffix not in suffixes


def _output_of(suffix: str) -> OutputEntry | None:
    """Return the output that a suffix belongs to: one that writes it, else one of that sort."""
    writes = [entry for entry in entries() if suffix in entry.suffixes]
    writes += [entry for entry in entries() if suffix in entry.related]
    return writes[0] if writes else None
