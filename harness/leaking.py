"""Is a difference a constant that one framework itself rounds to float32? Proven by rounding it on paper, or on the
other side, and seeing the difference vanish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from harness.case import PRECISIONS, SGD, Adam, Optimizer, Precision, RMSprop, fields_of, slot_names
from harness.comparing import Measures
from harness.following import Follower, Plan, Taken, measures_of, parameters_of, retake, shown
from harness.judging import K
from harness.recipe import Batch, Forced
from harness.views import Link, see_gradient, see_value
from reference.optimizers import initial_slots, update_rule

TOGETHER = 3
"""So many constants of one optimizer leak at once at the most."""


def leaking_rule(
    plan: Plan, sides: tuple[Follower, Follower], reference: Taken, alone: Taken, own: Measures
) -> tuple[str, tuple[str, ...]] | None:
    """The side and the smallest set of its optimizer's constants that, rounded through float32, explain every
    difference of the updates; None where none does. `alone`: the candidate's step on the reference's gradients."""
    updates = [i for i, quantity in enumerate(plan.compared) if quantity.kind == "update"]
    for side in sides[::-1]:
        rule = side.watched["float64"].optimizer
        for constants in _possible(rule) if rule else ():
            for i in updates:
                link = plan.compared[i].link
                assert rule is not None
                assert link is not None
                moved = _update(rule, link, reference, constants) - _update(rule, link, reference, ())
                one, other = shown(plan.compared[i], reference, alone)
                left = one - (other - moved) if side is sides[1] else (one - moved) - other
                if not np.abs(left).max() <= K * own.budget[0, i]:
                    break
            else:
                return side.name, constants
    return None


def _possible(rule: Optimizer) -> list[tuple[str, ...]]:
    """Sets of constants that a passage through float32 would change, the smallest first."""
    names = [n for n, v in fields_of(rule).items() if isinstance(v, float) and float(np.float32(v)) != v]
    if isinstance(rule, Adam):
        names.append("bias_correction")
    return [constants for size in range(1, TOGETHER + 1) for constants in combinations(names, size)]


def _update(rule: Optimizer, link: Link, reference: Taken, constants: tuple[str, ...]) -> np.ndarray:
    """The rule's update of one parameter from the reference's state and gradient, in float64."""
    if isinstance(rule, SGD | RMSprop):
        rule = replace(rule, velocity="gradient")  # the canonical slot's unit
    before, gradients = reference.before["float64"], reference.records["float64"].gradients
    W = see_value(link.reference, before.values).astype(np.float64)  # noqa: N806
    given = {
        n: before.values[n] * 0 if gradients.get(n) is None else gradients[n] for n in parameters_of(link.reference)
    }
    gradient = see_gradient(link.reference, given)
    slots = []
    for k, slot in enumerate(slot_names(rule)):
        held = see_gradient(link.reference, before.slots.get(slot, {}))
        fresh = initial_slots(rule, W.size).reshape(-1, W.size)[k].reshape(W.shape)
        slots.append(fresh if held is None else held.astype(np.float64))
    after = W.copy()
    update_rule(rule, np.dtype(np.float64), constants)(before.count + 1, after, np.array(gradient), *slots)
    return after - W


def leaking_call(
    plan: Plan,
    sides: tuple[Follower, Follower],
    batches: tuple[Mapping[Precision, Batch], Mapping[Precision, Batch]],
    reference: Taken,
    alone: Taken,
    forced: tuple[Mapping[Precision, Forced], Mapping[Precision, Forced]],
    alarms: np.ndarray,
) -> tuple[str, str] | None:
    """Of two sides, the one on which rounding each number given to a function through float32 makes the alarms vanish,
    and the other, which so is proven to do it by itself."""
    for k, side in enumerate(sides):
        leaking: dict[Precision, Forced] = {p: replace(forced[k][p], float32_constants=True) for p in PRECISIONS}
        again = retake(side, (reference, alone)[k].before, batches[k], leaking)
        pair = (again, alone) if k == 0 else (reference, again)
        if (measures_of(plan, *pair).ratio[0, alarms] <= K).all():
            return side.name, sides[1 - k].name
    return None
