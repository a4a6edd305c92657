"""Measure what the scores of both person detectors mean, and how well ROIs fit.

Every detection in some frames of clips is given to the landmark model, with one leniency for all.
Printed is the share that it confirms, by detector and score, and the logistic that fits the second
detector's. Frames are also taken mirrored, darker, smaller and cut. Run it:

    python -m benchmarks.detector_scores CLIP...
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from pipeline.capture.open import open_source
from pipeline.core.frame import Frame
from pipeline.perception.blazepose import detector, person_detector
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.blazepose.queries import run_plan
from pipeline.perception.blazepose.resample import Box, parts, tiles
from pipeline.perception.blazepose.roi import Roi, same_place
from pipeline.perception.blazepose.roi_tracking import confirm_candidates
from pipeline.weights import store as weights

LENIENCY = 0.75
"""In place of the detector's score, so that a score does not decide about itself."""
MOST = 12
"""Detections of one detector and picture that are looked at, drawn at random."""
BINS = np.array([0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0])


@dataclass(frozen=True)
class Outcome:
    """One detection: its raw score, whether it was confirmed, and whether its ROI stayed near."""

    score: float
    confirmed: bool
    near: bool


def variants(image: np.ndarray, draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the picture, and once changed."""
    yield image
    height, width = image.shape[:2]
    kind = draw.integers(4)
    if kind == 0:
        yield np.ascontiguousarray(image[:, ::-1])
    elif kind == 1:
        yield (image * 0.4).astype(np.uint8)
    elif kind == 2:
        yield np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    else:
        high, wide = (int(side * draw.uniform(0.5, 0.8)) for side in (height, width))
        y, x = int(draw.integers(height - high)), int(draw.integers(width - wide))
        yield np.ascontiguousarray(image[y : y + high, x : x + wide])


def sampled_frames(clip: Path, count: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Return some of a clip's pictures, drawn at random."""
    images: list[np.ndarray] = []
    source = open_source(str(clip))
    source.open()
    for k, frame in enumerate(source.frames()):
        # Vitter's algorithm R: a clip's frames take more memory than there may be.
        if len(images) < count:
            images.append(frame.image)
        elif (place := int(draw.integers(k + 1))) < count:
            images[place] = frame.image
    source.close()
    return images


def outcome(perceiver: BlazePose, frame: Frame, roi: Roi, score: float) -> Outcome:
    """Return what the landmark model makes of a detection."""
    plan = confirm_candidates(frame, [replace(roi, score=LENIENCY)], 0, ())
    found, _ = run_plan(plan, perceiver.answer)
    if not found:
        return Outcome(score, False, False)
    return Outcome(score, True, same_place(found[0][1], [roi]) is not None)


def logistic(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the middle and the steepness of the most likely logistic from score to confirmed."""
    scores = np.array([each.score for each in outcomes])
    signs = np.array([1 if each.confirmed else -1 for each in outcomes])

    def loss(parameters: np.ndarray) -> float:
        middle, steepness = parameters
        return float(np.logaddexp(0, -signs * steepness * (scores - middle)).sum())

    middle, steepness = minimize(loss, (0.4, 10.0), method="Nelder-Mead").x
    return float(middle), float(steepness)


def print_table(name: str, outcomes: Sequence[Outcome]) -> None:
    """Print the share of detections that are confirmed, by score."""
    print(f"{name}: {len(outcomes)} detections")
    for low, high in zip(BINS, BINS[1:]):
        row = [each for each in outcomes if low <= each.score < high]
        if row:
            confirmed = [each for each in row if each.confirmed]
            near = sum(each.near for each in confirmed) / max(len(confirmed), 1)
            share = len(confirmed) / len(row)
            line = f"  {low:.2f} to {high:.2f}  {len(row):4}  confirmed {share:.2f}"
            print(f"{line}  of these at the same place {near:.2f}")


def main() -> None:
    """Measure both detectors on the clips of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=6, help="of each clip")
    options = parser.parse_args()
    draw = np.random.default_rng(1)
    perceiver = BlazePose(weights.find("blazepose"))
    (path,) = weights.find("person-detector").values()
    model = person_detector.PersonDetector(path)

    def first(image: np.ndarray, views: list[Box]) -> list[tuple[Roi, float]]:
        rois = perceiver._detections(image, views)
        return [(roi, roi.score) for roi in rois]

    def second(image: np.ndarray, views: list[Box]) -> list[tuple[Roi, float]]:
        size = image.shape[:2]
        boxes = model.boxes(image, views)
        return list(zip(person_detector.rois_of(boxes, size), boxes[:, 4].tolist()))

    outcomes: dict[str, list[Outcome]] = {"BlazePose's": [], "the second": []}
    detectors: dict[str, Callable] = {"BlazePose's": first, "the second": second}
    for clip in options.clips:
        for image in sampled_frames(clip, options.frames, draw):
            for picture in variants(image, draw):
                frame = Frame(0, clip.name, 0, 0.0, picture)
                levels = tiles(*frame.size, detector.INPUT)
                views = [*parts(*frame.size), *(levels[0] if levels else [])]
                for name, detect in detectors.items():
                    found = detect(picture, views)
                    for k in draw.permutation(len(found))[:MOST]:
                        outcomes[name].append(outcome(perceiver, frame, *found[k]))
    for name, found in outcomes.items():
        print_table(name, found)
    middle, steepness = logistic(outcomes["the second"])
    print(f"the second: 1 / (1 + exp(-{steepness:.1f} (score - {middle:.3f})))")


if __name__ == "__main__":
    main()
