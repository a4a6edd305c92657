"""Measure what bodies gain from a network of metric joints that looks at key frames only.

    python -m benchmarks.key_frames CLIP ... [--sigma-mm 0 34] [--seed 1] [--held] [--carried]

The CLIPs are renders of `samples/make_pitch.py`, each with its CLIP_truth.npz. BlazePose perceives
the people of every frame. In the measured frames a made-up network (`benchmarks.synthetic_network`)
reports their joints in place of it: true ones with noise, in metres and with their error stated, as
SAM 3D Body does. The fit ties both together. Measured are all frames; the key frame of each
window of four; that of every second and of every fourth window; and none, which is BlazePose alone.
With ``--carried``, what the network corrects of BlazePose's landmarks in a measured frame is added
to them in the other frames of the window, and in the windows up to the next measured frame, and the
sum is taken as metric joints, too. The estimator that ships does the rest, with the truth's lens.

Printed are means over the people of all clips, of the fitted bodies:

- limbs mm: the error of twelve landmarks about the middle of the hips (MPJPE), of all frames;
- between mm: the same, of the frames that are no key frames;
- SMPL mm: the error of SMPL's 24 joints about the middle of the landmarks of the hips;
- surface mm: the chamfer distance to the clothed surface, as ``evaluate`` measures it;
- jitter mm: the mean length of the limbs' second differences over frames, about the hips; that of
  the truth in brackets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluate.metrics import distances, limb_errors, match
from app.evaluate.truth import Truth
from benchmarks.renderers import hardware
from benchmarks.synthetic_network import (
    Figures,
    Noise,
    PersonFrame,
    SyntheticNetwork,
    measure,
    truth_of,
)
from pipeline.body.load import load_body
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Person
from pipeline.perception.base import People, Perceiver
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.correction import Correction
from pipeline.runtime.one_thread import one_thread
from pipeline.weights import store as weights

_KEY = 2
"""The place of the key frame in a full window."""
_PEOPLE = 8


@dataclass(frozen=True)
class Measured:
    """The frames in which the made-up network measures the people.

    Attributes:
        name: What they are.
        windows: They are in every n-th window; 0: in none.
        all_frames: Whether they are all frames of such a window; or only the key frame.
    """

    name: str
    windows: int
    all_frames: bool = False

    def has(self, frame: int) -> bool:
        """Return whether a frame, by its number, is one of them."""
        window, place = divmod(frame, WINDOW_FRAMES)
        chosen = self.windows > 0 and window % self.windows == 0
        return chosen and (self.all_frames or place == _KEY)


NONE = Measured("none", 0)
SOME = (
    Measured("all frames", 1, all_frames=True),
    Measured("key frames", 1),
    Measured("every second key frame", 2),
    Measured("every fourth key frame", 4),
)


class KeyFramePerceiver(Perceiver):
    """BlazePose, with the people of the measured frames as a made-up network reports them.

    ``Person.extra`` holds the ``row`` of the truth of each person that is in it.

    Args:
        base: Perceives the people of every frame.
        network: Reports a frame's people, with their rows.
        truth: The clip's truth.
        measured: The frames in which the network's people take the place of the base's.
        carried: Whether the base's people of other frames are corrected as in the measured ones.
    """

    name = "key frames"

    def __init__(
        self,
        base: Perceiver,
        network: Perceiver,
        truth: Truth,
        measured: Measured,
        *,
        carried: bool = False,
    ) -> None:
        self._base, self._network = base, network
        self._truth, self._measured = truth, measured
        assert truth.intrinsics is not None
        self._intrinsics = truth.intrinsics
        self._carried, self._corrections = carried, dict[int, Correction]()

    def embed(self, window: Window, memory: Any) -> Any:
        """Return what the base's `embed` returns."""
        return self._base.embed(window, memory)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        """Return what the base's `decode` returns, the people replaced in measured frames."""
        people, memory = self._base.decode(embedding, window)
        # All frames first: a correction serves the frames before the key frame, too.
        out = [self._people(*each) for each in zip(window.frames, people)]
        return [tuple(map(self._corrected, here)) for here in out], memory

    def _people(self, frame: Frame, seen: Sequence[Person]) -> tuple[Person, ...]:
        rows, out = self._truth.rows_of(frame.id), list(seen)
        points = np.reshape([person.landmarks_px for person in seen], (-1, 33, 2))
        pairs = match(distances(points, self._truth.landmarks_px[rows], self._truth.torso_px[rows]))
        known = self._reported(frame) if self._measured.has(frame.id) else {}
        for n, p in pairs:
            out[p] = replace(out[p], extra={"row": np.array(rows[n])})
            # The track and the mask stay BlazePose's.
            if (person := known.get(int(rows[n]))) is not None:
                self._corrections[out[p].roi] = Correction.of(out[p], person, self._intrinsics)
                out[p] = replace(person, roi=out[p].roi, score=out[p].score, mask=out[p].mask)
        return tuple(out)

    def _corrected(self, person: Person) -> Person:
        correction = self._corrections.get(person.roi) if self._carried else None
        if correction is None or person.world_sigma_m is not None:
            return person
        return correction.applied(person, self._intrinsics)

    def _reported(self, frame: Frame) -> dict[int, Person]:
        """The network's people of a frame by the truth's rows."""
        ((found,), _) = self._network.decode(None, Window((frame,), 0))
        return {int(person.extra["row"]): person for person in found if person.extra is not None}


