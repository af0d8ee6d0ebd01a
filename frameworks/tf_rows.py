"""What both TensorFlow adapters share: one graph that turns a chunk of steps into rows, and what a case may ask.

A call into a TensorFlow graph costs 0.5 to 1.5 ms, a step inside one 0.06 ms: the loop over the steps is in the graph.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from harness.case import CannotExpress, Case, Sigmoid, Softmax, fields_of, reads_fused_logits
from harness.conventions import Conventions

Tensor = Any  # tf.Tensor or tf.Variable: the stubs for TensorFlow and Keras's own annotations agree on neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A network and its optimizer as TensorFlow holds them.

    gradients: x, y -> activations, loss, gradients with respect to activations, gradients with respect to parameters.
    update: applies the gradients with respect to parameters.
    parameters, slots: variables in the order of `Layout.state`, slot by slot.
    transposed: for each parameter, whether it (with its slots) is held transposed.
    count: updates so far.
    """

    gradients: Callable[[Tensor, Tensor], tuple[Sequence[Tensor], Tensor, Sequence[Tensor], Sequence[Tensor]]]
    update: Callable[[Sequence[Tensor]], None]
    parameters: Sequence[Tensor]
    slots: Sequence[Sequence[Tensor]]
    transposed: Sequence[bool]
    count: Tensor

    @property
    def state(self) -> list[Tensor]:
        return [*self.parameters, *itertools.chain(*self.slots)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A training and the graph of its steps: state, count, x, y -> rows."""

    training: Training
    graph: Callable[..., Tensor]


class RowStepper:
    """A Stepper whose graph is traced at the first `run`, when the width of x is known, for every number and size of
    batches.

    trace: the specifications of x and y -> a `rows_graph`.
    """

    def __init__(self, trace: Callable[[tf.TensorSpec, tf.TensorSpec], Rows]) -> None:
        self._trace = trace
        self._rows: Rows | None = None

    def load(self, state: np.ndarray, step: int) -> None:
        self._state, self._count = state, step

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        self._rows = self._rows or self._trace(_any_batch(x), _any_batch(y))
        arguments = tf.constant(self._state), tf.constant(self._count, tf.int64), tf.constant(x), tf.constant(y)
        rows[:] = memoryview(self._rows.graph(*arguments))  # numpy() would copy once more
        training = self._rows.training
        # Transposing here costs 1 us a step, in the graph 15 to 35.
        like = [*training.parameters, *training.state]  # the row's end: parameter gradients, parameters, slots
        end = rows[:, rows.shape[1] - sum(math.prod(variable.shape) for variable in like) :]
        for variable, transposed, columns in _placed(training, like):
            if transposed:
                held = end[:, columns].reshape(len(rows), *variable.shape)
                end[:, columns] = held.swapaxes(1, 2).reshape(len(rows), -1)
        self._state, self._count = rows[-1, -len(self._state) :].copy(), self._count + len(rows)


def _placed(training: Training, variables: Sequence[Tensor]) -> Iterator[tuple[Tensor, bool, slice]]:
    """Where each variable stands in a flat array of them all, and whether it is held transposed."""
    start = 0
    for variable, transposed in zip(variables, itertools.cycle(training.transposed), strict=False):
        columns = slice(start, start + math.prod(variable.shape))
        yield variable, transposed, columns
        start = columns.stop


def rows_graph(training: Training, x: tf.TensorSpec, y: tf.TensorSpec) -> Rows:
    """Trace state, count, x (steps, batch, ...), y (steps, batch, ...) -> rows (steps, recorded).

    The state goes in with every call, so that steppers can share a graph.
    """
    width = sum(math.prod(variable.shape) for variable in training.state)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([width], x.dtype), tf.TensorSpec([], tf.int64), x, y])
    def rows(state: Tensor, count: Tensor, x: Tensor, y: Tensor) -> Tensor:
        steps = tf.shape(x)[0]

        def step(t: Tensor, written: Any) -> tuple[Tensor, Any]:
            row = _row(training, x[t], y[t])
            with tf.control_dependencies([row]):  # the next step starts when this row is whole
                return t + 1, written.write(t, row)

        with tf.control_dependencies([*_assigned(training, state, count)]):
            written = tf.TensorArray(x.dtype, size=steps, element_shape=[None])
            _, written = tf.while_loop(lambda t, _: t < steps, step, (0, written), parallel_iterations=1)
        return written.stack()

    return Rows(training=training, graph=rows.get_concrete_function())  # type: ignore[attr-defined]


def _assigned(training: Training, state: Tensor, count: Tensor) -> Iterator[Tensor]:
    yield training.count.assign(tf.cast(count, training.count.dtype))
    for variable, transposed, columns in _placed(training, training.state):
        value = tf.reshape(state[columns], variable.shape[::-1] if transposed else variable.shape)
        yield variable.assign(tf.transpose(value) if transposed else value)


def _any_batch(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec([None, None, *array.shape[2:]], tf.as_dtype(array.dtype))


def _row(training: Training, x: Tensor, y: Tensor) -> Tensor:
    activations, loss, to_activations, to_parameters = training.gradients(x, y)
    with tf.control_dependencies([*to_activations, *to_parameters]):  # no update races with a gradient still to come
        training.update(to_parameters)
    state = [variable.read_value() for variable in training.state]
    parts = (*activations, loss, *to_activations, *to_parameters, *state)
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)


def polynomial(terms: Sequence[tuple[float, int, int]], points: Tensor) -> Tensor:
    """The sum of c u^i v^j, as products: tf.pow's derivative of u^0 is nan at u = 0; points (points, 2)."""
    u, v = points[:, 0], points[:, 1]
    return sum((math.prod([u] * i + [v] * j, start=c) for c, i, j in terms), start=tf.zeros_like(u))


def check_conventions(case: Case, framework: str, computed: Conventions) -> None:
    """Raise CannotExpress where a field that acts on a case's numbers is not what the framework computes.

    Fields that `computed` does not name are free.
    """
    for part, field, value in _acting(case):
        native = computed.get(part, {}).get(field, value)
        if native != value:
            raise CannotExpress(f"{framework} computes {part}.{field} as {native!r}, the case says {value!r}")


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
        idle |= {"clip_probability", "log_epsilon", "log_complement", "log_floor", "denominator_floor", "renormalize"}
    else:
        idle |= {"logits_form"}
    for part in (*(node.op for node in case.nodes), case.loss, case.optimizer):
        for field, value in fields_of(part).items():
            if field not in idle:
                yield type(part).__name__, field, value


def environment() -> dict[str, Any]:
    """TensorFlow's version, its devices and the settings that change its numbers."""
    return {
        "tensorflow": tf.__version__,
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "unset"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "unset"),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),  # 0: TensorFlow chooses
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }
