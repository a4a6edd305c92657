"""The files that a command reads and writes, as its declared settings name them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError, settings
from app.outputs.catalog import promises_other
from app.setting import Declared, declared, no_file

Named = tuple[str, Path]


def check_files(options: Any, config: Config | None) -> None:
    """Do nothing where no file that the command's own options write is one that it reads.

    Raises:
        ConfigError: A pipe, a socket or a device is given as a file to read, or the name of an
            output promises another format.
        OutputError: An output is an input, or another output.
    """
    _check_regular(options, config)
    outputs = [found for s in declared(type(options)) for found in _files(s, options, "write")]
    if outputs:
        # Late: it loads numpy, which a command without such an output does not need yet.
        from app.outputs.overwrite import check_overwrites

        check_overwrites(input_files(options, config), outputs)
    _check_suffixes(options)


def input_files(options: Any, config: Config | None) -> list[Named]:
    """Return every file that a command reads, by what messages call it.

    Args:
        options: The command's own options.
        config: Its profile with the flags over it, where it has one.
    """
    found = [f for s in declared(type(options)) for f in _files(s, options, "read")]
    if config is not None:
        found += [f for s in settings().values() for f in _files(s, config, "read")]
    return [*found, *(inner for what, path in found for inner in _inside(what, path))]


def _check_regular(options: Any, config: Config | None) -> None:
    """Refuse what is no file where a file is read: reading a pipe could wait for ever.

    Sources may be devices, and say themselves what they cannot read.
    """
    parts = [(s, options) for s in declared(type(options))]
    parts += [(s, config) for s in settings().values() if config is not None]
    for setting, part in parts:
        if setting.setting.positional:
            continue
        for flag, path in _files(setting, part, "read"):
            if problem := no_file(path):
                raise ConfigError(f"{flag} {path}: {problem}")


def _check_suffixes(options: Any) -> None:
    for setting in declared(type(options)):
        suffixes = setting.setting.suffixes
        if not suffixes and setting.setting.metavar != "DIR":
            continue
        for flag, path in _files(setting, options, "write"):
            if promises_other(path, suffixes):
                fitting = f"end its name in {suffixes[0]}" if suffixes else "give a folder's name"
                raise ConfigError(f"{flag} {path}: its suffix promises another format; {fitting}")


def _files(setting: Declared, part: Any, role: str) -> Iterator[Named]:
    if setting.setting.file != role:
        return
    value = part
    for name in setting.key.split("."):
        value = getattr(value, name)
    value = setting.setting.unset if value is None else value
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    for each in values:
        what = setting.flag or f"--{setting.name}"
        if setting.setting.positional:
            what = f"the {setting.name}" if len(values) == 1 else f"the {setting.name} {each}"
        yield what, Path(each)
        # A source of `serve` may have a name in front.
        if "=" in str(each) and setting.setting.positional:
            yield what, Path(str(each).partition("=")[2])


def _inside(what: str, path: Path) -> Iterator[Named]:
    """The files of a folder that is read: model files, a motion's."""
    try:
        yield from ((f"a file of {what}", inner) for inner in path.iterdir())
    except (OSError, ValueError):
        return
