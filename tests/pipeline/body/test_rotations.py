import math

import scipy.linalg
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.body.rotations import exp_so3, log_so3, skew

unit = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: math.hypot(*v) > 1e-3)
angles = st.one_of(
    st.floats(0, math.pi - 1e-4), st.floats(0, 1e-5), st.floats(math.pi - 1e-3, math.pi - 1e-6)
)


def axis_angle(axis: tuple[float, ...], angle: float, dtype: torch.dtype) -> torch.Tensor:
    vector = torch.tensor(axis, dtype=torch.float64)
    return (vector / vector.norm() * angle).to(dtype)


@settings(deadline=None)
@given(unit, angles)
def test_log_undoes_exp(axis: tuple[float, ...], angle: float) -> None:
    x = axis_angle(axis, angle, torch.float64)
    torch.testing.assert_close(log_so3(exp_so3(x)), x, atol=1e-9, rtol=0)


@settings(deadline=None)
@given(unit, st.floats(0, 3.1))
def test_log_undoes_exp_in_single_precision(axis: tuple[float, ...], angle: float) -> None:
    x = axis_angle(axis, angle, torch.float32)
    torch.testing.assert_close(log_so3(exp_so3(x)), x, atol=2e-5, rtol=0)


@settings(deadline=None)
@given(unit)
@example((1.0, 0.0, 0.0))
@example((0.0, -1.0, 0.0))
@example((0.6, 0.0, -0.8))
def test_half_turns_are_right_up_to_their_sign(axis: tuple[float, ...]) -> None:
    x = axis_angle(axis, math.pi, torch.float64)
    y = log_so3(exp_so3(x))
    assert min((y - x).abs().max(), (y + x).abs().max()) < 1e-7


@settings(deadline=None)
@given(unit, st.floats(0, 20))
@example((0.0, 0.0, 1.0), 0.046875)
def test_exp_makes_rotations(axis: tuple[float, ...], angle: float) -> None:
    x = axis_angle(axis, angle, torch.float64)
    r = exp_so3(x)
    torch.testing.assert_close(r @ r.T, torch.eye(3, dtype=r.dtype), atol=1e-12, rtol=0)
    assert abs(torch.linalg.det(r) - 1) < 1e-12
    torch.testing.assert_close(r @ x, x, atol=1e-11, rtol=0)
    # Torch's own matrix_exp is 2e-10 off the sine at the example above.
    expected = torch.from_numpy(scipy.linalg.expm(skew(x).numpy()))
    torch.testing.assert_close(r, expected, atol=1e-11, rtol=0)


@settings(deadline=None)
@given(unit, unit, angles, angles)
def test_rotations_about_one_axis_add_up(
    axis: tuple[float, ...], point: tuple[float, ...], a: float, b: float
) -> None:
    p = torch.tensor(point, dtype=torch.float64)
    x, y = (axis_angle(axis, angle, torch.float64) for angle in (a, b))
    torch.testing.assert_close(
        exp_so3(x) @ (exp_so3(y) @ p), exp_so3(x + y) @ p, atol=1e-12, rtol=0
    )


def test_gradients_are_right_at_and_around_the_zero_rotation() -> None:
    rows = [[0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [1e-4, 1e-4, 0.0], [0.3, -1.0, 2.0]]
    x = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exp_so3, (x,), atol=1e-6)
    assert torch.autograd.gradcheck(lambda v: log_so3(exp_so3(v)), (x,), atol=1e-6)


def test_any_leading_shape() -> None:
    x = torch.randn(2, 3, 4, 3)
    assert exp_so3(x).shape == (2, 3, 4, 3, 3)
    assert log_so3(exp_so3(x)).shape == (2, 3, 4, 3)
