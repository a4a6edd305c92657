"""This pipeline against MediaPipe's own graph: ``python tests/compare_mediapipe.py CLIP REF.npz``.

REF.npz comes from ``tests/mediapipe_reference.py``. Prints one line: in how many of the frames in
which MediaPipe finds a person there is a body on them (median landmark distance below one torso
length); the median distance of perceived landmarks before the fit, in pixels of a 720-line picture;
how many of its visible landmarks lie within 0.2 torso lengths of the fitted mesh's, frames
without a body counting as wrong; tracks in the clip.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.capture.base import open_source  # noqa: E402
from pipeline.people import project  # noqa: E402
from pipeline.stream import make_inference  # noqa: E402
from pipeline.window import Windower  # noqa: E402


def process(clip: str):
    """For every frame: perceived landmarks (P, 33, 2), fitted ones, and the tracks."""
    inference = make_inference()
    state = inference.begin()
    source, windower = open_source(clip), Windower(max_wait_ms=float("inf"))
    source.open()
    seen, fitted, tracks = [], [], set()

    def take(windows):
        for window in windows:
            perceived = inference.perceive(window, state)
            for people, (frame, bodies) in zip(perceived.people, inference.fit(perceived, state)):
                seen.append([person.landmarks_px for person in people.values()])
                lens = inference.intrinsics(frame)
                fitted.append([project(landmarks, lens) for landmarks in bodies.landmarks_m])
                tracks.update(bodies.track.tolist())

    for frame in source.frames():
        take(windower.add(frame))
    take(windower.finish())
    return seen, fitted, tracks


def nearest(candidates, wanted) -> np.ndarray | None:
    """Distances (33,) of whoever of the candidates lies nearest, None without any."""
    if not candidates:
        return None
    apart = np.linalg.norm(np.array(candidates) - wanted, axis=-1)
    return apart[np.median(apart, axis=1).argmin()]


def main(clip: str, reference: str) -> None:
    ref = np.load(reference)
    seen, fitted, tracks = process(clip)
    scale = 720 / min(ref["image_size"])
    covered, pixels, close = [], [], []
    for index, wanted, visibility in zip(ref["frame"], ref["landmarks_px"], ref["visibility"]):
        visible = visibility > 0.5
        torso = np.linalg.norm(wanted[11:13].mean(0) - wanted[23:25].mean(0))
        body = nearest(fitted[index], wanted)
        covered.append(body is not None and np.median(body) < torso)
        close += [False] * visible.sum() if body is None else (body[visible] < 0.2 * torso).tolist()
        person = nearest(seen[index], wanted)
        if person is not None and np.median(person) < torso:
            pixels += (person[visible] * scale).tolist()
    print(
        f"{Path(clip).name}: {len(ref['frame'])} of {len(ref['found'])} frames with a person; "
        f"a body on them {100 * np.mean(covered):.1f}%; perceived landmarks "
        f"{np.median(pixels):.1f} px apart; mesh landmarks within 0.2 torso "
        f"{100 * np.mean(close):.1f}%; {len(tracks)} tracks"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
