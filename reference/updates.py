"""The update of every optimizer that users bring, in place on arrays of any shape: W, its gradient g, then the slots.

t counts updates from 1. Formulas were checked against torch 2.13 torch/optim/{sgd,adagrad,adadelta,rmsprop,adam,adamax,
nadam,radam}.py (_single_tensor_*), Keras 3.15 keras/src/optimizers/{sgd,adagrad,adadelta,rmsprop,adam,adamax,nadam,
lion,base_optimizer}.py and optax 0.2.8 optax/_src/transform.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np

from harness.rules import SGD, Adadelta, Adagrad, Adam, Adamax, Lion, Nadam, Optimizer, RAdam, RMSprop

Array = np.ndarray
Update = Callable[..., None]
Corrections = Callable[[int], tuple[float, float]]


def update_rule(optimizer: Optimizer, leaked: tuple[str, ...] = ()) -> Update:
    """update(t, W, g, *slots), the slots in the order of `slot_names`.

    leaked: the fields that pass through float32; "bias_correction" for the betas in 1 - beta^t alone;
    "momentum_product" for Nadam's M_t (its factors else keep their digits, as in Keras, whatever fields leak).
    """
    acting = through_float32(optimizer, leaked)
    match acting:
        case SGD():
            return partial(sgd, acting)
        case Adagrad():
            return partial(adagrad, acting)
        case Adadelta():
            return partial(adadelta, acting)
        case RMSprop():
            return partial(rmsprop, acting)
        case Lion():
            return partial(lion, acting)
    betas = ("beta_1", "beta_2") if "bias_correction" in leaked else ()
    correcting = through_float32(optimizer, betas)
    match acting, correcting, optimizer:
        case Adam(), Adam(), _:
            return partial(adam, acting, partial(bias_corrections, correcting))
        case Adamax(), Adamax(), _:
            return partial(adamax, acting, correcting)
        case RAdam(), RAdam(), _:
            return partial(radam, acting, correcting)
        case Nadam(), Nadam(), Nadam():
            product = partial(momentum_product, optimizer, "momentum_product" in leaked)
            return partial(nadam, acting, correcting, product)
    raise TypeError(f"no update rule for {type(optimizer).__name__}")


def through_float32(optimizer: Optimizer, names: tuple[str, ...]) -> Optimizer:
    numbers = {field.name: getattr(optimizer, field.name) for field in dataclasses.fields(optimizer)}
    rounded = {k: float(np.float32(v)) for k, v in numbers.items() if k in names and isinstance(v, float)}
    return dataclasses.replace(optimizer, **rounded)


def sgd(optimizer: SGD, t: int, W: Array, g: Array, v: Array | None = None) -> None:
    """Polyak 1964, Nesterov 1983 as Sutskever et al. 2013 write it."""
    lr, mu = optimizer.learning_rate, optimizer.momentum
    g = _decayed(optimizer, W, g)
    if v is None:
        # W := W - lr g
        W -= lr * g
        return
    undamped = t == 1 and optimizer.first_velocity == "undampened"
    part = 1 if undamped else 1 - optimizer.dampening
    if optimizer.velocity == "gradient":
        # v := mu v + (1-d) g;  W := W - lr v, Nesterov W - lr (g + mu v)
        v *= mu
        v += g if part == 1 else part * g
        W -= lr * (g + mu * v if optimizer.nesterov else v)
    else:
        # v := mu v - lr (1-d) g;  W := W + v, Nesterov W + mu v - lr g
        v *= mu
        v -= lr * part * g
        W += mu * v - lr * g if optimizer.nesterov else v


def adagrad(optimizer: Adagrad, t: int, W: Array, g: Array, s: Array) -> None:
    """Duchi et al., JMLR 12 (2011), figure 1."""
    g = _decayed(optimizer, W, g)
    # s := s + g²;  W := W - lr_t g / (√s + ε), or / √(s + ε)
    s += g * g
    W -= optimizer.learning_rate / (1 + (t - 1) * optimizer.rate_decay) * g / _root(s, optimizer)


def adadelta(optimizer: Adadelta, t: int, W: Array, g: Array, s: Array, u: Array) -> None:
    """Zeiler, arXiv:1212.5701, algorithm 1."""
    rho, eps = optimizer.rho, optimizer.epsilon
    g = _decayed(optimizer, W, g)
    # s := ρ s + (1-ρ) g²;  d = √(u + ε) / √(s + ε) g;  u := ρ u + (1-ρ) d²;  W := W - lr d
    _average(s, rho, g * g)
    d = np.sqrt(u + eps) / np.sqrt(s + eps) * g
    _average(u, rho, d * d)
    W -= optimizer.learning_rate * d


def rmsprop(optimizer: RMSprop, t: int, W: Array, g: Array, s: Array, *others: Array) -> None:
    """Hinton's Coursera lecture 6e; momentum and centering as Graves, arXiv:1308.0850, eq. 38 to 45."""
    lr, rho, mu = optimizer.learning_rate, optimizer.rho, optimizer.momentum
    g = _decayed(optimizer, W, g)
    # s := ρ s + (1-ρ) g²;  centered: a := ρ a + (1-ρ) g, s - a² in the root
    _average(s, rho, g * g)
    if optimizer.centered:
        a = others[0]
        _average(a, rho, g)
        s = s - a * a
    step = g / _root(s, optimizer)
    if not mu:
        W -= lr * step
        return
    # b := mu b + step;  W := W - lr b; or the rate inside: b := mu b + lr step;  W := W - b
    b = others[-1]
    b *= mu
    b += step if optimizer.velocity == "gradient" else lr * step
    W -= lr * b if optimizer.velocity == "gradient" else b


