"""The settings of a run: frozen dataclasses, filled from defaults, a profile and flags.

Each field is declared once. Its annotation (`app.setting.Setting`) gives the flag on the commands
of its section, the key in a profile, the check, the help and its lines in ``configs/default.toml``
(which `app.profile_text` writes). Defaults come first, then the profile, then the flags; a later
layer wins. An unknown key, a wrong type or a value out of range is a ConfigError that names the
file (or the flag) and the key in one line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, make_dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from app.options import RunOptions
from app.outputs.catalog import RESERVED, OutputEntry, entries
from app.outputs.rotation import Rotation
from app.setting import Declared, Section, Setting, checked, declared, did_you_mean, no_file
from pipeline.core.heights import HIGHEST_M, LOWEST_M, Heights, join_heights, parse_heights
from pipeline.core.limits import MAX_PIXELS, MEMORY_MB
from pipeline.core.user_file import read_text, reading
from pipeline.perception.areas import Areas, parse_area
from pipeline.sam3d.options import Sam3dOptions
from pipeline.world.calibration import read_calibration
from pipeline.world.camera_pose import CameraPose

PROFILE_FOLDER = "configs"

# The commands that run the pipeline. A field narrows or widens its section's choice where the
# flag would mean nothing on a command, or would mean something on another one too.
_RUN = ("run",)
_ALL = ("run", "serve", "events", "evaluate")
_CLIPS = ("run", "events", "evaluate")
_DRAWN = ("run", "serve", "events")


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


def size_of(text: str, label: str = "--size") -> tuple[int, int]:
    """Return (width, height) of WIDTHxHEIGHT. Raises ConfigError, which begins with the label."""
    try:
        return _size(text)
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not re.fullmatch("[0-9]{1,9}x[0-9]{1,9}", text):
        raise ValueError(f"WIDTHxHEIGHT such as 1920x1080, not '{text}'")
    size = int(width), int(height)
    if not all(64 <= side <= 8192 for side in size):
        raise ValueError(f"64 to 8192 pixels a side, not {text}")
    return size


def _known_perceiver(name: str) -> None:
    # Late: a catalog looks for installed packages, which a command without a model need not do.
    from pipeline.perception.catalog import check

    check(name)


def _known_estimator(name: str) -> None:
    from pipeline.runtime.catalog import check

    check(name)


@dataclass(frozen=True)
class CaptureConfig:
    """How a source is read."""

    pace: Annotated[
        Literal["auto", "live", "every-frame"],
        Setting(
            "auto: live feeds drop the oldest frame when behind, clips wait; or live; every-frame.",
            stands_for={
                "--live": ("live", "Drop the oldest frame when behind."),
                "--every-frame": ("every-frame", "Wait instead of losing a frame."),
            },
            commands=("run", "events"),
        ),
    ] = "auto"
    start_s: Annotated[
        float,
        Setting("Where to start in a clip, in seconds.", "S", "--start", commands=_CLIPS, low=0),
    ] = 0.0
    loop: Annotated[
        bool,
        Setting("Play a clip again from its start when it has ended.", commands=("serve",)),
    ] = False
    seconds: Annotated[
        float | None,
        Setting(
            "How much of a source to read; by default a clip to its end, and a live source until "
            "it is stopped.",
            "S",
            commands=_CLIPS,
            low=0,
            above=True,
            example=10.0,
        ),
    ] = None
    retry_s: Annotated[
        float | None,
        Setting(
            "How long to try a live source that is not there; 0: fail at once. By default ten "
            "seconds at the start, and for ever once it has been live. While the time is limited, "
            "a missing camera or a refused login is not tried again.",
            "S",
            low=0,
            example=10.0,
        ),
    ] = None
    rtsp_transport: Annotated[
        Literal["tcp", "udp"],
        Setting("What carries RTSP's media.", commands=("run", "serve", "events")),
    ] = "tcp"
    size: Annotated[
        str | None,
        Setting(
            "The size of a camera's pictures.",
            "WxH",
            commands=_RUN,
            check=_size,
            example="1280x720",
        ),
    ] = None
    fps: Annotated[
        float | None,
        Setting(
            "A camera's frames a second, the requests a second for a camera's snapshots (5), or "
            "the rate of a folder of pictures (30).",
            "FPS",
            commands=_RUN,
            low=0,
            above=True,
            example=30.0,
        ),
    ] = None
    track: Annotated[
        int | None,
        Setting(
            "The video track of a clip that has several, from 1; the best one by default.",
            "N",
            commands=_CLIPS,
            low=1,
            example=2,
        ),
    ] = None
    decode: Annotated[
        Literal["software", "nvdec"],
        Setting("What decodes; nvdec: an NVIDIA GPU, for clips and network feeds.", commands=_RUN),
    ] = "software"
    max_pixels: Annotated[
        int,
        Setting(
            "The largest picture that a feed or a camera may send, in pixels.",
            "N",
            commands=("run", "serve", "events"),
            low=1024,
        ),
    ] = MAX_PIXELS
    feed_memory_mb: Annotated[
        int,
        Setting(
            "What the process that decodes a feed or a camera may allocate, in MB (Linux).",
            "MB",
            commands=("run", "serve", "events"),
            low=128,
        ),
    ] = MEMORY_MB
    fov_deg: Annotated[
        float | None,
        Setting(
            "The camera's field of view across the image's longer side; guessed from the image's "
            "size by default.",
            "DEG",
            commands=_CLIPS,
            low=1,
            high=170,
            excludes="lens",
            example=60.0,
        ),
    ] = None
    focal_px: Annotated[
        float | None,
        Setting(
            "The camera's focal length in pixels, instead of its field of view.",
            "PX",
            commands=_CLIPS,
            low=0,
            above=True,
            excludes="lens",
            example=1500.0,
        ),
    ] = None
    camera_height_m: Annotated[
        float | None,
        Setting(
            "The camera's height above the floor, for the world's axes of files; estimated from "
            "feet that stand by default.",
            "METRES",
            "--camera-height",
            commands=_RUN,
            low=0,
            high=1000,
            example=1.5,
        ),
    ] = None
    camera_pitch_deg: Annotated[
        float | None,
        Setting(
            "How far the camera looks down (up: below 0), for the same; estimated from people who "
            "stand and walk by default.",
            "DEGREES",
            "--camera-pitch",
            commands=_RUN,
            low=-90,
            high=90,
            example=10.0,
        ),
    ] = None
    camera_roll_deg: Annotated[
        float | None,
        Setting(
            "How far the camera's right side is lowered, for the same; 0 where the pitch is given.",
            "DEGREES",
            "--camera-roll",
            commands=_RUN,
            low=-180,
            high=180,
            example=0.0,
        ),
    ] = None

    camera_file: Annotated[
        Path | None,
        Setting(
            "A calibration of cameras (TOML, as Pose2Sim's), for the lens, height, pitch and roll "
            "that are not given otherwise.",
            "FILE",
            commands=_RUN,
            file="read",
            example="calibration.toml",
        ),
    ] = None
    camera_name: Annotated[
        str | None,
        Setting(
            "The camera in that file, where it has several.",
            "NAME",
            commands=_RUN,
            example="cam01",
        ),
    ] = None

    @property
    def camera_pose(self) -> CameraPose:
        """What is given of the camera's pose."""
        return CameraPose(self.camera_height_m, self.camera_pitch_deg, self.camera_roll_deg)