@dataclass
class KeyFrameFigures(Figures):
    """The measured numbers, with the errors of the limbs between key frames apart, millimetres."""

    between: list[float] = field(default_factory=list)

    def add(self, seen: Sequence[PersonFrame], fps: float) -> None:
        """Add what was measured of one person, frame by frame."""
        super().add(seen, fps)
        errors_m = [
            limb_errors(one.after_m, one.true_m).mean()
            for one in seen
            if one.frame % WINDOW_FRAMES != _KEY
        ]
        self.between.append(1e3 * float(np.mean(errors_m)))

    def table_row(self, label: str) -> str:
        """Return the means as a row of a Markdown table, under `HEADER`."""
        jitter = np.mean(self.jitter, axis=0)
        return (
            f"| {label} | {np.mean(self.limbs, axis=0)[1]:.1f} | {np.mean(self.between):.1f} "
            f"| {np.mean(self.smpl, axis=0)[0]:.1f} | {np.mean(self.surface):.1f} "
            f"| {jitter[1]:.1f} ({jitter[2]:.1f}) |"
        )


HEADER = (
    "| measured | limbs mm | between mm | SMPL mm | surface mm | jitter mm (the truth's) |\n"
    "|---|--:|--:|--:|--:|--:|"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.key_frames",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--sigma-mm", type=float, nargs="+", default=[0.0, 34.0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held", action="store_true", help="the same errors in all frames")
    parser.add_argument("--carried", action="store_true", help="correct the frames between, too")
    options = parser.parse_args(arguments)
    body, files = load_body(), weights.find("blazepose", None)
    truths = [truth_of(clip) for clip in options.clips]
    print(f"{hardware()}; {len(options.clips)} clips, seed {options.seed}")
    print(HEADER)
    runs = [("none", NONE, Noise(0.0))] + [
        (f"{each.name}, {sigma_mm:g} mm", each, Noise(sigma_mm / 1e3, held=options.held))
        for sigma_mm in options.sigma_mm
        for each in SOME
    ]
    for label, measured, noise in runs:
        figures = KeyFrameFigures()
        with one_thread():
            for clip, truth in zip(options.clips, truths):
                network = SyntheticNetwork(truth, noise, options.seed)
                with closing(BlazePose(files, _PEOPLE)) as base:
                    perceiver = KeyFramePerceiver(
                        base, network, truth, measured, carried=options.carried
                    )
                    measure(clip, truth, perceiver, body, figures)
        print(figures.table_row(label), flush=True)


if __name__ == "__main__":
    main()
