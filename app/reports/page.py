"""Throws as one HTML file, for somebody who analyses them: pictures, bodies, curves, numbers.

The file stands alone: no network, no other file, and without scripts all but what a pointer shows.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from app.reports.reported_event import ReportedEvent, Scales
from app.reports.sections import chip, comparison, count, reading, section
from pipeline.events.motion import Motion

__all__ = ["ReportedEvent", "write_page"]

_e = html.escape


def write_page(
    folder: Path, throws: Sequence[ReportedEvent], motion: Motion, title: str = ""
) -> Path:
    """Write ``folder``/index.html, which shows ``throws``, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(_page(throws, motion, title or motion.report.title), encoding="utf-8")
    return path


def _page(throws: Sequence[ReportedEvent], motion: Motion, title: str) -> str:
    style, script = (files(__package__).joinpath(f"page.{kind}").read_text("utf-8")
                     for kind in ("css", "js"))  # fmt: skip
    scales = Scales.of(throws, motion)
    several = len(throws) > 1
    main = [comparison(throws, scales)] if several else []
    main += [section(throw, number, several, scales) for number, throw in enumerate(throws)]
    main.append(reading(scales) if throws else
                '<p class="nothing">No throw was found. A throw shows once its release is seen '
                "with two frames before it and one after.</p>")  # fmt: skip
    return _PAGE.substitute(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        title=_e(title), style=style, script=script, summary=_summary(throws),
        navigation=_navigation(throws) if several else "", main="".join(main),
        data=_data(throws, scales),
    )  # fmt: skip


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header id="top"><h1>$title</h1><p class="summary">$summary</p>$navigation</header>
<main>$main</main>
<script type="application/json" id="data">$data</script>
<script>$script</script>
</body>
</html>
""")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(throws: Sequence[ReportedEvent], scales: Scales) -> str:
    """What the script needs, as JSON that cannot end its element."""

    def rounded(values: np.ndarray, digits: int) -> list[float | None]:
        return [round(float(each), digits) if math.isfinite(each) else None for each in values]

    found = {
        "span": scales.span_s,
        "axes": {
            name: {"low": axis.low, "high": axis.high, "digits": axis.digits}
            for name, axis in scales.axes.items()
        },
        "throws": [
            {"times": rounded(np.asarray(throw.timeline_s, float), 4),
             "curves": {name: rounded(throw.line(name, number).values, axis.digits)
                        for name, axis in scales.axes.items()}}
            for number, throw in enumerate(throws)
        ],
    }  # fmt: skip
    return json.dumps(found, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _summary(throws: Sequence[ReportedEvent]) -> str:
    sources = len({throw.source for throw in throws})
    said = [count(len(throws), "throw"), f"from {count(sources, 'source')}"]
    return " ".join(said) if throws else "No throws"


def _navigation(throws: Sequence[ReportedEvent]) -> str:
    links = "".join(
        f'<li><a href="#throw-{number + 1}">{chip(number)}{number + 1} '
        f"<span>{_e(throw.source)}</span></a></li>"
        for number, throw in enumerate(throws)
    )
    return f'<nav aria-label="Throws"><ol><li><a href="#comparison">All</a></li>{links}</ol></nav>'