@dataclass(frozen=True)
class PerceiveConfig:
    """The models that find the people and measure them in the image."""

    perceiver: Annotated[
        str,
        Setting(
            "The model that finds the people and their landmarks.", "NAME", check=_known_perceiver
        ),
    ] = "blazepose"
    masks: Annotated[
        Literal["own", "sam-h", "sam-b", "mobile-sam", "fastsam-s", "fastsam-x"],
        Setting(
            "The network for people's masks; own: the perceiver's (the others need the extra "
            "`ultralytics` and their weights).",
            flag=None,
        ),
    ] = "own"
    depth: Annotated[
        Literal["off", "yolo26n-depth", "yolo26s-depth"],
        Setting("The network for depth maps (the extra `ultralytics`).", flag=None),
    ] = "off"
    depth_scale: Annotated[
        float | None,
        Setting(
            "Metres a unit of the depth maps, if known (give the lens too); estimated for each "
            "source by default.",
            "M",
            commands=("evaluate",),
            low=0,
            above=True,
            example=1.0,
        ),
    ] = None
    reuse: Annotated[
        bool,
        Setting(
            "Whether the key frame's masks serve its neighbours where people hardly moved "
            "(docs/results/reuse.md).",
            flag=None,
        ),
    ] = False
    people: Annotated[
        int, Setting("The most people to track in a source at once.", "N", low=1, high=64)
    ] = 8
    region: Annotated[
        tuple[str, ...],
        Setting(
            "Follow only people whose hips are inside: a rectangle of every source's picture, in "
            "pixels (0,0,640,720) or in parts of it (0,0,0.5,1); repeatable.",
            "X,Y,W,H",
            check=parse_area,
            example=("0,0,0.5,1",),
        ),
    ] = ()
    ignore: Annotated[
        tuple[str, ...],
        Setting(
            "Leave out people whose hips are inside, such as on posters, in mirrors and on "
            "screens; written like --region; repeatable.",
            "X,Y,W,H",
            check=parse_area,
            example=("0,0,0.5,1",),
        ),
    ] = ()
    weights: Annotated[
        Path | None,
        Setting(
            "A folder with the model's files, searched before the usual places.",
            "DIR",
            example="models",
            file="read",
        ),
    ] = None

    model_file: Annotated[
        Path | None,
        Setting(
            "The ONNX file of `--estimator instanthmr` or `onnx`; the folder of a release of SAM "
            "3D Body, or its name (sam3d-vith), of `sam3d`.",
            "FILE|DIR",
            "--model",
            example="model.onnx",
            file="read",
        ),
    ] = None
    sam3d_hands: Annotated[
        bool,
        Setting(
            "Read hands from crops of their own with `--estimator sam3d`, at three times the cost."
        ),
    ] = False
    sam3d_reuse: Annotated[
        Literal["off", "prompts", "landmarks"],
        Setting(
            "What the frames between key frames get with `--estimator sam3d`: off, the network "
            "itself; prompts, its decoder on the key frame's features; landmarks, BlazePose's."
        ),
    ] = "off"
    sam3d_every: Annotated[
        int,
        Setting(
            "With `--sam3d-reuse landmarks`, measure the key frame of one window in N.",
            "N",
            low=1,
        ),
    ] = 1
    keypoints: Annotated[
        Literal["coco17", "coco133", "halpe26", "mhr70"],
        Setting("The points that the network of `--estimator onnx` reports.", "SET"),
    ] = "coco17"

    @property
    def sam3d(self) -> Sam3dOptions:
        """How SAM 3D Body is used."""
        return Sam3dOptions(self.sam3d_hands, self.sam3d_reuse, self.sam3d_every)

    @property
    def areas(self) -> Areas:
        """Where people are looked for."""
        return Areas(tuple(map(parse_area, self.region)), tuple(map(parse_area, self.ignore)))


