"""From declared settings to cyclopts: the signature of a command, and what was typed.

cyclopts reads the command line and prints the help. The checks of values stay with `app.setting`,
so that a flag and a profile's key are refused in the same words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, Group, Parameter, Token
from cyclopts.argument import ArgumentCollection

from app.config import Config, ConfigError, load_config, settings
from app.files import check_files
from app.options import EventsOptions, RunOptions
from app.setting import Declared, checked, declared
from pipeline.core.program import program

GROUPS = {
    title: Group(title, sort_key=number)
    for number, title in enumerate(("arguments", "options", "outputs", "source", "models"))
}


@dataclass(frozen=True)
class Call:
    """A command as it was typed, ready to run."""

    command: Callable[..., int]
    options: Any
    flags: Mapping[str, Any] | None
    """The settings that were typed, by key; None where the command takes no profile."""

    def __call__(self) -> int:
        """Run the command and return its exit code. Raises ConfigError and what it raises."""
        if self.flags is None:
            check_files(self.options, None)
            return self.command(self.options)
        config = self.config()
        check_files(self.options, config)
        return self.command(self.options, config)

    def config(self) -> Config:
        """Return the profile with the flags over it. Raises ConfigError."""
        return load_config(self.options.config, self.flags)

    def with_debug(self, debug: bool) -> Call:
        """Return the call with ``--debug`` in its options, where they have it."""
        if any(f.name == "debug" for f in fields(self.options)):
            return replace(self, options=replace(self.options, debug=debug))
        return self


def command(
    name: str,
    options: type,
    run: Callable[..., int],
    profile: bool = False,
    help: str | None = None,
    epilogue: str | None = None,
) -> App:
    """Return the cyclopts app of one command.

    Args:
        name: The command, after the actions it belongs to: ``weights fetch``.
        options: The dataclass of its own options.
        run: Takes the options, and the configuration where it has a ``profile``; returns the exit
            code.
        profile: Whether it also has the flags of the settings in `app.config`.
        help: The first paragraph of its help, unless it is given where it is registered.
        epilogue: The last one.
    """
    words = [program(), name, "[options]", *map(_usage, declared(options))]
    app = App(
        name=name.rpartition(" ")[2],
        usage=" ".join(filter(None, words)),
        help=help,
        help_epilogue=epilogue,
    )
    app.default(binder(name, options, run, profile))
    return app


def switches() -> set[str]:
    """Return the flags of sources' commands that take no value."""
    every = [*settings().values(), *(s for o in (RunOptions, EventsOptions) for s in declared(o))]
    flags = {s.flag for s in every if s.word is bool} | {"--debug", "--help"}
    flags |= {f"--no-{s.name.replace('_', '-')}" for s in every if s.setting.negative}
    return {flag for flag in flags if flag} | {f for s in every for f in s.setting.stands_for}


def _usage(option: Declared) -> str:
    if not option.setting.positional:
        return ""
    several = " ..." if get_origin(option.type) is tuple else ""
    text = option.setting.metavar + several
    return text if option.default is MISSING else f"[{text}]"


def binder(
    name: str, options: type, run: Callable[..., int], profile: bool = False
) -> Callable[..., Call]:
    """Return the function that cyclopts binds the words of a command to; see `command`."""
    own = declared(options)
    shared = [s for s in settings().values() if name in s.commands] if profile else []
    exclusive = {s.setting.excludes: _exclusive() for s in own + shared if s.setting.excludes}

    def bind(*positional: Any, **typed: Any) -> Call:
        values = {s.name: v for s in own if (v := _typed(s, typed)) is not None}
        values |= _positional(own, positional)
        # Only what was typed: a default here would override the profile.
        given = {s.key: v for s in shared if (v := _typed(s, typed)) is not None}
        return Call(run, options(**_checked(own, values)), given if profile else None)

    parameters = [p for s in own + shared for p in _parameters(s, exclusive)]
    # A signature must have its positional parameters first.
    parameters.sort(key=lambda parameter: parameter.kind)
    # cyclopts reads flags from a function's signature, so one is made from the settings.
    bind.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bind.__name__ = name
    return bind


def _checked(own: list[Declared], values: dict[str, Any]) -> dict[str, Any]:
    """Return a command's own options, checked and as their types. Raises ConfigError."""
    out = {}
    for option in own:
        if option.name not in values:
            continue
        value = values[option.name]
        if get_origin(option.type) is not tuple:
            try:
                value = checked(option, value)
            except ValueError as error:
                raise ConfigError(f"{_label(option)}: {error}") from None
        out[option.name] = value
    return out


