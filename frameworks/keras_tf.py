"""Keras on the TensorFlow backend: its own layers, compiled loss and optimizers, stepped inside one graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state

from frameworks import tf_rows
from frameworks.sharing import step_of
from frameworks.tf_rows import Rows, RowStepper, Tensor, Training, polynomial
from harness.case import (
    SGD,
    Adagrad,
    Adam,
    Add,
    BinaryCrossEntropy,
    CannotExpress,
    Case,
    CategoricalCrossEntropy,
    Dense,
    HarnessError,
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
    fields_of,
    parameter_names,
    reads_fused_logits,
    slot_names,
    wire,
)
from harness.conventions import KERAS
from harness.layout import shapes_of

if keras.config.backend() != "tensorflow":
    raise HarnessError(
        f"the keras adapter is Keras on TensorFlow, but Keras runs on {keras.config.backend()} here; "
        "start again with KERAS_BACKEND=tensorflow"
    )

CONVENTIONS = KERAS

# keras 3.15, optimizers/{sgd,adagrad,rmsprop,adam}.py: classes, and the attributes that hold the state, in the order of
# `slot_names`. Their arguments have the names of the case's fields.
_OPTIMIZERS: Mapping[type, tuple[type, tuple[str, ...]]] = {
    SGD: (keras.optimizers.SGD, ("momentums",)),
    Adagrad: (keras.optimizers.Adagrad, ("_accumulators",)),
    RMSprop: (keras.optimizers.RMSprop, ("_velocities", "_momentums")),
    Adam: (keras.optimizers.Adam, ("_momentums", "_velocities")),
}
_NO_ARGUMENTS = ("velocity", "decay", "epsilon_placement", "initial_accumulator")


def environment() -> Mapping[str, Any]:
    """Keras's version and default dtype, and TensorFlow's settings, as they are."""
    return {"keras": keras.__version__, "floatx": keras.config.floatx(), **tf_rows.environment()}


def missing(case: Case) -> Mapping[str, str]:
    """The gradient at a final Sigmoid or Softmax that the loss bypasses."""
    if not reads_fused_logits(case):
        return {}
    last = case.nodes[-1]
    return {
        f"dL/d{last.name}": f"keras takes the logits behind the final {type(last.op).__name__}: no gradient passes its "
        "output (keras/src/backend/tensorflow/nn.py, _get_logits)"
    }


def start(case: Case, precision: Precision) -> RowStepper:
    """A compiled functional model, built at the first batch. Raises CannotExpress, naming the field."""
    _check(case)
    return RowStepper(partial(_traced, step_of(case), precision))


def _check(case: Case) -> None:
    computed = {kind: dict(fields) for kind, fields in CONVENTIONS.items()}
    for fields in computed.values():  # Keras takes any value of these
        _ = fields.pop("epsilon", None), fields.pop("initial_accumulator", None)
    loss, last, kind = case.loss, case.nodes[-1].op, type(case.loss).__name__
    other = {BinaryCrossEntropy: Softmax, CategoricalCrossEntropy: Sigmoid}.get(type(loss))
    if other and isinstance(last, other):  # keras 3.15: _get_logits takes the logits behind either (_keras_logits)
        raise CannotExpress(
            f"keras computes {kind} from the logits behind the final {other.__name__}, the case does not"
        )
    if isinstance(loss, BinaryCrossEntropy | CategoricalCrossEntropy):
        computed[kind]["clip_probability"] = keras.config.epsilon()
        if loss.reads == "logits" and isinstance(last, Sigmoid | Softmax):
            raise CannotExpress(
                f"keras computes {kind}.reads from logits before the final {last}, the case says after it"
            )
    if isinstance(loss, CategoricalCrossEntropy):
        computed[kind]["renormalize"] = "softmax" if loss.sparse else "sum"
    if isinstance(loss, BinaryCrossEntropy | MeanSquaredError) and loss.reduction == "sum":
        *_, output = shapes_of(case, (1, 1))[1].values()
        if output[-1] > 1:  # keras 3.15, losses/losses.py: the mean over the last axis, then the sum over the batch
            raise CannotExpress(f"keras computes {kind}.reduction as a sum of means, the case says 'sum'")
    tf_rows.check_conventions(case, "keras", computed)
    layer_of: dict[str, tuple[str, ...]] = {}
    for node in case.nodes:
        for name in node.parameters:
            if layer_of.setdefault(name, node.parameters) != node.parameters:
                raise CannotExpress(f"keras shares whole layers, the case shares {name} of node {node.name} alone")


@lru_cache(maxsize=8)
def _traced(case: Case, precision: Precision, x: tf.TensorSpec, y: tf.TensorSpec) -> Rows:
    with _dtype(precision):
        return tf_rows.rows_graph(_training(case, tuple(x.shape[2:])), x, y)  # type: ignore[arg-type]


def _training(case: Case, features: tuple[int, ...]) -> Training:
    x = keras.Input(features)
    nodes, parameters = _network(case, x)
    model, recorder = keras.Model(x, nodes[-1]), keras.Model(x, nodes)
    optimizer, slots = _optimizer(case.optimizer)
    model.compile(optimizer=optimizer, loss=_loss(case.loss))
    optimizer.build(parameters)
    weights = [parameter.value for parameter in parameters]

    def gradients(x: Tensor, y: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor], list[Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(x)  # nodes before any parameter have gradients too
            activations = keras.tree.flatten(recorder(x, training=True))  # a lone output comes bare
            loss: Any = model.compute_loss(x, y, activations[-1])
        found = tape.gradient(loss, [*activations, *weights], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return activations, loss, found[: len(nodes)], found[len(nodes) :]

    kernels = {node.parameters[0] for node in case.nodes if isinstance(node.op, Dense)}  # keras holds them (in, units)
    return Training(
        gradients=gradients,
        update=partial(optimizer.apply, trainable_variables=parameters),
        parameters=weights,
        slots=[[variable.value for variable in getattr(optimizer, slot)] for slot in slots],
        transposed=[name in kernels for name in parameter_names(case)],
        count=optimizer.iterations.value,
    )


def _network(case: Case, x: Any) -> tuple[list[Any], list[Any]]:
    """Every node's symbolic output, and every parameter in order of first use."""
    tensors, layers, parameters = {"x": x}, {}, {}
    for node, reads in wire(case):
        inputs = [tensors[name] for name in reads] or [x]
        if not node.parameters or node.parameters not in layers:
            layers[node.parameters] = _layer(node.op, len(inputs))
        layer = layers[node.parameters]
        tensors[node.name] = layer(inputs if isinstance(layer, keras.layers.Add) else inputs[0])
        parameters |= dict(zip(node.parameters, layer.weights, strict=True))
    return list(tensors.values())[1:], list(parameters.values())


