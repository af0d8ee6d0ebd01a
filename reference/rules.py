"""From gradients to new parameters: accumulated, clipped, and updated at the schedule's rate, parameter by parameter.

Clipping was checked against torch 2.13 torch/nn/utils/clip_grad.py, Keras 3.15 keras/src/optimizers/base_optimizer.py
and optax 0.2.8 optax/transforms/_clipping.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from harness.rules import Accumulation, Adam, Adamax, Clipping, Nadam, Optimizer, RAdam, Rule, slot_names
from reference.objectives import in_scope
from reference.rates import rate
from reference.updates import through_float32, update_rule

Array = np.ndarray
Slots = Mapping[str, Array]


def updated(
    optimizer: Optimizer, t: int, W: Array, g: Array, slots: Slots, leaked: tuple[str, ...] = ()
) -> tuple[Array, dict[str, Array]]:
    """One parameter and its slots by name behind update t; the given arrays stay. leaked: see `update_rule`."""
    W, after = W.copy(), {name: slots[name].copy() for name in slot_names(optimizer)}
    update_rule(optimizer, leaked)(t, W, g, *after.values())
    return W, after


def initial_slots(optimizer: Optimizer, W: Array, leaked: tuple[str, ...] = ()) -> dict[str, Array]:
    """The slots of one parameter before the first update."""
    acting = through_float32(optimizer, leaked)
    first = {
        "accumulator": getattr(acting, "initial_accumulator", 0.0),
        "mean_square": getattr(acting, "initial_mean_square", 0.0),
    }
    return {name: np.full_like(W, first.get(name, 0.0)) for name in slot_names(optimizer)}


def possible_leaks(optimizer: Optimizer) -> tuple[str, ...]:
    """What `leaked` may name: the constants of an optimizer that a passage through float32 would change."""
    numbers = {field.name: getattr(optimizer, field.name) for field in dataclasses.fields(optimizer)}
    inexact = [
        name for name, value in numbers.items() if isinstance(value, float) and float(np.float32(value)) != value
    ]
    if isinstance(optimizer, Adam | Adamax | Nadam | RAdam) and {"beta_1", "beta_2"} & set(inexact):
        inexact.append("bias_correction")
    return (*inexact, "momentum_product") if isinstance(optimizer, Nadam) else tuple(inexact)


def updated_all(
    rule: Rule,
    t: int,
    epoch: int,
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    slots: Mapping[str, Slots],
    leaked: tuple[str, ...] = (),
) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """All parameters behind update t, and their slots by slot, then by parameter, as `harness.recipe.State` has them.

    epoch: from 0. gradients: `piled`, not yet averaged or clipped. What is not trained stays, and does not count in the
    norm.
    leaked: see `update_rule`; "learning_rate" is the schedule's.
    """
    lr = rate_of(rule, t, epoch)
    share = 1 / rule.accumulation.every if rule.accumulation.combine == "mean" else 1
    trained = {name: g * share for name, g in gradients.items() if in_scope(rule.trained, name, values[name])}
    trained = trained if rule.clipping is None else clipped_gradients(rule.clipping, trained)
    trained = {name: -g for name, g in trained.items()} if rule.maximize else trained
    after, moved = dict(values), {slot: dict(owned) for slot, owned in slots.items()}
    multiples = dict(rule.multiples)
    for name, g in trained.items():
        W = values[name]
        decay = rule.optimizer.weight_decay if in_scope(rule.decayed, name, W) else 0.0
        optimizer = dataclasses.replace(rule.optimizer, learning_rate=lr * multiples.get(name, 1.0), weight_decay=decay)
        own = {slot: slots[slot][name] for slot in slot_names(optimizer)}
        after[name], own = updated(optimizer, t, W, g, own, leaked)
        for slot, value in own.items():
            moved[slot][name] = value
    return after, moved


def rate_of(rule: Rule, t: int, epoch: int) -> float:
    """The schedule's rate at update t, in an epoch from 0."""
    counted = {"update": t - 1, "pass": t * rule.accumulation.every - 1, "epoch": epoch}[rule.schedule_every]
    return rate(rule.schedule, rule.optimizer.learning_rate, rule.first_position + counted)


def clipped_gradients(clipping: Clipping, gradients: Mapping[str, Array]) -> dict[str, Array]:
    limit = clipping.limit
    if clipping.by == "value":
        return {name: np.clip(g, -limit, limit) for name, g in gradients.items()}
    norms = {name: np.linalg.norm(g.reshape(-1), clipping.order) for name, g in gradients.items()}
    if clipping.by == "global_norm":
        # Pascanu et al., arXiv:1211.5063, algorithm 1; the norm of all is the norm of the norms
        norms = dict.fromkeys(norms, np.linalg.norm(list(norms.values()), clipping.order))
    # g := g min(1, c / (N + ε))
    bounded = {name: max(float(norm) + clipping.epsilon, limit) for name, norm in norms.items()}
    return {name: g * (limit / bounded[name]) if bounded[name] else g for name, g in gradients.items()}


def piled(accumulation: Accumulation, passes: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The sum of the gradients that an update sees, after all backward passes so far, of which `every` belong to it."""
    counted = passes[-accumulation.every :] if accumulation.cleared else passes
    return {name: sum((g[name] for g in counted[1:]), counted[0][name]) for name in counted[0]}
