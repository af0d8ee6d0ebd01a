"""Gradient descent from scratch: a case compiled to NumPy calls, taking steps and writing each as one flat row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.case import Case, HarnessError, Precision
from harness.layout import Layout, Shape, layout_of
from reference.constants import rounded
from reference.losses import target_shape
from reference.network import Call, Tensors, backward, forward, tensors_of
from reference.optimizers import update_rule

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward and backward pass at fixed batch shapes: fill x, y and the parameters, then make the calls."""

    layout: Layout
    tensors: Tensors
    forward: list[Call]
    backward: list[Call]


def pass_of(
    case: Case, x_shape: Shape, y_shape: Shape, dtype: np.dtype, slopes: Mapping[str, Array] | None = None
) -> Pass:
    """Compile a resolved case for a batch's shapes. Raises HarnessError for shapes that do not fit."""
    layout = layout_of(case, x_shape)
    output = layout.activation_shapes[case.nodes[-1].name]
    wanted = target_shape(case.loss, output)
    if wanted is not None and y_shape != wanted:
        raise HarnessError(f"{type(case.loss).__name__} on outputs {output} needs targets {wanted}, not {y_shape}")
    leaked = case.float32_constants
    nodes = tuple(dataclasses.replace(node, op=rounded(node.op, dtype, leaked)) for node in case.nodes)
    acting = dataclasses.replace(case, nodes=nodes, loss=rounded(case.loss, dtype, leaked))
    tensors = tensors_of(acting, layout, x_shape, y_shape, dtype)
    return Pass(
        layout=layout, tensors=tensors, forward=forward(acting, tensors), backward=backward(acting, tensors, slopes)
    )


class Training:
    """A case ready to take steps at one precision; a `frameworks.protocol.Stepper`."""

    def __init__(self, case: Case, dtype: np.dtype, slopes: Mapping[str, Array] | None) -> None:
        self._case = case
        self._dtype = dtype
        self._slopes = slopes
        self._update = update_rule(case.optimizer, dtype, case.float32_constants)
        self._passes: dict[tuple[Shape, Shape], Pass] = {}
        self._state = np.zeros(0, dtype)
        self._step = 0

    def load(self, state: Array, step: int) -> None:
        """Set parameters and slots, flat as `Layout.state`, as they are after `step` updates."""
        self._state = np.array(state, self._dtype)
        self._step = step

    def run(self, x: Array, y: Array, rows: Array) -> None:
        """Take len(x) steps, x and y (steps, batch, ...), writing each into its row of `Layout.recorded` columns."""
        shapes = x.shape[1:], y.shape[1:]
        if shapes not in self._passes:
            self._passes[shapes] = pass_of(self._case, *shapes, self._dtype, self._slopes)
        compiled = self._passes[shapes]
        layout, tensors, calls = compiled.layout, compiled.tensors, [*compiled.forward, *compiled.backward]
        row = tensors.row
        W, g = row[layout.parameters], row[layout.gradients]
        slots = row[layout.state][len(W) :].reshape(-1, len(W))
        row[layout.state] = self._state
        with np.errstate(all="ignore"):  # an overflow is a result, for the comparison to judge
            for x_t, y_t, written in zip(x, y, rows, strict=True):
                tensors.x[...] = x_t
                tensors.y[...] = y_t
                for call in calls:
                    call()
                self._step += 1
                self._update(self._step, W, g, *slots)
                written[...] = row
        self._state[...] = row[layout.state]


def start(
    case: Case, precision: Precision | Literal["longdouble"], slopes: Mapping[str, Array] | None = None
) -> Training:
    """Compile a resolved case.

    slopes: by ReLU or LeakyReLU node, derivatives of the batch's shape that replace the ordinary ones where they are
    not NaN, to ask whether another subgradient at a kink would explain a difference.
    """
    return Training(case, np.dtype(precision), slopes)


def evaluator(case: Case, x: Array, y: Array) -> Callable[[Array], tuple[float, Array, Array]]:
    """Compile a case for x (batch, ...), y: flat parameters -> loss, flat dL/d(parameters), last output, in float64.

    The arrays are views that the next call overwrites.
    """
    compiled = pass_of(case, x.shape, y.shape, np.dtype(np.float64))
    tensors, layout, calls = compiled.tensors, compiled.layout, [*compiled.forward, *compiled.backward]
    tensors.x[...] = x
    tensors.y[...] = y

    def evaluated(parameters: Array) -> tuple[float, Array, Array]:
        tensors.row[layout.parameters] = parameters
        with np.errstate(all="ignore"):
            for call in calls:
                call()
        return float(tensors.loss), tensors.row[layout.gradients], tensors.activations[case.nodes[-1].name]

    return evaluated


def evaluate(case: Case, parameters: Array, x: Array, y: Array) -> tuple[float, Array]:
    """The loss and the last node's output for x (batch, ...), y at flat parameters, in float64."""
    loss, _, output = evaluator(case, x, y)(parameters)
    return loss, output


def gradient(case: Case, parameters: Array, x: Array, y: Array) -> Array:
    """dL/d(parameters), flat, for x (batch, ...), y at flat parameters, in float64."""
    return evaluator(case, x, y)(parameters)[1]


def initial_parameters(case: Case, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Random weights (units, in) and zero biases (units,), rounded to float32 once, from the case's seed.

    He et al., arXiv:1502.01852, eq. 10: variance 2/fan_in; LeCun et al., Efficient BackProp (1998), eq. 16: 1/fan_in.
    `initial_scale` multiplies the standard deviation. Raises HarnessError for "given".
    """
    if case.initialization == "given":
        raise HarnessError(f"case {case.name} brings its initial parameters with it; none are drawn")
    gain = case.initial_scale * {"he": math.sqrt(2), "lecun": 1.0}[case.initialization]
    rng = np.random.default_rng(case.seed)
    drawn: dict[str, Array] = {}
    for name, shape in shapes.items():
        W = rng.standard_normal(shape) * gain / math.sqrt(shape[-1]) if len(shape) == 2 else np.zeros(shape)
        drawn[name] = W.astype(np.float32)
    return drawn
