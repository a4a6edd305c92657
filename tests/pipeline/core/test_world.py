"""The world's axes: right-handed, and up is up."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.world import camera_to_world

RIGHT, UP, FORWARD = np.eye(3)[0], -np.eye(3)[1], np.eye(3)[2]
"""As a level camera sees them, in OpenCV's axes."""


@pytest.mark.parametrize(
    ("up", "forward"), [("y", [0, 0, -1]), ("z", [0, 1, 0])], ids=["y up", "z up"]
)
def test_up_is_up_and_right_stays_right(up, forward):
    turn = camera_to_world(up)
    assert (turn @ UP).tolist() == np.eye(3)["xyz".index(up)].tolist()
    assert (turn @ RIGHT).tolist() == [1, 0, 0]
    assert (turn @ FORWARD).tolist() == forward
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
