"""Generate the reference pages from the program: an MkDocs hook.

The command line's page comes from `--help`, the configuration's from the declared settings, the
HTTP API's from the routes of `serve`. None of the three can differ from the code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).parent.parent
WIDTH = 80
"""Columns of the help texts: what fits beside the table of contents."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site's files (called by MkDocs)."""
    from mkdocs.structure.files import File

    pages = {
        "reference/cli.md": cli_page,
        "reference/configuration.md": configuration_page,
        "reference/http.md": http_page,
    }
    for path, page in pages.items():
        files.append(File.generated(config, path, content=page()))
    return files


# The command line


def cli_page() -> str:
    """Return the page of the command line: the help text of every command."""
    top = help_of()
    names = commands_in(top)
    with ThreadPoolExecutor(2) as pool:
        texts = dict(zip(names, pool.map(lambda name: help_of(name), names)))
        inner = [(name, sub) for name in names for sub in commands_in(texts[name])]
        inner_texts = dict(zip(inner, pool.map(lambda pair: help_of(*pair), inner)))
    parts = [
        "# Command line\n",
        "`python -m bodystream` does the same as `bodystream`. The help texts make this page.\n",
        _code(top),
    ]
    for name in names:
        parts.append(f"## bodystream {name}\n\n{_code(texts[name])}")
        parts += [
            f"### bodystream {a} {b}\n\n{_code(inner_texts[a, b])}" for a, b in inner if a == name
        ]
    return "\n".join(parts)


