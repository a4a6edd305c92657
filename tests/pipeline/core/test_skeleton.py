"""Keypoint sets: names, mirror images, and how each becomes BlazePose's landmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.people import Person, as_blazepose, world_or_flat_m
from pipeline.core.skeleton import (
    BLAZEPOSE_33,
    COCO_17,
    KEYPOINT_SETS,
    MHR_70,
    SMPL_24,
    KeypointSet,
    blazepose_order,
)


@pytest.mark.parametrize("points", KEYPOINT_SETS.values(), ids=lambda points: points.name)
def test_a_set_has_as_many_points_as_its_name_says_and_each_once(points):
    assert len(points) == int("".join(c for c in points.name if c.isdigit()))
    assert len(set(points.names)) == len(points)
    assert [points.index(name) for name in points.names] == list(range(len(points)))


@pytest.mark.parametrize("points", KEYPOINT_SETS.values(), ids=lambda points: points.name)
def test_a_mirror_exchanges_sides_and_is_its_own_inverse(points):
    mirror = points.mirror
    assert (mirror[mirror] == np.arange(len(points))).all()
    left, right = points.hips
    assert mirror[left] == right
    for name in points.names:
        other = points.names[mirror[points.index(name)]]
        assert (other == name) == ("left" not in name and "right" not in name)


def test_mhr_has_the_places_that_its_rig_gives_to_blazepose():
    """SAM 3D Body's published order: BlazePose's landmark <- MHR's keypoint."""
    expected = {
        0: 0, 2: 1, 5: 2, 7: 3, 8: 4, 11: 5, 12: 6, 13: 7, 14: 8, 15: 62, 16: 41, 17: 61, 18: 40,
        19: 49, 20: 28, 21: 45, 22: 24, 23: 9, 24: 10, 25: 11, 26: 12, 27: 13, 28: 14, 29: 17,
        30: 20, 31: 15, 32: 18,
    }  # fmt: skip
    places, known = blazepose_order(MHR_70)
    assert {k: int(places[k]) for k in np.flatnonzero(known)} == expected


def test_a_set_without_a_needed_point_is_refused():
    with pytest.raises(ValueError, match="smpl24 has no nose"):
        blazepose_order(SMPL_24)
    with pytest.raises(KeyError):
        COCO_17.index("left_heel")
    faceless = KeypointSet("faceless", BLAZEPOSE_33.names[11:])
    with pytest.raises(ValueError, match="faceless has no nose"):
        blazepose_order(faceless)


def person(points: KeypointSet, seed: int, world: bool) -> Person:
    random = np.random.default_rng(seed)
    px = random.uniform(0, 500, (len(points), 2)).astype(np.float32)
    box = np.concatenate((px.min(0), px.max(0)))
    visible = random.uniform(0, 1, len(points)).astype(np.float32)
    world_m = random.normal(size=(len(points), 3)).astype(np.float32) if world else None
    return Person(box, 1.0, px, visible, world_m, keypoints=points)


@given(st.sampled_from([COCO_17, MHR_70]), st.integers(0, 99), st.booleans())
def test_points_of_one_name_keep_their_place_and_others_are_unseen(points, seed, world):
    before = person(points, seed, world)
    after = as_blazepose(before)
    for k, name in enumerate(BLAZEPOSE_33.names):
        if name in points:
            own = points.index(name)
            assert (after.landmarks_px[k] == before.landmarks_px[own]).all()
            assert after.visibility[k] == before.visibility[own]
            assert not world or (after.world_m[k] == before.world_m[own]).all()
    _, known = blazepose_order(points)
    assert (after.visibility[~known] == 0).all()
    assert (after.world_m is None) == (not world)
    # Points that stand in for others are among the person's own, so the box does not grow.
    assert (after.landmarks_px.min(0) >= before.box_px[:2]).all()
    assert (after.landmarks_px.max(0) <= before.box_px[2:]).all()


def test_blazeposes_own_people_stay_as_they_are():
    one = person(BLAZEPOSE_33, 0, True)
    assert as_blazepose(one) is one


def test_what_is_not_a_point_is_carried_along():
    extra = {"shape_params": np.arange(45, dtype=np.float32)}
    before = replace(person(MHR_70, 1, True), world_sigma_m=0.02, extra=extra, roi=4, score=0.5)
    after = as_blazepose(before)
    assert after.world_sigma_m == 0.02
    assert after.extra is extra
    assert (after.roi, after.score, after.box_px) == (4, 0.5, before.box_px)


@pytest.mark.parametrize("points", [COCO_17, BLAZEPOSE_33])
@pytest.mark.parametrize("short", ["landmarks_px", "visibility", "world_m"])
def test_an_array_of_another_length_is_refused(points, short):
    """Compiled loops read all points without looking how many there are."""
    one = person(points, 0, True)
    wrong = replace(one, **{short: getattr(one, short)[:-1]})
    with pytest.raises(ValueError, match=f"a person of {points.name} has {len(points)} points"):
        as_blazepose(wrong)


def test_flat_landmarks_are_the_images_shape_at_a_persons_size():
    one = as_blazepose(person(COCO_17, 3, False))
    flat = world_or_flat_m(one)
    assert (flat[:, 2] == 0).all()
    left, right = BLAZEPOSE_33.hips
    assert np.allclose(flat[left] + flat[right], 0, atol=1e-5)
    assert np.ptp(flat[:, :2], axis=0).max() == pytest.approx(1.7, abs=1e-4)
    spans = np.ptp(one.landmarks_px, axis=0)
    assert np.allclose(np.ptp(flat[:, :2], axis=0) / 1.7, spans / spans.max(), atol=1e-4)
