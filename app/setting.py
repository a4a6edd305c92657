"""The declaration of a setting: an annotation on a dataclass's field.

One annotated field says what the flag is called, what the help and the profile say, and which
values are allowed. `app.config` declares the settings of a profile this way, `app.options` those
that belong to one command; `app.cli.flags` makes flags of both.
"""

from __future__ import annotations

import difflib
import math
import re
import stat
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_NUMBERS = {
    # Python reads no longer whole numbers.
    int: re.compile(r"[+-]?[0-9]{1,4000}"),
    float: re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|[+-]?inf"),
}
"""How numbers are typed on the command line."""
_LONGEST_SHOWN = 40
_LARGEST = 1e9
"""The end of a number whose setting has none."""


@dataclass(frozen=True)
class Setting:
    """The annotation of a field, beside its type.

    Attributes:
        help: One or two sentences on it, in plain English.
        metavar: The word for the value in the help, such as ``OUT.mp4``.
        flag: The flag where it is not the field's own name; None: there is no flag.
        stands_for: Flags without a value, each with the value that it sets. With them the
            setting has no other flag, and only one of them may be given.
        commands: The commands that have the flag; empty: all that have the field's section.
        low: The least value of a number.
        high: The greatest value of a number.
        above: Whether ``low`` itself is not allowed.
        check: Raises ValueError for a value that the type allows and the setting does not.
        excludes: Settings with the same word here exclude each other on the command line.
        positional: Whether it is an argument instead of a flag.
        negative: Whether there is a ``--no-`` flag too.
        bare: The value of the flag without one (``--flag`` beside ``--flag VALUE``).
        example: A value for the profile that names every setting, where the default is None.
        file: What the command does with the file that the value names: "read" or "write". A file
            that is read is never written over.
        unset: The file that is used where the value is None.
        suffixes: Endings of the name of a file that is written, the usual one first; one that
            belongs to another format is refused.
    """

    help: str
    metavar: str = ""
    flag: str | None = ""
    stands_for: Mapping[str, Any] = field(default_factory=dict, hash=False)
    commands: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    check: Callable[[Any], Any] | None = None
    excludes: str = ""
    positional: bool = False
    negative: bool = False
    bare: str | None = None
    example: Any = None
    file: Literal["", "read", "write"] = ""
    unset: str | None = None
    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """The annotation of a table of settings: its title in the help, its comment in a
    profile, and the commands whose flags can change it."""

    title: str
    commands: tuple[str, ...]
    comment: str = ""


