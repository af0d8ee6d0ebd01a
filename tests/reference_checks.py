"""What the tests of `reference` share: the comparison of a derivative with finite differences, and small cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.case import SGD, BinaryCrossEntropy, Case, Dense, Node, Optimizer, ReLU, Sigmoid
from harness.case import Batching as Batching
from reference.differences import gradient_by_differences

Array = np.ndarray

FACTOR = 4
"""How many times its own error estimate a difference quotient may be off. The estimate is a change between two
extrapolations, of the error's order but no bound; over some 2600 derivatives of these tests the worst is 1.6."""

PLAIN = SGD(learning_rate=0.1, momentum=0.0, nesterov=False, velocity="gradient", weight_decay=0.0, decay="coupled")
BCE = BinaryCrossEntropy(
    reads="probabilities",
    logits_form="max",
    fused=False,
    clip_probability=0.0,
    log_epsilon=0.0,
    log_complement="log1p",
    log_floor=-100.0,
    denominator_floor=1e-12,
    reduction="mean",
)


def assert_gradient(f: Callable[[Array], float], point: Array, analytic: Array, step: float = 0.05) -> None:
    """The analytic gradient (n,) of f at point (n,) lies within FACTOR error estimates of the difference quotients."""
    numeric, error = gradient_by_differences(f, point, step=step)
    off = np.abs(analytic - numeric) / error
    worst = int(np.argmax(off))
    assert np.isfinite(off).all()
    assert off[worst] <= FACTOR, (
        f"element {worst}: analytic {analytic[worst]:.17g}, differences {numeric[worst]:.17g} +- {error[worst]:.1g}"
    )
    # the check must be sharp, or it could pass anything
    assert error.max() <= 1e-6 * max(1.0, float(np.abs(numeric).max()))


def away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers of both signs with 0.3 <= |z| <= 1.5, so that no difference quotient steps over a kink at 0."""
    return rng.uniform(0.3, 1.5, shape) * rng.choice([-1, 1], shape)


def case_of(nodes: tuple[Node, ...], **changes: Any) -> Case:
    """A case around some nodes; the rest is plain unless changed."""
    settings: dict[str, Any] = {
        "name": "test",
        "summary": "",
        "loss": BCE,
        "optimizer": PLAIN,
        "data": "none",
        "batching": Batching(size=None),
        "steps": 6,
        "seed": 0,
        "initialization": "he",
        "initial_scale": 1.0,
    }
    return Case(nodes=nodes, **{**settings, **changes})


def tutorial(optimizer: Optimizer = PLAIN, **changes: Any) -> Case:
    """The 30-16-8-1 network of the tutorial."""
    return case_of(
        (
            Node(name="z1", op=Dense(units=16), parameters=("W1", "b1")),
            Node(name="a1", op=ReLU()),
            Node(name="z2", op=Dense(units=8), parameters=("W2", "b2")),
            Node(name="a2", op=ReLU()),
            Node(name="z3", op=Dense(units=1), parameters=("W3", "b3")),
            Node(name="yhat", op=Sigmoid()),
        ),
        optimizer=optimizer,
        **changes,
    )
