import dataclasses
from typing import Any

import numpy as np
import pytest
from reference_checks import PLAIN, Array, case_of

from harness.case import Node, Objective, Polynomial
from harness.layout import layout_of
from reference.endpoints import classify
from reference.landscapes import LANDSCAPES, STEPS
from reference.layers import derivative, polynomial_hessian, polynomial_value
from reference.training import start

# the formulas as they are usually written
WRITTEN = {
    "double_well": lambda u, v: (u**2 - 1) ** 2 + v**2,
    "himmelblau": lambda u, v: (u**2 + v - 11) ** 2 + (u + v**2 - 7) ** 2,
    "monkey_saddle": lambda u, v: u**3 - 3 * u * v**2,
    "saddle": lambda u, v: u**2 - v**2,
    "rosenbrock": lambda u, v: (1 - u) ** 2 + 100 * (v - u**2) ** 2,
}


def descend(name: str, precision: Any) -> Array:
    """All points (steps, starts, 2) of plain gradient descent."""
    landscape = LANDSCAPES[name]
    points = np.array(list(landscape.starts), np.float32)
    case = case_of(
        (Node(name="f", op=Polynomial(terms=landscape.terms, points=len(points)), parameters=("W",)),),
        loss=Objective(),
        optimizer=dataclasses.replace(PLAIN, learning_rate=landscape.learning_rate),
    )
    layout = layout_of(case, (1, 1))
    stepper, rows = start(case, precision), np.zeros((STEPS, layout.recorded), precision)
    stepper.load(points.ravel(), 0)
    stepper.run(np.zeros((STEPS, 1, 1), precision), np.zeros((STEPS, 1, 1), precision), rows)
    return rows[:, layout.parameters].reshape(STEPS, -1, 2)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_terms_are_the_named_function(name: str) -> None:
    W = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    expected = WRITTEN[name](*W.T)
    np.testing.assert_allclose(polynomial_value(LANDSCAPES[name].terms, W), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_start_ends_where_it_is_said_to(name: str, precision: str) -> None:
    landscape, path = LANDSCAPES[name], descend(name, precision)
    assert np.isfinite(path).all()
    ends = {}
    for begun, point in zip(landscape.starts, path[-1].astype(float), strict=True):
        gradient = np.array([polynomial_value(derivative(landscape.terms, axis), point[None])[0] for axis in (0, 1)])
        hessian = polynomial_hessian(landscape.terms, point[None])[0]
        ends[begun] = classify(gradient, hessian, lambda w: float(polynomial_value(landscape.terms, w[None])[0]), point)
    assert ends == dict(landscape.starts)


def test_the_stable_manifold_is_kept_exactly_and_left_from_beside_it() -> None:
    for name, axis in (("double_well", 0), ("saddle", 1)):
        starts = list(LANDSCAPES[name].starts)
        path = descend(name, "float64")
        on = next(i for i, start in enumerate(starts) if LANDSCAPES[name].starts[start] == "saddle")
        beside = next(i for i, start in enumerate(starts) if start[axis] == 1e-6)
        assert (path[:, on, axis] == 0).all()
        assert abs(path[-1, beside, axis]) > 0.9


def test_himmelblau_starts_reach_four_different_minima() -> None:
    ends = descend("himmelblau", "float64")[-1]
    assert len({tuple(np.round(end, 3)) for end in ends}) == 4