@dataclass(frozen=True)
class EngineConfig:
    """How a GPU computes."""

    name: Annotated[
        Literal["auto", "triton", "tensorrt", "inductor", "eager"],
        Setting("What runs the networks; auto: the first of the others here.", flag="--engine"),
    ] = "auto"
    half: Annotated[
        bool, Setting("Whether the networks run in half precision; false: single.", flag=None)
    ] = True
    graphs: Annotated[
        bool, Setting("Whether the networks and the fit run as CUDA graphs.", flag=None)
    ] = True
    cache: Annotated[
        Path | None,
        Setting(
            "A folder for built engines; in the user's cache by default.",
            "DIR",
            flag=None,
            example="engines",
        ),
    ] = None
    fp8: Annotated[
        bool,
        Setting(
            "Whether the products of SAM 3D Body's backbone are in 8 bits: faster, less exact.",
            flag=None,
        ),
    ] = False


@dataclass(frozen=True)
class FitConfig:
    """The body and its fit."""

    body: Annotated[
        Path | None,
        Setting(
            "An SMPL body file of your own; the free body by default.",
            "FILE",
            example="SMPL_NEUTRAL.npz",
            file="read",
        ),
    ] = None
    iterations: Annotated[
        int,
        Setting(
            "Gauss-Newton steps of a window whose people are all known from the one before.",
            flag=None,
            low=1,
            high=100,
        ),
    ] = 3
    cold_iterations: Annotated[
        int,
        Setting("Gauss-Newton steps of a window with a new person.", flag=None, low=1, high=100),
    ] = 12
    one_pass: Annotated[
        bool,
        Setting(
            "Fit a clip in one pass, as a live source is fitted. By default a clip that goes to "
            "files gets a second pass, in which the future is known.",
            commands=("run",),
        ),
    ] = False
    height_m: Annotated[
        float | None,
        Setting(
            "The height of every person, from crown to soles; estimated by default, which one "
            "camera can hardly do. Sizes and distances follow it. For clips in two passes.",
            "METRES",
            "--height",
            commands=_RUN,
            low=LOWEST_M,
            high=HIGHEST_M,
            example=1.83,
        ),
    ] = None
    heights: Annotated[
        tuple[str, ...],
        Setting(
            "The height of a person by track number, instead of --height: 3=1.83, or several with "
            "commas; repeatable.",
            "ID=METRES",
            commands=_RUN,
            check=parse_heights,
            example=("1=1.83", "2=1.70"),
        ),
    ] = ()

    @property
    def given_heights(self) -> Heights:
        """What is given of people's heights."""
        return Heights(self.height_m, join_heights(self.heights))


