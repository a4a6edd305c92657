"""What a run is made of: frozen dataclasses, filled from defaults, a profile and the command line.

Each later layer wins over the one before it. An unknown key, a wrong type or a value out of range
is a ConfigError that names the file (or flag) and the key in one line.
"""

from __future__ import annotations

import math
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PROFILE_FOLDER = "configs"


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type or out of range."""


def _limited(default: Any, low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """A number's field with its range: low (above it, if ``above``) to high."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


@dataclass(frozen=True)
class CaptureConfig:
    """How a source is read.

    ``pace`` "live" drops the oldest frame when behind, "every-frame" waits and loses none, "auto"
    is the first for live feeds and the second for clips. ``start_s`` and ``seconds`` cut a part
    out of a clip (None: to the end). ``retry_s``: how long to keep trying a live source that is
    not there, 0 to fail at once (None: ten seconds at the start, for ever once it has been live).
    ``rtsp_transport`` carries RTSP's media; ``size`` ("1280x720") and ``fps`` are asked of a
    camera. ``decode`` "nvdec" has an NVIDIA GPU decode. The camera:
    ``fov_deg`` across the image's longer side or ``focal_px``, not both; with neither the focal
    length is guessed from the image's size.
    """

    pace: Literal["auto", "live", "every-frame"] = "auto"
    start_s: float = _limited(0.0, 0.0)
    seconds: float | None = _limited(None, 0.0, above=True)
    retry_s: float | None = _limited(None, 0.0)
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    size: str | None = None
    fps: float | None = _limited(None, 0.0, above=True)
    decode: Literal["software", "nvdec"] = "software"
    fov_deg: float | None = _limited(None, 1.0, 170.0)
    focal_px: float | None = _limited(None, 0.0, above=True)


@dataclass(frozen=True)
class PerceiveConfig:
    """Who sees the people. ``people`` is the most to follow at once; ``weights`` a folder with
    the models' files, looked into before the usual places. ``masks`` names another network for
    people's masks than the model's own (the extra ``ultralytics``), ``depth`` one that says how far
    people are, in maps of ``depth_scale`` metres a unit (None: found for each source); with
    ``reuse`` what is found in the key frame serves its neighbours too."""

    model: Literal["blazepose"] = "blazepose"
    masks: Literal["own", "sam-h", "sam-b", "mobile-sam", "fastsam-s", "fastsam-x"] = "own"
    depth: Literal["off", "yolo26n-depth", "yolo26s-depth"] = "off"
    depth_scale: float | None = _limited(None, 0.0, above=True)
    reuse: bool = False
    people: int = _limited(4, 1, 64)
    weights: Path | None = None


@dataclass(frozen=True)
class EngineConfig:
    """How a GPU computes. ``name`` is what runs the networks ("auto" is the first of the others
    that works here), ``half`` their precision, ``graphs`` CUDA graphs for networks and fit;
    ``cache`` a folder for engines that take long to build (None: in the user's cache)."""

    name: Literal["auto", "tensorrt", "inductor", "eager"] = "auto"
    half: bool = True
    graphs: bool = True
    cache: Path | None = None


@dataclass(frozen=True)
class FitConfig:
    """The body and its fit. ``body`` is an SMPL file of your own (None: the free body shipped
    here); ``iterations`` Gauss-Newton steps for a window whose people are known already,
    ``cold_iterations`` for one with somebody new."""

    body: Path | None = None
    iterations: int = _limited(3, 1, 100)
    cold_iterations: int = _limited(12, 1, 100)


@dataclass(frozen=True)
class RenderConfig:
    """The overlay. ``alpha`` is the bodies' opacity, ``hud`` the numbers in the corner."""

    renderer: Literal["auto", "numba", "gpu", "pyrender"] = "auto"
    alpha: float = _limited(0.85, 0.0, 1.0)
    hud: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """What is written and shown; None is left out.

    ``video`` an mp4 (``crf`` is x264's quality, lower is better, ``preset`` its speed), ``poses``
    an npz of all bodies, with their meshes if ``vertices``; ``jsonl`` a file or "-" for standard
    output; ``amass`` a folder for one npz a track; ``window`` shows the overlay on the screen.
    ``timing`` "sync" has each frame wait for its own bodies, "low-latency" shows the newest at once
    with bodies predicted from the last fits.
    After ``rotate_s`` of video or ``rotate_mb`` (10^6 bytes) it goes on in another file: they are
    OUT_0001.mp4 and so on, numbered on from those of earlier runs (None: one file); of this run's
    the newest ``rotate_keep`` stay (None, 0: all).
    """

    video: Path | None = None
    poses: Path | None = None
    vertices: bool = False
    jsonl: Path | None = None
    amass: Path | None = None
    window: bool = False
    timing: Literal["sync", "low-latency"] = "sync"
    rotate_s: float | None = _limited(None, 0.0, above=True)
    rotate_mb: float | None = _limited(None, 0.0, above=True)
    rotate_keep: int | None = _limited(None, 0)
    crf: int = _limited(20, 0, 51)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = (
        "veryfast"
    )


