import math

import numpy as np
import pytest

from reference.differences import derivative_by_differences, gradient_by_differences, slopes_by_differences

# name: (f, f'(0))
FUNCTIONS = {
    "exp": (math.exp, 1.0),
    "sin": (lambda t: math.sin(1 + 3 * t), 3 * math.cos(1.0)),
    "large-offset": (lambda t: 1e6 + math.sin(t), 1.0),
    "tiny": (lambda t: 1e-8 * math.exp(2 * t), 2e-8),
    "pole-nearby": (lambda t: 1 / (0.1 + t), -100.0),
    "steep": (lambda t: math.tanh(30 * t), 30.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_error_estimate_holds(name: str) -> None:
    f, exact = FUNCTIONS[name]
    value, error = derivative_by_differences(f, 0.05)
    assert abs(value - exact) <= error <= 1e-6 * max(abs(exact), 1 if name == "large-offset" else 0)


def test_a_constant_has_derivative_zero_within_rounding() -> None:
    value, error = derivative_by_differences(lambda t: 3.0, 0.05)
    assert value == 0
    assert 0 < error < 1e-13


@pytest.mark.parametrize(
    ("kink", "exact", "smallest", "largest"), [(0.01, 0, 0, 1e-12), (0.001, 0, 1e-3, 1), (0, 0.5, 0, 1e-12)]
)
def test_kinks(kink: float, exact: float, smallest: float, largest: float) -> None:
    """Out of the narrowest step's reach it does no harm, within it the error is large, at the point it is unseen."""
    value, error = derivative_by_differences(lambda t: max(t - kink, 0.0), 0.05)
    assert smallest <= error <= largest
    assert abs(value - exact) <= error or smallest > 0


def test_directions_and_coordinates_agree() -> None:
    def f(w: np.ndarray) -> float:
        return float(np.sin(w) @ np.array([1.0, 2.0, 3.0]) + w[0] * w[2])

    point = np.array([0.3, -0.2, 0.7])
    gradient, errors = gradient_by_differences(f, point)
    directions = np.array([[1.0, 1.0, 0.0], [0.0, -2.0, 1.0]])
    along, along_errors = gradient_by_differences(f, point, directions)
    assert gradient.shape == errors.shape == (3,)
    assert (np.abs(along - directions @ gradient) <= along_errors + np.abs(directions) @ errors).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_hold_their_estimates_and_see_no_jump(name: str) -> None:
    f, exact = FUNCTIONS[name]
    base = np.array([f(0.0), 2 * f(0.0)])
    slope = slopes_by_differences(lambda t: np.array([1, 2]) * f(t), base, 2.2e-16 * np.abs(base))
    assert (np.abs(slope.value - [exact, 2 * exact]) <= slope.error).all()
    assert (slope.error <= 1e-6 * max(abs(exact), 1 if name == "large-offset" else 0)).all()
    assert (np.abs(slope.jump) <= 5 * slope.jump_error).all()


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 2.001)])
def test_a_kink_at_the_point_is_a_jump(left: float, right: float) -> None:
    slope = slopes_by_differences(
        lambda t: np.array([math.sin(t) + (right if t > 0 else left) * t]), np.array([0.0]), np.array([1e-16])
    )
    assert slope.jump[0] == pytest.approx(right - left, abs=float(slope.jump_error[0]))
    assert slope.jump_error[0] < 1e-8
    assert slope.value[0] == pytest.approx(1 + (left + right) / 2)


def test_measured_noise_widens_the_error_and_treads_are_told() -> None:
    rng = np.random.default_rng(0)
    noisy = slopes_by_differences(
        lambda t: np.array([math.exp(t) + 1e-9 * rng.normal()]), np.ones(1), np.full(1, 1e-16)
    )
    assert abs(noisy.value[0] - 1) <= noisy.error[0] < 1e-5
    assert noisy.error[0] > 1e-10
    stairs = slopes_by_differences(
        lambda t: np.array([math.floor(0.7 * t * 2**20 + 0.5) / 2**20]), np.zeros(1), np.full(1, 1e-16), start=2.0**-16
    )
    assert 2.0**-23 < stairs.tread < 2.0**-19
    nowhere = slopes_by_differences(lambda t: np.full(1, np.nan), np.ones(1), np.ones(1))
    assert np.isinf(nowhere.error).all()