def _label(option: Declared) -> str:
    return option.setting.metavar if option.setting.positional else option.flag or option.name


def _positional(own: list[Declared], words: tuple[Any, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for option in own:
        if not option.setting.positional:
            continue
        if get_origin(option.type) is tuple:
            out[option.name] = words
        elif words:
            out[option.name], words = words[0], words[1:]
    return {name: value for name, value in out.items() if value is not None}


def _parameters(s: Declared, exclusive: dict[str, Group]) -> list[inspect.Parameter]:
    """Return the parameters of one setting: several where each flag stands for a value."""
    groups = [GROUPS[s.section.title]]
    if s.setting.excludes:
        groups.append(exclusive[s.setting.excludes])
    if s.setting.positional:
        return [_argument(s)]
    if s.setting.stands_for:
        if len(s.setting.stands_for) > 1:
            groups.append(_exclusive())
        return [
            _option(_key(s, flag), bool, name=flag, help=text, group=groups)
            for flag, (_, text) in s.setting.stands_for.items()
        ]
    return [
        _option(
            _key(s),
            s.word,
            name=s.flag,
            converter=None if s.word is bool else partial(_convert, s),
            help=_help(s),
            metavar=_metavar(s),
            group=groups,
            negative="--no-" + s.name.replace("_", "-") if s.setting.negative else (),
            # A bare --readme stands for README.md; one word after it is the file.
            consume_multiple=(0, 1) if s.setting.bare else None,
        )
    ]


def _convert(s: Declared, kind: Any, tokens: Sequence[Token]) -> list[Any]:
    # By our own rules: cyclopts takes `none` for no value and 0x10 or 3.0 for whole numbers.
    return [s.from_text(token.value) for token in tokens]


def _option(key: str, word: Any, **about: Any) -> inspect.Parameter:
    # Lists, because a flag may be repeated and the last one counts, as everywhere in Unix: a
    # script's flags can be overridden by those typed after them.
    parameter = Parameter(**{"negative": (), "show_default": False, "show_choices": False, **about})
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[list[word] | None, parameter],
    )


def _argument(s: Declared) -> inspect.Parameter:
    several, required = get_origin(s.type) is tuple, s.default is MISSING
    kind = inspect.Parameter.VAR_POSITIONAL if several else inspect.Parameter.POSITIONAL_ONLY
    about = Parameter(
        name=s.setting.metavar,
        help=s.setting.help,
        group=GROUPS["arguments"],
        required=required,
        show_default=False,
    )
    default = inspect.Parameter.empty if several or required else None
    word: Any = str if several or required else str | None
    return inspect.Parameter(s.name, kind, default=default, annotation=Annotated[word, about])


def _key(s: Declared, flag: str = "") -> str:
    """Return a parameter's name in Python, which is never shown."""
    # Python's names have no dots or dashes.
    return f"{s.key}{flag}".replace(".", "__").replace("-", "_")


def _typed(s: Declared, typed: Mapping[str, Any]) -> Any:
    """Return the value that was typed for a setting, None without one."""
    for flag, (value, _) in s.setting.stands_for.items():
        if typed.get(_key(s, flag)) and typed[_key(s, flag)][-1]:
            return value
    words = typed.get(_key(s))
    if words is None:
        return None
    if get_origin(s.type) is tuple:
        return tuple(words)
    return words[-1] if words else s.setting.bare


def _help(s: Declared) -> str:
    text = s.setting.help
    shown = s.default not in (None, False, "", ()) and get_origin(s.type) is not tuple
    return f"{text} [default: {s.default}]" if shown else text


def _metavar(s: Declared) -> str | None:
    choices = get_args(s.base) if get_origin(s.base) is Literal else ()
    return "{" + ",".join(choices) + "}" if choices else s.setting.metavar or None


def _exclusive() -> Group:
    """Return a group without a title whose flags exclude each other."""

    def check(arguments: ArgumentCollection) -> None:
        # By what was typed and not by values: a flag's value may equal the default.
        typed = [a.tokens[0].keyword for a in arguments if a.tokens]
        if len(typed) > 1:
            raise ValueError(f"{typed[1]}: not allowed with {typed[0]}")

    return Group(validator=check, show=False)