@dataclass(frozen=True)
class RenderConfig:
    """The overlay."""

    renderer: Annotated[
        Literal["auto", "numba", "gpu", "pyrender"],
        Setting("What draws; auto: gpu beside device cuda, else numba. pyrender is slow."),
    ] = "auto"
    style: Annotated[
        Literal["mannequin", "anatomical", "skeleton", "wireframe", "silhouette", "off"],
        Setting(
            "How bodies are drawn. mannequin: smooth and sexless; anatomical: the body as it was "
            "fitted; off: not at all. A body of your own has no mannequin. The skeleton, the "
            "wireframe and the silhouette draw on the CPU.",
            commands=_DRAWN,
        ),
    ] = "mannequin"
    draw: Annotated[
        Literal["smpl", "mhr"],
        Setting(
            "Which bodies are drawn. smpl: the fitted ones; mhr: the MHR meshes of `--estimator "
            "sam3d`, as the network reports them frame by frame.",
            commands=_DRAWN,
        ),
    ] = "smpl"
    alpha: Annotated[
        float,
        Setting("The opacity of the bodies.", "A", commands=_DRAWN, low=0, high=1),
    ] = 0.85
    labels: Annotated[
        bool, Setting("Write each track's number over the head.", commands=("run", "serve"))
    ] = False
    draw_unseen: Annotated[
        bool,
        Setting(
            "Draw limbs that are hidden or out of the picture too; they fade out by default.",
            commands=_DRAWN,
        ),
    ] = False
    hud: Annotated[
        bool | None,
        Setting(
            "Whether frames a second and latency stand in a corner; by default for live sources.",
            stands_for={
                "--hud": (True, "Write frames a second and latency into a corner."),
                "--no-hud": (False, "Leave them out; by default they are for live sources only."),
            },
            example=True,
        ),
    ] = None


