"""The fits between two passes over a clip: identities, tracks as a whole, gravity and the floor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from pipeline.body.model import BodyOutput
from pipeline.core.heights import Heights
from pipeline.core.stats import Stats
from pipeline.fitting.stature import Stature
from pipeline.fitting.track_fit import TrackFitter
from pipeline.fitting.visibility import joint_visibility, picture_sizes
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.one_thread import one_thread
from pipeline.runtime.track_store import TrackStore
from pipeline.tracking.pieces import Sightings
from pipeline.tracking.stitch import decide_identities
from pipeline.world.camera_path import CameraPath
from pipeline.world.camera_pose import CameraPose
from pipeline.world.ground import Ground, estimate_ground, sample_rows

_HEIGHT_MISSED_M = 0.03
_BATCH = 256
"""Bodies that are posed at once; each has a mesh."""


def refine(
    store: TrackStore,
    estimator: KeypointEstimator,
    interval_s: float,
    on_track: Callable[[int, int], None] | None = None,
    stats: Stats | None = None,
    pose: CameraPose | None = None,
    camera: CameraPath | None = None,
    heights: Heights | None = None,
) -> Ground | None:
    """Fit every track of a store as a whole and put the bodies in place of the first pass's.

    Args:
        store: Finished.
        estimator: The one of the first pass.
        interval_s: Time between the source's frames, in seconds.
        on_track: Called with (done, of) before every track's fits, two for each.
        stats: Gets the stage "refit": for each fit of a track, its time for each of its frames.
        pose: What is given of the camera's pose.
        camera: Where the camera looked; None for one that stood still.
        heights: What is given of people's heights, by the ids that `SecondPass` shows.

    Returns:
        Gravity and the floor, as the tracks show them; None without anyone.
    """
    camera = camera or CameraPath()
    fitter = TrackFitter(estimator.fitter, interval_s, store.surface, camera)

    def sightings(rows: np.ndarray) -> Sightings:
        seen = store.sightings(rows)
        if not camera.moves:
            return seen
        back = camera.rotations(seen.frame).transpose(0, 2, 1)
        ahead = np.concatenate((seen.points, np.ones_like(seen.points[..., :1])), -1) @ back
        # What a camera that turned far away sees is behind its first picture's plane.
        points = ahead[..., :2] / np.maximum(ahead[..., 2:], 0.1)
        return seen._replace(points=points, root_m=(seen.root_m[:, None] @ back)[:, 0])

    frames = np.unique(store.frames)
    references = camera.references(frames)
    # Where the background was lost too, nothing tells how one part lies to the other.
    cuts = sorted({*store.cuts, *frames[1:][np.diff(references) != 0].tolist()})
    store.rename(
        decide_identities(store.ids, store.frames, sightings, store.shapes, interval_s, cuts)
    )
    stats, tracks = stats or Stats(), store.tracks
    heights, given = heights or Heights(), {}
    if not tracks:
        return None
    # Small products, as in the fit.
    with one_thread():
        for done, number in enumerate(tracks):
            if on_track is not None:
                on_track(done, 2 * len(tracks))
            track = store.track(number)
            with stats.time("refit", len(track.frame)):
                betas = fitter.first(track.frame, track.read, track.write, track.betas)
                height_m = heights.of(number)
                if height_m is not None:
                    # A size can be corrected only once it is known.
                    given[number] = own = fitter.given(betas, height_m)
                    betas = fitter.first(track.frame, track.read, track.write, betas, own)
            store.set_shape(number, betas)
        ground = _ground(store, estimator, interval_s, pose, camera)
        for done, number in enumerate(tracks, len(tracks)):
            if on_track is not None:
                on_track(done, 2 * len(tracks))
            track = store.track(number)
            with stats.time("refit", len(track.frame)):
                fitter.second(
                    track.frame, track.read, track.write, track.betas, ground, given.get(number),
                    int(references[0]),
                )  # fmt: skip
    return ground


def height_warnings(
    store: TrackStore, estimator: KeypointEstimator, heights: Heights
) -> tuple[str, ...]:
    """Return a line for each given height that the bodies of a refined store do not have.

    Args:
        store: Refined with the heights.
        estimator: The one of the first pass.
        heights: What was given.
    """
    stature, tracks = Stature.of(estimator.body), store.tracks
    lines = list(heights.unknown(tracks))
    for number in tracks:
        betas = torch.from_numpy(store.shape(number)).to(estimator.device)
        wanted_m, reached_m = heights.of(number), stature.of_shape(betas)
        if wanted_m is not None and abs(reached_m - wanted_m) > _HEIGHT_MISSED_M:
            lines.append(
                f"track {number}: its body is {reached_m:.2f} m tall and not "
                f"{wanted_m:g} m, which is beyond the body model's shapes"
            )
    return tuple(lines)


def _ground(
    store: TrackStore,
    estimator: KeypointEstimator,
    interval_s: float,
    pose: CameraPose | None,
    camera: CameraPath,
) -> Ground:
    """Gravity and the floor of what a store holds now, in the axes of the first reference."""
    frame, track, stored, betas = store.sample(sample_rows)
    parts = []
    for k in range(0, len(frame), _BATCH):
        part = slice(k, k + _BATCH)
        posed = posed_bodies(estimator, stored.turns[part], stored.transl_m[part], betas[part])
        parts.append(posed.joints_m.cpu().numpy())
    joints_m = np.concatenate(parts)
    # As if the pictures had no edges: only what stands is read of it.
    sizes = picture_sizes([None] * len(frame))
    lenses = np.broadcast_to(np.eye(3), (len(frame), 3, 3))
    visibility, _ = joint_visibility(stored.seen, joints_m, lenses, sizes)
    if camera.moves:
        joints_m = joints_m @ camera.rotations(frame).transpose(0, 2, 1)
    # What is behind a cut is in other axes.
    same = camera.references(frame) == camera.references(frame[:1])
    joints_m, visibility, track, frame = (x[same] for x in (joints_m, visibility, track, frame))
    return estimate_ground(joints_m, visibility, track, frame * interval_s, pose)


@torch.inference_mode()
def posed_bodies(
    estimator: KeypointEstimator, turns: np.ndarray, transl_m: np.ndarray, betas: np.ndarray
) -> BodyOutput:
    """Return the bodies of poses (N, 24, 3), translations (N, 3) and shapes (N, 10)."""
    pose = turns.reshape(-1, 72)
    values = (betas, pose[:, :3], pose[:, 3:], transl_m)
    tensors = (torch.from_numpy(np.ascontiguousarray(v)).to(estimator.device) for v in values)
    return estimator.body.forward(*tensors)
