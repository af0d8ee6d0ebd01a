"""JAX with optax: one jitted training step, compiled once for each shape of batch and each precision."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from frameworks.sharing import step_of
from harness.case import (
    PRECISIONS,
    SGD,
    Adagrad,
    Adam,
    Add,
    BinaryCrossEntropy,
    CannotExpress,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    Loss,
    MeanSquaredError,
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
    reads_fused_logits,
    slot_names,
    wire,
)
from harness.conventions import Conventions
from harness.layout import Shape, layout_of

# jax 0.10, jax/_src/nn/functions.py: leaky_relu is where(x >= 0, x, slope x). Neither jax nor optax has a cross-entropy
# on probabilities; it is written here as the formula, log_epsilon keeping log 0 out. optax 0.2.8, optax/_src/alias.py:
# sgd has the rate after its trace, rmsprop before it; adagrad is rsqrt(s + eps) (optax/_src/transform.py: scale_by_rss)
# and neither sgd nor adam has a decay: add_decayed_weights (optax/transforms/_adding.py) goes before them.
CONVENTIONS: Conventions = {
    "LeakyReLU": {"slope_at_zero": "one"},
    "BinaryCrossEntropy": {
        "logits_form": "log_sigmoids",
        **{"fused": False, "clip_probability": 0.0, "log_epsilon": 1e-7, "log_complement": "log1p"},
        **{"log_floor": -math.inf, "denominator_floor": 0.0},
    },
    "CategoricalCrossEntropy": {"fused": False, "clip_probability": 0.0, "renormalize": "none"},
    "SGD": {"velocity": "gradient", "decay": "coupled"},
    "Adagrad": {"initial_accumulator": 0.1, "epsilon": 1e-7, "epsilon_placement": "inside_sqrt"},
    "RMSprop": {"epsilon": 1e-8, "epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon": 1e-8, "epsilon_placement": "after_correction", "decay": "decoupled"},
}

OPTAX_STATE = {"velocity": "trace", "accumulator": "sum_of_squares", "mean_square": "nu", "m": "mu", "v": "nu"}
"""The field of optax's optimizer state that holds each slot."""


