"""A user's own model and how it is trained, as handed over; and what one step of it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One side of a comparison. The objects are the user's own: lent for a call, and the same bits behind it.

    model: torch.nn.Module, keras.Model, or a JAX function apply(params, x). params: JAX's pytree of parameters.
    loss: callable(output, target) -> scalar (torch, JAX), or its name or object (Keras; compiled models bring theirs).
    optimizer: torch.optim, keras.optimizers (compiled models bring theirs), or an optax transformation.
    training: the mode (batch norm, dropout); None is training where there is a loss and steps are taken.
    penalty: callable(model or params) -> scalar, added to the loss (Keras: the layers' regularizers, by themselves).
    after_backward: callable(model), called between backward and the update (torch: clipping).
    schedule: torch's lr_scheduler, or callable(count) -> learning rate, advanced every "batch" or "epoch".
    accumulate: backward passes to an update (gradients add up). zero_grad: False leaves gradients to pile up.
    sample_weight (examples,), class_weight {class: weight}: factors of each example's loss.
    batches: index arrays, one for each step, instead of the comparison's.
    train_step: callable(x, y) -> loss, the user's own loop body, watched instead of rewritten (with model, optimizer).
    """

    model: Any
    params: Any = None
    loss: Any = None
    optimizer: Any = None
    training: bool | None = None
    penalty: Callable[[Any], Any] | None = None
    after_backward: Callable[[Any], Any] | None = None
    schedule: Any = None
    schedule_every: Literal["batch", "epoch"] = "batch"
    accumulate: int = 1
    zero_grad: bool = True
    sample_weight: Any = None
    class_weight: Mapping[int, float] | None = None
    batches: Sequence[Any] | None = None
    train_step: Callable[..., Any] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter or buffer of a model.

    name: the framework's own (`conv1.weight`, `dense/kernel`). layer: the owner's path, which is also the name of the
    owner's output among a record's activations. op: Dense, Conv, ConvTranspose, DepthwiseConv, BatchNorm, LayerNorm,
    GroupNorm, RMSNorm, SeparableConv, Embedding, SimpleRNN, LSTM, GRU, MultiHeadAttention, PReLU, or "" where unknown.
    role: kernel, bias, recurrent_kernel, recurrent_bias, gamma, beta, moving_mean, moving_variance, embeddings, alpha,
    in_kernel, in_bias (query, key and value stacked), query_kernel, query_bias, key_kernel, ..., out_kernel, out_bias,
    with _reverse behind it for the backward direction of a bidirectional layer, or "" where unknown.
    framework: whose layout it has: "pytorch", "keras" or "jax". dtype: what the user stores it in.
    """

    name: str
    shape: Shape
    layer: str
    op: str
    role: str
    framework: str
    trainable: bool = True
    buffer: bool = False
    dtype: str = "float32"


PILED = "gradient"
"""The slot that holds the sum of the gradients that no update has used yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a step starts from: parameters and buffers by name; slots by canonical name, then by parameter;
    `count`, the updates made so far.

    Canonical slots: velocity (SGD, RMSprop: of gradients, torch's sign), accumulator (Adagrad), mean_square (RMSprop,
    Adadelta), mean (centered RMSprop), mean_square_step (Adadelta), m, v (Adam and kin), v_max (AMSGrad), u (Adamax),
    as `harness.rules` names them; another optimizer's go by their own names.
    gradient: the sum of what no update has used yet, by an optimizer that accumulates itself (Keras's
    gradient_accumulation_steps, optax.MultiSteps) or in JAX.
    """

    values: Mapping[str, np.ndarray]
    slots: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step sees, each array in the side's own layout: several inputs or targets in order.

    inputs, targets: floats already in the step's precision. weights (batch,): each example's factor. step, epoch: from
    0.
    """

    inputs: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...] = ()
    weights: np.ndarray | None = None
    step: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """Values put in the place of a step's own, by name, in the side's own layout, after the own ones are recorded.

    activations: what later blocks read. cotangents: what flows on backward into the block that computed the
    activation. gradients: what clipping and the optimizer get.
    """

    activations: Mapping[str, np.ndarray] = field(default_factory=dict)
    cotangents: Mapping[str, np.ndarray] = field(default_factory=dict)
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one step showed. Arrays are the record's own.

    activations: every block's output by name, in the order of computation: a layer's first call by the layer's path,
    later calls `path#2`, ...; a function's output `path/function` below the layer that called it (`relu` at the top).
    outputs: the names of the model's outputs among them; keys: how it calls each one ("/logits", "/0"). integers: those
    of its outputs that are integers or booleans, in order. loss: () or None. cotangents: dL/d(activation) by the same
    names (what no gradient reaches is left out). gradients: by parameter, summed over the passes since the last update,
    neither averaged nor clipped; None where the framework has none. found: the gradients that lay there before a user's
    own step began, by parameter. after: the state behind the step; None where no update was made.
    """

    activations: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    keys: tuple[str, ...] = ()
    integers: tuple[np.ndarray, ...] = ()
    loss: np.ndarray | None = None
    cotangents: Mapping[str, np.ndarray] = field(default_factory=dict)
    gradients: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    found: Mapping[str, np.ndarray] = field(default_factory=dict)
    after: State | None = None
