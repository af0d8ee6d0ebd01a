"""Must-fail tests of the verdicts: what is planted is found, at its quantity and step; what is clean raises no alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from frameworks.protocol import Framework
from harness.case import (
    SGD,
    Adam,
    Add,
    Case,
    Dense,
    LeakyReLU,
    Linear,
    Node,
    Objective,
    Op,
    Polynomial,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from harness.comparing import compare
from harness.conventions import resolve
from harness.data import Data
from harness.judging import VERDICTS, judge
from harness.layout import layout_of
from harness.running import Rows, Start
from reference import layers, training
from tests.cases import LOSSES, OPTIMIZERS, case_of
from tests.planting import FEATURES, Edit, Views, examples, flat, planted, ready, watched, with_ops

Array = np.ndarray


def dense(name: str, units: int, *inputs: str) -> Node:
    return Node(name=f"z{name}", op=Dense(units=units), parameters=(f"W{name}", f"b{name}"), inputs=inputs)


def small(first: Op, optimizer: str = "momentum", steps: int = 8) -> Case:
    """4 features, 4 and 4 units, 1 probability: W1 and W2 are square."""
    nodes = (dense("1", 4), Node(name="a1", op=first), dense("2", 4), Node(name="a2", op=ReLU()), dense("3", 1))
    case = case_of((*nodes, Node(name="yhat", op=Sigmoid())), LOSSES["binary"], OPTIMIZERS[optimizer])
    return ready(case, steps=steps)


CASE = small(Tanh())
LATER = 5
BATCH = 8


def once(step: int) -> range:
    return range(step, step + 1)


def on(name: str, change: Callable[[Array], object]) -> Edit:
    """An edit of one quantity: a new value for it."""

    def edit(shown: Views) -> None:
        shown[name][...] = change(shown[name])

    return edit


# --- clean candidates -------------------------------------------------------------------------------------------


def reversed_dense(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    np.matmul(x[:, ::-1], W[:, ::-1].T, out=z)
    z += b


def reversed_dense_backward(
    op: Dense, dz: Array, z: Array, x: Array, W: Array, b: Array, dx: Array | None, dW: Array, db: Array
) -> None:
    np.matmul(dz[::-1].T, x[::-1], out=dW)
    np.add.reduce(dz[::-1], axis=0, out=db)
    if dx is not None:
        np.matmul(dz[:, ::-1], W[::-1], out=dx)


REVERSED = with_ops({Dense: reversed_dense}, {Dense: reversed_dense_backward})
"""The reference, summing in the other order."""

ACTIVATIONS = (
    *(ReLU(), LeakyReLU(negative_slope=0.25, slope_at_zero="negative_slope"), Sigmoid(), Tanh(), Linear()),
)


def random_net(seed: int) -> tuple[Case, Data, Array]:
    """Depth 1 to 6, width 1 to 32, every loss, optimizer and activation, weights of any size, a third on a 0.1 grid."""
    rng = np.random.default_rng(seed)
    loss, optimizer = rng.choice(list(LOSSES)), OPTIMIZERS[rng.choice(list(OPTIMIZERS))]
    nodes: list[Node] = []
    for i in range(rng.integers(6)):
        op = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
        nodes += [dense(str(i), int(rng.integers(1, 33))), Node(name=f"a{i}", op=op)]
    nodes.append(dense("out", 3 if loss.startswith("categorical") else 1))
    last = {"binary": Sigmoid(), "categorical": Softmax(), "categorical_sparse": Softmax()}
    nodes += [Node(name="p", op=last[loss])] if loss in last else []
    case = ready(
        replace(
            case_of(tuple(nodes), LOSSES[loss], replace(optimizer, learning_rate=float(rng.choice([0.001, 0.01, 0.1])))),
            seed=seed,
            initial_scale=float(rng.choice([0.1, 0.3, 1.0, 3.0, 10.0])),
        ),
        steps=int(rng.integers(3, 6)),
        size=int(rng.choice([1, 32])),
    )
    grid = float(rng.choice([0.0, 0.0, 0.1]))
    parameters = flat(case)
    return case, examples(case, 64, seed, grid), np.round(parameters, 1) if grid else parameters


def is_finite(case: Case, data: Data, parameters: Array) -> bool:
    """Whether the reference's own run stays finite in both precisions: an overflow has its own verdicts."""
    with np.errstate(all="ignore"):
        return all(
            np.isfinite(rows).all() for rows in reference_rows(case, data, parameters).values()
        )


@pytest.mark.parametrize("seed", range(60))
def test_other_summation_order_is_rounding(seed: int) -> None:
    case, data, parameters = random_net(seed)
    found = watched(case, REVERSED, data=data, parameters=parameters)
    assert found.verdict in ("identical", "rounding"), (found.row, case)