def environment() -> Mapping[str, Any]:
    """Versions, device and the settings that change numbers, as they are; a run scopes its own x64."""
    device = jax.devices()[0]
    config: Any = jax.config  # its options are attributes that no type checker sees
    return {
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "optax": optax.__version__,
        "device": device.device_kind,
        "platform": device.platform,
        "cpus": os.cpu_count(),
        "default_matmul_precision": config.jax_default_matmul_precision,
        "enable_x64": config.jax_enable_x64,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def missing(case: Case) -> Mapping[str, str]:
    """Nothing: every node's output has a probe."""
    return {}


def start(case: Case, precision: Precision) -> Training:
    """A case on JAX's default device. Raises CannotExpress, naming the field."""
    _check(case)
    return Training(case, precision)


class Training:
    """A case at one precision, satisfying `Stepper`; float64 is switched on for its own calls only.

    Steps are dispatched one by one: one compilation serves every number of steps, and in total that is as fast as a
    compiled loop, whose saving (30 us a step) a second compilation (0.25 s) would eat.
    """

    def __init__(self, case: Case, precision: Precision) -> None:
        self.case = step_of(case)
        self.precision: Precision = precision

    def load(self, state: np.ndarray, step: int) -> None:
        self.state = np.array(state, self.precision)
        self.count = step

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        step = _compiled(self.case, rows.shape[1], x.shape[1:], y.shape[1:], y.dtype == np.int64)
        last: np.ndarray | Array = np.zeros(rows.shape[1], self.precision)
        last[-len(self.state) :] = self.state  # type: ignore[index]
        shown = []
        with jax.enable_x64(self.precision == "float64"):
            for x_t, y_t in zip(x, y, strict=True):
                last = step(last, np.int32(self.count), x_t, y_t)
                self.count += 1
                shown.append(last)
        for row, values in zip(rows, shown, strict=True):  # read late: JAX computes while Python dispatches
            row[:] = values
        self.state = rows[-1, -len(self.state) :].copy()


# --- one step ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)  # 4 MB each
def _compiled(case: Case, width: int, x: Shape, y: Shape, indices: bool) -> Callable[..., Array]:
    """The step for rows of that width and batches of these shapes, compiled for both precisions at once: XLA does not
    hold Python's lock."""
    step = jax.jit(partial(_step, case))

    def first(precision: Precision) -> None:
        kind = np.int64 if indices else precision
        with jax.enable_x64(precision == "float64"):
            step(np.zeros(width, precision), np.int32(0), np.zeros(x, precision), np.zeros(y, kind))

    with ThreadPoolExecutor() as threads:
        list(threads.map(first, PRECISIONS))
    return step


def _step(case: Case, last: Array, count: Array, x: Array, y: Array) -> Array:
    """The recorded row of a step that starts from the state in the last row."""
    layout = layout_of(case, x.shape)
    names = slot_names(case.optimizer)
    W, *slots = jnp.split(last[layout.state], 1 + len(names))  # noqa: N806
    ends = np.cumsum([math.prod(shape) for shape in layout.parameter_shapes.values()])
    pieces = zip(jnp.split(W, ends[:-1]), layout.parameter_shapes.values(), strict=True)
    parameters = [piece.reshape(shape) for piece, shape in pieces]

    def objective(parameters: list[Array], probes: list[Array]) -> tuple[Array, list[Array]]:
        outputs = _forward(case, dict(zip(layout.parameter_shapes, parameters, strict=True)), probes, x)
        return _loss(case.loss, outputs[-1], y), outputs

    # Adding zero to every node's output makes the gradient with respect to that zero dL/d(output).
    probes = [jnp.zeros(shape, last.dtype) for shape in layout.activation_shapes.values()]
    differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (loss, outputs), (gradients, output_gradients) = differentiate(parameters, probes)
    g = _flat(gradients)
    W, held = _update(case.optimizer, W, g, dict(zip(names, slots, strict=True)), count)  # noqa: N806
    return _flat([*outputs, loss, *output_gradients, g, W, *held.values()])


def _flat(tensors: Sequence[Array]) -> Array:
    return jnp.concatenate([jnp.ravel(tensor) for tensor in tensors])


def _forward(case: Case, parameters: Mapping[str, Array], probes: list[Array], x: Array) -> list[Array]:
    outputs = {"x": x}
    for (node, reads), probe in zip(wire(case), probes, strict=True):
        inputs = [outputs[name] for name in reads]
        outputs[node.name] = _node(node.op, inputs, [parameters[name] for name in node.parameters]) + probe
    return list(outputs.values())[1:]


def _node(op: Op, inputs: list[Array], parameters: list[Array]) -> Array:
    match op:
        case Dense():
            W, b = parameters  # noqa: N806
            return inputs[0] @ W.T + b
        case ReLU():
            return jax.nn.relu(inputs[0])  # not jnp.maximum(z, 0), whose derivative at 0 is 1/2
        case LeakyReLU(negative_slope=slope):
            return jax.nn.leaky_relu(inputs[0], slope)
        case Sigmoid():
            return jax.nn.sigmoid(inputs[0])
        case Tanh():
            return jnp.tanh(inputs[0])
        case Softmax():
            return jax.nn.softmax(inputs[0])
        case Linear():
            return inputs[0]
        case Add():
            return sum(inputs[1:], start=inputs[0])
        case Polynomial(terms=terms):
            u, v = parameters[0].T
            return jnp.sum(jnp.stack([c * u**i * v**j for c, i, j in terms]), axis=0)


# --- loss -------------------------------------------------------------------------------------------------------


def _loss(loss: Loss, p: Array, y: Array) -> Array:
    match loss:
        case BinaryCrossEntropy(reads="logits"):
            terms = optax.sigmoid_binary_cross_entropy(p, y)
        case BinaryCrossEntropy(clip_probability=clip):
            p, eps = _clipped(p, clip), cast(float, loss.log_epsilon)
            terms = -(y * jnp.log(p + eps) + (1 - y) * jnp.log1p(eps - p))
        case CategoricalCrossEntropy(reads="logits", sparse=True):
            terms = optax.softmax_cross_entropy_with_integer_labels(p, y)
        case CategoricalCrossEntropy(reads="logits"):
            terms = optax.softmax_cross_entropy(p, y)
        case CategoricalCrossEntropy(sparse=True, clip_probability=clip):
            terms = -jnp.log(jnp.take_along_axis(_clipped(p, clip), y[:, None], axis=-1))
        case CategoricalCrossEntropy(clip_probability=clip):
            terms = -jnp.sum(y * jnp.log(_clipped(p, clip)), axis=-1)
        case MeanSquaredError():
            terms = optax.squared_error(p, y)
        case Objective():
            return jnp.sum(p)
    return jnp.mean(terms) if loss.reduction == "mean" else jnp.sum(terms)


def _clipped(p: Array, margin: Any) -> Array:
    return jnp.clip(p, margin, 1 - margin) if margin else p


# --- optimizer --------------------------------------------------------------------------------------------------


def _update(
    case: Optimizer,
    W: Array,  # noqa: N803
    g: Array,
    slots: Mapping[str, Array],
    count: Array,
) -> tuple[Array, dict[str, Array]]:
    """Parameters and slots, each flat, after optax's update; `count` updates came before."""
    optimizer = _optimizer(case)
    held: dict[str, Any] = {OPTAX_STATE[slot]: _signed(case, slot, values) for slot, values in slots.items()}
    if isinstance(case, Adam):
        held["count"] = count
    updates, after = optimizer.update(g, optax.tree_utils.tree_set(optimizer.init(W), **held), W)
    slots = {slot: _signed(case, slot, optax.tree_utils.tree_get(after, OPTAX_STATE[slot])) for slot in slots}
    return optax.apply_updates(W, updates), slots  # type: ignore[return-value]


def _signed(case: Optimizer, slot: str, values: Array) -> Array:
    """optax.rmsprop's trace adds up -lr g / root, the negative of the canonical velocity."""
    return -values if isinstance(case, RMSprop) and slot == "velocity" else values


def _optimizer(case: Optimizer) -> optax.GradientTransformation:
    rate = case.learning_rate
    epsilon: Any = getattr(case, "epsilon", None)
    weight_decay = getattr(case, "weight_decay", 0.0)
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    match case:
        case SGD(momentum=momentum, decay="decoupled"):  # optax.sgd with the decay where optax.adamw has it
            accumulate = optax.trace(momentum, case.nesterov) if momentum else optax.identity()
            return optax.chain(accumulate, decay, optax.scale_by_learning_rate(rate))
        case SGD(momentum=momentum):
            return optax.chain(decay, optax.sgd(rate, momentum or None, case.nesterov))
        case Adagrad():
            return optax.adagrad(rate, eps=epsilon)  # the accumulator's start is part of the loaded state
        case RMSprop(momentum=momentum):
            inside = case.epsilon_placement == "inside_sqrt"
            return optax.rmsprop(rate, case.rho, epsilon, eps_in_sqrt=inside, momentum=momentum or None)
        case Adam(decay="decoupled"):
            return optax.adamw(rate, case.beta_1, case.beta_2, epsilon, weight_decay=case.weight_decay)
        case Adam():
            return optax.chain(decay, optax.adam(rate, case.beta_1, case.beta_2, epsilon))


# --- what jax's and optax's own parts can say -------------------------------------------------------------------


def _check(case: Case) -> None:
    for node in case.nodes:
        if isinstance(node.op, LeakyReLU):
            _require(node.op, "slope_at_zero")
    loss, optimizer = case.loss, case.optimizer
    if reads_fused_logits(case):
        _require(loss, "fused")
    match loss:
        case BinaryCrossEntropy(reads="logits"):
            _require(loss, "logits_form")
        case BinaryCrossEntropy(reads="probabilities"):
            _require(loss, "log_complement", "log_floor", "denominator_floor")
        case CategoricalCrossEntropy(reads="probabilities"):
            _require(loss, "renormalize")
    match optimizer:
        case Adagrad() | Adam():
            _require(optimizer, "epsilon_placement")
        case SGD() | RMSprop() if optimizer.momentum:
            _require(optimizer, "velocity")


def _require(part: object, *fields: str) -> None:
    """Only what `CONVENTIONS` declare for these fields can be had."""
    kind = type(part).__name__
    for field in fields:
        offered, wanted = CONVENTIONS[kind][field], getattr(part, field)
        if wanted != offered:
            raise CannotExpress(f"jax computes {kind}.{field} as {offered!r}, the case says {wanted!r}")
