"""Every command line that README and the manual show has a command and flags that exist."""

from __future__ import annotations

import re
from functools import cache

import pytest

from docs import gen_reference as gen
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def command_lines(text: str) -> list[str]:
    """The commands in a page's code, inline and in blocks, without comments and pipes."""
    inline = re.findall(r"`(bodystream [^`]+)`", text)
    fenced = "\n".join(re.findall(r"(?ms)^```\w+$(.*?)^```$", text))
    blocks = re.findall(r"(?m)^(bodystream .+)$", fenced)
    blocks += re.findall(r"(?m)^ {4}(bodystream .+)$", text)
    return [re.split(r"\s#|\||;", " ".join(each.split()))[0] for each in (*inline, *blocks)]


@cache
def help_of(command: str) -> str:
    return gen.help_of(command)


@cache
def commands() -> set[str]:
    return set(gen.commands_in(gen.help_of()))


def problems(line: str) -> list[str]:
    """What a command line names and the program does not have."""
    command, *words = line.split()[1:]
    if command.startswith("-"):
        return [] if command in gen.help_of() else [f"{line}: no {command}"]
    if command not in commands():
        return [f"{line}: no command {command}"]
    flags = {word.strip("[],.").partition("=")[0] for word in words if re.match(r"\[?--\w", word)}
    known = set(re.findall(r"--[\w-]+", help_of(command)))
    return [f"{line}: no {flag}" for flag in flags - known]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_of_a_page_exist(page):
    found = [each for line in command_lines(page.read_text()) for each in problems(line)]
    # The example of an output brings its own flag.
    assert [each for each in found if not each.endswith("no --csv")] == []


def test_a_wrong_command_is_found():
    block = "```sh\nbodystream run 0 --widow  # --x\nbodystream run 0 --window\n```\n"
    text = f"`bodystream walk 0`\n\n{block}\nbodystream turns out well.\n"
    found = [each for line in command_lines(text) for each in problems(line)]
    assert found == ["bodystream walk 0: no command walk", "bodystream run 0 --widow: no --widow"]
