"""Parameters as both sides name them: by the links between them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.elsewhere import Moment
from harness.following import Taken, parameters_of, shown
from harness.objectives import Scope
from harness.views import Link, see_value
from reference.objectives import in_scope


def trained_links(moment: Moment) -> dict[str, Link]:
    """The links of trained parameters that stand by themselves: a sum of several follows no rule of its own."""
    layers = {p.name for p in moment.sides[0].watched["float64"].parameters if p.buffer}
    return {
        link.name: link
        for link in moment.plan.pairing.links
        if link.reference.parameter not in layers and not (link.reference.added or link.candidate.added)
    }


def is_frozen(moment: Moment, link: Link) -> bool:
    """Whether a side does not train the parameter, or one of those that are added."""
    return not all(
        parameter.trainable
        for side, of in zip(moment.sides, (link.reference, link.candidate), strict=True)
        for parameter in side.watched["float64"].parameters
        if parameter.name in parameters_of(of)
    )


def made_updates(moment: Moment, alone: Taken) -> tuple[bool, bool]:
    """Whether each side made an update at this step: it says so, or a parameter has moved (in a loop by hand)."""
    pairs = [shown(q, moment.reference, alone) for q in moment.plan.compared if q.kind == "update"]
    one, other = (any(pair[side].any() for pair in pairs) for side in (0, 1))
    return moment.reference.updates or one, alone.updates or other


def values_of(moment: Moment, links: Mapping[str, Link]) -> dict[str, np.ndarray]:
    """The reference's values before the step, by link."""
    before = moment.reference.before["float64"].values
    return {name: see_value(link.reference, before) for name, link in links.items()}


def in_common(moment: Moment, side: int, scope: Scope, links: Mapping[str, Link]) -> Scope:
    """A side's scope as the names of the links that are in it, so that both sides speak of the same ones."""
    values = moment.sides[side].watched["float64"].state().values
    owned = {name: (link.candidate if side else link.reference).parameter for name, link in links.items()}
    inside = tuple(name for name, own in owned.items() if in_scope(scope, own, values[own]))
    return "all" if len(inside) == len(links) else inside
