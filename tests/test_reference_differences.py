import math

import numpy as np
import pytest

from reference.differences import derivative_by_differences, gradient_by_differences

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
