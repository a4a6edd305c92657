"""The bars of a run's progress: one for a terminal, one for a notebook."""

from __future__ import annotations

import sys
from html import escape
from typing import Protocol, TextIO


class ProgressBar(Protocol):
    """A bar on the screen, which is there from when it is made."""

    def show(self, done: int, total: int | None, note: str) -> None:
        """Show how much of a total is done (None where the total is not known), and a note."""

    def close(self) -> None:
        """Leave the bar as it is."""


def bar_for(stream: TextIO) -> ProgressBar | None:
    """Return a bar for where the program runs, None where its control codes would be noise."""
    if stream.isatty():
        return TerminalBar(stream)
    return NotebookBar() if _in_notebook() else None


def _in_notebook() -> bool:
    # A notebook's kernel has imported IPython; nothing else pays for it.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class TerminalBar:
    """A bar on a terminal.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=stream),
            # Else rich would send all that is printed to the bar's own stream.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=None, note="starting")
        self._bar.start()

    def show(self, done: int, total: int | None, note: str) -> None:
        self._bar.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        self._bar.stop()


class NotebookBar:
    """A bar in the output of a notebook's cell.

    It is plain HTML that is replaced as the work goes on. So it needs no widgets, which the bars of
    rich and tqdm do, and a saved notebook shows its last state.
    """

    def __init__(self) -> None:
        from IPython.display import display

        self._done = 0
        self._total: int | None = None
        self._note = "starting"
        self._handle = display(self, display_id=True)

    def show(self, done: int, total: int | None, note: str) -> None:
        self._done, self._total, self._note = done, total, note
        self._handle.update(self)

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        of = f" of {self._total}" if self._total else ""
        return f"{self._done}{of} {self._note}"

    def _repr_html_(self) -> str:
        # Without a value the browser shows that work goes on.
        value = f'value="{self._done}" max="{self._total}"' if self._total else ""
        return f"<progress {value}></progress> {escape(repr(self))}"
