"""The text of ``configs/default.toml``, made from the declared settings.

``python -m app.profile_text > configs/default.toml`` writes it again after a setting has changed.
"""

from __future__ import annotations

import json
import math
import textwrap
from typing import Literal, get_args, get_origin

from app.config import settings
from app.setting import Declared

_INTRODUCTION = """\
# The default profile: every setting there is, at its default. Copy this file, keep the lines you
# want to change, and give its path: `run SOURCE --config my.toml`. Flags win over the file.
# Settings that are commented out have no default value; paths are relative to the file.
# Made by `python -m app.profile_text > configs/default.toml`.
"""


def default_profile() -> str:
    """Return the default profile: every setting with its help, in TOML."""
    lines, table = [_INTRODUCTION.rstrip()], ""
    for setting in settings().values():
        if setting.key == "source":  # The command line's, not a profile's.
            continue
        section = setting.key.rpartition(".")[0]
        if section != table:
            comment = setting.section.comment
            lines += ["", f"[{section}]" + (f"  # {comment}" if comment else "")]
            table = section
        help_lines = textwrap.wrap(describe(setting), 98)
        absent = setting.default is None
        # JSON's numbers, texts and booleans are TOML's too.
        value = json.dumps(setting.setting.example if absent else setting.default)
        lines += ["", *(f"# {line}" for line in help_lines)]
        # TOML has no null: a setting without a default value stays commented out.
        lines.append(f"{'# ' if absent else ''}{setting.name} = {value}")
    return "\n".join(lines) + "\n"


def describe(setting: Declared) -> str:
    """Return a setting's help with its choices or its range, in plain sentences."""
    limits = setting.setting
    if get_origin(setting.base) is Literal:
        return f"{limits.help} One of: {', '.join(get_args(setting.base))}."
    if math.isinf(limits.low):
        return limits.help
    if math.isinf(limits.high):
        return f"{limits.help} {'Above' if limits.above else 'At least'} {limits.low:g}."
    return f"{limits.help} From {limits.low:g} to {limits.high:g}."


if __name__ == "__main__":
    print(default_profile(), end="")
