"""TensorFlow without Keras: tf.Variable, tf.GradientTape, tf.function and TensorFlow's own training kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import Any

import tensorflow as tf

from frameworks import tf_rows
from frameworks.sharing import step_of
from frameworks.tf_rows import Rows, RowStepper, Tensor, Training, polynomial
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
from harness.layout import shapes_of

# tensorflow 2.21: the kernels' formulas are in tensorflow/core/kernels/training_ops.cc (their __doc__ in tf.raw_ops);
# defaults are those of tensorflow/python/training/{momentum,adagrad,rmsprop,adam}.py, and Adagrad's epsilon, which that
# file has not, of tensorflow/python/keras/optimizer_v2/adagrad.py. TensorFlow has no weight decay and no clipped loss
# of its own: those fields say how this file writes them.
CONVENTIONS: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {
        "logits_form": "max",
        **{"fused": False, "clip_probability": 0.0, "log_epsilon": 1e-7, "log_complement": "log1p"},
        **{"log_floor": -math.inf, "denominator_floor": 0.0},
    },
    "CategoricalCrossEntropy": {"fused": False, "clip_probability": 0.0, "renormalize": "none"},
    "SGD": {"velocity": "gradient", "decay": "coupled"},
    "Adagrad": {"initial_accumulator": 0.1, "epsilon": 1e-7, "epsilon_placement": "outside_sqrt"},
    "RMSprop": {"epsilon": 1e-10, "epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon": 1e-8, "epsilon_placement": "before_correction", "decay": "decoupled"},
}

_FIXED: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {"logits_form": "max", "log_floor": -math.inf, "denominator_floor": 0.0},
    "Adagrad": {"epsilon_placement": "outside_sqrt"},
    "RMSprop": {"epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon_placement": "before_correction"},
}


def environment() -> Mapping[str, Any]:
    return tf_rows.environment()


def missing(case: Case) -> Mapping[str, str]:
    if not reads_fused_logits(case):
        return {}
    last = case.nodes[-1]
    return {
        f"dL/d{last.name}": f"the case fuses the final {type(last.op).__name__} with the loss: no gradient passes it"
    }


def start(case: Case, precision: Precision) -> RowStepper:
    tf_rows.check_conventions(case, "tensorflow", _FIXED)
    return RowStepper(partial(_traced, step_of(case), precision))


@lru_cache(maxsize=8)
def _traced(case: Case, precision: Precision, x: tf.TensorSpec, y: tf.TensorSpec) -> Rows:
    return tf_rows.rows_graph(_training(case, precision, tuple(x.shape[2:])), x, y)  # type: ignore[arg-type]


def _training(case: Case, precision: Precision, features: tuple[int, ...]) -> Training:
    shapes, _ = shapes_of(case, (1, *features))
    parameters = {name: tf.Variable(tf.zeros(shape, precision)) for name, shape in shapes.items()}
    slots = [[tf.Variable(tf.zeros(shape, precision)) for shape in shapes.values()] for _ in slot_names(case.optimizer)]
    count = tf.Variable(tf.constant(0, tf.int64))

    def gradients(x: Tensor, y: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor], list[Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(x)  # nodes before any parameter have gradients too
            activations = _forward(case, parameters, x)
            loss = _loss(case, activations, y)
        nodes = list(activations.values())[1:]
        found = tape.gradient(loss, [*nodes, *parameters.values()], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return nodes, loss, found[: len(nodes)], found[len(nodes) :]

    variables = list(parameters.values())
    return Training(
        gradients=gradients,
        update=_updates(case.optimizer, variables, slots, count),
        parameters=variables,
        slots=slots,
        transposed=[False] * len(variables),
        count=count,
    )


def _forward(case: Case, parameters: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    activations = {"x": x}
    for node, reads in wire(case):
        inputs = [activations[name] for name in reads]
        activations[node.name] = _apply(node.op, inputs, [parameters[name] for name in node.parameters])
    return activations


def _apply(op: Op, inputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    match op:
        case Dense():
            weight, bias = parameters
            return tf.matmul(inputs[0], weight, transpose_b=True) + bias
        case ReLU():
            return tf.nn.relu(inputs[0])
        case LeakyReLU(negative_slope=slope):
            return tf.nn.leaky_relu(inputs[0], alpha=slope)
        case Sigmoid():
            return tf.sigmoid(inputs[0])
        case Tanh():
            return tf.tanh(inputs[0])
        case Softmax():
            return tf.nn.softmax(inputs[0])
        case Linear():
            return tf.identity(inputs[0])
        case Add():
            return reduce(tf.add, inputs[1:], tf.identity(inputs[0]))
        case Polynomial(terms=terms):
            return polynomial(terms, parameters[0])


def _loss(case: Case, activations: Mapping[str, Tensor], y: Tensor) -> Tensor:
    fused = reads_fused_logits(case)
    logits = fused or getattr(case.loss, "reads", None) == "logits"
    *_, (last, before) = wire(case)
    output = activations[before[0] if fused else last.name]
    match case.loss:
        case Objective():
            return tf.reduce_sum(output)
        case MeanSquaredError(reduction=reduction):
            values = tf.square(output - y)
        case BinaryCrossEntropy(reduction=reduction) if logits:
            values = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=output)
        case BinaryCrossEntropy(clip_probability=clip, log_epsilon=eps, log_complement=form, reduction=reduction):
            p = _clipped(output, clip)
            # tf.compat.v1.losses.log_loss (tensorflow/python/ops/losses/losses_impl.py) with "log"
            complement = tf.math.log1p(eps - p) if form == "log1p" else tf.math.log(1 - p + eps)
            values = -(y * tf.math.log(p + eps) + (1 - y) * complement)
        case CategoricalCrossEntropy(sparse=True, reduction=reduction) if logits:
            values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=output)
        case CategoricalCrossEntropy(reduction=reduction) if logits:
            values = tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=output)
        case CategoricalCrossEntropy(
            sparse=sparse, clip_probability=clip, renormalize=renormalize, reduction=reduction
        ):
            p = output / tf.reduce_sum(output, axis=-1, keepdims=True) if renormalize == "sum" else output
            log_p = tf.math.log(_clipped(p, clip))
            log_p = tf.nn.log_softmax(log_p) if renormalize == "softmax" else log_p
            values = -(tf.gather(log_p, y, batch_dims=1) if sparse else tf.reduce_sum(y * log_p, axis=-1))
    return tf.reduce_mean(values) if reduction == "mean" else tf.reduce_sum(values)


def _clipped(p: Tensor, clip: Any) -> Tensor:
    return tf.clip_by_value(p, clip, 1 - clip) if clip else p


def _updates(
    optimizer: Optimizer, parameters: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], count: Tensor
) -> Callable[[Sequence[Tensor]], None]:
    held = [*slots]
    if isinstance(optimizer, RMSprop) and not optimizer.momentum:  # the kernel wants the variable all the same
        held.append([tf.Variable(tf.zeros_like(weight)) for weight in parameters])

    def update(gradients: Sequence[Tensor]) -> None:
        t = count.assign_add(1)
        for k, (weight, g) in enumerate(zip(parameters, gradients, strict=True)):
            _kernel(optimizer, t, weight, _decayed(optimizer, weight, g), [slot[k].handle for slot in held])

    return update


def _decayed(optimizer: Optimizer, weight: Tensor, g: Tensor) -> Tensor:
    """The gradient that the kernel gets, after weight decay."""
    if not isinstance(optimizer, SGD | Adam) or not optimizer.weight_decay:
        return g
    if optimizer.decay == "coupled":
        return g + optimizer.weight_decay * weight
    weight.assign((1 - optimizer.learning_rate * optimizer.weight_decay) * weight)
    return g


def _kernel(optimizer: Optimizer, t: Tensor, weight: Tensor, g: Tensor, slots: Sequence[Tensor]) -> None:
    ops, w = tf.raw_ops, weight.handle
    number = partial(tf.constant, dtype=weight.dtype)
    lr = number(optimizer.learning_rate)
    match optimizer:
        case SGD(momentum=0):
            ops.ResourceApplyGradientDescent(var=w, alpha=lr, delta=g)
        case SGD(momentum=momentum, nesterov=nesterov, velocity=velocity):
            kernel = {"gradient": ops.ResourceApplyMomentum, "step": ops.ResourceApplyKerasMomentum}[velocity]
            kernel(var=w, accum=slots[0], lr=lr, grad=g, momentum=number(momentum), use_nesterov=nesterov)
        case Adagrad(epsilon=epsilon):
            ops.ResourceApplyAdagradV2(var=w, accum=slots[0], lr=lr, epsilon=number(epsilon), grad=g)
        case RMSprop(rho=rho, momentum=momentum, epsilon=epsilon):
            constants = {"lr": lr, "rho": number(rho), "momentum": number(momentum), "epsilon": number(epsilon)}
            ops.ResourceApplyRMSProp(var=w, ms=slots[0], mom=slots[1], grad=g, **constants)
        case Adam(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon):
            b1, b2, t = number(beta_1), number(beta_2), tf.cast(t, weight.dtype)
            powers = {"beta1_power": b1**t, "beta2_power": b2**t}
            constants = {"lr": lr, "beta1": b1, "beta2": b2, "epsilon": number(epsilon)}
            ops.ResourceApplyAdam(var=w, m=slots[0], v=slots[1], grad=g, **powers, **constants)
