"""Why updates differ: both sides' rules from the same gradients, as the reference computes them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.editing import Alternatives, Parts, Puzzle, apart, solved_for
from harness.elsewhere import Moment
from harness.following import Taken, or_zero, parameters_of, shown
from harness.judging import K
from harness.owning import Own
from harness.questions.scopes import in_common, made_updates, trained_links, values_of
from harness.recipe import State
from harness.rules import SGD, Adam, Clipping, Optimizer, Rule
from harness.schedules import Constant, Cosine, Exponential, InverseTime, Polynomial
from harness.solving import Question
from harness.views import Link, see_gradient
from reference.rules import initial_slots, possible_leaks, rate_of, updated_all

MOST = 64
"""Sets of leaks that are tried."""

CLIPPINGS = (
    *(Clipping(by="global_norm", limit=1.0, epsilon=1e-6, order=order) for order in (2.0, 1.0, math.inf)),
    Clipping(by="global_norm", limit=1.0, epsilon=0.0, order=2.0),
    Clipping(by="variable_norm", limit=1.0, epsilon=0.0, order=2.0),
    Clipping(by="value", limit=1.0, epsilon=0.0, order=2.0),
)
"""Clippings tried where a side's is not known; the limit is solved for."""


SCHEDULES = (
    Constant(),
    Exponential(factor=0.9, every=1.0, staircase=False),
    InverseTime(factor=0.1, every=1.0, staircase=False),
    Cosine(length=10.0, end_rate=0.0, beyond="stays", stretch=1.0, shrink=1.0),
    Polynomial(length=10.0, end_rate=0.0, power=1.0, cycle=False),
)
"""Schedules tried where a side's is not known; a factor or a length is solved for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """The constants of an optimizer that pass through float32 in a float64 run."""

    names: tuple[str, ...]


def question(moment: Moment, own: Own, alone: Taken) -> Question | None:
    """The updates of all parameters that stand by themselves. Where one side made none, only what both rules say of
    when one is made can tell why: nothing is searched for."""
    links = trained_links(moment)
    chosen = {q.link.name: i for i, q in enumerate(moment.plan.compared) if q.kind == "update" and q.link}
    links = {name: link for name, link in links.items() if name in chosen}
    if not links:
        return None
    state = _state(moment, links)
    gradients = _gradients(moment, links)
    feed = moment.sides[0].feed
    epoch = feed.batch(moment.step, "float64").epoch
    made = made_updates(moment, alone)
    due = _due(moment, made)

    def compute(parts: Parts) -> list[np.ndarray]:
        rule, leaks = rule_of(parts[:-1]), parts[-1].names
        if not due.get(rule.accumulation.every, True):
            return [np.zeros_like(state.values[name]) for name in links]
        before = feed.batch(max(state.count * rule.accumulation.every - 1, 0), "float64").epoch
        slots = _slots(rule, state, rate_of(rule, max(state.count, 1), before))
        after, _ = updated_all(rule, state.count + 1, epoch, state.values, gradients, slots, leaks)
        return [after[name] - state.values[name] for name in links]

    pairs, rounded = (
        [shown(moment.plan.compared[chosen[name]], moment.reference, alone, precision) for name in links]
        for precision in ("float64", "float32")
    )
    values = [one for one, _ in pairs], [other for _, other in pairs]
    enough = [K * own.measures.budget[0, chosen[name]] for name in links]
    puzzles = [Puzzle(compute=compute, wanted=of, enough=enough) for of in values]
    readings = [_leaking(puzzle, _parts(moment, side, links)) for side, puzzle in enumerate(puzzles)]
    return Question(
        parts=(readings[0], readings[1]),
        values=values,
        compute=compute,
        enough=enough,
        free=frozenset({5}),
        values32=([one for one, _ in rounded], [other for _, other in rounded]),
        alternatives=_alternatives(readings, values, tuple(links)),
        searching=made[0] == made[1],
    )


def _due(moment: Moment, made: tuple[bool, bool]) -> dict[int, bool]:
    """Whether a side that gathers so many passes made its update at this step, as it was seen."""
    rules = [side.watched["float64"].rule() for side in moment.sides]
    known = [(rule.accumulation.every, of) for rule, of in zip(rules, made, strict=True) if rule is not None]
    return {every: of for every, of in known if every > 1}


def _alternatives(
    readings: list[Parts], values: Sequence[Sequence[np.ndarray]], names: tuple[str, ...]
) -> Alternatives:
    """What may stand in a known side's rule where the other side is not known; frozen: what did not move there."""
    known = next((parts for parts in readings if parts), ())
    if not known:
        return {}
    moving = [tuple(name for name, update in zip(names, of, strict=True) if update.any()) for of in values]
    scopes = [replace(known[4], trained=scope) for scope in moving if scope and scope != names]
    return {0: _optimizers(known[0]), 1: (None, *CLIPPINGS), 2: SCHEDULES, 4: scopes}


