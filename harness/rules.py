"""How a user's training turns gradients into updates, every number-changing convention written out: a `Rule`.

`harness.case` holds the few optimizers that a Case may name; these here are all that torch, Keras and optax optimizers
are read into. Only standard library. `reference.rules` computes them. g is the gradient, t the update's number from 1.

All optimizers: weight_decay with `decay` "coupled" adds weight_decay W to g, "decoupled" first takes learning_rate
weight_decay W off W (AdamW in torch, Keras, optax), "unscaled" takes weight_decay W off (the AdamW paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from harness.case import Fraction, Rate
from harness.objectives import Scope
from harness.schedules import Schedule

Decay = Literal["coupled", "decoupled", "unscaled"]
EpsilonPlacement = Literal["inside_sqrt", "outside_sqrt"]

# --- optimizers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """v = momentum v + (1 - dampening) g; W -= learning_rate v, Nesterov: learning_rate (g + momentum v).

    velocity: "gradient" as above (torch, optax); "step" keeps the rate in the velocity, v = momentum v - learning_rate
    (1 - dampening) g, W += v, Nesterov: W += momentum v - learning_rate g (Keras). They differ while the rate changes.
    first_velocity: "undampened" starts with v = g at t = 1 (torch), "zero" from v = 0. Slot: velocity, with momentum.
    """

    learning_rate: Rate
    momentum: Fraction
    dampening: float
    first_velocity: Literal["zero", "undampened"]
    nesterov: bool
    velocity: Literal["gradient", "step"]
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """s += g²; W -= r g / (sqrt(s) + epsilon), or / sqrt(s + epsilon); r = learning_rate / (1 + (t - 1) rate_decay).

    Slot: accumulator, from initial_accumulator.
    """

    learning_rate: Rate
    rate_decay: Rate
    initial_accumulator: Rate
    epsilon: Rate
    epsilon_placement: EpsilonPlacement
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Adadelta:
    """s = rho s + (1 - rho) g²; d = g sqrt(u + epsilon) / sqrt(s + epsilon); W -= learning_rate d; then u = rho u +
    (1 - rho) d².

    Slots: mean_square (s), mean_square_step (u).
    """

    learning_rate: Rate
    rho: Fraction
    epsilon: Rate
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSprop:
    """s = rho s + (1 - rho) g²; W -= learning_rate g / (sqrt(s) + epsilon), or / sqrt(s + epsilon).

    momentum: b = momentum b + that step, W -= b. centered: a = rho a + (1 - rho) g, s - a² in place of s in the root.
    velocity: "gradient" keeps the rate out of b (torch), "step" inside it (Keras, TensorFlow, optax).
    initial_mean_square: s before the first step (1 in TF1). Slots: mean_square (s), mean (a), velocity (b).
    """

    learning_rate: Rate
    rho: Fraction
    momentum: Fraction
    epsilon: Rate
    epsilon_placement: EpsilonPlacement
    centered: bool
    velocity: Literal["gradient", "step"]
    initial_mean_square: Rate
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """W -= learning_rate (m/c1) / (sqrt(v/c2) + epsilon); m, v moving averages of g, g²; c1 = 1 - beta_1^t, c2 = 1 -
    beta_2^t.

    epsilon_placement: "after_correction" as above (torch, optax's eps); "before_correction" W -= learning_rate
    sqrt(c2)/c1 m / (sqrt(v) + epsilon) (Keras); "inside_sqrt" sqrt(v/c2 + epsilon) (optax's eps_root).
    bias_correction: which of c1, c2 act, the other is 1.
    amsgrad: the greatest so far of v ("uncorrected": torch, Keras), of v/c2 ("corrected": optax), in its place.
    Slots: m, v, v_max with amsgrad.
    """

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    epsilon: Rate
    epsilon_placement: Literal["after_correction", "before_correction", "inside_sqrt"]
    bias_correction: Literal["both", "first", "second", "none"]
    amsgrad: Literal["no", "uncorrected", "corrected"]
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Adamax:
    """m as Adam's; u = max(beta_2 u, |g| + epsilon); W -= learning_rate / (1 - beta_1^t) m / u.

    epsilon_placement: "on_gradient" as above (torch, optax), "on_norm" u = max(beta_2 u, |g|) and m / (u + epsilon)
    (Keras). Slots: m, u.
    """

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    epsilon: Rate
    epsilon_placement: Literal["on_gradient", "on_norm"]
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Nadam:
    """m, v as Adam's; mu_t = beta_1 (1 - momentum_damping 0.96^(t momentum_decay)), M_t = mu_1 ... mu_t;
    W -= learning_rate (mu_{t+1} m / (1 - M_{t+1}) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v/c2) + epsilon).

    momentum_damping: 1/2 (Dozat; torch, Keras), 0 for mu_t = beta_1 (optax). momentum_decay: 0.004 in torch and Dozat,
    1 in Keras. decay_base: 0.96, a number, as Keras rounds it through float32. Slots: m, v.
    """

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    epsilon: Rate
    momentum_damping: Fraction
    momentum_decay: Rate
    decay_base: Fraction
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class RAdam:
    """m, v, c1, c2 as Adam's; n = 2/(1 - beta_2) - 1, n_t = n - 2 t beta_2^t / c2; where n_t > threshold W -=
    learning_rate r (m/c1) / (sqrt(v/c2) + epsilon), r² = (n_t - 4)(n_t - 2) n / ((n - 4)(n - 2) n_t), before that W -=
    learning_rate m/c1.

    epsilon_placement: "after_correction" as above (optax), "before_correction" sqrt(c2) / (sqrt(v) + epsilon) (torch).
    Slots: m, v.
    """

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    epsilon: Rate
    epsilon_placement: Literal["after_correction", "before_correction"]
    threshold: Annotated[float, Ge(4)]
    weight_decay: Rate
    decay: Decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Lion:
    """W -= learning_rate sign(beta_1 m + (1 - beta_1) g), then m = beta_2 m + (1 - beta_2) g. Slot: m."""

    learning_rate: Rate
    beta_1: Fraction
    beta_2: Fraction
    weight_decay: Rate
    decay: Decay


Optimizer = SGD | Adagrad | Adadelta | RMSprop | Adam | Adamax | Nadam | RAdam | Lion


def slot_names(optimizer: Optimizer) -> tuple[str, ...]:
    """The optimizer's state for each parameter, in the order in which `reference.rules` takes it."""
    match optimizer:
        case SGD(momentum=momentum):
            return ("velocity",) if momentum else ()
        case Adagrad():
            return ("accumulator",)
        case Adadelta():
            return ("mean_square", "mean_square_step")
        case RMSprop(momentum=momentum, centered=centered):
            return ("mean_square", *(("mean",) if centered else ()), *(("velocity",) if momentum else ()))
        case Adam(amsgrad=amsgrad):
            return ("m", "v") if amsgrad == "no" else ("m", "v", "v_max")
        case Adamax():
            return ("m", "u")
        case Nadam() | RAdam():
            return ("m", "v")
        case Lion():
            return ("m",)


# --- what comes before the optimizer ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping:
    """Gradients bounded before the optimizer reads them.

    by: "value" clips each element to [-limit, limit]; "variable_norm" and "global_norm" multiply by min(1, limit /
    (N + epsilon)), N the norm of the parameter's own gradient or of all together. epsilon: 1e-6 in torch's
    clip_grad_norm_, else 0. order: of the norm (2; inf for the greatest).
    """

    by: Literal["value", "variable_norm", "global_norm"]
    limit: Rate
    epsilon: Rate
    order: Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulation:
    """`every` backward passes make one update, by the "sum" or "mean" of their gradients.

    cleared: False lets all gradients since the start pile up (zero_grad forgotten).
    """

    every: Annotated[int, Ge(1)]
    combine: Literal["sum", "mean"]
    cleared: bool


# --- the rule ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """From gradients to updates: accumulated, clipped, then the optimizer at the schedule's rate.

    clipping: None for none. maximize: the optimizer takes every gradient with the other sign, before its decay (torch's
    option of all optimizers). schedule_every: what the schedule's position counts: updates, backward passes (Keras's
    own, where gradients accumulate) or epochs. first_position: the position before any of them. decayed: the parameters
    that weight_decay acts on. trained: those that move. multiples: the parameters whose rate is a multiple of the
    schedule's, and which.
    """

    optimizer: Optimizer
    accumulation: Accumulation
    clipping: Clipping | None
    maximize: bool
    schedule: Schedule
    schedule_every: Literal["update", "pass", "epoch"]
    first_position: int
    decayed: Scope
    trained: Scope
    multiples: tuple[tuple[str, float], ...] = ()
