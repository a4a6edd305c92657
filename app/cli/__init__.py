"""The command line: ``python -m app run | serve | events | evaluate | bench | weights |
recover | doctor``.

Exit codes: 0 fine (also when a window or a pipe was closed), 1 it could not be done, 2 the
command line or a profile is wrong, 130 and 143 ended by Ctrl-C and SIGTERM, with all that was
written so far complete.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from app.cli.system import keep_memory_together, library_remedy
from app.config import Config, ConfigError, load_config

# Whatever is slow to import (torch, OpenCV, PyAV) is imported by the command that needs it:
# `--help` and a mistyped flag answer at once.

_FLAGS = {
    "video": "output.video",
    "poses": "output.poses",
    "vertices": "output.vertices",
    "jsonl": "output.jsonl",
    "amass": "output.amass",
    "window": "output.window",
    "timing": "output.timing",
    "rotate_s": "output.rotate_s",
    "rotate_mb": "output.rotate_mb",
    "rotate_keep": "output.rotate_keep",
    "pace": "capture.pace",
    "start": "capture.start_s",
    "seconds": "capture.seconds",
    "retry_s": "capture.retry_s",
    "rtsp_transport": "capture.rtsp_transport",
    "size": "capture.size",
    "fps": "capture.fps",
    "decode": "capture.decode",
    "fov_deg": "capture.fov_deg",
    "focal_px": "capture.focal_px",
    "depth_scale": "perceive.depth_scale",
    "people": "perceive.people",
    "weights": "perceive.weights",
    "body": "fit.body",
    "engine": "engine.name",
    "renderer": "render.renderer",
    "hud": "render.hud",
    "device": "device",
}


class _Parser(argparse.ArgumentParser):
    """argparse with errors of two lines instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\nsee: {self.prog} --help\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse's, but sources may stand before and after flags, and what is not known is
        told as the command's own."""
        known, rest = super().parse_known_args(args, namespace)
        sources = getattr(known, "source", None)
        if rest and isinstance(sources, list) and not any(word.startswith("-") for word in rest):
            known.source, rest = [*sources, *rest], []
        elif rest and self._subparsers is None:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code. ``argv`` defaults to the process's own."""
    parser = _parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as done:
        return int(done.code or 0)
    try:
        code = args.command(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our standard output left; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {_describe(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _describe(error: Exception) -> str:
    """Two lines at most: the message where it is meant for people, else its type too."""
    remedy = library_remedy(error) if isinstance(error, ImportError | OSError) else None
    if remedy is not None:
        return remedy
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    lines = [line[:400] for line in str(error).strip().splitlines() if line.strip()][:2]
    if lines and isinstance(error, OSError | ValueError | RuntimeError | ImportError):
        return "\n".join(lines)
    return f"{type(error).__name__}: {''.join(lines[:1])}\nThis is a bug; --debug shows where."


def _parser() -> argparse.ArgumentParser:
    started_as = Path(sys.argv[0]).name
    parser = _Parser(
        prog="python -m app" if started_as == "__main__.py" else "bodystream",
        description="Video in, SMPL bodies drawn over the people, out.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_serve(commands)
    _add_events(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_weights(commands)
    _add_recover(commands)
    doctor = _command(commands, "doctor", _doctor, "what this machine can do, and what is missing")
    doctor.epilog = "Exits with 1 if something is missing that a plain run needs."
    return parser


def _command(
    commands: Any, name: str, call: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=call)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def _add_run(commands: Any) -> None:
    parser = _command(commands, "run", _run, "draw bodies over the people of a source")
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    text = "a clip, rtsp://..., a camera (0, /dev/video0), lavfi:...; several go together"
    add("source", metavar="SOURCE", nargs="+", help=text)
    add("--config", default="default", metavar="NAME|FILE", help="a profile; flags win over it")
    _add_outputs(parser.add_argument_group("outputs"))

    group = parser.add_argument_group("source")
    pace = group.add_mutually_exclusive_group()
    for flag, text in (("live", "drop the oldest frame when behind"), ("every-frame", "lose none")):
        pace.add_argument(f"--{flag}", dest="pace", action="store_const", const=flag, help=text)
    group.add_argument("--start", type=float, metavar="S", help="where to start in a clip")
    group.add_argument("--seconds", type=float, metavar="S", help="how much of it to read")
    group.add_argument(
        "--retry-s", type=float, metavar="S",
        help="how long to try a live source; 0: fail at once; for ever once it has been live",
    )  # fmt: skip
    group.add_argument("--rtsp-transport", choices=("tcp", "udp"), help="what carries RTSP's media")
    group.add_argument("--size", metavar="WxH", help="of a camera's pictures")
    group.add_argument("--fps", type=float, help="of a camera")
    group.add_argument("--decode", choices=("software", "nvdec"), help="who decodes")
    lens = group.add_mutually_exclusive_group()
    lens.add_argument("--fov-deg", type=float, metavar="DEG", help="across the longer side")
    lens.add_argument("--focal-px", type=float, metavar="PX", help="the camera's focal length")

    group = parser.add_argument_group("models")
    group.add_argument("--people", type=int, metavar="N", help="the most people to follow")
    group.add_argument("--weights", metavar="DIR", help="a folder with the model's files")
    group.add_argument("--body", metavar="FILE", help="an SMPL body file of your own")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"))
    group.add_argument("--engine", choices=("auto", "tensorrt", "inductor", "eager"))
    group.add_argument("--renderer", choices=("auto", "numba", "gpu", "pyrender"))


def _add_outputs(group: Any) -> None:
    add = group.add_argument
    add("--video", metavar="OUT.mp4", help="the overlay")
    _add_rotation(group)
    add("--poses", metavar="OUT.npz", help="all bodies of all frames")
    add("--vertices", action="store_true", help="put their meshes into --poses")
    add("--jsonl", metavar="OUT|-", help="one JSON object a frame; - is standard output")
    add("--amass", metavar="DIR", help="one AMASS-style npz a track")
    add("--window", action=argparse.BooleanOptionalAction, help="show the overlay on the screen")
    _add_timing(group)
    add("--no-hud", dest="hud", action="store_false", help="no numbers in the corner")
    add("--quiet", action="store_true", default=False, help="no progress, no table")


def _add_timing(group: Any) -> None:
    timing = group.add_mutually_exclusive_group()
    for flag, text in (
        ("sync", "a frame waits for its own bodies (the default)"),
        ("low-latency", "the newest frame at once, with bodies predicted to its time"),
    ):
        timing.add_argument(
            f"--{flag}", dest="timing", action="store_const", const=flag, help=text
        )  # fmt: skip


def _add_rotation(group: Any) -> None:
    add = group.add_argument
    text = "begin another video file after so long: OUT_0001.mp4, OUT_0002.mp4, ..."
    add("--rotate-s", type=float, metavar="S", help=text)
    add("--rotate-mb", type=float, metavar="MB", help="the same after so many megabytes")
    add("--rotate-keep", type=int, metavar="N", help="delete the oldest of them beyond N")


def _add_serve(commands: Any) -> None:
    text = "show sources live on a page, with an API under it"
    parser = _command(commands, "serve", _serve, text)
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("address", metavar="[HOST:]PORT", help="where to listen; this machine alone by default")
    text = "to begin with; more are added on the page"
    add("source", metavar="[NAME=]SOURCE", nargs="*", default=[], help=text)
    text = "needed on any other address than this machine's; made and shown if not given"
    add("--token", default=None, help=text)
    add("--folder", default="recordings", metavar="DIR", help="where recordings go")
    _add_rotation(parser)
    text = "look for throws in every source, show and tell them"
    add("--events", action="store_true", default=False, help=text)
    _add_motion(parser)
    _add_webhook(parser)
    add("--config", default="default", metavar="NAME|FILE", help="a profile; flags win over it")
    add("--rtsp-transport", choices=("tcp", "udp"), help="what carries RTSP's media")
    _add_timing(parser)
    add("--people", type=int, metavar="N", help="the most people to follow in a source")
    add("--weights", metavar="DIR", help="a folder with the model's files")
    add("--body", metavar="FILE", help="an SMPL body file of your own")
    add("--device", choices=("auto", "cpu", "cuda"))
    add("--engine", choices=("auto", "tensorrt", "inductor", "eager"))


def _add_motion(group: Any) -> None:
    text = "what is looked for: a name in configs/motions or a TOML file"
    group.add_argument("--motion", default="throw", metavar="NAME|FILE", help=text)


def _add_webhook(group: Any) -> None:
    add = group.add_argument
    add("--webhook", metavar="URL", default=None, help="send each one there, until it is taken")
    text = "what is not delivered yet; webhook.sqlite here by default"
    add("--outbox", metavar="FILE", type=Path, default=None, help=text)
    add("--webhook-secret", metavar="TEXT", default=None, help="signs what is sent")


def _add_events(commands: Any) -> None:
    text = "throws as they happen: one JSON object a line, measured about the ball's release"
    parser = _command(commands, "events", _events, text)
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    text = "a clip, rtsp://..., a camera (0); several are watched one after another"
    add("source", metavar="SOURCE", nargs="+", help=text)
    add("--report", metavar="DIR", type=Path, default=None, help="a page with all of them")
    add("--strip", metavar="DIR", type=Path, default=None, help="each one's four pictures, as PNG")
    text = "the lines as a file too, with pictures in them"
    add("--jsonl", metavar="OUT", type=Path, default=None, help=text)
    _add_webhook(parser)
    _add_motion(parser)
    add("--config", default="default", metavar="NAME|FILE", help="a profile; flags win over it")
    pace = parser.add_mutually_exclusive_group()
    for flag, text in (("live", "drop the oldest frame when behind"), ("every-frame", "lose none")):
        pace.add_argument(f"--{flag}", dest="pace", action="store_const", const=flag, help=text)
    add("--start", type=float, metavar="S", help="where to start in a clip")
    add("--seconds", type=float, metavar="S", help="how much of it to read")
    add("--retry-s", type=float, metavar="S", help="how long to try a live source")
    add("--rtsp-transport", choices=("tcp", "udp"), help="what carries RTSP's media")
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument("--fov-deg", type=float, metavar="DEG", help="across the longer side")
    lens.add_argument("--focal-px", type=float, metavar="PX", help="the camera's focal length")
    add("--people", type=int, metavar="N", help="the most people to follow")
    add("--weights", metavar="DIR", help="a folder with the model's files")
    add("--body", metavar="FILE", help="an SMPL body file of your own")
    add("--device", choices=("auto", "cpu", "cuda"))
    add("--engine", choices=("auto", "tensorrt", "inductor", "eager"))


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", _evaluate, "compare a clip's bodies with a truth")
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("clip", metavar="CLIP", nargs="?", default=None)
    add("--truth", metavar="FILE", type=Path, default=None, help="a render's, MediaPipe's, ...")
    add("--nobody", action="store_true", default=False, help="instead: nobody is in the clip")
    add("--suite", metavar="DIR", type=Path, default=None, help="every NAME.mp4, NAME_truth.npz")
    add("--reuse", metavar="DIR", type=Path, default=None, help="what key frames' masks are worth")
    add("--jobs", type=int, default=1, metavar="N", help="processes for --suite")
    add("--json", metavar="OUT", type=Path, default=None, help="the figures as JSON")
    add("--frames", default=None, metavar="A-B,C", help="count only these; all of them are run")
    add("--worst", type=int, default=0, metavar="N", help="list the N worst person-frames")
    add("--config", default="default", metavar="NAME|FILE", help="a profile; flags win over it")
    add("--start", type=float, metavar="S", help="where to start in the clip")
    add("--seconds", type=float, metavar="S", help="how much of it to read")
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument("--fov-deg", type=float, metavar="DEG", help="across the longer side")
    lens.add_argument("--focal-px", type=float, metavar="PX", help="the camera's focal length")
    lens.add_argument("--truth-lens", action="store_true", default=False, help="the truth's own")
    add("--depth-scale", type=float, metavar="M", help="metres a unit of depth maps, if known")
    add("--people", type=int, metavar="N", help="the most people to follow")
    add("--weights", metavar="DIR", help="a folder with the model's files")
    add("--body", metavar="FILE", help="an SMPL body file of your own")
    add("--device", choices=("auto", "cpu", "cuda"))
    add("--engine", choices=("auto", "tensorrt", "inductor", "eager"))
    for flag, text in (
        ("--without", "switch a part of the fit off: world, mask, prior, smoothness, ..."),
        (
            "--given",
            "the truth's landmarks, world, mask, depth or depth-map instead of the perceived",
        ),
    ):
        add(flag, action="append", default=[], metavar="NAME", help=f"{text}; repeatable")


def _add_bench(commands: Any) -> None:
    text = "how long four frames take, row by row, into docs/bench/GPU.json"
    parser = _command(commands, "bench", _bench, text)
    parser.epilog = (
        "A row that is in the file already, measured by the same code with the same settings, is "
        "kept; an interrupted run keeps what was finished."
    )
    add = parser.add_argument
    add("--rows", metavar="A,B,...", help="which rows (default: all that this machine can run)")
    add("--list", action="store_true", help="show the rows, and what keeps some from running here")
    add("--again", action="store_true", help="measure also what has been measured before")
    add("--windows", type=int, default=50, metavar="N", help="windows measured (default 50)")
    add("--warm", type=int, default=10, metavar="N", help="windows before them (default 10)")
    add("--size", default="1920x1080", metavar="WxH", help="the frames' size (default 1920x1080)")
    add("--people", type=int, default=1, metavar="N", help="people in the picture (default 1)")
    add("--clip", type=Path, metavar="FILE", help="its frames (default: the shipped sample's)")
    add("--weights", type=Path, metavar="DIR", help="a folder with the model's files")
    add("--out", type=Path, default=Path("docs/bench"), metavar="DIR", help="where files go")
    add("--profile", action="store_true", help="also a torch trace and the ten dearest kernels")
    add("--json", action="store_true", help="print the file instead of a table")
    add(
        "--readme", type=Path, nargs="?", const=Path("README.md"), metavar="FILE",
        help="write the tables of all files into README.md; without --rows nothing is measured",
    )  # fmt: skip
    add("--compare-masks", type=Path, metavar="CLIP", help="instead: SAM's masks, FastSAM's, ours")


def _add_weights(commands: Any) -> None:
    text = "the model files that the profiles can use; `fetch NAME` gets one"
    parser = _command(commands, "weights", _weights, text)
    parser.set_defaults(fetch=None, weights=None)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    show = actions.add_parser("list", help="found or not, size, sha256, licence, how to get it")
    show.add_argument("--weights", type=Path, metavar="DIR", help="look here before elsewhere")
    fetch = actions.add_parser("fetch", help="get a model's files")
    fetch.add_argument("fetch", metavar="NAME")


def _add_recover(commands: Any) -> None:
    text = "make the npz of a run that was killed, from the rows it left beside it"
    parser = _command(commands, "recover", _recover, text)
    parser.add_argument(
        "path", type=Path, metavar="OUT.npz|DIR", help="as --poses or --amass had it"
    )


def _run(args: argparse.Namespace) -> int:
    flags = {key: getattr(args, name) for name, key in _FLAGS.items() if hasattr(args, name)}
    config = load_config(args.config, {**flags, "source": args.source[0]})
    if config.output.vertices and config.output.poses is None:
        raise ConfigError("--vertices: needs --poses, the file they go into")
    if config.output.video is None:
        for name in ("rotate_s", "rotate_mb", "rotate_keep"):
            if getattr(config.output, name):
                raise ConfigError(f"--{name.replace('_', '-')}: needs --video, the file it is of")
    _check_keep(config)

    if len(args.source) > 1:
        return _run_many(args, config)

    from app.outputs.paths import prepare_outputs
    from app.run_report import ProgressView, print_report

    prepare_outputs(config.output, config.source)
    # With JSON lines on standard output, all that is for people goes to standard error.
    table_stream = sys.stderr if str(config.output.jsonl) == "-" else sys.stdout
    keep_memory_together()
    with _stop_by_signal() as stop:
        from app import build

        with ProgressView(args.quiet) as view:
            report = build.run(config, on_progress=view, stop=stop.event, on_build=view.building)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not args.quiet:
        print_report(report, table_stream)
    return 0 if stop.signal is None else 128 + stop.signal


def _check_keep(config: Config) -> None:
    output = config.output
    if output.rotate_keep and output.rotate_s is None and output.rotate_mb is None:
        raise ConfigError("--rotate-keep: needs --rotate-s or --rotate-mb; there is one file")


def _run_many(args: argparse.Namespace, config: Config) -> int:
    from app.multi_run import names_of, outputs_of, run_many
    from app.outputs.paths import prepare_outputs
    from app.run_report import ProgressView, print_report

    configs = {}
    for name, source in zip(names_of(args.source), args.source):
        output = outputs_of(config.output, name)
        prepare_outputs(output, source)
        configs[name] = replace(config, source=source, output=output)
    keep_memory_together()
    with _stop_by_signal() as stop, ProgressView(args.quiet) as view:
        results = run_many(configs, on_progress=view, stop=stop.event, on_build=view.building)
    for result in results:
        for warning in result.report.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if result.error is not None:
            print(f"error: {result.error}", file=sys.stderr)
        if not args.quiet:
            print(f"{result.name}:")
            print_report(result.report, sys.stdout)
    if stop.signal is not None:
        return 128 + stop.signal
    return 1 if any(result.error is not None for result in results) else 0


def _serve(args: argparse.Namespace) -> int:
    flags = {key: getattr(args, name) for name, key in _FLAGS.items() if hasattr(args, name)}
    config = load_config(args.config, flags)
    _check_keep(config)

    from app.serve.command import run_command

    keep_memory_together()
    with _stop_by_signal() as stop:
        code = run_command(args, config, stop.event)
    return code if stop.signal is None else 128 + stop.signal


def _events(args: argparse.Namespace) -> int:
    flags = {key: getattr(args, name) for name, key in _FLAGS.items() if hasattr(args, name)}
    # Its own --jsonl holds events.
    flags.pop("output.jsonl", None)
    config = load_config(args.config, flags)

    from app.reports.command import run_command

    keep_memory_together()
    with _stop_by_signal() as stop:
        code = run_command(args, config, stop.event)
    return code if stop.signal is None else 128 + stop.signal


def _evaluate(args: argparse.Namespace) -> int:
    flags = {key: getattr(args, name) for name, key in _FLAGS.items() if hasattr(args, name)}
    config = load_config(args.config, flags)

    from app.evaluate.suite import run_command

    return run_command(args, config)


def _bench(args: argparse.Namespace) -> int:
    from app.bench.command import run_command

    return run_command(args)


def _weights(args: argparse.Namespace) -> int:
    from app.cli.weights import fetch_weights, list_weights

    return list_weights(args.weights) if args.fetch is None else fetch_weights(args.fetch)


def _recover(args: argparse.Namespace) -> int:
    from app.cli.recover import recover

    return recover(args.path)


def _doctor(args: argparse.Namespace) -> int:
    from app.cli.doctor import doctor

    return doctor()


class _Stop:
    """Set by the first signal; the second ends the process at once."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        self.event.set()


@contextmanager
def _stop_by_signal():
    """A _Stop that SIGINT and SIGTERM set, while the block runs."""
    stop = _Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Only the main thread may set handlers.
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
