import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.sam3d.rig import rotation_of_euler
from pipeline.sam3d.wrists import angle_between, rotation_of_xzy, within_limits, xzy_of_rotation
from tests.support.tensors import close

ANGLES = st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3)


@settings(deadline=None)
@given(ANGLES)
def test_angles_mean_the_rotation_that_they_come_from(angles):
    # Where z is 90 degrees, x and y turn about one axis and cannot be told apart.
    assume(abs(math.cos(angles[1])) > 0.01)
    rotation = rotation_of_xzy(torch.tensor(angles))
    found = xzy_of_rotation(rotation)
    close(rotation_of_xzy(found), rotation, 1e-4)
    close(rotation_of_xzy(within_limits(found)), rotation, 1e-4)


def test_angles_within_the_limits_stay():
    inside = torch.tensor([[0.9, -2.1, 1.4], [-2.1, 1.4, -1.1]])
    close(within_limits(inside), inside, 0)


def test_angles_beyond_the_limits_become_the_others_that_are_within():
    beyond = torch.tensor([[0.5 + math.pi, math.pi - 0.4, 0.3 + math.pi]])
    close(within_limits(beyond), torch.tensor([[0.5, 0.4, 0.3]]), 1e-5)


def test_angle_between_rotations():
    turned = rotation_of_euler(torch.tensor([[0.0, 0, 0.7], [0.3, 0, 0]]))
    identity = torch.eye(3).expand(2, 3, 3)
    close(angle_between(turned, identity), torch.tensor([0.7, 0.3]), 1e-4)
