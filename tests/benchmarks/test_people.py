"""The benchmark of people counts what its text says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.people import Label, Labels, Score, ious, load_labels, mesh_boxes
from pipeline.core.camera import default_intrinsics, project
from tests.support.bodies import bodies

A, B, FAR = [0, 0, 40, 100], [60, 0, 100, 100], [500, 0, 540, 100]


def score_of(frames, empty=(), **labels):
    """The score of frames of (track, box); ``labels`` are the same in each of them."""
    people = tuple(
        Label(name, np.array(box, float), **flags) for name, (box, flags) in labels.items()
    )
    score = Score(Labels(dict.fromkeys(range(len(frames)), people), frozenset(empty)))
    for k, seen in enumerate(frames):
        boxes = np.array([box for _, box in seen], float).reshape(-1, 4)
        score.add(k, [track for track, _ in seen], boxes)
    return score


boxes = st.lists(
    st.builds(
        lambda x, y, w, h: [x, y, x + w, y + h],
        *[st.integers(0, 50)] * 2,
        *[st.integers(1, 50)] * 2,
    ),
    min_size=1,
    max_size=5,
).map(lambda rows: np.array(rows, float))


@given(boxes, boxes)
def test_the_overlap_is_that_of_pixels(one, two):
    def pixels(box):
        area = np.zeros((110, 110), bool)
        x0, y0, x1, y1 = box.astype(int)
        area[y0:y1, x0:x1] = True
        return area

    wanted = [[(pixels(a) & pixels(b)).sum() / (pixels(a) | pixels(b)).sum() for b in two]
              for a in one]  # fmt: skip
    assert np.allclose(ious(one, two), wanted)


def test_found_missed_and_wrong_are_counted():
    score = score_of([[(1, A), (9, FAR)]], a=(A, {}), b=(B, {}))
    assert (score.right, score.missed, score.wrong) == (1, 1, 1)
    assert (score.recall, score.precision) == (0.5, 0.5)


def test_a_second_body_on_a_person_is_wrong():
    score = score_of([[(1, A), (2, A)]], a=(A, {}))
    assert (score.right, score.missed, score.wrong) == (1, 0, 1)


def test_what_is_ignored_counts_neither_way():
    flags = {"ignore": True}
    score = score_of([[(1, A), (2, B)], []], a=(A, {}), b=(B, flags))
    assert (score.right, score.missed, score.wrong) == (1, 1, 0)
    # A body that has half of itself in a crowd is one of it, though it fills little of it.
    crowd = ([400, 0, 900, 600], {"ignore": True, "crowd": True})
    assert score_of([[(1, FAR)]], crowd=crowd).wrong == 0
    assert score_of([[(1, FAR)]], crowd=(crowd[0], flags)).wrong == 1


def test_a_track_that_changes_is_a_switch_and_a_gap_is_none():
    assert score_of([[(1, A)], [(1, A)], [(1, A)]], a=(A, {})).switches == 0
    assert score_of([[(1, A)], [], [(1, A)]], a=(A, {})).switches == 0
    assert score_of([[(1, A)], [(2, A)], [(1, A)]], a=(A, {})).switches == 2
    exchanged = score_of([[(1, A), (2, B)], [(2, A), (1, B)]], a=(A, {}), b=(B, {}))
    assert exchanged.switches == 2


def test_a_pair_is_kept_while_it_overlaps():
    # A newcomer lies better on the person, whose own track still overlaps: no switch.
    worse = [0, 40, 40, 140]
    score = score_of([[(1, A)], [(1, worse), (2, A)]], a=(A, {}))
    assert (score.switches, score.wrong) == (0, 1)


def test_bodies_in_empty_frames_are_ghosts():
    score = score_of([[(1, A)], [(1, A), (2, B)], []], empty=[1, 2])
    assert (score.ghosts, score.bodies) == (2, [1, 2, 0])
    assert np.isnan(score.recall)


def test_labels_are_read_from_a_file(tmp_path):
    path = tmp_path / "labels.json"
    people = [{"id": "a", "box": A}, {"id": "c", "box": B, "ignore": True, "crowd": True}]
    path.write_text(json.dumps({"frames": {"7": people}, "empty": [[0, 2], [9, 9]]}))
    labels = load_labels(path)
    assert labels.empty == {0, 1, 2, 9}
    first, second = labels.frames[7]
    assert (first.id, first.box_px.tolist(), first.ignore, first.crowd) == ("a", A, False, False)
    assert (second.ignore, second.crowd) == (True, True)


@pytest.mark.parametrize("name", ["street_crowd", "corridor_one_by_one"])
def test_the_labels_of_the_tree_are_whole(name):
    from tests.support.paths import ROOT

    labels = load_labels(ROOT / "benchmarks" / "labels" / f"{name}.json")
    assert labels.frames or labels.empty
    for people in labels.frames.values():
        ids = [one.id for one in people]
        assert len(set(ids)) == len(ids)
        for one in people:
            x0, y0, x1, y1 = one.box_px
            assert 0 <= x0 < x1
            assert 0 <= y0 < y1
            assert one.ignore or y1 - y0 >= 70


def test_a_bodys_box_is_around_its_mesh_and_within_the_picture():
    some, intrinsics = bodies([1, 2]), default_intrinsics(720, 1280)
    found = mesh_boxes(some, intrinsics, (720, 1280))
    assert found.shape == (2, 4)
    points = project(some.vertices_m, intrinsics)
    assert (found >= 0).all()
    assert (found <= [1280, 720, 1280, 720]).all()
    inside = ((points >= 0) & (points <= [1280, 720])).all(-1)
    for box, seen, rows in zip(found, points, inside):
        assert (seen[rows] >= box[:2] - 1e-3).all()
        assert (seen[rows] <= box[2:] + 1e-3).all()
    assert mesh_boxes(bodies([]), intrinsics, (720, 1280)).shape == (0, 4)