@dataclass(frozen=True)
class Declared:
    """A declared setting: its key (``perceive.people``), type, default and annotation."""

    key: str
    type: Any
    default: Any
    setting: Setting
    section: Section

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def flag(self) -> str | None:
        """The flag that takes its value, None where there is none."""
        if self.setting.flag is None or self.setting.stands_for:
            return None
        return self.setting.flag or "--" + self.name.replace("_", "-")

    @property
    def flags(self) -> list[str]:
        """All its flags: the one that takes its value, or those that stand for a value each."""
        if self.setting.positional:
            return []
        return [self.flag] if self.flag is not None else list(self.setting.stands_for)

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that have its flags."""
        return (self.setting.commands or self.section.commands) if self.flags else ()

    @property
    def base(self) -> Any:
        """Its type without None: bool, int, float, str, Path or a Literal."""
        return _base(self.type)

    @property
    def word(self) -> Any:
        """The type of one typed word: as ``base``, but a path is still a text, which is checked
        before it is a path, and a tuple's is its items'."""
        if get_origin(self.type) is tuple:
            return get_args(self.type)[0]
        return str if self.base is Path else self.base

    def from_text(self, text: str) -> Any:
        """Return a typed word as a value of ``word``. Raises ValueError."""
        if get_origin(self.word) is Literal:
            return _choice(get_args(self.word), text)
        # Python would take other alphabets' digits, underscores and spaces too.
        typed = _NUMBERS.get(self.word)
        if typed is not None and not typed.fullmatch(text):
            raise ValueError(f"{wanted(self.word)}, not {_shown(text)}")
        return self.word(text)


def declared(part: type, section: Section = Section("options", ())) -> list[Declared]:
    """Return every setting that a dataclass and the tables in it declare, in their order."""
    out: list[Declared] = []
    hints = get_type_hints(part, include_extras=True)
    for f in fields(part):
        notes: tuple[Any, ...] = ()
        hint = hints[f.name]
        if get_origin(hint) is Annotated:
            hint, *rest = get_args(hint)
            notes = tuple(rest)
        for note in notes:
            if isinstance(note, Section) and is_dataclass(hint):
                inner = declared(hint, note)  # type: ignore[arg-type]
                out += [
                    Declared(f"{f.name}.{d.key}", d.type, d.default, d.setting, note) for d in inner
                ]
            elif isinstance(note, Setting):
                # A field may name a section of its own, as the general settings do.
                own = next((n for n in notes if isinstance(n, Section)), section)
                out.append(Declared(f.name, hint, _default(f), note, own))
    return out


def _default(f: Field) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _base(hint: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next(kind for kind in kinds if kind is not type(None))


def checked(setting: Declared, value: Any, base: Path | None = None) -> Any:
    """Return a value as the setting's type; relative paths are below ``base``.

    Raises:
        ValueError: It is of another type, out of range or not one of the choices. The message
            says what it should be.
    """
    kind = setting.base
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f'a list, such as ["{setting.setting.metavar}"], not {_shown(value)}')
        item = replace(setting, type=get_args(kind)[0])
        return tuple(checked(item, each, base) for each in value)
    # A profile can hold it, and no file's name. A path refuses all control characters below.
    if isinstance(value, str) and "\0" in value and kind is not Path:
        raise ValueError(f"{wanted(kind)} without the character NUL")
    # Only a setting whose type allows None.
    if value is None and kind is not setting.type:
        return None
    if get_origin(kind) is Literal:
        value = _choice(get_args(kind), value)
    elif kind is Path and isinstance(value, str | Path) and str(value):
        # "-" is standard output and not a file in the profile's folder.
        path = _path(value)
        value = path if base is None or str(value) == "-" else base / path
    # `type`, not `isinstance`: True is an int in Python. TOML's 3 is a number too.
    elif kind is float and type(value) in (int, float):
        value = _in_range(setting.setting, _finite(value))
    # No rounding: 2.5 iterations are a mistake.
    elif kind is int and type(value) is int:
        value = _in_range(setting.setting, value)
    elif kind not in (bool, str) or type(value) is not kind:
        raise ValueError(f"{wanted(kind)}, not {_shown(value)}")
    # The default needs no check, which may be slow: a catalog asks installed packages.
    if setting.setting.check is not None and value != setting.default:
        setting.setting.check(value)
    return value


def wanted(kind: Any) -> str:
    """Return the words for a value of a type in a message."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    return names.get(kind, "a text")


def _choice(choices: tuple[str, ...], value: Any) -> str:
    if isinstance(value, str) and value in choices:
        return value
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    raise ValueError(f"one of {', '.join(choices)}, not {_shown(value)}{hint}")


def _path(value: str | Path) -> Path:
    # A control character hides in a name, and no system has a file with a NUL in its name.
    if any(ord(letter) < 32 for letter in str(value)):
        raise ValueError(f"a path without control characters, not {_shown(str(value))}")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"{value}: there is no such home") from None


def _finite(value: int | float) -> float:
    """A number as a float. An endless one, or one beyond a float's range, is a mistake everywhere:
    what has no limit is left out instead."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"a number, not {_shown(value)}")
    return number


def _in_range(limits: Setting, value: Any) -> Any:
    low, high = limits.low, limits.high
    if abs(value) > _LARGEST and math.isinf(high):
        raise ValueError(f"at most {_LARGEST:g}, not {_shown(value)}")
    if value < low or value > high or (limits.above and value == low):
        least = f"above {low:g}" if limits.above else f"{low:g} or more"
        wanted_range = least if math.isinf(high) else f"{low:g} to {high:g}"
        # In full: a large number in powers of ten is hard to recognise as what was typed.
        raise ValueError(f"{wanted_range}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as it was typed, cut where it is longer than any that makes sense."""
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value) if type(value) is int else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def no_file(path: Path) -> str | None:
    """Return why a path that exists is no file to read, None where it may be one.

    Reading a pipe could wait for ever, and reading a device could end never.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None  # The code that reads it says that it is missing.
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return f"is {'a pipe' if stat.S_ISFIFO(mode) else 'no regular file'}; give a file"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``; did you mean WORD?`` with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
