"""optax's losses, optimizers, clipping and schedules: the reference computes the same in float64.

optax's transformations are closures that do not say what they are: there is nothing to read, so the reference's own
words for each stand here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.objectives import Loss, Targets
from harness.rules import SGD, Adadelta, Adagrad, Adam, Adamax, Clipping, Lion, Nadam, Optimizer, RAdam, RMSprop
from harness.schedules import Cosine, Exponential, Piecewise, Polynomial, Schedule, Warmup
from harness.terms import (
    BinaryCrossEntropy,
    BinaryFocal,
    CategoricalHinge,
    CosineSimilarity,
    CrossEntropy,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    SquaredError,
    Term,
)
from reference.objectives import value_and_gradient
from reference.rates import rate
from reference.rules import clipped_gradients, initial_slots, updated

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402 (what comes before may skip the whole file)

RNG = np.random.default_rng(5)
ROWS, CLASSES, STEPS = 6, 4, 9
LOGITS, TARGETS = RNG.normal(size=(ROWS, CLASSES)) * 3, RNG.normal(size=(ROWS, CLASSES))
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), ROWS)
INDICES, BITS = RNG.integers(CLASSES, size=ROWS), RNG.integers(2, size=(ROWS, CLASSES)).astype(float)

VALUES = Targets(form="values", alignment="broadcast", smoothing=0.0, spread="all", ignore_index=None, labels=())
ENTROPY = BinaryCrossEntropy(
    reads="logits", clip=None, log_epsilon=0.0, log_floor=-math.inf, denominator_floor=0.0, positive_weight=()
)
ROWWISE = CrossEntropy(reads="logits", axis=-1, renormalize="none", clip=None, log_epsilon=0.0)
KL = KLDivergence(reads="log_probabilities", log_target=False, clip=None, target_clip=None)
CRAMMER = CategoricalHinge(margin=1.0, power=1, over="worst", zero_at_target=False, ties="split", slope_at_margin=0.5)

LOSSES: dict[str, tuple[Callable[..., Any], Term, np.ndarray, np.ndarray]] = {
    "squared": (optax.squared_error, SquaredError(half=False), LOGITS, TARGETS),
    "l2": (optax.l2_loss, SquaredError(half=True), LOGITS, TARGETS),
    "huber": (
        lambda q, y: optax.huber_loss(q, y, delta=0.7),
        Huber(delta=0.7, divided_by_delta=False, half=True),
        LOGITS,
        TARGETS,
    ),
    "log cosh": (optax.log_cosh, LogCosh(log_2=math.log(2)), LOGITS, TARGETS),
    "cosine": (
        optax.cosine_distance,
        CosineSimilarity(from_one=True, epsilon=0.0, epsilon_placement="floor"),
        LOGITS,
        TARGETS,
    ),
    "cosine, floor": (
        lambda q, y: optax.cosine_distance(q, y, epsilon=9.0),
        CosineSimilarity(from_one=True, epsilon=3.0, epsilon_placement="floor"),
        LOGITS / 3,
        TARGETS,
    ),
    "sigmoid": (optax.sigmoid_binary_cross_entropy, ENTROPY, LOGITS * 10, BITS),
    "focal": (
        lambda q, y: optax.sigmoid_focal_loss(q, y, alpha=0.3, gamma=1.5),
        BinaryFocal(entropy=ENTROPY, gamma=1.5, alpha=0.3),
        LOGITS,
        BITS,
    ),
    "hinge": (
        optax.hinge_loss,
        Hinge(margin=1.0, power=1, labels="signs", slope_at_margin=0.5),
        LOGITS,
        2 * BITS - 1,
    ),
    "hinge at its margin": (
        optax.hinge_loss,
        Hinge(margin=1.0, power=1, labels="signs", slope_at_margin=0.5),
        2 * BITS - 1,
        2 * BITS - 1,
    ),
    "softmax": (optax.softmax_cross_entropy, ROWWISE, LOGITS, PROBABILITIES),
    "integers": (optax.softmax_cross_entropy_with_integer_labels, ROWWISE, LOGITS, INDICES),
    "crammer": (optax.losses.multiclass_hinge_loss, CRAMMER, LOGITS, INDICES),
    "kl": (optax.losses.kl_divergence, KL, np.log(PROBABILITIES), PROBABILITIES[::-1].copy()),
    "kl of 0": (optax.losses.kl_divergence, KL, np.log(PROBABILITIES), BITS),
    "kl, log targets": (
        optax.losses.kl_divergence_with_log_targets,
        dataclasses.replace(KL, log_target=True),
        np.log(PROBABILITIES),
        np.log(PROBABILITIES[::-1]),
    ),
}


def close(found: np.ndarray, expected: Any, bound: float = 1e-13) -> bool:
    expected = np.asarray(expected)
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= bound * np.abs(expected).max())


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    own, term, q, y = LOSSES[name]
    loss = Loss(
        term=term,
        targets=dataclasses.replace(VALUES, form="indices" if y.dtype == int else "values"),
        inner="sum" if name.startswith("kl") else "none",
        reduction="none",
        class_weights=(),
        class_weighting="rows",
        factor=1.0,
        offset=0.0,
    )
    L, dq = value_and_gradient(loss, q, y)
    with jax.enable_x64(True):
        assert close(L, own(jnp.asarray(q), jnp.asarray(y)))
        assert close(dq, jax.grad(lambda x: own(x, jnp.asarray(y)).sum())(jnp.asarray(q)))


PLAIN: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.0, "decay": "coupled"}
BETAS: dict[str, Any] = {"beta_1": 0.8, "beta_2": 0.6}
MOMENTUM = SGD(momentum=0.9, dampening=0.0, first_velocity="zero", nesterov=False, velocity="gradient", **PLAIN)
ROOT_MEAN = RMSprop(
    rho=0.8,
    momentum=0.0,
    epsilon=1e-3,
    epsilon_placement="inside_sqrt",
    centered=False,
    velocity="step",
    initial_mean_square=0.0,
    **PLAIN,
)
ADAM = Adam(**BETAS, epsilon=1e-3, epsilon_placement="after_correction", bias_correction="both", amsgrad="no", **PLAIN)
OPTIMIZERS: dict[str, tuple[Callable[[], Any], Optimizer]] = {
    "sgd": (lambda: optax.sgd(0.1), dataclasses.replace(MOMENTUM, momentum=0.0)),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), MOMENTUM),
    "nesterov": (lambda: optax.sgd(0.1, momentum=0.9, nesterov=True), dataclasses.replace(MOMENTUM, nesterov=True)),
    "adagrad": (
        lambda: optax.adagrad(0.1, initial_accumulator_value=0.2, eps=1e-3),
        Adagrad(rate_decay=0.0, initial_accumulator=0.2, epsilon=1e-3, epsilon_placement="inside_sqrt", **PLAIN),
    ),
    "adadelta": (
        lambda: optax.adadelta(0.1, rho=0.8, eps=1e-3, weight_decay=0.05),
        Adadelta(rho=0.8, epsilon=1e-3, **{**PLAIN, "weight_decay": 0.05}),
    ),
    "rmsprop": (lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3), ROOT_MEAN),
    "rmsprop, outside, from 1": (
        lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3, eps_in_sqrt=False, initial_scale=1.0),
        dataclasses.replace(ROOT_MEAN, epsilon_placement="outside_sqrt", initial_mean_square=1.0),
    ),
    "rmsprop, centered": (
        lambda: optax.rmsprop(0.1, decay=0.8, eps=1e-3, centered=True, momentum=0.7),
        dataclasses.replace(ROOT_MEAN, centered=True, momentum=0.7),
    ),
    "adam": (lambda: optax.adam(0.1, b1=0.8, b2=0.6, eps=1e-3), ADAM),
    "adam, root": (
        lambda: optax.adam(0.1, b1=0.8, b2=0.6, eps=0.0, eps_root=1e-3),
        dataclasses.replace(ADAM, epsilon_placement="inside_sqrt"),
    ),
    "adamw": (
        lambda: optax.adamw(0.1, b1=0.8, b2=0.6, eps=1e-3, weight_decay=0.05),
        dataclasses.replace(ADAM, weight_decay=0.05, decay="decoupled"),
    ),
    "amsgrad": (
        lambda: optax.amsgrad(0.1, b1=0.8, b2=0.6, eps=1e-3),
        dataclasses.replace(ADAM, amsgrad="corrected"),
    ),
    "adamax": (
        lambda: optax.adamax(0.1, b1=0.8, b2=0.6, eps=1e-3),
        Adamax(**BETAS, epsilon=1e-3, epsilon_placement="on_gradient", **PLAIN),
    ),
    "nadam": (
        lambda: optax.nadam(0.1, b1=0.8, b2=0.6, eps=1e-3),
        Nadam(**BETAS, epsilon=1e-3, momentum_damping=0.0, momentum_decay=1.0, decay_base=0.96, **PLAIN),
    ),
    "radam": (
        lambda: optax.radam(0.1, b1=0.8, b2=0.9, eps=1e-3),
        RAdam(**{**BETAS, "beta_2": 0.9}, epsilon=1e-3, epsilon_placement="after_correction", threshold=5.0, **PLAIN),
    ),
    "lion": (
        lambda: optax.lion(0.1, b1=0.8, b2=0.6, weight_decay=0.05),
        Lion(**BETAS, **{**PLAIN, "weight_decay": 0.05, "decay": "decoupled"}),
    ),
}


def wide(state: Any) -> Any:
    """Counts as int64: of int32 ones JAX makes float32 (frameworks/optax_state.py, _wide_count)."""
    return jax.tree.map(lambda leaf: leaf.astype(int) if leaf.dtype == np.int32 else leaf, state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    build, optimizer = OPTIMIZERS[name]
    start = RNG.normal(size=5)
    W, slots = start, initial_slots(optimizer, start)
    with jax.enable_x64(True):
        transformation, own = build(), jnp.asarray(start)
        state = wide(transformation.init(own))
        for t in range(1, STEPS + 1):
            g = RNG.normal(size=5)
            updates, state = transformation.update(jnp.asarray(g), state, own)
            own, state = optax.apply_updates(own, updates), wide(state)
            W, slots = updated(optimizer, t, W, g, slots)
            assert close(W, own), t


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping(limit: float) -> None:
    g = {"W": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}
    clipping = Clipping(by="global_norm", limit=limit, epsilon=0.0, order=2.0)
    for own, by in ((optax.clip_by_global_norm, "global_norm"), (optax.clip, "value")):
        found = clipped_gradients(dataclasses.replace(clipping, by=by), g)
        with jax.enable_x64(True):
            tree = {name: jnp.asarray(value) for name, value in g.items()}
            expected, _ = own(limit).update(tree, own(limit).init(tree))
            assert all(close(found[name], expected[name]) for name in g)


COSINE = Cosine(length=5.0, end_rate=0.03, beyond="stays", stretch=1.0, shrink=1.0)
SCHEDULES: dict[str, tuple[Callable[[], Any], Schedule]] = {
    "exponential": (
        lambda: optax.exponential_decay(0.3, 3, 0.9),
        Exponential(factor=0.9, every=3.0, staircase=False),
    ),
    "staircase": (
        lambda: optax.exponential_decay(0.3, 3, 0.9, staircase=True),
        Exponential(factor=0.9, every=3.0, staircase=True),
    ),
    "cosine": (lambda: optax.cosine_decay_schedule(0.3, 5, alpha=0.1), COSINE),
    "polynomial": (
        lambda: optax.polynomial_schedule(0.3, 0.01, 1.7, 5),
        Polynomial(length=5.0, end_rate=0.01, power=1.7, cycle=False),
    ),
    "piecewise": (
        lambda: optax.piecewise_constant_schedule(0.3, {2: 0.5, 5: 0.1}),
        Piecewise(boundaries=(2.0, 5.0), rates=(0.3, 0.15, 0.015), at_boundary="next"),
    ),
    "warmup": (
        lambda: optax.warmup_cosine_decay_schedule(0.1, 0.3, 4, 9, 0.03),
        Warmup(length=4.0, start_rate=0.1, then=COSINE),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    build, schedule = SCHEDULES[name]
    with jax.enable_x64(True):
        own = build()
        for t in range(15):
            assert rate(schedule, 0.3, t) == pytest.approx(float(own(jnp.asarray(t))), rel=1e-13)
