"""A case in words: formulas of its nodes, of the chain rule and of the update, its conventions, its machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.case import (
    SGD,
    Adagrad,
    Adam,
    Add,
    BinaryCrossEntropy,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    MeanSquaredError,
    Node,
    Objective,
    Polynomial,
    ReLU,
    RMSprop,
    Sigmoid,
    Softmax,
    Tanh,
    fields_of,
    reads_fused_logits,
    wire,
)
from harness.layout import Layout


def describe_case(case: Case, layout: Layout, paths: Mapping[str, str]) -> dict[str, Any]:
    """A case for a run's header: network as rows, loss, optimizer, batching; a polynomial with the arrays that hold
    each framework's path over it."""
    first = case.nodes[0].op
    return {
        **({"landscape": {"terms": first.terms, "paths": paths}} if isinstance(first, Polynomial) else {}),
        "summary": case.summary,
        "mode": case.batching.mode,
        "batch_size": case.batching.size,
        "steps": case.steps,
        "seed": case.seed,
        "data": case.data,
        "network": [
            {
                "node": node.name,
                "formula": forward_formula(node, reads),
                "shape": "x".join(map(str, layout.activation_shapes[node.name][1:])),
                "parameters": {name: list(layout.parameter_shapes[name]) for name in node.parameters},
            }
            for node, reads in wire(case)
        ],
        "loss": in_words(case.loss),
        "optimizer": in_words(case.optimizer),
    }


def describe_conventions(case: Case, resolved: Case) -> dict[str, Any]:
    """What `native` became: "Adam.epsilon" -> value, for every field the framework filled."""
    pairs = [(case.loss, resolved.loss), (case.optimizer, resolved.optimizer)]
    pairs += [(a.op, b.op) for a, b in zip(case.nodes, resolved.nodes, strict=True)]
    return {
        f"{type(before).__name__}.{name}": fields_of(after)[name]
        for before, after in pairs
        for name, value in fields_of(before).items()
        if value == "native"
    }


def describe_environment(frameworks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The machine and what changes numbers on it."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": {
            name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ
        },
        "frameworks": dict(frameworks),
    }


def in_words(part: Any) -> str:
    """A loss or optimizer with all its fields: SGD(learning_rate=0.05, ...)."""
    return f"{type(part).__name__}({', '.join(f'{name}={value!r}' for name, value in fields_of(part).items())})"


def forward_formula(node: Node, reads: tuple[str, ...]) -> str:
    """z1 = W1 x + b1."""
    a = reads[0] if reads else ""
    match node.op:
        case Dense():
            W, b = node.parameters  # noqa: N806
            right = f"{W} {a} + {b}"
        case ReLU():
            right = f"relu({a})"
        case LeakyReLU(negative_slope=slope):
            right = f"leaky_relu({a}, {slope:g})"
        case Sigmoid():
            right = f"sigmoid({a})"
        case Tanh():
            right = f"tanh({a})"
        case Softmax():
            right = f"softmax({a})"
        case Linear():
            right = a
        case Add():
            right = " + ".join(reads)
        case Polynomial(terms=terms):
            right = " ".join(f"{c:+g}{_power('u', i)}{_power('v', j)}" for c, i, j in terms)
    return f"{node.name} = {right}"


def _power(variable: str, exponent: int) -> str:
    return "" if exponent == 0 else f" {variable}" if exponent == 1 else f" {variable}^{exponent}"


def loss_formula(case: Case) -> str:
    """The loss of a resolved case, as it is computed."""
    output = case.nodes[-1].name
    if reads_fused_logits(case):
        output = next(reads[0] for node, reads in wire(case) if node is case.nodes[-1])
    logits = reads_fused_logits(case) or getattr(case.loss, "reads", "") == "logits"
    match case.loss:
        case BinaryCrossEntropy() if logits:
            return f"L = mean(max({output}, 0) - y {output} + log(1 + exp(-|{output}|)))"
        case BinaryCrossEntropy():
            return f"L = mean(-y log {output} - (1 - y) log(1 - {output}))"
        case CategoricalCrossEntropy() if logits:
            return f"L = mean(log sum exp {output} - {output}[y])"
        case CategoricalCrossEntropy():
            return f"L = mean(-log {output}[y])"
        case MeanSquaredError():
            return f"L = mean(({output} - y)^2)"
        case Objective():
            return f"L = sum({output})"


