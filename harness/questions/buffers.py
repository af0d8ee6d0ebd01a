"""Why running statistics differ: what a batch normalisation makes of them, from the reference's inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.calls import Call
from harness.editing import Parts
from harness.elsewhere import Moment
from harness.following import Taken, shown
from harness.judging import K
from harness.ops import BatchNorm
from harness.owning import Own
from harness.questions.blocks import Calls
from harness.recipe import Parameter
from harness.solving import Question
from reference.normalising import moved

STATISTICS = ("moving_mean", "moving_variance")


def layer_of(moment: Moment, i: int, side: int) -> str:
    """The layer that owns the parameter of quantity i."""
    return _parameter(moment, i, side).layer


def question(moment: Moment, own: Own, alone: Taken, i: int, calls: Calls) -> Question | None:
    """A statistic behind the step. None where neither side's layer is known as a batch normalisation."""
    layers = [layer_of(moment, i, side) for side in (0, 1)]
    found = [_norm(of, layer) for of, layer in zip(calls, layers, strict=True)]
    known = next((call for call in found if call is not None), None)
    role = next((p.role for side in (0, 1) if (p := _parameter(moment, i, side)).role in STATISTICS), "")
    if known is None or not role:
        return None
    which, batches = STATISTICS.index(role), moment.reference.before["float64"].count
    mask = known.inputs[1] if len(known.inputs) > 1 else None

    def compute(parts: Parts) -> list[np.ndarray]:
        mean, variance = known.parameters[0][-2:]
        return [moved(parts[0], known.inputs[0], mean, variance, batches, mask)[which]]

    values, rounded = (shown(moment.plan.compared[i], moment.reference, alone, p) for p in ("float64", "float32"))
    parts = [() if call is None else (call.ops[0],) for call in found]
    return Question(
        parts=(parts[0], parts[1]),
        values=([values[0].ravel()], [values[1].ravel()]),
        values32=([rounded[0].ravel()], [rounded[1].ravel()]),
        compute=compute,
        enough=[K * own.measures.budget[0, i]],
    )


def _norm(calls: Mapping[str, Call], layer: str) -> Call | None:
    call = calls.get(layer)
    return call if call is not None and len(call.ops) == 1 and isinstance(call.ops[0], BatchNorm) else None


def _parameter(moment: Moment, i: int, side: int) -> Parameter:
    link = moment.plan.compared[i].link
    assert link is not None
    name = (link.candidate if side else link.reference).parameter
    return next(p for p in moment.sides[side].watched["float64"].parameters if p.name == name)
