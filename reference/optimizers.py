"""Every optimizer's update, in place on flat vectors: W all parameters, g all gradients, then the slots.

t counts updates from 1. The numbers in `optimizer` are as `constants.rounded` leaves them. Formulas were checked
against torch 2.13 torch/optim/{sgd,adagrad,rmsprop,adam}.py (_single_tensor_*), Keras 3.15
keras/src/optimizers/{sgd,adagrad,rmsprop,adam,base_optimizer}.py and optax 0.2.8 optax/_src/{alias,transform}.py,
optax/transforms/_accumulation.py, optax/tree_utils/_tree_math.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np

from harness.case import SGD, Adagrad, Adam, Optimizer, RMSprop, slot_names
from reference.constants import constant, rounded

Array = np.ndarray
Update = Callable[..., None]
Corrections = Callable[[int], tuple[float, float]]


def update_rule(optimizer: Optimizer, dtype: np.dtype, leaked: tuple[str, ...]) -> Update:
    """update(t, W, g, *slots) for a run at dtype, with the constants named in `leaked` rounded through float32."""
    acting = rounded(optimizer, dtype, leaked)
    match optimizer, acting:
        case SGD(), SGD():
            return partial(sgd, acting)
        case Adagrad(), Adagrad():
            return partial(adagrad, acting)
        case RMSprop(), RMSprop():
            return partial(rmsprop, acting)
        case Adam(), Adam():
            return partial(adam, acting, partial(bias_corrections, optimizer, dtype, "bias_correction" in leaked))
    raise TypeError(f"no update rule for {type(optimizer).__name__}")


def initial_slots(optimizer: Optimizer, parameter_count: int) -> Array:
    """All slots before the first step, slot by slot, flat (slots * parameter_count,), in float64."""
    first = float(optimizer.initial_accumulator) if isinstance(optimizer, Adagrad) else 0.0
    return np.full(len(slot_names(optimizer)) * parameter_count, first)


def sgd(optimizer: SGD, t: int, W: Array, g: Array, v: Array | None = None) -> None:
    """Polyak 1964, Nesterov 1983 as Sutskever et al. 2013 write it."""
    lr, mu = optimizer.learning_rate, optimizer.momentum
    g = _decayed(optimizer, W, g)
    if v is None:
        # W := W - lr g
        W -= lr * g
    elif optimizer.velocity == "gradient":
        # v := mu v + g;  W := W - lr v, Nesterov W - lr (g + mu v): torch's SGD, optax's trace then -lr
        v *= mu
        v += g
        W -= lr * (g + mu * v if optimizer.nesterov else v)
    else:
        # v := mu v - lr g;  W := W + v, Nesterov W + mu v - lr g: Keras's SGD; Sutskever's eq. 1 and 3
        v *= mu
        v -= lr * g
        W += mu * v - lr * g if optimizer.nesterov else v


def adagrad(optimizer: Adagrad, t: int, W: Array, g: Array, s: Array) -> None:
    """Duchi et al., JMLR 12 (2011), figure 1."""
    # s := s + g²
    s += g * g
    # W := W - lr g / (√s + ε), or / √(s + ε)
    W -= optimizer.learning_rate * g / _root(s, optimizer)


def rmsprop(optimizer: RMSprop, t: int, W: Array, g: Array, s: Array, b: Array | None = None) -> None:
    """Hinton's Coursera lecture 6e; momentum after the division, as Graves, arXiv:1308.0850, eq. 38 to 45."""
    lr, rho, mu = optimizer.learning_rate, optimizer.rho, optimizer.momentum
    # s := rho s + (1 - rho) g²
    s *= rho
    s += (1 - rho) * (g * g)
    scaled = g / _root(s, optimizer)
    if b is None:
        # W := W - lr g / root
        W -= lr * scaled
    elif optimizer.velocity == "gradient":
        # b := mu b + g / root;  W := W - lr b: torch's RMSprop
        b *= mu
        b += scaled
        W -= lr * b
    else:
        # b := mu b + lr g / root;  W := W - b: Keras's RMSprop; optax's too, which scales by -lr before its trace
        b *= mu
        b += lr * scaled
        W -= b


def adam(optimizer: Adam, corrections: Corrections, t: int, W: Array, g: Array, m: Array, v: Array) -> None:
    """Kingma and Ba, arXiv:1412.6980, algorithm 1; AdamW: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2."""
    lr, beta_1, beta_2 = optimizer.learning_rate, optimizer.beta_1, optimizer.beta_2
    epsilon = cast(float, optimizer.epsilon)
    g = _decayed(optimizer, W, g)
    # m := β1 m + (1 - β1) g;  v := β2 v + (1 - β2) g²
    m *= beta_1
    m += (1 - beta_1) * g
    v *= beta_2
    v += (1 - beta_2) * (g * g)
    c1, c2 = corrections(t)
    if optimizer.epsilon_placement == "after_correction":
        # m̂ = m / c1, v̂ = v / c2;  W := W - lr m̂ / (√v̂ + ε): algorithm 1, torch, optax
        W -= lr * (m / c1) / (np.sqrt(v / c2) + epsilon)
    else:
        # W := W - (lr √c2 / c1) m / (√v + ε̂): section 2's "efficient" order, Keras
        W -= (lr * c2**0.5 / c1) * m / (np.sqrt(v) + epsilon)


def bias_corrections(optimizer: Adam, dtype: np.dtype, leaks: bool, t: int) -> tuple[float, float]:
    """c1 = 1 - β1ᵗ and c2 = 1 - β2ᵗ, in Python's double whatever the run's precision, as torch's.

    A leak is what Keras 3.15 does (keras/src/optimizers/adam.py, `ops.cast(self.beta_1, dtype)` by way of float32):
    β is rounded through float32, power and difference are formed in the run's precision.
    """
    if leaks:
        real = dtype.type
        return tuple(1 - real(np.float32(beta)) ** real(t) for beta in (optimizer.beta_1, optimizer.beta_2))  # type: ignore[return-value]
    return tuple(1 - constant(beta, dtype, False) ** t for beta in (optimizer.beta_1, optimizer.beta_2))  # type: ignore[return-value]


def _decayed(optimizer: SGD | Adam, W: Array, g: Array) -> Array:
    """The gradient that the update sees; decoupled decay shrinks W at once and leaves g alone."""
    if not optimizer.weight_decay:
        return g
    if optimizer.decay == "coupled":
        # g := g + λ W: the gradient of L + λ|W|²/2
        return g + optimizer.weight_decay * W
    # W := W - lr λ W, before the step
    W -= (optimizer.learning_rate * optimizer.weight_decay) * W
    return g


def _root(s: Array, optimizer: Adagrad | RMSprop) -> Array:
    epsilon = cast(float, optimizer.epsilon)
    # √(s + ε): Keras, optax;  √s + ε: torch
    return np.sqrt(s + epsilon) if optimizer.epsilon_placement == "inside_sqrt" else np.sqrt(s) + epsilon