def adam(
    optimizer: Adam,
    corrections: Corrections,
    t: int,
    W: Array,
    g: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
) -> None:
    """Kingma and Ba, arXiv:1412.6980, algorithm 1; AMSGrad: Reddi et al., ICLR 2018, algorithm 2; AdamW: Loshchilov and
    Hutter, arXiv:1711.05101, algorithm 2."""
    lr, eps = optimizer.learning_rate, optimizer.epsilon
    g = _decayed(optimizer, W, g)
    # m := β1 m + (1 - β1) g;  v := β2 v + (1 - β2) g²
    _average(m, optimizer.beta_1, g)
    _average(v, optimizer.beta_2, g * g)
    c1, c2 = corrections(t)
    if v_max is not None:
        np.maximum(v_max, v / c2 if optimizer.amsgrad == "corrected" else v, out=v_max)
        v, c2 = v_max, 1.0 if optimizer.amsgrad == "corrected" else c2
    match optimizer.epsilon_placement:
        case "after_correction":
            # m̂ = m / c1, v̂ = v / c2;  W := W - lr m̂ / (√v̂ + ε)
            W -= lr * (m / c1) / (np.sqrt(v / c2) + eps)
        case "before_correction":
            # W := W - (lr √c2 / c1) m / (√v + ε̂): section 2's "efficient" order
            W -= (lr * c2**0.5 / c1) * m / (np.sqrt(v) + eps)
        case "inside_sqrt":
            W -= lr * (m / c1) / np.sqrt(v / c2 + eps)


def bias_corrections(correcting: Adam, t: int) -> tuple[float, float]:
    """c1 = 1 - β1ᵗ and c2 = 1 - β2ᵗ, 1 where it does not act."""
    which = correcting.bias_correction
    c1 = 1 - correcting.beta_1**t if which in ("both", "first") else 1.0
    return c1, 1 - correcting.beta_2**t if which in ("both", "second") else 1.0


def adamax(optimizer: Adamax, correcting: Adamax, t: int, W: Array, g: Array, m: Array, u: Array) -> None:
    """Kingma and Ba, arXiv:1412.6980, algorithm 2."""
    eps, on_gradient = optimizer.epsilon, optimizer.epsilon_placement == "on_gradient"
    g = _decayed(optimizer, W, g)
    # m := β1 m + (1 - β1) g;  u := max(β2 u, |g|);  W := W - lr / (1 - β1ᵗ) m / u, ε in one of both
    _average(m, optimizer.beta_1, g)
    np.maximum(optimizer.beta_2 * u, np.abs(g) + (eps if on_gradient else 0), out=u)
    W -= optimizer.learning_rate / (1 - correcting.beta_1**t) * m / (u if on_gradient else u + eps)


