"""The look of the help: plain text in two columns, as wide as the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_LEFT = 26
_HELP = ("--help, -h", "Show this help.")


class HelpPage:
    """Prints what cyclopts has gathered, without boxes and colours."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line of usage."""
        self._print(console, [f"usage: {str(usage).strip()}", ""])

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one group of commands or flags under its title."""
        if not panel.entries:
            return
        # Any narrower, and a line would hold a word or two.
        width = max(console.width, _LEFT + 30)
        rows = [_row(entry) for entry in panel.entries]
        # cyclopts names --help in the program's own help only.
        if panel.title == "options" and not any("--help" in labels for labels, _ in rows):
            rows.append(_HELP)
        lines = [line for row in rows for line in _columns(*row, width)]
        self._print(console, [f"{str(panel.title).lower()}:", *lines, ""])

    def _print(self, console: Console, lines: list[str]) -> None:
        for line in lines:
            # Wrapped already; and a help text is no markup.
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _row(entry: HelpEntry) -> tuple[str, str]:
    text = getattr(entry.description, "primary_renderable", entry.description)
    return ", ".join(entry.display_labels_with_metavar), str(text or "")


def _columns(left: str, right: str, width: int) -> list[str]:
    # Not at hyphens: a flag in a help text stays whole.
    wrapped = textwrap.wrap(right, width - _LEFT, break_on_hyphens=False)
    lines = [f"  {left}"]
    if len(lines[0]) < _LEFT and wrapped:
        lines = [lines[0].ljust(_LEFT) + wrapped.pop(0)]
    return lines + [" " * _LEFT + line for line in wrapped]
