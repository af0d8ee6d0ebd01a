"""Why updates differ: both sides' rules from the same gradients, as the reference computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.editing import Parts
from harness.elsewhere import Moment
from harness.following import Compared, Taken, or_zero, parameters_of, shown
from harness.judging import K
from harness.owning import Own
from harness.recipe import State
from harness.rules import Clipping, Constant, Rule
from harness.solving import Question
from harness.views import see_gradient, see_value
from reference.objectives import in_scope
from reference.rules import initial_slots, updated_all

Arrays = Mapping[str, np.ndarray]

CLIPPINGS = tuple(
    Clipping(by=by, limit=1.0, epsilon=epsilon, order=2.0)
    for by, epsilon in (("global_norm", 1e-6), ("global_norm", 0.0), ("variable_norm", 0.0), ("value", 0.0))
)
"""Clippings tried where a side's is not known; the limit is solved for."""


def question(moment: Moment, own: Own, alone: Taken) -> Question | None:
    """The updates of all parameters that stand by themselves."""
    plan, before = moment.plan, moment.reference.before["float64"]
    chosen = [i for i, q in enumerate(plan.compared) if q.kind == "update" and q.link and not _summed(q)]
    links = {plan.compared[i].link.name: plan.compared[i].link for i in chosen}  # type: ignore[union-attr]
    record = moment.reference.records["float64"]
    values: dict[str, np.ndarray] = {}
    gradients: dict[str, np.ndarray] = {}
    for name, link in links.items():
        values[name] = see_value(link.reference, before.values)
        of = {n: or_zero(record.gradients.get(n), before.values[n]) for n in parameters_of(link.reference)}
        seen = see_gradient(link.reference, of)
        assert seen is not None
        gradients[name] = seen
    slots = {
        slot: {name: s for name, link in links.items() if (s := see_gradient(link.reference, of)) is not None}
        for slot, of in before.slots.items()
    }
    state = State(values=values, slots=slots, count=before.count)
    epoch = moment.sides[0].feed.batch(moment.step, "float64").epoch

    def compute(parts: Parts) -> list[np.ndarray]:
        rule = rule_of(parts)
        after, _ = updated_all(rule, state.count + 1, epoch, values, gradients, _slots(rule, state))
        return [after[name] - values[name] for name in links]

    read = [_parts(moment, side, links) for side in (0, 1)]
    pairs = [shown(plan.compared[i], moment.reference, alone) for i in chosen]
    return Question(
        parts=(read[0], read[1]),
        values=([one for one, _ in pairs], [other for _, other in pairs]),
        compute=compute,
        enough=[K * own.measures.budget[0, i] for i in chosen],
        alternatives={1: (None, *CLIPPINGS), 2: (Constant(),)},
    )


def rule_of(parts: Parts) -> Rule:
    """The rule that these parts (optimizer, clipping, schedule, and what else a rule says) make."""
    optimizer, clipping, schedule, rest = parts
    return replace(rest, optimizer=optimizer, clipping=clipping, schedule=schedule)


def _parts(moment: Moment, side: int, links: Mapping[str, object]) -> Parts:
    rule: Rule | None = moment.sides[side].watched["float64"].rule()
    if rule is None:
        return ()
    plain = replace(
        rule,
        **{"optimizer": None, "clipping": None, "schedule": None},
        decayed=_named(moment, side, rule.decayed, links),
        trained=_named(moment, side, rule.trained, links),
    )
    return rule.optimizer, rule.clipping, rule.schedule, plain


def _named(moment: Moment, side: int, scope: object, links: Mapping[str, object]) -> object:
    """A scope as the names of the links that are in it, so that both sides speak of the same ones."""
    values = moment.sides[side].watched["float64"].state().values
    inside = []
    for name, link in links.items():
        own = (link.candidate if side else link.reference).parameter  # type: ignore[attr-defined]
        if in_scope(scope, own, values[own]):  # type: ignore[arg-type]
            inside.append(name)
    return "all" if len(inside) == len(links) else tuple(inside)


def _summed(quantity: Compared) -> bool:
    """A sum of several parameters follows no rule of its own."""
    return quantity.link is not None and bool(quantity.link.reference.added or quantity.link.candidate.added)


def _slots(rule: Rule, state: State) -> dict[str, dict[str, np.ndarray]]:
    """The state's slots; at the start, or where it has none, those with which the optimizer begins."""
    filled: dict[str, dict[str, np.ndarray]] = {}
    for name, W in state.values.items():  # noqa: N806
        for slot, first in initial_slots(rule.optimizer, W).items():
            held = state.slots.get(slot, {}).get(name)
            filled.setdefault(slot, {})[name] = first if held is None or not state.count else held
    return filled
