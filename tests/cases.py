"""Small cases for tests: the article's network with widths 5 and 3 on 4 features, every convention native."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.case import (
    NATIVE,
    SGD,
    Adagrad,
    Adam,
    Add,
    Batching,
    BinaryCrossEntropy,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    Loss,
    MeanSquaredError,
    Node,
    Objective,
    Op,
    Optimizer,
    Polynomial,
    Precision,
    ReLU,
    RMSprop,
    Sigmoid,
    Softmax,
    Tanh,
)
from harness.layout import layout_of
from reference.optimizers import initial_slots
from reference.training import initial_parameters

FEATURES = 4

_sgd = SGD(learning_rate=0.1, momentum=0.0, nesterov=False, velocity=NATIVE, weight_decay=0.0, decay=NATIVE)
_rmsprop = RMSprop(learning_rate=0.01, rho=0.9, momentum=0.0, epsilon=NATIVE, epsilon_placement=NATIVE, velocity=NATIVE)
_adam = Adam(
    learning_rate=0.01,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=NATIVE,
    epsilon_placement=NATIVE,
    weight_decay=0.0,
    decay=NATIVE,
)

OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": _sgd,
    "sgd_decay": replace(_sgd, weight_decay=0.01),
    "momentum": replace(_sgd, momentum=0.9),
    "momentum_decay": replace(_sgd, momentum=0.9, weight_decay=0.01),
    "nesterov": replace(_sgd, momentum=0.9, nesterov=True),
    "adagrad": Adagrad(learning_rate=0.1, initial_accumulator=NATIVE, epsilon=NATIVE, epsilon_placement=NATIVE),
    "rmsprop": _rmsprop,
    "rmsprop_momentum": replace(_rmsprop, momentum=0.9),
    "adam": _adam,
    "adam_decay": replace(_adam, weight_decay=0.01),
}

_binary = BinaryCrossEntropy(
    reads="probabilities",
    logits_form=NATIVE,
    fused=NATIVE,
    clip_probability=NATIVE,
    log_epsilon=NATIVE,
    log_complement=NATIVE,
    log_floor=NATIVE,
    denominator_floor=NATIVE,
    reduction="mean",
)
_categorical = CategoricalCrossEntropy(
    reads="probabilities", sparse=False, fused=NATIVE, clip_probability=NATIVE, renormalize=NATIVE, reduction="mean"
)

LOSSES: Mapping[str, Loss] = {
    "binary": _binary,
    "binary_logits": replace(_binary, reads="logits"),
    "categorical": _categorical,
    "categorical_sparse": replace(_categorical, sparse=True),
    "categorical_logits": replace(_categorical, reads="logits"),
    "categorical_sparse_logits": replace(_categorical, reads="logits", sparse=True),
    "squared": MeanSquaredError(reduction="mean"),
    "squared_sum": MeanSquaredError(reduction="sum"),
}


def network(loss: str = "binary", optimizer: str = "sgd") -> Case:
    """4 features, Dense 5, ReLU, Dense 3, ReLU, Dense 1 (3 for classes), and the activation that the loss reads."""
    units = 3 if loss.startswith("categorical") else 1
    final: dict[str, Op] = {"binary": Sigmoid(), "categorical": Softmax(), "categorical_sparse": Softmax()}
    nodes = [
        Node(name="z1", op=Dense(units=5), parameters=("W1", "b1")),
        Node(name="a1", op=ReLU()),
        Node(name="z2", op=Dense(units=3), parameters=("W2", "b2")),
        Node(name="a2", op=ReLU()),
        Node(name="z3", op=Dense(units=units), parameters=("W3", "b3")),
    ]
    if loss in final:
        nodes.append(Node(name="yhat", op=final[loss]))
    return case_of(tuple(nodes), LOSSES[loss], OPTIMIZERS[optimizer])


def graph() -> Case:
    """A residual sum, a broadcast sum, a sum of one, an identity beside its input, a shared layer, an unused branch."""
    nodes = (
        Node(name="first", op=ReLU()),
        Node(name="h1", op=Dense(units=5), parameters=("W1", "b1")),
        Node(name="t1", op=Tanh()),
        Node(name="h2", op=Dense(units=5), parameters=("W2", "b2")),
        Node(name="residual", op=Add(), inputs=("h2", "t1")),
        Node(name="s1", op=Sigmoid()),
        Node(name="h3", op=Dense(units=5), parameters=("W2", "b2")),
        Node(name="same", op=Linear()),
        Node(name="leaky", op=LeakyReLU(negative_slope=0.25, slope_at_zero=NATIVE)),
        Node(name="offset", op=Dense(units=1), parameters=("W3", "b3")),
        Node(name="broadcast", op=Add(), inputs=("offset", "leaky", "h3")),
        Node(name="alone", op=Add()),
        Node(name="unused", op=Dense(units=2), parameters=("W4", "b4")),
        Node(name="out", op=Dense(units=1), parameters=("W5", "b5"), inputs=("broadcast",)),
    )
    return case_of(nodes, LOSSES["squared"], replace(_sgd, learning_rate=0.01, momentum=0.5))


def landscape() -> Case:
    """Descent from three points on u² - uv + 2v² + u³v/8 + 1."""
    terms = ((1.0, 2, 0), (-1.0, 1, 1), (2.0, 0, 2), (0.125, 3, 1), (1.0, 0, 0))
    node = Node(name="f", op=Polynomial(terms=terms, points=3), parameters=("P",))
    return case_of((node,), Objective(), OPTIMIZERS["sgd"])


def case_of(nodes: tuple[Node, ...], loss: Loss, optimizer: Optimizer) -> Case:
    return Case(
        name="small",
        summary="a small network",
        nodes=nodes,
        loss=loss,
        optimizer=optimizer,
        data="random",
        batching=Batching(size=8),
        steps=6,
        seed=0,
        initialization="he",
        initial_scale=1.0,
    )


def batches(case: Case, precision: Precision, steps: int = 6, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """x (steps, size, 4) and targets that fit the case's loss, rounded to float32 once."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(steps, size, FEATURES)).astype(np.float32).astype(precision)
    match case.loss:
        case BinaryCrossEntropy():
            return x, rng.integers(2, size=(steps, size, 1)).astype(precision)
        case CategoricalCrossEntropy(sparse=sparse):
            y = rng.integers(3, size=(steps, size))
            return x, y if sparse else np.eye(3, dtype=precision)[y]
        case _:
            return x, rng.normal(size=(steps, size, 1)).astype(np.float32).astype(precision)


def first_state(case: Case, precision: Precision) -> np.ndarray:
    """Parameters and slots before the first step, flat, of a resolved case."""
    shapes = layout_of(case, (1, FEATURES)).parameter_shapes
    parameters = np.concatenate([array.ravel() for array in initial_parameters(case, shapes).values()])
    return np.concatenate([parameters, initial_slots(case.optimizer, parameters.size)]).astype(precision)
