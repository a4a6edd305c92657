"""A recording in 3D inside a notebook."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import replace
from pathlib import Path

from app.exports.recording import ExportError, Recording, read_recording
from app.view.assets import assets, packed
from app.view.body import MODEL, body_file
from app.view.frames import recording_file

_NOT_INLINE = ("live.js", "page.js")
"""Scripts that need a server."""

_ROWS = (
    "frame", "pts_s", "global_orient", "body_pose", "frame_betas", "pelvis_m", "joints_m",
    "joint_visibility", "landmarks_m", "step",
)  # fmt: skip
"""What a `Track` has for each frame."""

_BOOT = """
const unzip = async (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};
const packed = JSON.parse(document.getElementById("packed").textContent);
const scripts = JSON.parse(new TextDecoder().decode(await unzip(packed.scripts)));
const urls = {};
// A script in memory has no folder: what it imports is given the address of a script in memory too.
const url = (name) => urls[name] ??= URL.createObjectURL(new Blob([scripts[name].replace(
  /(\\bfrom ?)(["'])\\.\\/([\\w./]+)\\2/g, (all, word, quote, other) =>
    `${word}"${url(name.replace(/[^/]*$/, "") + other)}"`)], { type: "text/javascript" }));
const { openInline } = await import(url("recording.js"));
const body = packed.body && await unzip(packed.body);
openInline(document.getElementById("view"), await unzip(packed.recording), body);
"""


class RecordingView:
    """A recording that notebooks show in 3D.

    The cell holds all that it needs, so a saved notebook shows it without a network and without
    this package.

    Args:
        recording: The recording.
        height: The cell's height in pixels.
    """

    def __init__(self, recording: Recording, height: int) -> None:
        self._recording = recording_file(recording)
        self._body = body_file() if recording.model == MODEL else None
        self._height = height

    def page(self) -> str:
        """Return the whole page as one HTML document."""
        files = assets()
        scripts = {
            name: data.decode()
            for name, data in files.items()
            if name.endswith(".js") and name not in _NOT_INLINE
        }
        packed_parts = {
            "scripts": _text(json.dumps(scripts).encode()),
            "recording": _text(self._recording),
            "body": None if self._body is None else _text(self._body),
        }
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="dark light">'
            f"<style>{files['view.css'].decode()}</style>"
            '<body class="view-page"><main id="view" aria-label="The recording in 3D"></main>'
            f'<script type="application/json" id="packed">{json.dumps(packed_parts)}</script>'
            f'<script type="module">{_BOOT}</script>'
        )

    def _repr_html_(self) -> str:
        """Return the frame that a notebook shows."""
        return (
            f'<iframe srcdoc="{html.escape(self.page())}" title="bodystream: a recording in 3D" '
            f'style="width:100%;height:{self._height}px;border:0" allowfullscreen></iframe>'
        )


def view(
    path: str | Path, seconds: tuple[float, float] | None = None, height: int = 520
) -> RecordingView:
    """Return a recording that a notebook shows in 3D.

    Args:
        path: The npz of ``--poses``.
        seconds: The part that is shown, from and to in the source's own time; None for all of it.
        height: The height in the notebook, in pixels.

    Raises:
        ExportError: It is truncated, was not written by ``--poses``, or has no people in that part.
        OSError: It cannot be opened.
    """
    recording = read_recording(Path(path))
    if seconds is not None:
        recording = _part_of(recording, *seconds)
        if not recording.tracks:
            raise ExportError(f"{path}: no people from {seconds[0]:g} to {seconds[1]:g} seconds")
    return RecordingView(recording, height)


def _part_of(recording: Recording, from_s: float, to_s: float) -> Recording:
    """The rows of a recording from a time on and before another."""
    tracks = []
    for track in recording.tracks:
        rows = (track.pts_s >= from_s) & (track.pts_s < to_s)
        if rows.any():
            tracks.append(replace(track, **{name: getattr(track, name)[rows] for name in _ROWS}))
    return replace(recording, tracks=tuple(tracks))


def _text(data: bytes) -> str:
    return base64.b64encode(packed(data)).decode()
