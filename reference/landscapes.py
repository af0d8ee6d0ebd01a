"""Named landscapes f(u, v) as the terms (c, i, j) of c uⁱ vʲ, with starts that show where gradient descent can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reference.endpoints import End
from reference.layers import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """learning_rate: of plain gradient descent, with which every start stays finite for STEPS steps, in float32 too.

    starts: points (u, v), to be rounded to float32, each with where those steps end.
    """

    summary: str
    terms: Terms
    learning_rate: float
    starts: Mapping[tuple[float, float], End]


STEPS = 200

LANDSCAPES: Mapping[str, Landscape] = {
    "double_well": Landscape(
        summary="(u² - 1)² + v²: minima at (±1, 0), a saddle between them; its stable manifold is the axis u = 0",
        terms=((1.0, 4, 0), (-2.0, 2, 0), (1.0, 0, 0), (1.0, 0, 2)),
        learning_rate=0.05,
        starts={
            (1.5, 1.0): "minimum",
            (-0.25, -1.0): "minimum",
            (0.0, 1.0): "saddle",  # on the stable manifold: the gradient's u is exactly 0, for ever
            (1e-6, 1.0): "minimum",  # beside it: 1.2^k 1e-6 leaves after some 70 steps
        },
    ),
    "himmelblau": Landscape(
        summary="(u² + v - 11)² + (u + v² - 7)²: four minima, all 0, four saddles, one maximum",
        terms=(
            *((1.0, 4, 0), (1.0, 0, 4), (2.0, 2, 1), (2.0, 1, 2)),
            *((-21.0, 2, 0), (-13.0, 0, 2), (-14.0, 1, 0), (-22.0, 0, 1), (170.0, 0, 0)),
        ),
        learning_rate=0.01,
        starts={
            (0.0, 0.0): "minimum",
            (-1.0, 3.0): "minimum",
            (-4.0, -4.0): "minimum",
            (4.0, -1.0): "minimum",
        },
    ),
    "monkey_saddle": Landscape(
        summary="u³ - 3uv²: at the origin gradient and Hessian both vanish; f falls on three sides, rises on three",
        terms=((1.0, 3, 0), (-3.0, 1, 2)),
        learning_rate=0.01,
        starts={
            (0.0, 0.0): "saddle",
            (0.5, 0.0): "still moving",  # on the stable manifold: u ~ 1/(3 lr k), slower than any geometric rate
            (-0.125, 0.0): "still moving",  # escaping along u < 0; from -0.25 it overflows within 150 steps
            (0.125, 0.03125): "still moving",
        },
    ),
    "saddle": Landscape(
        summary="u² - v²: one saddle and no minimum; off the axis v = 0 the descent has no end",
        terms=((1.0, 2, 0), (-1.0, 0, 2)),
        learning_rate=0.1,
        starts={(1.0, 0.0): "saddle", (1.0, 1e-6): "still moving", (0.0, -0.5): "still moving"},
    ),
    "rosenbrock": Landscape(
        summary="(1 - u)² + 100 (v - u²)²: a curved valley to the minimum (1, 1); its floor is 2500 times flatter",
        terms=((100.0, 4, 0), (-200.0, 2, 1), (100.0, 0, 2), (1.0, 2, 0), (-2.0, 1, 0), (1.0, 0, 0)),
        learning_rate=0.001,
        starts={(1.0, 1.0): "minimum", (-1.2, 1.0): "still moving", (0.0, 0.0): "still moving"},
    ),
}
