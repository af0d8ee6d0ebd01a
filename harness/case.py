"""A case: one training job as plain frozen data, every number-changing convention written out.

Only standard library here: the reference and every framework adapter read a case, and `--help` must stay fast.
Field constraints are annotations; `harness.checking` lets pydantic enforce them at the boundary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

NATIVE = "native"
"""A convention left to the framework: `conventions.resolve` replaces it by what the adapter declares."""

Native = Literal["native"]
Rate = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0)]

Precision = Literal["float32", "float64"]
PRECISIONS: tuple[Precision, Precision] = ("float32", "float64")

_strict: dict[str, Any] = {"extra": "forbid", "strict": True, "revalidate_instances": "always"}


class HarnessError(Exception):
    """Bad input or an impossible request: one line for the user. A disagreement is a result, never this."""

    exit_code = 2


class CannotRun(HarnessError):
    """The request is right, but the machine cannot do it: a framework is not installed, a folder not writable."""

    exit_code = 3


class CannotExpress(HarnessError):
    """A framework cannot compute a case as written; the message names the field, its value and what it offers."""


# --- nodes of a network -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """z = x Wᵀ + b with x (batch, in), W (units, in), b (units,); parameters are named (W, b)."""

    units: Annotated[int, Gt(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU:
    """max(z, 0), with derivative 0 at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyReLU:
    """z where z > 0, else negative_slope * z; derivative `negative_slope` at 0 in torch and TensorFlow, 1 in JAX."""

    negative_slope: Fraction
    slope_at_zero: Literal["negative_slope", "one", "native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """1 / (1 + exp(-z))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh:
    """tanh(z)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """exp(z_k) / sum_k exp(z_k) over the last axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """The identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """The sum of its inputs, broadcast over the last axis (a residual, or one offset for all classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """f(u, v) = sum of c u^i v^j over terms (c, i, j) at each point; parameter (points, 2), output (points,)."""

    terms: Annotated[tuple[tuple[float, int, int], ...], MinLen(1)]
    points: Annotated[int, Gt(0)]


Op = Dense | ReLU | LeakyReLU | Sigmoid | Tanh | Softmax | Linear | Add | Polynomial


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One named output of the network. No `inputs` means the previous node (the data `x` for the first).

    Two nodes that name the same parameter share it; their gradients add.
    """

    name: str
    op: Op
    inputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    __pydantic_config__ = _strict


# --- losses -----------------------------------------------------------------------------------------------------

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryCrossEntropy:
    """-(y log p + (1 - y) log(1 - p)), y and p (batch, 1), reduced over all elements.

    reads: what the last node holds.
    logits_form: with logits z, "max" is max(z, 0) - y z + log(1 + exp(-|z|)) (Keras, TensorFlow), "log_sigmoid" is
    (1 - y) z - log sigmoid(z) (torch), "log_sigmoids" is -y log sigmoid(z) - (1 - y) log sigmoid(-z) (optax). One
    function, but where an example is learnt only the last keeps its digits, in the derivative too.
    fused: a final Sigmoid is skipped and its logits are read instead (Keras does so by itself).
    clip_probability: p is first clipped to [c, 1 - c] with zero derivative outside; 0 for none (Keras: 1e-7).
    log_epsilon: added inside both logarithms; 0 for none (tf.compat.v1.losses.log_loss: 1e-7).
    log_complement: how log(1 - p) is formed: "log1p" keeps all digits where p is small (torch), "log" loses them.
    log_floor: log p and log(1-p) are bounded below; -inf for none (torch: -100).
    denominator_floor: p (1-p) in the derivative is bounded below; 0 for none (torch: 1e-12).
    """

    reads: Literal["probabilities", "logits"]
    logits_form: Literal["max", "log_sigmoid", "log_sigmoids", "native"]
    fused: bool | Native
    clip_probability: Fraction | Native
    log_epsilon: Fraction | Native
    log_complement: Literal["log1p", "log", "native"]
    log_floor: float | Native
    denominator_floor: Rate | Native
    reduction: Reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalCrossEntropy:
    """-sum_k y_k log p_k, p (batch, classes), reduced over the batch.

    sparse: targets are class indices (batch,), else one-hot (batch, classes).
    renormalize: with probabilities, "sum" divides p by its sum before clipping, "softmax" subtracts log sum p after it.
    """

    reads: Literal["probabilities", "logits"]
    sparse: bool
    fused: bool | Native
    clip_probability: Fraction | Native
    renormalize: Literal["none", "sum", "softmax", "native"]
    reduction: Reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSquaredError:
    """(p - y)², p and y (batch, outputs), reduced over all elements."""

    reduction: Reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The sum of the last node's output itself: gradient descent on a landscape, no data, no target."""


Loss = BinaryCrossEntropy | CategoricalCrossEntropy | MeanSquaredError | Objective


# --- optimizers -------------------------------------------------------------------------------------------------

Decay = Literal["coupled", "decoupled", "native"]
EpsilonPlacement = Literal["inside_sqrt", "outside_sqrt", "native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """W := W - lr g, with optional (Nesterov) momentum.

    velocity: "gradient" accumulates v = mu v + g and steps -lr v (torch, optax); "step" accumulates v = mu v - lr g
    and steps +v (Keras). They differ while the rate changes.
    decay: "coupled" adds weight_decay W to g; "decoupled" first scales W by (1 - lr weight_decay).
    """

    learning_rate: Rate
    momentum: Fraction
    nesterov: bool
    velocity: Literal["gradient", "step", "native"]
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """s += g²; W -= lr g / (sqrt(s) + eps) or lr g / sqrt(s + eps)."""

    learning_rate: Rate
    initial_accumulator: Rate | Native
    epsilon: Positive | Native
    epsilon_placement: EpsilonPlacement


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSprop:
    """s = rho s + (1-rho) g²; step = lr g / (sqrt(s) + eps) or / sqrt(s + eps); with momentum b = mu b + step.

    velocity: "gradient" keeps lr out of b (torch), "step" inside it (Keras, TensorFlow, optax).
    """

    learning_rate: Rate
    rho: Fraction
    momentum: Fraction
    epsilon: Positive | Native
    epsilon_placement: EpsilonPlacement
    velocity: Literal["gradient", "step", "native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """m, v moving averages of g, g²; with c1 = 1 - beta_1^t, c2 = 1 - beta_2^t.

    epsilon_placement: "after_correction" W -= lr (m/c1) / (sqrt(v/c2) + eps) (paper's algorithm 1, torch, optax);
    "before_correction" W -= lr sqrt(c2)/c1 m / (sqrt(v) + eps) (the paper's "epsilon hat"; Keras, TensorFlow).
    With weight_decay > 0, decay "coupled" is Adam with L2, "decoupled" is AdamW.
    """

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    epsilon: Positive | Native
    epsilon_placement: Literal["after_correction", "before_correction", "native"]
    weight_decay: Rate
    decay: Decay


Optimizer = SGD | Adagrad | RMSprop | Adam


# --- the case ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Which examples make a step: a fresh permutation of all examples each epoch, the same in every framework.

    size: examples a step; 1 is stochastic, None is batch (all of them, mean gradient), anything between mini-batch.
    The last batch of an epoch may be smaller.
    """

    size: Annotated[int, Gt(0)] | None

    @property
    def mode(self) -> str:
        return {None: "batch", 1: "stochastic"}.get(self.size, "mini-batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training job. `steps` counts parameter updates; `seed` drives initial parameters and the order of examples.

    initialization: standard deviation of W is scale/sqrt(fan_in) ("he" sqrt 2, "lecun" 1), biases 0; "given": the
    arrays come beside the case.
    float32_constants: names of constants that pass through float32 even in a float64 run. Always empty in a case that
    a user writes; the edits that prove a leak fill it (`reference` honours it).
    """

    name: str
    summary: str
    nodes: Annotated[tuple[Node, ...], MinLen(1)]
    loss: Loss
    optimizer: Optimizer
    data: str
    batching: Batching
    steps: Annotated[int, Gt(0)]
    seed: Annotated[int, Ge(0)]
    initialization: Literal["he", "lecun", "given"]
    initial_scale: Annotated[float, Gt(0), Le(1e6)]
    float32_constants: tuple[str, ...] = ()

    __pydantic_config__ = _strict


for _kind in (
    *(Dense, ReLU, LeakyReLU, Sigmoid, Tanh, Softmax, Linear, Add, Polynomial),
    *(BinaryCrossEntropy, CategoricalCrossEntropy, MeanSquaredError, Objective),
    *(SGD, Adagrad, RMSprop, Adam, Batching),
):
    setattr(_kind, "__pydantic_config__", _strict)  # noqa: B010 (not declared, so that it stays no field)


def wire(case: Case) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Each node with the names it reads, defaults filled in: the previous node, `x` for the first."""
    previous = "x"
    for node in case.nodes:
        reads = () if isinstance(node.op, Polynomial) else node.inputs or (previous,)
        yield node, reads
        previous = node.name


def parameter_names(case: Case) -> tuple[str, ...]:
    """Every parameter once, in order of first use."""
    return tuple(dict.fromkeys(name for node in case.nodes for name in node.parameters))


def slot_names(optimizer: Optimizer) -> tuple[str, ...]:
    """The optimizer's per-parameter state, in the order in which a Step shows it."""
    match optimizer:
        case SGD(momentum=momentum):
            return ("velocity",) if momentum else ()
        case Adagrad():
            return ("accumulator",)
        case RMSprop(momentum=momentum):
            return ("mean_square", "velocity") if momentum else ("mean_square",)
        case Adam():
            return ("m", "v")


def reads_fused_logits(case: Case) -> bool:
    """True where the loss skips the final Sigmoid or Softmax, so that nothing flows back through its output."""
    match case.loss, case.nodes[-1].op:
        case (BinaryCrossEntropy() as loss, Sigmoid()) | (CategoricalCrossEntropy() as loss, Softmax()):
            return loss.fused is True and loss.reads == "probabilities"
    return False


def fields_of(part: object) -> Mapping[str, Any]:
    """The fields of a node's op, loss or optimizer, by name."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}  # type: ignore[arg-type]
