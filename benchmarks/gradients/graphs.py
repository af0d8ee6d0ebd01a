"""Random expression graphs, differentiated by torch or JAX, with small errors planted into the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gradients import Item, Subject, item
from benchmarks.gradients.reductions import softmax
from benchmarks.gradients.rules import BUILDERS, flipped, like

GRAPHS = 250
WHOLE, ONE = 1e-8, 1e-6
"""Relative errors: of the whole gradient; of one element, drawn from those above a tenth of the largest."""

UNARY: tuple[Callable[..., Any], ...] = (
    lambda xp, x: xp.sin(x),
    lambda xp, x: xp.tanh(x),
    lambda xp, x: xp.exp(0.3 * xp.sin(x)),
    lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
    lambda xp, x: 0.3 * x**2,
    lambda xp, x: xp.sqrt(1 + x**2),
    lambda xp, x: 1 / (1 + x**2),
    lambda xp, x: xp.log1p(x**2),
    lambda xp, x: xp.arctan(2 * x),
    softmax,
    lambda xp, x: x - xp.mean(x, axis=0, keepdims=True),
    lambda xp, x: xp.cumsum(x, 1),
    lambda xp, x: xp.swapaxes(x, 0, 1),
    lambda xp, x: flipped(xp, x, 1),
    lambda xp, x: xp.abs(x),
    lambda xp, x: xp.maximum(x, 0.1 * x),
)
BINARY: tuple[Callable[..., Any], ...] = (
    lambda xp, x, y: x + y,
    lambda xp, x, y: x - y,
    lambda xp, x, y: x * y,
    lambda xp, x, y: x / (1 + y**2),
    lambda xp, x, y: 0.5 * xp.matmul(x, y),
    lambda xp, x, y: xp.maximum(x, y),
)
ENDS: tuple[Callable[..., Any], ...] = (
    lambda xp, x: x,
    lambda xp, x: xp.sum(x * x),
    lambda xp, x: xp.mean(x, axis=1),
    lambda xp, x: (xp.sum(xp.sin(x)), x),
)
Operation = tuple[Callable[..., Any], tuple[int, ...]]


def program(seed: int) -> tuple[list[np.ndarray], Callable[..., Any]]:
    """Square matrices and a row, and 4 to 14 operations on any of what is there already."""
    rng = np.random.default_rng(seed)
    side, scale = int(rng.integers(2, 7)), float(rng.choice([0.1, 1.0, 3.0]))
    inputs = [scale * rng.standard_normal((side, side)) for _ in range(rng.integers(1, 4))]
    inputs[0] = inputs[0][:1] if len(inputs) > 1 and rng.random() < 0.5 else inputs[0]
    operations: list[Operation] = []
    for _ in range(rng.integers(4, 15)):
        known = len(inputs) + len(operations)
        table, many = (BINARY, 2) if rng.random() < 0.5 else (UNARY, 1)
        newest = known - 1 - int(rng.integers(0, min(3, known)))
        arguments = (newest, *rng.integers(0, known, many - 1))
        operations.append((table[rng.integers(len(table))], tuple(int(i) for i in arguments)))
    return inputs, partial(evaluated, side=side, operations=operations, end=ENDS[rng.integers(len(ENDS))])


def evaluated(xp: Any, *inputs: Any, side: int, operations: Sequence[Operation], end: Callable[..., Any]) -> Any:
    nodes = [x + 0 * like(xp, np.zeros((side, side)), x) for x in inputs]
    for operation, arguments in operations:
        nodes.append(operation(xp, *[nodes[i] for i in arguments]))
    total = nodes[-1]
    for x in nodes[: len(inputs)]:
        total = total + 0.1 * xp.sin(x)  # every input counts
    return end(xp, total)


def differentiated(xp: Any, forward: Callable[..., Any], inputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    """By the framework's own reverse mode."""
    if xp.__name__ == "torch":
        with xp.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            out = forward(xp, *leaves)
        return list(xp.autograd.grad(out if isinstance(out, tuple) else (out,), leaves, tuple(cotangents)))
    import jax

    out, pull = jax.vjp(partial(forward, xp), *inputs)
    return list(pull(tuple(cotangents) if isinstance(out, tuple) else cotangents[0]))


def planted(xp: Any, *given: Any, forward: Callable[..., Any], many: int, factors: Sequence[np.ndarray]) -> Any:
    gradients = differentiated(xp, forward, given[:many], given[many:])
    return tuple(g * like(xp, f, g) for g, f in zip(gradients, factors, strict=True))


def graph(seed: int) -> list[Item]:
    """Three items: the graph itself, with a slightly wrong gradient, and with one wrong element."""
    framework = "jax" if seed % 5 == 4 else "torch"
    inputs, _ = program(seed)
    ones = [np.ones(x.shape) for x in inputs]
    which, at = _chosen(seed)
    single = [one.copy() for one in ones]
    single[which][at] += ONE
    name = f"graphs/{seed}"
    return [
        item(name, framework, "ordinary", partial(_subject, seed, framework, ones)),
        item(
            f"{name}, {WHOLE:g} too large",
            framework,
            "wrong",
            partial(_subject, seed, framework, [one * (1 + WHOLE) for one in ones]),
            "factor",
        ),
        item(
            f"{name}, one element {ONE:g}",
            framework,
            "wrong",
            partial(_subject, seed, framework, single),
            "element",
            (which, at),
        ),
    ]


def _chosen(seed: int) -> tuple[int, tuple[int, ...]]:
    """An input and an element whose gradient, under a random cotangent, is above a tenth of the input's largest."""
    import torch

    inputs, forward = program(seed)
    rng = np.random.default_rng((seed, 1))
    values = [torch.from_numpy(x) for x in inputs]
    out = forward(torch, *values)
    outs = out if isinstance(out, tuple) else (out,)
    cotangents = [torch.from_numpy(np.asarray(rng.standard_normal(tuple(o.shape)))) for o in outs]
    gradients = differentiated(torch, forward, values, cotangents)
    which = int(rng.integers(len(inputs)))
    size = gradients[which].abs().numpy()
    places = np.argwhere(size >= 0.1 * size.max())
    return which, tuple(int(i) for i in places[rng.integers(len(places))])


def _subject(seed: int, framework: str, factors: Sequence[np.ndarray]) -> Subject:
    inputs, forward = program(seed)
    backward = partial(planted, forward=forward, many=len(inputs), factors=factors)
    return Subject(function=BUILDERS[framework](forward, backward), inputs=tuple(inputs))


def graphs(count: int = GRAPHS) -> list[Item]:
    return [found for seed in range(count) for found in graph(seed)]
