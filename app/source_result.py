"""The result of one of several sources."""

from __future__ import annotations

from dataclasses import dataclass

from app.outputs.base import OutputError
from app.run_report import RunReport
from pipeline.capture.errors import SourceError, SourceNotFound
from pipeline.core.problem import one_line


@dataclass(frozen=True)
class Result:
    """The result of one of several sources; ``error`` is the line that ended it, None if the source
    ended by itself."""

    name: str
    report: RunReport
    error: str | None


def line_of(name: str, error: BaseException) -> str:
    """Return the line for an error that ended a source."""
    # The messages of a source and of an output name them.
    named = isinstance(error, SourceError | OutputError)
    return one_line(error) if named else f"{name}: {one_line(error)}"


def end_of(error: BaseException) -> str:
    """Return why a source ended, in a few words for its report."""
    if isinstance(error, SourceNotFound):
        return "not found"
    return "lost" if isinstance(error, SourceError) else "an error"


NOT_BEGUN = "not begun"
"""Why a clip ended whose turn did not come."""


def not_begun(name: str, why: str = "") -> Result:
    """Return the result of a clip whose turn did not come: the run was stopped, or could not go on,
    for a reason that is its error."""
    return Result(name, RunReport(0, 0, ended=NOT_BEGUN), f"{name}: {why}" if why else None)


def failed(name: str, why: str) -> Result:
    """Return the result of a source that its worker could not run."""
    return Result(name, RunReport(0, 0, ended="an error"), f"{name}: {why}")
