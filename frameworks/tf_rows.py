"""What both TensorFlow adapters share: one graph that turns a chunk of steps into rows, and what a case may ask.

A call into a TensorFlow graph costs 0.4 to 1.5 ms, a step inside one 0.05 ms: so the loop over the steps is in the graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from harness.case import CannotExpress, Case, Sigmoid, Softmax, fields_of, reads_fused_logits
from harness.conventions import Conventions

Tensors = Sequence[tf.Tensor]
Graph = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A network and its optimizer as TensorFlow holds them.

    gradients: x, y -> activations, loss, gradients with respect to activations, gradients with respect to parameters.
    update: applies the gradients with respect to parameters.
    state: parameters, then slots, as `Layout.state` has them; `transposed` where a variable holds the transpose.
    count: updates so far.
    """

    gradients: Callable[[tf.Tensor, tf.Tensor], tuple[Tensors, tf.Tensor, Tensors, Tensors]]
    update: Callable[[Tensors], None]
    state: Sequence[tf.Variable]
    transposed: Sequence[bool]
    count: tf.Variable


class RowStepper:
    """A Stepper that is traced at the first `run`, when the width of x is known, once for every batch size.

    trace: the first run's x and y -> the training and its `rows_graph`.
    """

    def __init__(self, trace: Callable[[np.ndarray, np.ndarray], tuple[Training, Graph]]) -> None:
        self._trace = trace
        self._traced: tuple[Training, Graph] | None = None
        self._loaded: tuple[np.ndarray, int] | None = None

    def load(self, state: np.ndarray, step: int) -> None:
        if self._traced is None:
            self._loaded = (state.copy(), step)
        else:
            _assign(self._traced[0], state, step)

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        if self._traced is None:
            self._traced = self._trace(x, y)
            if self._loaded is not None:
                _assign(self._traced[0], *self._loaded)
        graph = self._traced[1]
        rows[:] = graph(tf.constant(x), tf.constant(y)).numpy()  # type: ignore[attr-defined]


def _assign(training: Training, state: np.ndarray, step: int) -> None:
    start = 0
    for variable, transposed in zip(training.state, training.transposed, strict=True):
        shape = tuple(variable.shape)
        value = state[start : start + np.prod(shape, dtype=int)]
        variable.assign(value.reshape(shape[::-1]).T if transposed else value.reshape(shape))
        start += value.size
    training.count.assign(step)


def rows_graph(training: Training, x: np.ndarray, y: np.ndarray) -> Graph:
    """Trace x (steps, batch, ...), y (steps, batch, ...) -> rows (steps, recorded), for any number of steps and batch."""

    @tf.function(autograph=False, input_signature=[_any_batch(x), _any_batch(y)])
    def rows(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        steps = tf.shape(x)[0]

        def step(t: tf.Tensor, written: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            row = _row(training, x[t], y[t])
            with tf.control_dependencies([row]):  # the next step starts when this row is whole
                return t + 1, written.write(t, row)

        written = tf.TensorArray(x.dtype, size=steps, element_shape=[None])
        _, written = tf.while_loop(lambda t, _: t < steps, step, (0, written), parallel_iterations=1)
        return written.stack()

    return rows.get_concrete_function()


def _any_batch(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec([None, None, *array.shape[2:]], array.dtype)


def _row(training: Training, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    activations, loss, to_activations, to_parameters = training.gradients(x, y)
    with tf.control_dependencies([*to_activations, *to_parameters]):  # no update races with a gradient still to come
        training.update(to_parameters)
    state = [variable.read_value() for variable in training.state]
    oriented = [
        tf.transpose(tensor) if transposed else tensor
        for tensors in (to_parameters, state)
        for tensor, transposed in zip(tensors, training.transposed, strict=False)
    ]
    return tf.concat([tf.reshape(part, [-1]) for part in (*activations, loss, *to_activations, *oriented)], axis=0)


def check_conventions(case: Case, framework: str, computed: Conventions) -> None:
    """Raise CannotExpress where a field that acts on a case's numbers is not what the framework computes.

    Fields that `computed` does not name are free.
    """
    for part, field, value in _acting(case):
        native = computed.get(part, {}).get(field, value)
        if native != value:
            raise CannotExpress(f"{framework} computes {part}.{field} as {native}, the case says {value}")


def _acting(case: Case) -> Iterator[tuple[str, str, Any]]:
    idle: set[str] = set()
    if not getattr(case.optimizer, "momentum", 0):
        idle |= {"velocity"}
    if not getattr(case.optimizer, "weight_decay", 0):
        idle |= {"decay"}
    reads_logits = getattr(case.loss, "reads", None) == "logits"
    if reads_logits or not isinstance(case.nodes[-1].op, Sigmoid | Softmax):
        idle |= {"fused"}
    if reads_logits or reads_fused_logits(case):
        idle |= {"clip_probability", "log_floor", "denominator_floor", "renormalize"}
    for part in (*(node.op for node in case.nodes), case.loss, case.optimizer):
        for field, value in fields_of(part).items():
            if field not in idle:
                yield type(part).__name__, field, value


def environment() -> dict[str, Any]:
    """TensorFlow's version, devices and the flags that change its numbers."""
    return {
        "tensorflow": tf.__version__,
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "deterministic": tf.config.experimental.is_op_determinism_enabled()
        if hasattr(tf.config.experimental, "is_op_determinism_enabled")
        else None,
        "threads": {
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
        },
    }
