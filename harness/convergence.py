"""How training went, beside whether it agrees: loss by epoch, score, gradient norm, distance of the runs, end point.

Each side's parameters are evaluated by the reference in float64 on the whole training set, so that the same yardstick
measures all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.case import PRECISIONS, Case, Objective, Polynomial
from harness.data import Data
from harness.layout import Layout
from harness.running import Rows, Side, chunks, steps_per_epoch
from harness.watching import Watched
from reference import training
from reference.endpoints import ARRIVED, classify, hessian_by_differences
from reference.layers import derivative, polynomial_hessian, polynomial_value

POINTS = 60
"""Evaluations of a run beside its epoch ends, evenly spread; start and end are always among them."""

COLUMNS = (
    *("case", "framework", "mode", "epoch", "step", "loss", "accuracy", "gradient_norm"),
    *("distance32", "distance64", "seconds"),
)

EPOCHS = 100
"""Epoch ends evaluated at most; more are thinned evenly."""

LOSS_FRACTIONS = (0.5, 0.2, 0.1, 0.05)
"""Given losses, as fractions of the loss at the start."""

PERTURBED_RUNS = 8


class Curve:
    """One side's convergence, a row per evaluated step, the start included."""

    def __init__(self, case: Case, data: Data, side: Side, layout: Layout) -> None:
        self.case, self.data, self.side = case, data, side
        self.per_epoch = steps_per_epoch(case, len(data.x))
        ends = np.arange(self.per_epoch, case.steps + 1, self.per_epoch)
        some = ends[:: -(-len(ends) // EPOCHS)] if len(ends) else ends
        self.steps = {int(step) for step in (*np.linspace(0, case.steps, POINTS).round(), *some)}
        self.score = scorer(case, data)
        self.measure = training.evaluator(case, data.x, data.y)
        self.rows: list[dict[str, Any]] = []
        self.parameters = side.states["float64"][: layout.updates.stop - layout.updates.start].copy()
        self.path: list[np.ndarray] = []
        self.spent = 0.0
        self._add(0, 0.0, 0.0, 0.0)

    def observe(self, own: Rows, watched: Watched) -> None:
        """Evaluate the parameters after some of these steps; `own` are this side's rows."""
        of = watched.chunk.layout.parameters
        before, self.spent = self.spent, self.side.seconds["float32"]
        for i in range(len(watched.chunk)):
            step = watched.chunk.first + i + 1
            if step in self.steps:
                self.parameters = own["float64"][i, of].copy()
                seconds = before + (self.spent - before) * (i + 1) / len(watched.chunk)
                self._add(step, seconds, *(_distance(own[p][i, of], watched.reference[p][i, of]) for p in PRECISIONS))

    def end(self) -> dict[str, Any]:
        """The summary's columns that say how training went; steps and seconds to fractions of the first loss."""
        losses = [row["loss"] for row in self.rows]
        reached: dict[str, Any] = {}
        if losses[0] > 0 and not isinstance(self.case.loss, Objective):
            for fraction in LOSS_FRACTIONS:
                goal = fraction * losses[0]
                reached[f"{goal:.3g}"] = next((row for row in self.rows if row["loss"] <= goal), None)
        return {
            "digits": _digits(self.rows[-1]["distance32"]),
            "final_loss": losses[-1],
            "accuracy": self.rows[-1]["accuracy"],
            "gradient_norm": self.rows[-1]["gradient_norm"],
            "distance64": self.rows[-1]["distance64"],
            "end_point": end_point(self.case, self.data, self.parameters),
            "steps_to_loss": {goal: row and row["step"] for goal, row in reached.items()},
            "seconds_to_loss": {goal: row and row["seconds"] for goal, row in reached.items()},
        }

    def _add(self, step: int, seconds: float, distance32: float, distance64: float) -> None:
        loss, gradient, _ = self.measure(self.parameters)
        if isinstance(self.case.nodes[0].op, Polynomial):
            self.path.append(self.parameters.reshape(-1, 2))
        self.rows.append(
            {
                "case": self.case.name,
                "framework": self.side.name,
                "mode": self.case.batching.mode,
                "epoch": step / self.per_epoch,
                "step": step,
                "loss": loss,
                "accuracy": self.score(self.parameters),
                "gradient_norm": float(np.linalg.norm(gradient)),
                "distance32": distance32,
                "distance64": distance64,
                "seconds": seconds,
            }
        )


def scorer(case: Case, data: Data) -> Callable[[np.ndarray], float]:
    """Flat parameters -> share of right answers on the test part; NaN where there are no classes."""
    if data.task not in ("binary", "classes"):
        return lambda parameters: math.nan
    measure = training.evaluator(case, data.x_test, data.y_test)
    threshold = 0.0 if getattr(case.loss, "reads", "") == "logits" else 0.5

    def score(parameters: np.ndarray) -> float:
        output = measure(parameters)[2]
        if data.task == "binary":
            return float(np.mean((output > threshold) == (data.y_test > 0.5)))
        return float(np.mean(output.argmax(axis=1) == data.y_test))

    return score


def end_point(case: Case, data: Data, parameters: np.ndarray) -> str:
    """Minimum, saddle, maximum or still moving, for each point of a landscape, for a network as a whole."""
    op = case.nodes[0].op
    if isinstance(op, Polynomial):
        return ", ".join(classify_point(op, point) for point in parameters.reshape(op.points, 2))

    measure = training.evaluator(case, data.x, data.y)

    def gradient(at: np.ndarray) -> np.ndarray:
        return measure(at)[1].copy()

    g = gradient(parameters)
    size, length = float(np.linalg.norm(g)), max(1.0, float(np.linalg.norm(parameters)))
    if size:  # the curvature along g tells a run that still moves without its Hessian, which costs 2n gradients
        h = 1e-4 * length
        along = (gradient(parameters + h * g / size) - gradient(parameters - h * g / size)) / (2 * h)
        if not size <= ARRIVED * length * abs(float(along @ g) / size):
            return "still moving"
    hessian = hessian_by_differences(gradient, parameters)
    return classify(g, hessian, lambda at: measure(at)[0], parameters)


def classify_point(op: Polynomial, point: np.ndarray) -> str:
    """Where descent on a polynomial has come to, by its exact gradient and Hessian."""

    def f(at: np.ndarray) -> float:
        return float(polynomial_value(op.terms, at[None])[0])

    g = np.array([polynomial_value(derivative(op.terms, axis), point[None])[0] for axis in (0, 1)])
    return classify(g, polynomial_hessian(op.terms, point[None])[0], f, point)


def perturbed_losses(case: Case, data: Data, state: np.ndarray) -> np.ndarray:
    """Final losses of the reference from starts moved by a float32 ulp: the spread that chaos makes of rounding."""
    eps, losses = float(np.finfo(np.float32).eps), []
    for seed in range(PERTURBED_RUNS):
        sign = np.random.default_rng(seed).choice([-1.0, 1.0], state.shape)
        stepper, parameters = training.start(case, "float64"), state
        stepper.load(state * (1 + eps * sign), 0)
        for chunk in chunks(case, data):
            rows = np.empty((len(chunk), chunk.layout.recorded))
            stepper.run(chunk.x, chunk.y, rows)
            parameters = rows[-1, chunk.layout.parameters]
        losses.append(training.evaluate(case, parameters, data.x, data.y)[0])
    return np.array(losses, dtype=float)


def _distance(own: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference of any parameter over the largest parameter."""
    size = float(np.abs(reference).max())
    gap = float(np.abs(own.astype(np.float64) - reference).max())
    return gap / size if size else gap


def _digits(distance: float) -> float:
    """Decimal digits in which all parameters agree at the end, of the 7.2 that float32 has; infinite when identical."""
    return -math.log10(distance) if distance > 0 else math.inf