def _layer(op: Op, inputs: int) -> keras.Layer:
    match op:
        case Dense(units=units):
            return keras.layers.Dense(units, kernel_initializer="zeros")
        case ReLU():
            return keras.layers.Activation("relu")
        case LeakyReLU(negative_slope=slope):
            return keras.layers.LeakyReLU(slope)
        case Sigmoid():
            return keras.layers.Activation("sigmoid")
        case Tanh():
            return keras.layers.Activation("tanh")
        case Softmax():
            return keras.layers.Softmax()
        case Polynomial(terms=terms, points=points):
            return _Landscape(terms, points)
        case Add() if inputs > 1:
            return keras.layers.Add()
        case Add() | Linear():  # keras.layers.Identity returns its input, behind which the loss still finds the sigmoid
            return keras.layers.Activation(tf.identity)


class _Landscape(keras.Layer):
    """sum of c u^i v^j over terms at each of its points (points, 2), whatever its input."""

    def __init__(self, terms: Sequence[tuple[float, int, int]], points: int) -> None:
        super().__init__()
        self.terms = terms
        self.points = self.add_weight(shape=(points, 2), initializer="zeros")

    def call(self, x: Any) -> Any:
        return polynomial(self.terms, self.points.value)


class _SumOfOutputs(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def _loss(loss: Loss) -> keras.losses.Loss:
    if isinstance(loss, Objective):
        return _SumOfOutputs(reduction="sum")
    reduction = {"mean": "sum_over_batch_size", "sum": "sum"}[loss.reduction]
    match loss:
        case BinaryCrossEntropy(reads=reads):
            return keras.losses.BinaryCrossentropy(from_logits=reads == "logits", reduction=reduction)
        case CategoricalCrossEntropy(reads=reads, sparse=True):
            return keras.losses.SparseCategoricalCrossentropy(from_logits=reads == "logits", reduction=reduction)
        case CategoricalCrossEntropy(reads=reads):
            return keras.losses.CategoricalCrossentropy(from_logits=reads == "logits", reduction=reduction)
        case MeanSquaredError():
            return keras.losses.MeanSquaredError(reduction=reduction)


def _optimizer(optimizer: Optimizer) -> tuple[Any, tuple[str, ...]]:
    """The optimizer, and the attributes that hold its slots."""
    kind, slots = _OPTIMIZERS[type(optimizer)]
    arguments = {name: value for name, value in fields_of(optimizer).items() if name not in _NO_ARGUMENTS}
    arguments["learning_rate"] = float(optimizer.learning_rate)  # Keras refuses 1 for 1.0
    arguments["weight_decay"] = arguments.get("weight_decay") or None
    return kind(**arguments), slots[: len(slot_names(optimizer))]


@contextlib.contextmanager
def _dtype(precision: Precision) -> Iterator[None]:
    """Keras's two process-wide dtypes at this precision, and restored.

    Layers follow the policy; the compiled loss and the learning rate follow floatx whatever the model's dtype (keras
    3.15: trainers/compile_utils.py, CompileLoss; optimizers/base_optimizer.py). An unset policy becomes floatx at its
    first reading and stays so (dtype_policies/dtype_policy.py), so it must be unset again.
    """
    floatx, policy = keras.config.floatx(), global_state.get_global_attribute("dtype_policy")
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        global_state.set_global_attribute("dtype_policy", policy)
