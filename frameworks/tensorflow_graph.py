"""TensorFlow without Keras: tf.Variable, tf.GradientTape, tf.function and TensorFlow's own training kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import tensorflow as tf

from frameworks import tf_rows
from frameworks.tf_rows import Graph, RowStepper, Tensors, Training
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
    parameter_names,
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
    "BinaryCrossEntropy": {"fused": False, "clip_probability": 0.0, "log_floor": -math.inf, "denominator_floor": 0.0},
    "CategoricalCrossEntropy": {"fused": False, "clip_probability": 0.0, "renormalize": "none"},
    "SGD": {"velocity": "gradient", "decay": "coupled"},
    "Adagrad": {"initial_accumulator": 0.1, "epsilon": 1e-7, "epsilon_placement": "outside_sqrt"},
    "RMSprop": {"epsilon": 1e-10, "epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon": 1e-8, "epsilon_placement": "before_correction", "decay": "decoupled"},
}

_FIXED: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {"log_floor": -math.inf, "denominator_floor": 0.0},
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
    return RowStepper(partial(_trace, case, precision))


def _trace(case: Case, precision: Precision, x: np.ndarray, y: np.ndarray) -> tuple[Training, Graph]:
    training = _training(case, precision, x.shape[2:])
    return training, tf_rows.rows_graph(training, x, y)


def _training(case: Case, precision: Precision, features: tuple[int, ...]) -> Training:
    shapes, _ = shapes_of(case, (1, *features))
    parameters = {name: tf.Variable(tf.zeros(shape, precision)) for name, shape in shapes.items()}
    slots = [[tf.Variable(tf.zeros(shape, precision)) for shape in shapes.values()] for _ in slot_names(case.optimizer)]
    count = tf.Variable(0, dtype=tf.int64)

    def gradients(x: tf.Tensor, y: tf.Tensor) -> tuple[Tensors, tf.Tensor, Tensors, Tensors]:
        with tf.GradientTape() as tape:
            activations = _forward(case, parameters, x)
            loss = _loss(case, activations, y)
        nodes = list(activations.values())[1:]
        found = tape.gradient(loss, [*nodes, *parameters.values()], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return nodes, loss, found[: len(nodes)], found[len(nodes) :]

    state = [*parameters.values(), *(variable for slot in slots for variable in slot)]
    return Training(
        gradients=gradients,
        update=_updates(case.optimizer, list(parameters.values()), slots, count),
        state=state,
        transposed=[False] * len(state),
        count=count,
    )


def _forward(case: Case, parameters: Mapping[str, tf.Variable], x: tf.Tensor) -> dict[str, tf.Tensor]:
    activations = {"x": x}
    for node, reads in wire(case):
        inputs = [activations[name] for name in reads]
        activations[node.name] = _apply(node.op, inputs, [parameters[name] for name in node.parameters])
    return activations


def _apply(op: Op, inputs: Sequence[tf.Tensor], parameters: Sequence[tf.Variable]) -> tf.Tensor:
    match op:
        case Dense():
            W, b = parameters
            return tf.matmul(inputs[0], W, transpose_b=True) + b
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
            return polynomial(terms, tf.convert_to_tensor(parameters[0]))


def polynomial(terms: Sequence[tuple[float, int, int]], points: tf.Tensor) -> tf.Tensor:
    """Sum of c u^i v^j at points (points, 2): products, since the derivative of u^0 as a power is nan at 0."""
    u, v = points[:, 0], points[:, 1]
    return sum((math.prod([u] * i + [v] * j, start=c) for c, i, j in terms), start=tf.zeros_like(u))


def _loss(case: Case, activations: Mapping[str, tf.Tensor], y: tf.Tensor) -> tf.Tensor:
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
        case BinaryCrossEntropy(clip_probability=clip, reduction=reduction):
            p = _clipped(output, clip)
            values = -(y * tf.math.log(p) + (1 - y) * tf.math.log(1 - p))
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


def _clipped(p: tf.Tensor, clip: Any) -> tf.Tensor:
    return tf.clip_by_value(p, clip, 1 - clip) if clip else p


def _updates(
    optimizer: Optimizer, parameters: Sequence[tf.Variable], slots: Sequence[Sequence[tf.Variable]], count: tf.Variable
) -> Callable[[Tensors], None]:
    c = partial(tf.constant, dtype=parameters[0].dtype)
    lr = optimizer.learning_rate
    # RMSProp's kernel always takes a momentum variable; without momentum it holds the step and no Step shows it.
    steps = [tf.Variable(tf.zeros_like(W)) for W in parameters] if slot_names(optimizer) == ("mean_square",) else []

    def update(gradients: Tensors) -> None:
        t = tf.cast(count.assign_add(1), parameters[0].dtype)
        for W, g, *slot in zip(parameters, gradients, *slots, *([steps] if steps else []), strict=True):
            W_, slot_ = W.handle, [variable.handle for variable in slot]
            match optimizer:
                case SGD(weight_decay=decay) | Adam(weight_decay=decay) if decay and optimizer.decay == "coupled":
                    g = g + c(decay) * W
                case SGD(weight_decay=decay) | Adam(weight_decay=decay) if decay:
                    W.assign(c(1 - lr * decay) * W)
            match optimizer:
                case SGD(momentum=0):
                    tf.raw_ops.ResourceApplyGradientDescent(var=W_, alpha=c(lr), delta=g)
                case SGD(momentum=mu, nesterov=nesterov, velocity=velocity):
                    own, keras = tf.raw_ops.ResourceApplyMomentum, tf.raw_ops.ResourceApplyKerasMomentum
                    kernel = own if velocity == "gradient" else keras
                    kernel(var=W_, accum=slot_[0], lr=c(lr), grad=g, momentum=c(mu), use_nesterov=nesterov)
                case Adagrad(epsilon=epsilon):
                    tf.raw_ops.ResourceApplyAdagradV2(var=W_, accum=slot_[0], lr=c(lr), epsilon=c(epsilon), grad=g)
                case RMSprop(rho=rho, momentum=mu, epsilon=epsilon):
                    tf.raw_ops.ResourceApplyRMSProp(
                        var=W_,
                        ms=slot_[0],
                        mom=slot_[1],
                        lr=c(lr),
                        rho=c(rho),
                        momentum=c(mu),
                        epsilon=c(epsilon),
                        grad=g,
                    )
                case Adam(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon):
                    tf.raw_ops.ResourceApplyAdam(
                        var=W_,
                        m=slot_[0],
                        v=slot_[1],
                        beta1_power=tf.pow(c(beta_1), t),
                        beta2_power=tf.pow(c(beta_2), t),
                        lr=c(lr),
                        beta1=c(beta_1),
                        beta2=c(beta_2),
                        epsilon=c(epsilon),
                        grad=g,
                    )

    return update