def help_of(*command: str) -> str:
    """Return the help text of a command. Raises RuntimeError where it has none."""
    environment = {
        **os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb",
        "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bodystream", *command, "--help"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{' '.join(command)} --help: {done.stderr.strip() or 'no text'}")
    # Without the package installed the help names the module.
    text = done.stdout.replace("python -m bodystream", "bodystream")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def commands_in(text: str) -> list[str]:
    """Return the commands that a help text lists under its heading "commands" or "actions"."""
    names, inside = [], False
    for line in text.splitlines():
        words = line.strip(" │╭╮╰╯─:")
        if re.fullmatch(r"(?i)commands|actions", words):
            inside = True
        elif inside and not words:
            inside = False
        elif inside and (found := re.match(r"([a-z][a-z-]*)(\s{2,}\S|$)", words)):
            names.append(found[1])
    return names


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


# The configuration


@dataclass(frozen=True)
class Entry:
    """One setting as the page shows it."""

    key: str
    kind: str
    default: str
    flag: str
    help: str


def configuration_page() -> str:
    """Return the page of the configuration: every key with its type, range, default and help."""
    parts = [
        "# Configuration\n",
        "A profile is a TOML file: `--config FILE`, or the name of one that is shipped "
        f"({_names(_profiles())}). Defaults come first, then the profile, then flags; each wins "
        "over the one before. An unknown key, a wrong type or a value out of range is an error "
        "that names the file and the key.\n",
        "This page is made from the declared settings.\n",
    ]
    tables: dict[str, list[Entry]] = {}
    for entry in entries():
        tables.setdefault(entry.key.rpartition(".")[0], []).append(entry)
    for table, rows in tables.items():
        parts.append(f"## {f'[{table}]' if table else 'Top level'}\n")
        if about := _about(table):
            parts.append(f"{about}\n")
        parts.append(
            "| key | type and range | default | flag | meaning |\n| --- | --- | --- | --- | --- |"
        )
        for row in rows:
            name = row.key.rpartition(".")[2]
            cells = (f"`{name}`", row.kind, row.default, row.flag, row.help)
            parts.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        parts.append("")
    parts.append('## The default profile\n\n```toml\n--8<-- "configs/default.toml"\n```\n')
    return "\n".join(parts)


def entries() -> Iterator[Entry]:
    """Yield every setting of a profile, in the order of its declaration."""
    from app.config import settings

    for declared in settings().values():
        if declared.key == "source":
            continue
        setting = declared.setting
        flags = [flag for flag in (declared.flag, *setting.stands_for) if flag]
        yield Entry(
            declared.key,
            _kind(declared.type, setting.low, setting.high, setting.above),
            _default(declared.default),
            ", ".join(f"`{flag}`" for flag in flags) if declared.commands else "",
            setting.help,
        )


def _kind(hint: Any, low: float, high: float, above: bool) -> str:
    """A type and range in words."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next(each for each in kinds if each is not type(None))
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0], low, high, above)}s"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    words = {bool: "`true` or `false`", int: "whole number", float: "number", Path: "path"}
    text = words.get(kind, "text")
    if low == float("-inf"):
        return text
    least = f"above {low:g}" if above else f"{low:g} or more"
    return f"{text}, {least if high == float('inf') else f'{low:g} to {high:g}'}"


def _default(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _about(table: str) -> str:
    """What a table's dataclass says of itself: its docstring, without line breaks."""
    from app.config import Config

    part = type(getattr(Config(), table)) if table else Config
    return " ".join((part.__doc__ or "").replace("``", "`").split())


def _profiles() -> list[str]:
    from app.config import profiles

    return profiles()


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# The HTTP API


def http_page() -> str:
    """Return the page of the HTTP API, from the application's own OpenAPI schema and routes."""
    app = _application()
    schema = app.openapi()
    parts = [
        "# HTTP API\n",
        "`bodystream serve` answers these. `/openapi.json` of a running server is the same "
        "description for programs. Where a token is set, send it as `Authorization: Bearer TOKEN`. "
        "This page is made from the application itself.\n",
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(method.upper(), path, operation))
    parts.append("## Outside the schema\n")
    parts.append("| route | kind | what it is |\n| --- | --- | --- |")
    parts += [f"| `{path}` | {kind} | {_cell(about)} |" for path, kind, about in _plain_routes(app)]
    parts.append("\n## Objects\n")
    for name, model in schema["components"]["schemas"].items():
        if name not in ("HTTPValidationError", "ValidationError"):
            parts.append(_model(name, model))
    return "\n".join(parts)


def _application() -> Any:
    """The FastAPI application; building it asks nothing of the hub."""
    from app.serve.poses_jobs import PosesJobs
    from app.serve.web import create_app

    hub: Any = None
    return create_app(hub, PosesJobs())._app


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [f"## `{method} {path}`\n", operation.get("description", ""), ""]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        lines.append(f"Request: {_type(body['schema'])}\n")
    lines += [
        f"- `{each['name']}`, in the {each['in']}: {_type(each['schema'])}"
        for each in operation.get("parameters", ())
    ]
    lines.append("")
    for code, response in operation["responses"].items():
        if code == "422":
            continue
        kinds = [_type(each.get("schema", {})) for each in response.get("content", {}).values()]
        known = ", ".join(kind for kind in kinds if kind)
        lines.append(f"Answer: {code}{f', {known}' if known else ''}\n")
    return "\n".join(lines)


_PLAIN = {
    "/healthz": "`ok`, or `degraded: recordings fail: CAUSE`, with 200; 503 while sources are "
    "there and none is live.",
    "/metrics": "Prometheus' text format.",
}
_OWN_PAGES = ("/", "/login", "/page/{name}", "/openapi.json")


def _plain_routes(app: Any) -> Iterator[tuple[str, str, str]]:
    """Routes that OpenAPI does not describe: their path, kind and what they are."""
    for route in app.routes:
        if route.path in _OWN_PAGES or getattr(route, "include_in_schema", False):
            continue
        kind = "GET" if getattr(route, "methods", None) else "WebSocket"
        about = _PLAIN.get(route.path) or route.endpoint.__doc__
        if not about:
            raise ValueError(f"{route.path}: say in its docstring what it is")
        yield route.path, kind, about


def _model(name: str, model: Mapping[str, Any]) -> str:
    lines = [f"### {name}\n"]
    if about := model.get("description"):
        # A docstring's double backticks are Markdown's single ones.
        lines.append(f"{about.replace('``', '`')}\n")
    lines.append("| key | type | required |\n| --- | --- | --- |")
    required = model.get("required", ())
    for key, schema in model.get("properties", {}).items():
        lines.append(f"| `{key}` | {_cell(_type(schema))} | {'yes' if key in required else ''} |")
    return "\n".join((*lines, ""))


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        inner = schema.get("prefixItems")
        if inner:
            return f"[{', '.join(_type(each) for each in inner)}]"
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    if isinstance(schema.get("additionalProperties"), dict) and "type" in schema:
        return f"object of {_type(schema['additionalProperties']) or 'anything'}"
    return str(schema.get("type", ""))
