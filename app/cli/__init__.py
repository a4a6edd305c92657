"""The command line: ``bodystream run | serve | view | events | evaluate | bench | weights |
cluster | export | recover | doctor``.

Exit codes: 0 fine (also when a window or a pipe was closed), 1 it could not be done, 2 the
command line or a profile is wrong, or an output exists and ``--no-clobber`` is given, 129, 130 and
143 ended by SIGHUP, Ctrl-C and SIGTERM, with everything that was written so far complete.

A command's flags come from declared settings (`app.config`, `app.options`, through
`app.cli.flags`); a module of this package holds each command. Everything slow to import (torch,
OpenCV, PyAV) is imported by the command that needs it: `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
import warnings
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from app.cli.errors import describe, parse_message
from app.cli.flags import GROUPS, Call, switches
from app.cli.help import HelpPage
from app.cli.streams import prepare_streams
from app.config import ConfigError
from pipeline.core.problem import Notice
from pipeline.core.program import program, version

# The order of the help. Each is a module of this package, imported when it is called.
COMMANDS = {
    "run": "Draw SMPL bodies over the people of a source.",
    "serve": "Show sources live on a page, with an API under it.",
    "view": "Open a recording of --poses in 3D, on a page of this machine.",
    "events": "Report throws as they happen: one JSON object a line, measured about the ball's "
    "release.",
    "evaluate": "Compare a clip's bodies with a truth.",
    "bench": "Measure how long four frames take, row by row, into docs/bench/GPU.json.",
    "weights": "List the model files that the profiles can use; `fetch NAME` gets one.",
    "cluster": "Show the workers of `serve --cluster`; `drain NODE` empties a machine.",
    "export": "Make files for Blender, OpenSim and spreadsheets of a --poses file.",
    "recover": "Make the files of a run that was killed, from the rows it left beside them.",
    "doctor": "Show what this machine can do, and what is missing.",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The words after the program's name; by default the process's own.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if argv is None else argv
    prepare_streams()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(message: Warning | str, *place: Any, **more: Any) -> None:
            if isinstance(message, Notice):
                # A line for the user, without the place in the code.
                print(f"warning: {message}", file=sys.stderr)
            else:
                show(message, *place, **more)

        warnings.showwarning = show_line
        try:
            return _answer(words)
        finally:
            # For a program that calls this and goes on (`app.garbage.leave_out_loaded`).
            gc.unfreeze()


def _answer(words: list[str]) -> int:
    """Run the command and say what went wrong; return the exit code."""
    try:
        call = parse(words)
        code = 0 if call is None else call()
        # Here, so that a closed pipe is handled below and not at the interpreter's exit.
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        print(parse_message(error), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of standard output left; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        # The shell's convention for a process that a signal ended.
        return 128 + getattr(error, "number", signal.SIGINT)
    except Exception as error:
        # Not the parsed option: the error may have come from parsing.
        if "--debug" in words:
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
        # An error of the command line itself has another one.
        return getattr(error, "exit_code", 1)


def parse(words: list[str]) -> Call | None:
    """Return the command that the words call, None where help or the version was printed.

    Raises:
        CycloptsError: A flag, a command or an argument is unknown, missing or of a wrong type.
        ConfigError: An option of the command is out of range.
    """
    return make_app().meta(_with_dashes(words))


def make_app() -> App:
    """Return the command line's cyclopts app."""
    app = App(
        name=program(),
        usage=f"{program()} COMMAND ...",
        help="Video in, SMPL bodies drawn over the people, out.",
        version=version,
        help_flags=["--help", "-h"],
        help_format="plaintext",
        help_formatter=HelpPage(),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for number, (name, text) in enumerate(COMMANDS.items()):
        # By name, so that cyclopts imports a command's module only when it is called.
        app.command(f"app.cli.{name}:app", name=name, help=text, sort_key=number)
    for flag, text in (("--help", "Show this help."), ("--version", "Show the version.")):
        app[flag].help = text
        app[flag].group = GROUPS["options"]

    @app.meta.default
    def launch(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        debug: Annotated[
            bool,
            Parameter(
                help="Show where an error came from.",
                group=GROUPS["options"],
                negative=(),
                show_default=False,
            ),
        ] = False,
    ) -> Call | None:
        if not words:
            raise ConfigError(f"give a COMMAND: {', '.join(COMMANDS)}")
        call = app(words)
        return call.with_debug(debug) if isinstance(call, Call) else None

    return app


def _with_dashes(words: list[str]) -> list[str]:
    """Write ``--jsonl -`` as ``--jsonl=-``, and the source ``-`` as /dev/stdin: cyclopts takes a
    lone dash for a flag."""
    if "-" not in words:
        return words
    out: list[str] = []
    alone = switches()
    for word in words:
        before = out[-1] if out else ""
        if word != "-":
            out.append(word)
        elif before.startswith("--") and "=" not in before and before not in alone:
            out[-1] += "=-"
        else:
            out.append("/dev/stdin")
    return out
