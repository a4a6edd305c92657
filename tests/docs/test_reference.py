"""The generated pages of the reference have every command, setting and route."""

from __future__ import annotations

import re

import pytest

from app.config import settings
from docs import gen_reference as gen


def test_the_page_of_the_command_line_has_every_command():
    page = gen.cli_page()
    headings = re.findall(r"(?m)^##+ bodystream (.+)$", page)
    wanted = [
        *("run", "serve", "view", "events", "evaluate", "bench"),
        *("weights", "cluster", "export", "recover", "doctor"),
    ]
    assert [each for each in headings if " " not in each] == wanted
    assert {"weights list", "weights fetch", "weights check"} <= set(headings)
    assert {"cluster status", "cluster drain", "cluster stop"} <= set(headings)
    assert "python -m bodystream COMMAND" not in page, "it names the installed command"
    for setting in settings().values():
        for flag in setting.setting.stands_for if setting.commands else ():
            assert flag in page


HELP = """usage: x COMMAND

commands:
  run     Draw it, and
          more of it.
  stop    End.

options:
  --debug  Show it.
"""


@pytest.mark.parametrize(
    ("text", "names"), [(HELP, ["run", "stop"]), ("options:\n  --x  y", []), ("", [])]
)
def test_commands_are_read_from_a_help_text(text, names):
    assert gen.commands_in(text) == names


def test_the_page_of_the_configuration_has_every_setting():
    page = gen.configuration_page()
    tables = dict(re.findall(r"(?ms)^## (\S.*?)\n(.*?)(?=^## |\Z)", page))
    for key, setting in settings().items():
        table, _, name = key.rpartition(".")
        if key == "source":
            continue
        row = re.search(
            rf"(?m)^\| `{name}` \| (.+) \|$", tables[f"[{table}]" if table else "Top level"]
        )
        assert row is not None, key
        assert setting.setting.help.split(";")[0].split("|")[0] in row[1]
        assert ("none" if setting.default in (None, ()) else str(setting.default).lower()) in row[
            1
        ].lower()


def test_the_page_of_http_has_every_route():
    page = gen.http_page()
    for route in gen._application().routes:
        if route.path in gen._OWN_PAGES:
            continue
        methods = getattr(route, "methods", None) or {"WebSocket"}
        described = any(f"## `{method} {route.path}`" in page for method in methods)
        assert described or f"| `{route.path}` |" in page, route.path
    for name in re.findall(r"\]\(#(\w+)\)", page):
        assert re.search(rf"(?mi)^### {name}$", page), "a link leads to an object"