def gradient_formula(case: Case, name: str) -> str:
    """The chain rule for dL/d<name>: what its readers hand back, summed; for parameters, what their nodes hand them."""
    wired = list(wire(case))
    nodes = {node.name for node in case.nodes}
    if name == case.nodes[-1].name or (reads_fused_logits(case) and name == wired[-1][1][0]):
        return f"dL/d{name} = {_loss_derivative(case, name)}"
    if name in nodes:
        parts = [_handed_back(node, reads) for node, reads in wired if name in reads]
        return f"dL/d{name} = {' + '.join(parts)}"
    parts = []
    for node, reads in wired:
        if name in node.parameters:
            d = f"dL/d{node.name}"
            if isinstance(node.op, Polynomial):
                parts.append(f"({d}) (df/du, df/dv)")
            else:
                parts.append(f"{d} {reads[0]}ᵀ" if name == node.parameters[0] else f"sum over examples of {d}")
    return f"dL/d{name} = {' + '.join(parts)}"


def _handed_back(node: Node, reads: tuple[str, ...]) -> str:
    d, a, own = f"dL/d{node.name}", reads[0], node.name
    match node.op:
        case Dense():
            return f"{node.parameters[0]}ᵀ {d}"
        case ReLU():
            return f"{d} * [{a} > 0]"
        case LeakyReLU(negative_slope=slope):
            return f"{d} * (1 if {a} > 0 else {slope:g})"
        case Sigmoid():
            return f"{d} * {own} (1 - {own})"
        case Tanh():
            return f"{d} * (1 - {own}^2)"
        case Softmax():
            return f"{own} * ({d} - sum({d} * {own}))"
        case _:
            return d


def _loss_derivative(case: Case, name: str) -> str:
    logits = reads_fused_logits(case) or getattr(case.loss, "reads", "") == "logits"
    match case.loss:
        case BinaryCrossEntropy() if logits:
            return f"(sigmoid({name}) - y) / n"
        case BinaryCrossEntropy():
            return f"({name} - y) / ({name} (1 - {name})) / n"
        case CategoricalCrossEntropy() if logits:
            return f"(softmax({name}) - onehot(y)) / n"
        case CategoricalCrossEntropy():
            return f"-onehot(y) / {name} / n"
        case MeanSquaredError():
            return f"2 ({name} - y) / n"
        case Objective():
            return "1"


def update_formula(case: Case, name: str) -> str:
    """How a parameter moves: W := W - lr dL/dW for plain SGD."""
    g = f"dL/d{name}"
    match case.optimizer:
        case SGD(momentum=0.0, weight_decay=0.0, learning_rate=rate):
            return f"{name} := {name} - {rate:g} {g}"
        case SGD(velocity="step", momentum=mu, learning_rate=rate):
            return f"{name} := {name} + v, v = {mu:g} v - {rate:g} {g}"
        case SGD(momentum=mu, learning_rate=rate):
            return f"{name} := {name} - {rate:g} v, v = {mu:g} v + {g}"
        case Adagrad(learning_rate=rate, epsilon_placement=placement):
            return f"{name} := {name} - {rate:g} {g} / {_root('s', placement)}, s = s + g^2"
        case RMSprop(learning_rate=rate, rho=rho, epsilon_placement=placement):
            return f"{name} := {name} - {rate:g} {g} / {_root('s', placement)}, s = {rho:g} s + {1 - rho:g} g^2"
        case Adam(learning_rate=rate, epsilon_placement="before_correction"):
            return f"{name} := {name} - {rate:g} sqrt(c2)/c1 m / (sqrt(v) + eps)"
        case Adam(learning_rate=rate):
            return f"{name} := {name} - {rate:g} (m/c1) / (sqrt(v/c2) + eps)"


def _root(of: str, placement: str) -> str:
    return f"sqrt({of} + eps)" if placement == "inside_sqrt" else f"(sqrt({of}) + eps)"
