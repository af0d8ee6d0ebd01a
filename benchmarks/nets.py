"""Random training jobs: any depth and width, every activation, loss and optimizer, tame and wild weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from harness.case import (
    NATIVE,
    Adagrad,
    Add,
    Batching,
    BinaryCrossEntropy,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    Loss,
    Node,
    Objective,
    Op,
    Optimizer,
    Polynomial,
    ReLU,
    RMSprop,
    Sigmoid,
    Softmax,
    Tanh,
)
from harness.cases import BINARY, CLASSES, SQUARES, adam, dense, sgd
from harness.data import Data
from harness.layout import shapes_of

ACTIVATIONS: tuple[Op, ...] = (
    *(ReLU(), LeakyReLU(negative_slope=0.01, slope_at_zero=NATIVE), Sigmoid(), Tanh(), Softmax(), Linear()),
)
PROBABILITIES = replace(CLASSES, reads="probabilities")
HEADS: tuple[tuple[Loss, tuple[Op, ...]], ...] = (
    (BINARY, (Sigmoid(),)),
    (BINARY, (Sigmoid(), Linear())),
    (replace(BINARY, reads="logits"), ()),
    (replace(BINARY, reduction="sum"), (Sigmoid(),)),
    (PROBABILITIES, (Softmax(),)),
    (replace(PROBABILITIES, sparse=False), (Softmax(),)),
    (replace(PROBABILITIES, sparse=False), (Softmax(), Linear())),
    (CLASSES, ()),
    (replace(CLASSES, sparse=False), ()),
    (SQUARES, ()),
    (replace(SQUARES, reduction="sum"), ()),
)
"""Losses with the nodes that follow the last dense one; the identity keeps Keras from fusing the loss."""

TOY, LANDSCAPE, RESIDUAL, OFFSET = 0.1, 0.03, 0.15, 0.1
"""How often: numbers on a 0.1 grid; no network but a polynomial; a layer with a residual; an offset for all classes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A drawn case with its data. parameters: on a 0.1 grid for a toy, else None: the case draws them."""

    case: Case
    data: Data
    parameters: Mapping[str, np.ndarray] | None


def draw(seed: int, index: int) -> Net:
    """The index-th net of a seed, whatever was drawn before it."""
    rng = np.random.default_rng((seed, index))
    if rng.random() < LANDSCAPE:
        return _landscape(rng, index)
    toy = bool(rng.random() < TOY)
    loss, final = _pick(rng, HEADS)
    size = 1 if rng.random() < 0.5 else int(rng.integers(64, 257))
    case = Case(
        name=f"net-{index}",
        summary="a random network",
        nodes=(*_hidden(rng), *_head(rng, loss, final)),
        loss=loss,
        optimizer=_optimizer(rng),
        data="random",
        batching=Batching(size=size),
        steps=int(rng.integers(3, 6)),
        seed=index,
        initialization="given" if toy else _pick(rng, ("he", "lecun")),
        initial_scale=1.0 if toy else _log_uniform(rng, 0.1, 10),
    )
    x = _numbers(rng, (size * case.steps, round(_log_uniform(rng, 1, 256))), toy)
    shapes, activations = shapes_of(case, (1, x.shape[1]))
    y = _targets(rng, loss, len(x), activations[case.nodes[-1].name][-1], toy)
    parameters = {name: _numbers(rng, shape, toy) for name, shape in shapes.items()} if toy else None
    return Net(case=case, data=Data(x=x, y=y, x_test=x[:1], y_test=y[:1], task="random"), parameters=parameters)


def _landscape(rng: np.random.Generator, index: int) -> Net:
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    terms = tuple((float(np.float32(rng.normal())), i, j) for i, j in powers)
    points = int(rng.integers(1, 9))
    nothing = np.zeros((1, 1))
    case = Case(
        name=f"net-{index}",
        summary="a random polynomial of degree 3",
        nodes=(Node(name="f", op=Polynomial(terms=terms, points=points), parameters=("points",)),),
        loss=Objective(),
        optimizer=_optimizer(rng),
        data="none",
        batching=Batching(size=None),
        steps=5,
        seed=index,
        initialization="given",
        initial_scale=1.0,
    )
    data = Data(x=nothing, y=nothing, x_test=nothing, y_test=nothing, task="landscape")
    return Net(case=case, data=data, parameters={"points": _numbers(rng, (points, 2), toy=False)})


def _hidden(rng: np.random.Generator) -> list[Node]:
    """No to eleven hidden layers, of one kind or mixed; a residual adds a layer's input to its output."""
    one = _pick(rng, ACTIVATIONS) if rng.random() < 0.5 else None
    nodes: list[Node] = []
    width = 0
    for i in range(1, int(rng.integers(0, 12)) + 1):
        residual = width > 0 and rng.random() < RESIDUAL
        width = width if residual else round(_log_uniform(rng, 1, 256))
        nodes.append(dense(f"z{i}", width, i))
        if residual:
            nodes.append(Node(name=f"s{i}", op=Add(), inputs=(f"z{i}", f"a{i - 1}")))
        nodes.append(Node(name=f"a{i}", op=one or _pick(rng, ACTIVATIONS)))
    return nodes


