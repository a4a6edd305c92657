"""The options of each command, beside the settings of a profile (`app.config`).

They are declared like settings, so that flags, help and checks come from the same place. Light to
import: the command line reads them before anything slow is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from app.setting import Setting

OUTBOX = "webhook.sqlite"
"""The webhook's file where none is given."""


def auto_or_number(text: str) -> int | None:
    """Return the number of "auto" or a whole number above 0; None for "auto". Raises ValueError."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("auto, or a whole number from 1")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class ProfileOption:
    """The profile of a command that runs the pipeline."""

    config: Annotated[str, Setting("A profile; flags win over it.", "NAME|FILE", file="read")] = (
        "default"
    )


@dataclass(frozen=True, kw_only=True)
class MotionOption:
    """The motion that events are made of."""

    motion: Annotated[
        str,
        Setting(
            "The motion to detect: the name of a shipped one, or a TOML file.",
            "NAME|FILE",
            file="read",
        ),
    ] = "throw"


@dataclass(frozen=True, kw_only=True)
class WebhookOptions:
    """Where events are sent over HTTP."""

    webhook: Annotated[
        str | None, Setting("Send each event to this address until it is accepted.", "URL")
    ] = None
    outbox: Annotated[
        Path | None,
        Setting(
            f"The file of events not yet delivered; {OUTBOX} here by default.",
            "FILE",
            file="write",
            unset=OUTBOX,
            suffixes=(".sqlite", ".sqlite3", ".db"),
        ),
    ] = None
    webhook_secret: Annotated[
        str | None, Setting("The secret that signs what is sent.", "TEXT")
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(ProfileOption):
    """``run``: draw bodies over the people of sources."""

    source: Annotated[
        tuple[str, ...],
        Setting(
            "A clip, rtsp://..., a camera (0, /dev/video0), http://.../snapshot.jpg, a folder or "
            "'*.jpg' of pictures, - for standard input, or lavfi:...; several run together.",
            "SOURCE",
            positional=True,
            file="read",
        ),
    ]
    workers: Annotated[
        int,
        Setting(
            "Processes that share the sources, each with networks of its own: more sources a GPU.",
            "N",
            low=1,
        ),
    ] = 1
    cluster: Annotated[
        str | None,
        Setting(
            "Run the sources on the machines of a Ray cluster: its address, or auto for the one "
            "that runs here, else a new one of this machine.",
            "auto|ADDRESS",
        ),
    ] = None
    quiet: Annotated[bool, Setting("Show no progress and no table.")] = False


@dataclass(frozen=True, kw_only=True)
class ServeOptions(WebhookOptions, MotionOption, ProfileOption):
    """``serve``: sources live on a page, with an API under it."""

    address: Annotated[
        str,
        Setting("Where to listen; this machine alone by default.", "[HOST:]PORT", positional=True),
    ]
    source: Annotated[
        tuple[str, ...],
        Setting(
            "The sources to begin with, as `run` takes them except -; more are added on the page.",
            "[NAME=]SOURCE",
            positional=True,
            file="read",
        ),
    ] = ()
    token: Annotated[
        str | None,
        Setting(
            "The password, needed on any other address than this machine's; made and shown if "
            "not given.",
            "TOKEN",
        ),
    ] = None
    folder: Annotated[Path, Setting("The folder of recordings.", "DIR")] = Path("recordings")
    cluster: Annotated[
        str | None,
        Setting(
            "Spread the sources over the GPUs and machines of a Ray cluster: its address, or auto "
            "for the one that runs here, else a new one of this machine.",
            "auto|ADDRESS",
        ),
    ] = None
    workers: Annotated[
        str,
        Setting(
            "With `--cluster`: processes that run sources, each with networks of its own; auto: as "
            "many as its machines carry.",
            "auto|N",
            check=auto_or_number,
        ),
    ] = "auto"
    max_streams_per_worker: Annotated[
        str,
        Setting(
            "With `--cluster`: the most sources of a worker; auto: as many as their measured "
            "cost allows.",
            "auto|N",
            check=auto_or_number,
        ),
    ] = "auto"
    admit: Annotated[
        Literal["refuse", "slower"],
        Setting(
            "With `--cluster`: what becomes of a source for which no worker has room; slower: each "
            "n-th of its frames is taken."
        ),
    ] = "refuse"
    poses_to: Annotated[
        Path | None,
        Setting(
            "With `--cluster`: write the bodies of all sources into this folder, one NAME.jsonl "
            "each.",
            "DIR",
        ),
    ] = None
    events: Annotated[bool, Setting("Detect throws in every source, show them and send them.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class EventsOptions(WebhookOptions, MotionOption, ProfileOption):
    """``events``: throws as they happen, one JSON object a line."""

    source: Annotated[
        tuple[str, ...],
        Setting(
            "A clip, rtsp://..., a camera (0), a folder or '*.jpg' of pictures, or - for standard "
            "input; several are watched one after another.",
            "SOURCE",
            positional=True,
            file="read",
        ),
    ]
    report: Annotated[
        Path | None, Setting("Write a page with all events.", "DIR", file="write")
    ] = None
    strip: Annotated[
        Path | None, Setting("Write each event's four pictures as PNG.", "DIR", file="write")
    ] = None
    jsonl: Annotated[
        Path | None,
        Setting(
            "Write the lines to a file too, with pictures in them.",
            "OUT",
            file="write",
            suffixes=(".jsonl", ".json", ".ndjson"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ProfileOption):
    """``evaluate``: a clip's bodies compared with a truth."""

    clip: Annotated[
        str | None,
        Setting("The clip; with --dataset its folder.", "CLIP", positional=True, file="read"),
    ] = None
    truth: Annotated[
        Path | None, Setting("The truth: a render's npz, MediaPipe's, ...", "FILE", file="read")
    ] = None
    nobody: Annotated[bool, Setting("Instead of a truth: the clip has no people.")] = False
    suite: Annotated[
        Path | None,
        Setting("Evaluate every NAME.mp4 with its NAME_truth.npz.", "DIR"),
    ] = None
    poses: Annotated[
        Path | None,
        Setting(
            "Measure the bodies that `run --poses` wrote, without running the clip; with --suite a "
            "folder that has a NAME.npz for each clip.",
            "FILE",
            file="read",
        ),
    ] = None
    dataset: Annotated[
        Literal["3dpw", "emdb"] | None,
        Setting("Evaluate the sequences of a dataset by its own rules.", "NAME"),
    ] = None
    split: Annotated[
        str | None,
        Setting(
            "A part of the dataset: test, validation or train of 3DPW (test); emdb1, emdb2 or all "
            "of EMDB (emdb1).",
            "NAME",
        ),
    ] = None
    sequence: Annotated[
        tuple[str, ...],
        Setting("Only this sequence of the dataset; repeatable.", "NAME"),
    ] = ()
    smpl: Annotated[
        Path | None,
        Setting(
            "The folder of your official SMPL files (female, male, neutral) and "
            "J_regressor_h36m.npy; EMDB, and the vertices of both datasets, need them. The neutral "
            "one is fitted.",
            "DIR",
        ),
    ] = None
    reuse: Annotated[
        Path | None,
        Setting("Measure what reusing the key frames' masks and bodies costs in accuracy.", "DIR"),
    ] = None
    jobs: Annotated[int, Setting("Processes for --suite and --dataset.", "N", low=1)] = 1
    json: Annotated[
        Path | None,
        Setting("Write the figures as JSON.", "OUT", file="write", suffixes=(".json",)),
    ] = None
    frames: Annotated[
        str | None, Setting("Count only these frames; all of them are run.", "A-B,C")
    ] = None
    worst: Annotated[int, Setting("List the N worst person-frames.", "N", low=0)] = 0
    truth_lens: Annotated[bool, Setting("Use the truth's own lens.", excludes="lens")] = False
    without: Annotated[
        tuple[str, ...],
        Setting(
            "Switch a part of the fit off: world, mask, prior, smoothness, ...; repeatable.", "NAME"
        ),
    ] = ()
    given: Annotated[
        tuple[str, ...],
        Setting(
            "Use the truth's landmarks, world, mask, depth or depth-map instead of the perceived "
            "ones; repeatable.",
            "NAME",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """``bench``: how long four frames take, row by row."""

    rows: Annotated[
        str | None, Setting("The rows; by default all that this machine can run.", "A,B,...")
    ] = None
    list: Annotated[bool, Setting("Show the rows, and what keeps some from running here.")] = False
    again: Annotated[bool, Setting("Measure again what has been measured before.")] = False
    windows: Annotated[int, Setting("The number of windows measured.", "N", low=1)] = 50
    warm: Annotated[int, Setting("The number of windows before them.", "N", low=0)] = 10
    size: Annotated[str, Setting("The frames' size.", "WxH")] = "1920x1080"
    people: Annotated[int, Setting("People in the picture.", "N", low=1)] = 1
    workers: Annotated[
        int, Setting("Processes that share the sources of the rows of streams.", "N", low=1)
    ] = 1
    clip: Annotated[
        Path | None, Setting("The clip of the frames; the sample by default.", "FILE", file="read")
    ] = None
    weights: Annotated[
        Path | None, Setting("A folder with the model's files.", "DIR", file="read")
    ] = None
    upstream: Annotated[
        Path | None,
        Setting(
            "A clone of facebookresearch/sam-3d-body, with facebookresearch/dinov3 in its folder "
            "dinov3: times the original beside ours.",
            "DIR",
            file="read",
        ),
    ] = None
    out: Annotated[Path, Setting("The folder of the results.", "DIR")] = Path("docs/bench")
    profile: Annotated[
        bool, Setting("Write a torch trace too, and list the ten slowest kernels.")
    ] = False
    json: Annotated[bool, Setting("Print the file instead of a table.")] = False
    readme: Annotated[
        Path | None,
        Setting(
            "Write the tables of all files into docs/results/h100.md; without --rows nothing is "
            "measured.",
            "[FILE]",
            bare="docs/results/h100.md",
            file="write",
        ),
    ] = None
    compare_masks: Annotated[
        Path | None, Setting("Instead: compare SAM's, FastSAM's and our masks.", "CLIP")
    ] = None
    # No annotation: the command line declares this flag once, for all commands.
    debug: bool = False
    """Whether a failed row shows where its error came from (``--debug``, on every command)."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """``export``: files for other programs of a recording."""

    recording: Annotated[
        Path,
        Setting("The file that --poses wrote.", "POSES.npz", positional=True, file="read"),
    ]
    # No annotation: a recording is exported without a profile.
    config: str = "default"
    """The profile whose settings the flags stand over."""


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """``view``: a recording in 3D."""

    poses: Annotated[
        Path,
        Setting("A recording of `run --poses`.", "POSES.npz", positional=True, file="read"),
    ]
    address: Annotated[
        str,
        Setting(
            "Where the page is; by default any free port of this machine.",
            "[HOST:]PORT",
            positional=True,
        ),
    ] = "0"
    token: Annotated[
        str | None,
        Setting(
            "The password, needed on any other address than this machine's; made and shown if "
            "not given.",
            "TOKEN",
        ),
    ] = None
    browser: Annotated[bool, Setting("Open the page in the browser.", negative=True)] = True


@dataclass(frozen=True, kw_only=True)
class RecoverOptions:
    """``recover``: the files of a run that was killed."""

    path: Annotated[
        Path,
        Setting(
            "The path that --poses, --mhr, --amass or an export had.", "OUT|DIR", positional=True
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """``cluster status`` and ``cluster stop``."""

    address: Annotated[
        str,
        Setting(
            "The address of the Ray cluster; auto: the one that runs on this machine.",
            "ADDRESS",
            flag="--cluster",
        ),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class DrainOptions(ClusterOptions):
    """``cluster drain``."""

    node: Annotated[
        str,
        Setting("The machine: its name, or the beginning of its id.", "NODE", positional=True),
    ]
    undo: Annotated[bool, Setting("Let it have workers again.")] = False


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """``doctor``: nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """``weights list``."""

    weights: Annotated[Path | None, Setting("Look in this folder first.", "DIR")] = None


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """``weights fetch``."""

    name: Annotated[
        str,
        Setting(
            "The name of the model, or default: all that the default profile uses.",
            "NAME",
            positional=True,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ListOptions):
    """``weights check``."""

    name: Annotated[
        str,
        Setting(
            "sam3d-dinov3 or sam3d-vith, or the folder of a release.",
            "NAME|FOLDER",
            positional=True,
        ),
    ]
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Setting("Where it computes; auto: a CUDA GPU where there is one."),
    ] = "auto"