@dataclass(frozen=True)
class _OutputSettings:
    """The settings of ``[output]`` beside the paths."""

    vertices: Annotated[bool, Setting("Put the bodies' meshes into --poses too.")] = False
    mhr_vertices: Annotated[bool, Setting("Put MHR's meshes into --mhr too.")] = False
    window: Annotated[bool, Setting("Show the overlay on the screen.", negative=True)] = False
    existing: Annotated[
        Literal["keep", "overwrite", "refuse"],
        Setting(
            "What becomes of an output that exists. keep: it stays, and the new one's name gets "
            "the next free number, as OUT.2.mp4; overwrite: it is replaced; refuse: the command "
            "does not begin.",
            stands_for={
                "--overwrite": (
                    "overwrite",
                    "Replace outputs that exist; by default they stay, and the new one's name "
                    "gets the next free number, as OUT.2.mp4.",
                ),
                "--no-clobber": ("refuse", "Do not begin where an output exists."),
            },
            commands=(*_CLIPS, "export"),
        ),
    ] = "keep"
    timing: Annotated[
        Literal["sync", "low-latency"],
        Setting(
            "sync: a frame waits for its own bodies; low-latency: the newest frame is shown at "
            "once, with bodies predicted to its time.",
            stands_for={
                "--sync": ("sync", "A frame waits for its own bodies (the default)."),
                "--low-latency": (
                    "low-latency", "Show the newest frame at once, with bodies predicted to its "
                    "time.",
                ),
            },
            commands=("run", "serve"),
        ),
    ] = "sync"  # fmt: skip
    rotate_s: Annotated[
        float | None,
        Setting(
            "Begin another video file after this many seconds: OUT_0001.mp4, OUT_0002.mp4, ...; "
            "one file by default.",
            "S",
            commands=("run", "serve"),
            low=0,
            above=True,
            example=600.0,
        ),
    ] = None
    rotate_mb: Annotated[
        float | None,
        Setting(
            "Begin another video file after this many megabytes (10^6 bytes).",
            "MB",
            commands=("run", "serve"),
            low=0,
            above=True,
            example=500.0,
        ),
    ] = None
    rotate_keep: Annotated[
        int | None,
        Setting(
            "Keep the newest N of these files and delete this run's older ones; all by default.",
            "N",
            commands=("run", "serve"),
            low=0,
            example=24,
        ),
    ] = None
    crf: Annotated[
        int, Setting("x264's quality: 0 (lossless, huge) to 51.", flag=None, low=0, high=51)
    ] = 20
    preset: Annotated[
        Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"],
        Setting("x264's speed.", flag=None),
    ] = "veryfast"

    @property
    def rotation(self) -> Rotation:
        """The limits of one video file."""
        return Rotation(self.rotate_s, self.rotate_mb, self.rotate_keep or 0)


@dataclass(frozen=True)
class _GeneralSettings:
    """The settings outside of any table."""

    source: Annotated[
        str, Setting("A clip, pictures, a URL, a camera, - or lavfi:...", flag=None)
    ] = ""
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Setting("Where it computes; auto: a CUDA GPU where there is one."),
        Section("models", _ALL),
    ] = "auto"
    estimator: Annotated[
        str,
        Setting(
            "The way from frames to bodies: keypoints (BlazePose); sam3d (SAM 3D Body, on a GPU); "
            "instanthmr or onnx, from the file that --model names.",
            "NAME",
            check=_known_estimator,
        ),
        Section("models", _ALL),
    ] = "keypoints"


# Before the first `entries()`, whose check of foreign names reads it.
RESERVED += [CaptureConfig, PerceiveConfig, EngineConfig, FitConfig, RenderConfig]
RESERVED += [_OutputSettings, _GeneralSettings, RunOptions]


def _path_of(entry: OutputEntry) -> Any:
    """Return the annotated type of an output's path."""
    example = "out" + (entry.suffixes[0] if entry.suffixes else "")
    commands = ("run", "export") if entry.exports else ()
    return Annotated[
        Path | None,
        Setting(entry.help, entry.metavar, example=example, file="write", commands=commands),
    ]


if TYPE_CHECKING:

    class OutputPaths:
        """The catalog's paths, which a type checker cannot see."""

        def __getattr__(self, name: str) -> Path | None: ...

else:
    # Made from the catalog, so that an output of another package is a setting like the others.
    OutputPaths = make_dataclass(
        "OutputPaths",
        [(entry.name, _path_of(entry), field(default=None)) for entry in entries()],
        frozen=True,
    )