def nadam(
    optimizer: Nadam,
    correcting: Nadam,
    product: Callable[[int], float],
    t: int,
    W: Array,
    g: Array,
    m: Array,
    v: Array,
) -> None:
    """Dozat, ICLR 2016 workshop, algorithm 2. product(t): M_t."""
    g = _decayed(optimizer, W, g)
    _average(m, optimizer.beta_1, g)
    _average(v, optimizer.beta_2, g * g)
    # μ_t = β1 (1 - δ 0.96^(tψ)), M_t = μ_1 ... μ_t
    mu, following, M = _momentum(optimizer, t), _momentum(optimizer, t + 1), product(t)
    # m̂ = μ_{t+1} m / (1 - M_{t+1}) + (1 - μ_t) g / (1 - M_t);  v̂ = v / (1 - β2ᵗ);  W := W - lr m̂ / (√v̂ + ε)
    m_hat = following * m / (1 - M * following) + (1 - mu) * g / (1 - M)
    W -= optimizer.learning_rate * m_hat / (np.sqrt(v / (1 - correcting.beta_2**t)) + optimizer.epsilon)


def momentum_product(optimizer: Nadam, leaks: bool, t: int) -> float:
    """M_t. A leak is what torch 2.13 does, which keeps it in a float32 tensor (torch/optim/nadam.py, mu_product)."""
    M = np.float32(1) if leaks else 1.0
    for i in range(1, t + 1):
        M *= type(M)(_momentum(optimizer, i))
    return float(M)


def _momentum(optimizer: Nadam, t: int) -> float:
    shrunk = optimizer.momentum_damping * optimizer.decay_base ** (t * optimizer.momentum_decay)
    return optimizer.beta_1 * (1 - shrunk)


def radam(optimizer: RAdam, correcting: RAdam, t: int, W: Array, g: Array, m: Array, v: Array) -> None:
    """Liu et al., arXiv:1908.03265, algorithm 2."""
    beta_2, eps = correcting.beta_2, optimizer.epsilon
    g = _decayed(optimizer, W, g)
    _average(m, optimizer.beta_1, g)
    _average(v, optimizer.beta_2, g * g)
    c1, c2 = 1 - correcting.beta_1**t, 1 - beta_2**t
    # ρ∞ = 2/(1-β2) - 1, ρ_t = ρ∞ - 2 t β2ᵗ / (1 - β2ᵗ)
    limit = 2 / (1 - beta_2) - 1
    length = limit - 2 * t * beta_2**t / c2
    step = optimizer.learning_rate * (m / c1)
    if length > optimizer.threshold:
        # r = √((ρ_t - 4)(ρ_t - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ_t));  W := W - lr r m̂ / (√v̂ + ε)
        r = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)) ** 0.5
        step = step * r
        if optimizer.epsilon_placement == "after_correction":
            step = step / (np.sqrt(v / c2) + eps)
        else:
            step = step * c2**0.5 / (np.sqrt(v) + eps)
    # else W := W - lr m̂
    W -= step


def lion(optimizer: Lion, t: int, W: Array, g: Array, m: Array) -> None:
    """Chen et al., arXiv:2302.06675, program 1."""
    beta_1 = optimizer.beta_1
    g = _decayed(optimizer, W, g)
    # W := W - lr sign(β1 m + (1 - β1) g);  m := β2 m + (1 - β2) g
    W -= optimizer.learning_rate * np.sign(beta_1 * m + (1 - beta_1) * g)
    _average(m, optimizer.beta_2, g)


def _average(mean: Array, beta: float, value: Array) -> None:
    # m := β m + (1 - β) x
    mean *= beta
    mean += (1 - beta) * value


def _root(s: Array, optimizer: Adagrad | RMSprop) -> Array:
    # √(s + ε): Keras, optax;  √s + ε: torch
    eps = optimizer.epsilon
    return np.sqrt(s + eps) if optimizer.epsilon_placement == "inside_sqrt" else np.sqrt(s) + eps


def _decayed(optimizer: Optimizer, W: Array, g: Array) -> Array:
    """The gradient that the update sees; decay that is not coupled shrinks W at once and leaves g alone."""
    if not optimizer.weight_decay:
        return g
    if optimizer.decay == "coupled":
        # g := g + λ W: the gradient of L + λ|W|²/2
        return g + optimizer.weight_decay * W
    # W := W - lr λ W, or W - λ W
    W -= (optimizer.learning_rate if optimizer.decay == "decoupled" else 1) * optimizer.weight_decay * W
    return g