@dataclass(frozen=True)
class Config:
    """Everything about one run. ``source`` is a clip's path, a URL, a camera or ``lavfi:...``."""

    source: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    perceive: PerceiveConfig = field(default_factory=PerceiveConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def load_config(profile: str = "default", flags: Mapping[str, Any] | None = None) -> Config:
    """Defaults, then the profile, then the command line.

    ``profile`` is a name in configs/ or a path to a TOML file. ``flags`` maps a key such as
    "capture.fov_deg" to its value; what is not in it is left as the profile has it. Raises
    ConfigError.
    """
    path, text = _read_profile(profile)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    base = path.parent if isinstance(path, Path) else None
    config = _apply(Config(), _flatten(tables), lambda key: f"{path}: {key}", base)
    return _apply_flags(config, flags or {})


def _apply_flags(config: Config, flags: Mapping[str, Any]) -> Config:
    """The configuration with command-line values over it."""
    capture = config.capture
    # A flag for one replaces a profile's choice of the other.
    if flags.get("capture.fov_deg") is not None and "capture.focal_px" not in flags:
        capture = replace(capture, focal_px=None)
    if flags.get("capture.focal_px") is not None and "capture.fov_deg" not in flags:
        capture = replace(capture, fov_deg=None)
    config = replace(config, capture=capture)
    return _apply(config, flags, _flag)


def _flag(key: str) -> str:
    """A setting as it is typed on the command line."""
    return "--start" if key == "capture.start_s" else "--" + key.split(".")[-1].replace("_", "-")


def profiles() -> list[str]:
    """Names of the profiles in configs/."""
    folder = resources.files(PROFILE_FOLDER)
    return sorted(f.name[: -len(".toml")] for f in folder.iterdir() if f.name.endswith(".toml"))


def _read_profile(profile: str) -> tuple[Any, str]:
    """Where a profile is (a Path, or a resource) and its text."""
    path: Any = Path(profile).expanduser()
    if not (profile.endswith(".toml") or len(path.parts) > 1):
        if profile not in profiles():
            known = ", ".join(profiles())
            raise ConfigError(f"there is no profile {profile!r}; there are: {known}, or a path")
        path = resources.files(PROFILE_FOLDER) / f"{profile}.toml"
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def _flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Two levels of tables to keys such as "fit.iterations"."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _apply(
    config: Config,
    values: Mapping[str, Any],
    label: Callable[[str], str],
    base: Path | None = None,
) -> Config:
    """``config`` with checked ``values``; ``label`` names a key in errors, ``base`` is the folder
    of relative paths."""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        part: Any = getattr(config, section, None) if section else config
        if not is_dataclass(part) or name not in {f.name for f in fields(part)}:
            raise ConfigError(f"{label(key)}: there is no such setting")
        try:
            checked: Any = _checked(part, name, value, base)
        except ValueError as error:
            raise ConfigError(f"{label(key)}: {error}") from None
        changed: dict[str, Any] = {name: checked}
        if section:
            changed = {section: replace(getattr(config, section), **changed)}
        config = replace(config, **changed)
    if config.capture.size is not None:
        size_of(config.capture.size, label("capture.size"))
    if config.output.timing == "low-latency" and config.capture.pace == "every-frame":
        raise ConfigError(f"{label('output.timing')}: low-latency never waits; every-frame does")
    if config.capture.fov_deg is not None and config.capture.focal_px is not None:
        raise ConfigError(f"{label('capture.fov_deg')}: give this or focal_px, not both")
    return config


def _checked(part: Any, name: str, value: Any, base: Path | None) -> Any:
    """The value as its field's type. Raises ValueError saying what it should be."""
    hint = get_type_hints(type(part))[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise ValueError(f"one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if kind is Path and isinstance(value, str | Path) and str(value):
        path = Path(value).expanduser()
        return path if base is None or str(value) == "-" else base / path
    if kind is float and type(value) in (int, float) and not math.isnan(value):
        return _in_range(part, name, float(value))
    if kind in (bool, int, str) and type(value) is kind:
        return _in_range(part, name, value) if kind is int else value
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    wanted = "a table" if is_dataclass(kind) else names.get(kind, "a text")
    raise ValueError(f"{wanted}, not {value!r}")


def _in_range(part: Any, name: str, value: Any) -> Any:
    limits = next(f.metadata for f in fields(part) if f.name == name)
    low, high, above = limits["low"], limits["high"], limits["above"]
    if value < low or value > high or (above and value == low):
        least = f"above {low:g}" if above else f"{low:g} or more"
        wanted = least if math.isinf(high) else f"{low:g} to {high:g}"
        raise ValueError(f"{wanted}, not {value:g}")
    return value


def size_of(text: str, label: str = "--size") -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT. Raises ConfigError."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"{label}: WIDTHxHEIGHT such as 1920x1080, not '{text}'")
    size = int(width), int(height)
    if not all(64 <= side <= 8192 for side in size):
        raise ConfigError(f"{label}: 64 to 8192 pixels a side, not {text}")
    return size