def _head(rng: np.random.Generator, loss: Loss, final: tuple[Op, ...]) -> list[Node]:
    """The last dense layer and what the loss reads behind it."""
    units = {BinaryCrossEntropy: 1, CategoricalCrossEntropy: int(rng.integers(2, 11))}
    nodes = [dense("out", units.get(type(loss), int(rng.integers(1, 9))), "_out")]
    if isinstance(loss, CategoricalCrossEntropy) and rng.random() < OFFSET:
        offset = dense("offset", 1, "_offset", "out")  # its exact gradient is 0: a softmax does not see it
        nodes += [offset, Node(name="shifted", op=Add(), inputs=("out", "offset"))]
    return nodes + [Node(name=f"yhat{i}", op=op) for i, op in enumerate(final)]


def _optimizer(rng: np.random.Generator) -> Optimizer:
    rate = float(f"{_log_uniform(rng, 1e-4, 1e-1):.2g}")
    momentum = _pick(rng, (0.0, 0.9))
    decay = _pick(rng, (0.0, 0.0, 0.01))
    match rng.integers(4):
        case 0:
            nesterov = bool(momentum and rng.random() < 0.5)
            return sgd(rate, momentum, nesterov=nesterov, weight_decay=decay)
        case 1:
            return Adagrad(learning_rate=rate, initial_accumulator=NATIVE, epsilon=NATIVE, epsilon_placement=NATIVE)
        case 2:
            return RMSprop(
                learning_rate=rate,
                rho=0.9,
                momentum=momentum,
                epsilon=NATIVE,
                epsilon_placement=NATIVE,
                velocity=NATIVE,
            )
        case _:
            return adam(rate, weight_decay=decay)


def _targets(rng: np.random.Generator, loss: Loss, examples: int, outputs: int, toy: bool) -> np.ndarray:
    match loss:
        case BinaryCrossEntropy():
            return rng.integers(2, size=(examples, 1)).astype(float)
        case CategoricalCrossEntropy(sparse=sparse):
            classes = rng.integers(outputs, size=examples)
            return classes if sparse else np.eye(outputs)[classes]
        case _:
            return _numbers(rng, (examples, outputs), toy)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], toy: bool) -> np.ndarray:
    values = rng.integers(-10, 11, shape) / 10 if toy else rng.normal(size=shape)
    return values.astype(np.float32).astype(np.float64)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def describe(net: Net) -> dict[str, Any]:
    """The columns that say what was drawn."""
    ops = [node.op for node in net.case.nodes]
    layers = [op.units for op in ops if isinstance(op, Dense)]
    hidden = {type(node.op).__name__ for node in net.case.nodes if node.name.startswith("a")}
    return {
        "depth": len(layers),
        "width": max(layers, default=0),
        "features": net.data.x.shape[1],
        "batch": net.case.batching.size or 1,
        "steps": net.case.steps,
        "scale": net.case.initial_scale,
        "toy": int(net.parameters is not None and bool(layers)),
        "hidden": "+".join(sorted(hidden)),
        "loss": type(net.case.loss).__name__,
        "optimizer": type(net.case.optimizer).__name__,
    }
