"""Given heights in the second pass over the sample, whose person's true height is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pipeline.capture.open import open_source
from pipeline.core.heights import Heights
from pipeline.fitting.stature import Stature
from pipeline.runtime.make import make_estimator
from pipeline.runtime.refine import height_warnings, refine
from pipeline.runtime.runner import Runner
from pipeline.runtime.track_store import TrackStore
from pipeline.runtime.two_passes import FirstPass
from tests.support.paths import SAMPLE, TRUTH

LIMBS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


@dataclass
class Refits:
    """The sample after its first pass, to be refined with any heights."""

    estimator: object
    kept: list
    interval_s: float
    truth: np.lib.npyio.NpzFile
    folder: object

    def refined(self, heights):
        """The bodies' landmarks, the shape, and the warnings."""
        store = TrackStore(self.folder)
        try:
            for args in self.kept:
                store.add(*args)
            store.finish()
            refine(store, self.estimator, self.interval_s, heights=heights)
            points = [self.landmarks_m(store, args[0]) for args in self.kept]
            warned = height_warnings(store, self.estimator, heights)
            (track,) = store.tracks
            return np.array(points), store.shape(track), warned
        finally:
            store.close()

    def landmarks_m(self, store, frame):
        stored, betas = store.bodies(frame)
        pose = torch.from_numpy(stored.turns.reshape(-1, 72))
        shape, transl_m = torch.from_numpy(betas), torch.from_numpy(stored.transl_m)
        body = self.estimator.body.forward(shape, pose[:, :3], pose[:, 3:], transl_m)
        return body.landmarks_m[0].numpy()


class Recording(TrackStore):
    """Also keeps what it was given."""

    def __init__(self, folder):
        super().__init__(folder)
        self.kept = []

    def add(self, *args):
        super().add(*args)
        if len(args[2]):
            self.kept.append(args)


@pytest.fixture(scope="module")
def refits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    truth = np.load(TRUTH)
    estimator = make_estimator(people=1, device="cpu", focal_px=float(truth["intrinsics"][0, 0]))
    store = Recording(folder)
    first = FirstPass(estimator, store)
    with Runner(open_source(str(SAMPLE)), first) as runner:
        for _ in runner:
            pass
    store.close()
    yield Refits(estimator, store.kept, first.interval_s, truth, folder)
    estimator.close()


def errors_m(refits, points):
    """The hips' and the limbs' mean errors."""
    true = refits.truth["landmarks_m"][[args[0] for args in refits.kept]]
    hips, true_hips = (p[:, [23, 24]].mean(1, keepdims=True) for p in (points, true))
    limbs = ((points - hips) - (true - true_hips))[:, LIMBS]
    return [float(np.linalg.norm(off, axis=-1).mean()) for off in (hips - true_hips, limbs)]


@pytest.mark.slow
@pytest.mark.weights
def test_the_true_height_brings_the_body_to_its_place(refits):
    height_m = float(refits.truth["stature_m"][0])
    stature = Stature.of(refits.estimator.body)
    plain, _, _ = refits.refined(Heights())
    (track,) = set(refits.kept[0][2].track.tolist())
    held, shape, warned = refits.refined(Heights(by_track_m={track: height_m}))
    assert warned == ()
    assert abs(stature.of_shape(torch.from_numpy(shape)) - height_m) < 0.01
    (root, limbs), (root_held, limbs_held) = errors_m(refits, plain), errors_m(refits, held)
    # Measured: 0.266 to 0.186 m, and 100.0 to 94.4 mm.
    assert root_held < 0.85 * root
    assert limbs_held < limbs


@pytest.mark.slow
@pytest.mark.weights
def test_a_height_beyond_all_shapes_is_said(refits):
    _, _, warned = refits.refined(Heights(0.6, {77: 1.8}))
    assert warned[0] == "--heights 77: no such track; the tracks are 1"
    assert "m tall and not 0.6 m" in warned[1]
