"""What the page shows of a cluster's source beside what its worker says."""

from __future__ import annotations

from dataclasses import replace

from app.cluster.table import SourceRow
from app.serve.served import is_live
from app.serve.settings import settings_of
from app.serve.source_view import SourceView
from pipeline.capture.status import State
from pipeline.core.redact import without_credentials
from pipeline.core.stats import Snapshot, Stats


def placed_view(view: SourceView, row: SourceRow) -> SourceView:
    """Return a source's view with where it is, and how often it came there."""
    return replace(
        view, worker=row.worker, moves=row.moves, failovers=row.failovers, every=row.every
    )


def absent_view(
    row: SourceRow, last: tuple[SourceView, Snapshot] | None
) -> tuple[SourceView, Snapshot]:
    """The view of a source that has no worker now: its last one, with the state and the reason."""
    state = State.ENDED if row.quarantined else State.RECONNECTING
    reason = row.reason or "moving to another worker"
    if last is not None:
        view, figures = last
        now = replace(
            view, state=str(state), reason=reason, fps=0.0, people=0, not_followed=0,
            recording=None, settings=settings_of(row.config),
        )  # fmt: skip
        return now, figures
    figures = Stats().snapshot()
    view = SourceView(
        name=row.name, address=without_credentials(row.config.source), state=str(state),
        reason=reason, since_s=0.0, fps=0.0, people=0, not_followed=0, latency_ms=None, read=0,
        drawn=0, dropped={}, stages_ms={}, reconnects=0, damaged=0, failures={}, decoder_bytes=0,
        recording=None, not_recorded=0, unfitted=0, predicted_ms=None, predicted_off_px=None,
        events=None, events_lost=None, recording_wanted=False, recording_missing=False,
        recording_cause="", recording_failures={}, clip=not is_live(row.config.source),
        settings=settings_of(row.config),
    )  # fmt: skip
    return view, figures
