"""Records the goldens: ``python -m tests.goldens.make``. Do it only for a change of numbers that is
meant, and say so in the commit.

Whole runs are not compared: they amplify the last bit of a float (another CPU, another build of
LiteRT) to millimetres, because each window starts from the one before. So the golden of the fit is
a function of one window's people, and the golden of the sets is a list of names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.body.load import load_body
from pipeline.capture.open import open_source
from pipeline.core.camera import default_intrinsics
from pipeline.core.people import Mask, Person
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.runtime.estimator import EstimatorOptions
from pipeline.runtime.make import make_keypoint_estimator
from pipeline.runtime.window import Windower
from tests.support.paths import SAMPLE

FOLDER = Path(__file__).parent
FIT = FOLDER / "fit.npz"
NAMES = FOLDER / "names.json"
_WINDOWS = (0, 5, 12, 15, 18, 26)
"""Standing, wind-up, three about the release, follow-through."""
_PARTS = ("box_px", "landmarks_px", "visibility", "world_m")


def record_fit() -> None:
    """Write people of some windows of the sample, and the joints fitted to them."""
    windows = _perceived()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*_PARTS, "mask", "to_image")}
    for people in windows:
        for person in people:
            assert person.mask is not None
            for name in _PARTS:
                rows[name].append(getattr(person, name))
            rows["mask"].append((255 * person.mask.values).round().astype(np.uint8))
            rows["to_image"].append(person.mask.to_image)
    arrays = {name: np.stack(values) for name, values in rows.items()}
    joints = fitted(windows_of(arrays))
    np.savez_compressed(FIT, joints_m=joints, **arrays)


def _perceived() -> list[list[Person]]:
    estimator = make_keypoint_estimator(EstimatorOptions(people=1, device="cpu"))
    state, windower, out = estimator.begin(), Windower(float("inf")), []
    source = open_source(str(SAMPLE))
    source.open()
    for frame in source.frames():
        for window in windower.add(frame):
            (detected,) = estimator.perceive([window], [state])
            out.append([next(iter(people.values())) for people in detected.people])
    source.close()
    estimator.close()
    return [out[k] for k in _WINDOWS]


def windows_of(arrays: dict[str, np.ndarray]) -> list[list[Person]]:
    """The recorded people, four to a window."""
    people = [
        Person(
            arrays["box_px"][k], 1.0, arrays["landmarks_px"][k], arrays["visibility"][k],
            arrays["world_m"][k],
            Mask(arrays["mask"][k].astype(np.float32) / 255, arrays["to_image"][k]),
        )
        for k in range(len(arrays["box_px"]))
    ]  # fmt: skip
    return [people[k : k + 4] for k in range(0, len(people), 4)]


def fitted(windows: Sequence[Sequence[Person]]) -> np.ndarray:
    """Joints (windows, 4, 24, 3) in metres of each window fitted on its own, from nothing."""
    fitter, intrinsics = BodyFitter(load_body()), default_intrinsics(720, 1280)
    out = []
    for people in windows:
        bodies = fitter.fit([{1: person} for person in people], intrinsics, FitMemory())
        out.append(np.stack([each.joints_m[0] for each in bodies]))
    return np.stack(out)


def record_names() -> None:
    """Write the names that users and programs rely on."""
    from tests.goldens.names import all_names

    NAMES.write_text(json.dumps(all_names(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record_fit()
    record_names()