@dataclass(frozen=True)
class OutputConfig(_OutputSettings, OutputPaths):
    """The outputs: a path for each one in the catalog, and how they are written."""


@dataclass(frozen=True)
class Config(_GeneralSettings):
    """All settings of one run. ``source`` is what `open_source` takes."""

    capture: Annotated[CaptureConfig, Section("source", ("run", "events"))] = CaptureConfig()
    perceive: Annotated[PerceiveConfig, Section("models", _ALL)] = PerceiveConfig()
    engine: Annotated[EngineConfig, Section("models", _ALL, "for GPUs only")] = EngineConfig()
    fit: Annotated[FitConfig, Section("models", _ALL)] = FitConfig()
    render: Annotated[RenderConfig, Section("models", _RUN)] = RenderConfig()
    output: Annotated[OutputConfig, Section("outputs", _RUN)] = OutputConfig()


@cache
def settings() -> Mapping[str, Declared]:
    """Return every setting by its key, such as ``capture.fov_deg``, in the order of declaration."""
    return {setting.key: setting for setting in declared(Config)}


# Keys that a profile of an earlier version may still hold; they never changed anything.
_RETIRED = ("perceive.model",)


def load_config(profile: str = "default", flags: Mapping[str, Any] | None = None) -> Config:
    """Return the defaults with a profile and then flags over them.

    Args:
        profile: A name in configs/, or the path of a TOML file.
        flags: Values by key, such as ``{"capture.fov_deg": 60.0}``; a key that is not in it stays
            as the profile has it.

    Raises:
        ConfigError: The profile cannot be read, or a setting is unknown or wrong.
    """
    path = _find_profile(profile)
    try:
        with reading(path, error=ConfigError):
            text = read_text(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    with reading(path, ": not valid TOML", ConfigError):
        tables = tomllib.loads(text)
    # A shipped profile is a resource, which has no folder for relative paths.
    base = path.parent if isinstance(path, Path) else None
    # Retired keys are dropped and not refused, so that an old profile still works.
    values = {key: v for key, v in _flatten(tables).items() if key not in _RETIRED}
    # A damaged file may hold a key of any length.
    config = _apply(Config(), values, lambda key: f"{path}: {key[:80]}", base)
    return _apply_flags(config, flags or {})


def with_changes(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a configuration with checked values, such as ``{"render.alpha": 0.5}``, over it.

    Raises:
        ConfigError: A value is wrong, or does not go with the others; the message names its key.
    """
    return _apply(config, values, str)


def _apply_flags(config: Config, flags: Mapping[str, Any]) -> Config:
    """Return the configuration with the flags' values over it."""
    capture = config.capture
    # A flag for one of the two replaces a profile's choice of the other.
    if flags.get("capture.fov_deg") is not None and "capture.focal_px" not in flags:
        capture = replace(capture, focal_px=None)
    if flags.get("capture.focal_px") is not None and "capture.fov_deg" not in flags:
        capture = replace(capture, fov_deg=None)
    return _apply(replace(config, capture=capture), flags, lambda key: _flag(key, flags))


def calibrated(config: Config) -> Config:
    """Return a configuration with what its calibration file says of the camera, where nothing else
    does.

    Raises:
        ConfigError: The file cannot be read, or has no such camera.
    """
    capture = config.capture
    if capture.camera_file is None:
        if capture.camera_name is not None:
            raise ConfigError("--camera-name: needs --camera-file")
        return config
    try:
        camera = read_calibration(capture.camera_file, capture.camera_name)
    except OSError as error:
        raise ConfigError(f"--camera-file: {capture.camera_file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--camera-file: {capture.camera_file}: {error}") from None
    given = {
        "camera_height_m": camera.pose.height_m,
        "camera_pitch_deg": camera.pose.pitch_deg,
        "camera_roll_deg": camera.pose.roll_deg,
    }
    missing: dict[str, Any] = {
        name: value for name, value in given.items() if getattr(capture, name) is None
    }
    if capture.fov_deg is None and capture.focal_px is None:
        missing["fov_deg"] = camera.fov_deg
    return replace(config, capture=replace(capture, **missing))


def _flag(key: str, flags: Mapping[str, Any]) -> str:
    """Return a setting's flag as it was typed on the command line."""
    setting = settings().get(key)
    if setting is None:
        return key
    for flag, (value, _) in setting.setting.stands_for.items():
        if flags.get(key) == value:
            return flag
    return setting.flag or "--" + setting.name.replace("_", "-")


def profiles() -> list[str]:
    """Return the names of the profiles in configs/."""
    folder = resources.files(PROFILE_FOLDER)
    return sorted(f.name[: -len(".toml")] for f in folder.iterdir() if f.name.endswith(".toml"))


def _find_profile(profile: str) -> Any:
    """Return where a profile is: a Path, or a resource of this package."""
    path: Any = Path(profile).expanduser()
    # A bare word is a name; anything that looks like a path is one.
    if not (profile.endswith(".toml") or len(path.parts) > 1):
        if profile not in (known := profiles()):
            if path.exists():
                raise ConfigError(f"--config {profile}: is no TOML file; end its name in .toml")
            hint = did_you_mean(profile, known)
            names = ", ".join(known)
            raise ConfigError(
                f"there is no profile {profile!r}; there are: {names}, or a path{hint}"
            )
        path = resources.files(PROFILE_FOLDER) / f"{profile}.toml"
    if isinstance(path, Path) and (problem := no_file(path)):
        raise ConfigError(f"--config {path}: {problem}")
    return path


def _flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return two levels of tables as keys such as "fit.iterations"."""
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
    """Return ``config`` with checked ``values``; ``label`` names a key in errors, ``base`` is the
    folder of relative paths."""
    for key, value in values.items():
        try:
            new: Any = checked(_known(key, value), value, base)
        except ValueError as error:
            raise ConfigError(f"{label(key)}: {error}") from None
        section, _, name = key.rpartition(".")
        if section:
            name, new = section, replace(getattr(config, section), **{name: new})
        config = replace(config, **{name: new})
    # Checked after every layer, so that the message names the layer that caused it.
    if config.output.timing == "low-latency" and config.capture.pace == "every-frame":
        raise ConfigError(f"{label('output.timing')}: low-latency never waits; every-frame does")
    if config.output.timing == "low-latency" and config.render.draw == "mhr":
        raise ConfigError(
            f"{label('render.draw')}: mhr is not for --low-latency; MHR bodies cannot be predicted"
        )
    perceive = config.perceive
    if perceive.sam3d_hands and perceive.sam3d_reuse != "off":
        raise ConfigError(
            f"{label('perceive.sam3d_hands')}: not with --sam3d-reuse {perceive.sam3d_reuse}; "
            "leave one out"
        )
    try:
        # Each text is right by now; two may name the same track.
        join_heights(config.fit.heights)
    except ValueError as error:
        raise ConfigError(f"{label('fit.heights')}: {error}") from None
    if config.capture.fov_deg is not None and config.capture.focal_px is not None:
        raise ConfigError(f"{label('capture.fov_deg')}: give this or focal_px, not both")
    return config


def _known(key: str, value: Any) -> Declared:
    if key in settings():
        return settings()[key]
    # `capture = 3` names a table: the key is right, its value is not.
    if is_dataclass(getattr(Config(), key, None)):
        raise ValueError(f"a table, not {value!r}")
    raise ValueError(f"there is no such setting{_nearest(key)}")


def _nearest(key: str) -> str:
    """Return a suggestion for an unknown key: the name in another table, else a name like it."""
    section, _, name = key.rpartition(".")
    elsewhere = [known for known in settings() if known.rpartition(".")[2] == name]
    table = [known for known in settings() if known.rpartition(".")[0] == section]
    # A known name in the wrong table is the likelier slip than a misspelled one.
    if elsewhere or not table:
        return did_you_mean(key, elsewhere or settings(), 0.0 if elsewhere else 0.6)
    near = did_you_mean(name, [known.rpartition(".")[2] for known in table])
    return near.replace("mean ", f"mean {section}.") if section else near