def _optimizers(known: Optimizer) -> list[Optimizer]:
    """The usual optimizers of another kind, at a known one's rate."""
    shared: Any = {"learning_rate": known.learning_rate, "weight_decay": 0.0, "decay": "decoupled"}
    plain = SGD(momentum=0.0, dampening=0.0, first_velocity="zero", nesterov=False, velocity="gradient", **shared)
    adam = Adam(
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        epsilon_placement="after_correction",
        bias_correction="both",
        amsgrad="no",
        **shared,
    )
    adams = [adam, replace(adam, epsilon=0.0), replace(adam, epsilon=1e-7, epsilon_placement="before_correction")]
    usual = [plain, replace(plain, momentum=0.9), *adams, *(replace(adam, bias_correction="none") for adam in adams)]
    return [optimizer for optimizer in usual if type(optimizer) is not type(known)]


def _leaking(puzzle: Puzzle, parts: Parts) -> Parts:
    """The parts with the leaks that the side has, if it is so reproduced; without, if not."""
    if not parts:
        return ()
    possible = possible_leaks(parts[0])
    some = (names for count in range(len(possible) + 1) for names in itertools.combinations(possible, count))
    readings = [(*parts, Leaks(names=names)) for names in itertools.islice(some, MOST)]
    return next((reading for reading in readings if apart(puzzle, reading) <= 1), _clipping(puzzle, readings[0]))


def _clipping(puzzle: Puzzle, parts: Parts) -> Parts:
    """The parts with the clipping that a user's own code does between gradients and updates, if it is so reproduced: by
    a limit that people type; without, if not."""
    if not parts[0] or parts[1] is not None:
        return parts
    clipped = ((*parts[:1], clipping, *parts[2:]) for clipping in CLIPPINGS)
    found = (solved_for(puzzle, of, position=1, field="limit") for of in clipped)
    return next((of for of in found if of), parts)


def rule_of(parts: Parts) -> Rule:
    """The rule that these parts (optimizer, clipping, schedule, accumulation, and what else a rule says) make."""
    optimizer, clipping, schedule, accumulation, rest = parts
    return replace(rest, optimizer=optimizer, clipping=clipping, schedule=schedule, accumulation=accumulation)


def _parts(moment: Moment, side: int, links: dict[str, Link]) -> Parts:
    rule = moment.sides[side].watched["float64"].rule()
    if rule is None:
        return ()
    bare: dict[str, Any] = dict.fromkeys(("optimizer", "clipping", "schedule", "accumulation"))
    scopes = {name: in_common(moment, side, getattr(rule, name), links) for name in ("decayed", "trained")}
    times = dict(rule.multiples)
    owned = {name: (link.candidate if side else link.reference).parameter for name, link in links.items()}
    multiples = tuple((name, times[own]) for name, own in owned.items() if own in times)
    rest = replace(rule, **bare, **scopes, multiples=multiples)
    return rule.optimizer, rule.clipping, rule.schedule, rule.accumulation, rest


def _state(moment: Moment, links: dict[str, Link]) -> State:
    """The reference's state; slots that only the candidate has are the candidate's."""
    before, theirs = moment.reference.before["float64"], moment.candidate.before["float64"]
    slots: dict[str, dict[str, np.ndarray]] = {}
    for (side, state), (name, link) in itertools.product((("candidate", theirs), ("reference", before)), links.items()):
        for slot, of in state.slots.items():
            if (seen := see_gradient(getattr(link, side), of)) is not None:
                slots.setdefault(slot, {})[name] = seen
    return State(values=values_of(moment, links), slots=slots, count=before.count)


def _gradients(moment: Moment, links: dict[str, Link]) -> dict[str, np.ndarray]:
    before, record = moment.reference.before["float64"].values, moment.reference.records["float64"]
    gradients = {}
    for name, link in links.items():
        of = {n: or_zero(record.gradients.get(n), before[n]) for n in parameters_of(link.reference)}
        seen = see_gradient(link.reference, of)
        assert seen is not None
        gradients[name] = seen
    return gradients


def _slots(rule: Rule, state: State, rate: float) -> dict[str, dict[str, np.ndarray]]:
    """The state's slots as the rule keeps them; at the start, or where it has none, those with which the optimizer
    begins: rounded to float32, as both sides' start is. rate: of the update before, in which a velocity of steps is."""
    filled: dict[str, dict[str, np.ndarray]] = {}
    inside = getattr(rule.optimizer, "velocity", "") == "step"
    unit = (-rate if isinstance(rule.optimizer, SGD) else rate) if inside else 1.0
    for name, W in state.values.items():  # noqa: N806
        own_unit = unit * dict(rule.multiples).get(name, 1.0) if inside else unit
        for slot, first in initial_slots(rule.optimizer, W).items():
            held = state.slots.get(slot, {}).get(name)
            first = first.astype(np.float32).astype(first.dtype)
            own = first if held is None or not state.count else held
            filled.setdefault(slot, {})[name] = own * own_unit if slot == "velocity" else own
    return filled
