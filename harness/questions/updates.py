"""Why updates differ: both sides' rules from the same gradients, as the reference computes them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.editing import Parts, Puzzle, apart
from harness.elsewhere import Moment
from harness.following import Taken, or_zero, parameters_of, shown
from harness.judging import K
from harness.owning import Own
from harness.questions.scopes import in_common, trained_links, values_of
from harness.recipe import State
from harness.rules import Clipping, Rule
from harness.schedules import Constant
from harness.solving import Question
from harness.views import Link, see_gradient
from reference.rules import initial_slots, possible_leaks, updated_all

MOST = 64
"""Sets of leaks that are tried."""

CLIPPINGS = (
    Clipping(by="global_norm", limit=1.0, epsilon=1e-6, order=2.0),
    Clipping(by="global_norm", limit=1.0, epsilon=0.0, order=2.0),
    Clipping(by="variable_norm", limit=1.0, epsilon=0.0, order=2.0),
    Clipping(by="value", limit=1.0, epsilon=0.0, order=2.0),
)
"""Clippings tried where a side's is not known; the limit is solved for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """The constants of an optimizer that pass through float32 in a float64 run."""

    names: tuple[str, ...]


def question(moment: Moment, own: Own, alone: Taken) -> Question | None:
    """The updates of all parameters that stand by themselves."""
    links = trained_links(moment)
    chosen = {q.link.name: i for i, q in enumerate(moment.plan.compared) if q.kind == "update" and q.link}
    links = {name: link for name, link in links.items() if name in chosen}
    if not links:
        return None
    state = _state(moment, links)
    gradients = _gradients(moment, links)
    epoch = moment.sides[0].feed.batch(moment.step, "float64").epoch

    def compute(parts: Parts) -> list[np.ndarray]:
        rule, leaks = rule_of(parts[:-1]), parts[-1].names
        after, _ = updated_all(rule, state.count + 1, epoch, state.values, gradients, _slots(rule, state), leaks)
        return [after[name] - state.values[name] for name in links]

    pairs, rounded = (
        [shown(moment.plan.compared[chosen[name]], moment.reference, alone, precision) for name in links]
        for precision in ("float64", "float32")
    )
    values = [one for one, _ in pairs], [other for _, other in pairs]
    enough = [K * own.measures.budget[0, chosen[name]] for name in links]
    puzzles = [Puzzle(compute=compute, wanted=of, enough=enough) for of in values]
    return Question(
        parts=(_leaking(puzzles[0], _parts(moment, 0, links)), _leaking(puzzles[1], _parts(moment, 1, links))),
        values=values,
        compute=compute,
        enough=enough,
        free=frozenset({4}),
        values32=([one for one, _ in rounded], [other for _, other in rounded]),
        alternatives={1: (None, *CLIPPINGS), 2: (Constant(),)},
    )


def _leaking(puzzle: Puzzle, parts: Parts) -> Parts:
    """The parts with the leaks that the side has, if it is so reproduced; without, if not."""
    if not parts:
        return ()
    possible = possible_leaks(parts[0])
    some = (names for count in range(len(possible) + 1) for names in itertools.combinations(possible, count))
    readings = [(*parts, Leaks(names=names)) for names in itertools.islice(some, MOST)]
    return next((reading for reading in readings if apart(puzzle, reading) <= 1), readings[0])


def rule_of(parts: Parts) -> Rule:
    """The rule that these parts (optimizer, clipping, schedule, and what else a rule says) make."""
    optimizer, clipping, schedule, rest = parts
    return replace(rest, optimizer=optimizer, clipping=clipping, schedule=schedule)


def _parts(moment: Moment, side: int, links: dict[str, Link]) -> Parts:
    rule = moment.sides[side].watched["float64"].rule()
    if rule is None:
        return ()
    bare: dict[str, Any] = {"optimizer": None, "clipping": None, "schedule": None}
    scopes = {name: in_common(moment, side, getattr(rule, name), links) for name in ("decayed", "trained")}
    return rule.optimizer, rule.clipping, rule.schedule, replace(rule, **bare, **scopes)


def _state(moment: Moment, links: dict[str, Link]) -> State:
    """The reference's state; slots that only the candidate has are the candidate's."""
    before, theirs = moment.reference.before["float64"], moment.candidate.before["float64"].slots
    slots = {
        slot: {name: s for name, link in links.items() if (s := see_gradient(link.candidate, of)) is not None}
        for slot, of in theirs.items()
    }
    slots |= {
        slot: {name: s for name, link in links.items() if (s := see_gradient(link.reference, of)) is not None}
        for slot, of in before.slots.items()
    }
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


def _slots(rule: Rule, state: State) -> dict[str, dict[str, np.ndarray]]:
    """The state's slots; at the start, or where it has none, those with which the optimizer begins: rounded to float32,
    as both sides' start is."""
    filled: dict[str, dict[str, np.ndarray]] = {}
    for name, W in state.values.items():  # noqa: N806
        for slot, first in initial_slots(rule.optimizer, W).items():
            held = state.slots.get(slot, {}).get(name)
            first = first.astype(np.float32).astype(first.dtype)
            filled.setdefault(slot, {})[name] = first if held is None or not state.count else held
    return filled
