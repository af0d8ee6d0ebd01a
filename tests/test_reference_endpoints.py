from collections.abc import Callable

import numpy as np
import pytest
from reference_checks import PLAIN, Array, case_of

from harness.case import Case, Dense, MeanSquaredError, Node, Tanh
from reference import training
from reference.endpoints import End, classify, hessian_by_differences
from reference.landscapes import LANDSCAPES
from reference.layers import Terms, derivative, polynomial_hessian, polynomial_value

MONKEY = LANDSCAPES["monkey_saddle"].terms


def kind(terms: Terms, point: tuple[float, float], angle: float = 0.0, scale: float = 1.0) -> End:
    """The class of a point of scale * f, all turned by an angle."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])

    def f(at: Array) -> float:
        return scale * float(polynomial_value(terms, (turn.T @ at)[None])[0])

    here = np.array([point])
    gradient = np.array([polynomial_value(derivative(terms, axis), here)[0] for axis in (0, 1)])
    hessian = polynomial_hessian(terms, here)[0]
    return classify(scale * turn @ gradient, scale * turn @ hessian @ turn.T, f, turn @ here[0])


POINTS: dict[str, tuple[Terms, tuple[float, float], End]] = {
    "bowl": (((1.0, 2, 0), (1.0, 0, 2)), (0.0, 0.0), "minimum"),
    "bowl-arrived": (((1.0, 2, 0), (1.0, 0, 2)), (1e-5, 1e-5), "minimum"),
    "bowl-on-the-way": (((1.0, 2, 0), (1.0, 0, 2)), (0.01, 0.0), "still moving"),
    "narrow-valley": (((1.0, 2, 0), (1e-4, 0, 2)), (0.0, 0.5), "still moving"),
    "hill": (((-1.0, 2, 0), (-1.0, 0, 2)), (0.0, 0.0), "maximum"),
    "saddle": (((1.0, 2, 0), (-1.0, 0, 2)), (0.0, 0.0), "saddle"),
    "saddle-arrived": (((1.0, 2, 0), (-1.0, 0, 2)), (1e-9, 1e-9), "saddle"),
    "monkey": (MONKEY, (0.0, 0.0), "saddle"),
    "monkey-arrived": (MONKEY, (1e-4, 0.0), "saddle"),
    "monkey-on-the-way": (MONKEY, (0.1, 0.0), "still moving"),
    "quartic": (((1.0, 4, 0), (1.0, 0, 4)), (0.0, 0.0), "minimum"),
    "quartic-hill": (((-1.0, 4, 0), (-1.0, 0, 4)), (0.0, 0.0), "maximum"),
    "quartic-saddle": (((1.0, 2, 0), (-1.0, 0, 4)), (0.0, 0.0), "saddle"),
    "inflection": (((1.0, 2, 0), (1.0, 0, 3)), (0.0, 0.0), "saddle"),
    "valley-floor": (((1.0, 2, 0),), (0.0, 0.7), "minimum"),
    "ridge": (((-1.0, 2, 0),), (0.0, 0.7), "maximum"),
    "plateau": (((5.0, 0, 0),), (0.3, 0.7), "minimum"),
    "slope": (((1.0, 1, 0),), (0.0, 0.0), "still moving"),
    "valley-with-slope": (((1.0, 2, 0), (0.1, 0, 1)), (0.0, 0.0), "still moving"),
}


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("angle", [0.0, 0.3])
@pytest.mark.parametrize("name", POINTS)
def test_classes_whatever_the_axes_and_the_size_of_f(name: str, angle: float, scale: float) -> None:
    terms, point, expected = POINTS[name]
    assert kind(terms, point, angle, scale) == expected


def test_what_is_not_finite_is_still_moving() -> None:
    for bad in (np.nan, np.inf):
        one, H = np.ones(2), np.eye(2)
        assert classify(bad * one, H, lambda w: 0.0, one) == "still moving"
        assert classify(0 * one, np.full((2, 2), bad), lambda w: 0.0, one) == "still moving"
        assert classify(0 * one, H, lambda w: 0.0, bad * one) == "still moving"


def test_a_longer_length_forgives_a_longer_step() -> None:
    w = np.array([0.01])
    ends = [classify(2 * w, 2 * np.eye(1), lambda at: float(at @ at), w, length) for length in (1.0, 100.0)]
    assert ends == ["still moving", "minimum"]


# w1 w2 x fitted to y = x: the smallest network with a saddle (at 0) and a valley of minima (w1 w2 = 1)
CHAIN = case_of(
    (
        Node(name="z1", op=Dense(units=1), parameters=("w1", "b1")),
        Node(name="z2", op=Dense(units=1), parameters=("w2", "b2")),
    ),
    loss=MeanSquaredError(reduction="mean"),
)
X = np.array([[1.0], [-1.0], [0.5], [-0.5]])


def network_end(case: Case, W: Array, x: Array, y: Array) -> End:
    def gradient(at: Array) -> Array:
        return training.gradient(case, at, x, y)

    return classify(
        gradient(W), hessian_by_differences(gradient, W), lambda at: training.evaluate(case, at, x, y)[0], W
    )


@pytest.mark.parametrize(
    ("W", "expected"),
    [([0.0, 0.0, 0.0, 0.0], "saddle"), ([2.0, 0.0, 0.5, 0.0], "minimum"), ([1.0, 0.0, 0.5, 0.0], "still moving")],
)
def test_end_points_of_a_network(W: list[float], expected: End) -> None:
    assert network_end(CHAIN, np.array(W), X, X) == expected


def test_descent_from_beside_the_saddle_ends_in_the_valley() -> None:
    stepper, rows = training.start(CHAIN, "float64"), np.zeros((400, 4 * 4 + 1 + 4 + 4))
    stepper.load(np.array([0.01, 0.0, 0.02, 0.0]), 0)
    stepper.run(np.tile(X, (400, 1, 1)), np.tile(X, (400, 1, 1)), rows)
    assert CHAIN.optimizer == PLAIN
    assert network_end(CHAIN, rows[-1, -4:], X, X) == "minimum"
    assert network_end(CHAIN, rows[20, -4:], X, X) == "still moving"


def test_hessian_by_differences_is_symmetric_and_right() -> None:
    case = case_of(
        (
            Node(name="z", op=Dense(units=2), parameters=("W", "b")),
            Node(name="a", op=Tanh()),
            Node(name="out", op=Dense(units=1), parameters=("V", "c")),
        ),
        loss=MeanSquaredError(reduction="mean"),
    )
    W = np.linspace(-0.6, 0.8, 7)

    def gradient(at: Array) -> Array:
        return training.gradient(case, at, X, X)

    H = hessian_by_differences(gradient, W)
    np.testing.assert_array_equal(H, H.T)
    # Taylor: g(W + d) = g(W) + H d + O(d²), and the part of third order cancels between both sides
    for d in 1e-3 * np.eye(7):
        central: Callable[[], Array] = lambda d=d: (gradient(W + d) - gradient(W - d)) / 2  # noqa: E731
        np.testing.assert_allclose(central(), H @ d, rtol=0, atol=1e-6 * np.abs(H @ d).max())
