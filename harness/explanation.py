"""One step of a case, quantity by quantity: formula, shape, size, and how each framework agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import frameworks as registry
from harness.case import CannotExpress, CannotRun, Case, wire
from harness.conventions import PAPER, resolve
from harness.describing import forward_formula, gradient_formula, loss_formula, update_formula
from harness.investigating import pair_up, prepare
from harness.judging import BECAUSE, VERDICTS
from harness.layout import Quantity
from harness.watching import Watched, watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A quantity of the explained step. norm: 2-norm in the reference, a scalar's own value.

    agreement: verdict by framework. missing: why a framework cannot show the quantity, by framework.
    """

    name: str
    formula: str
    shape: tuple[int, ...]
    norm: float
    agreement: dict[str, str]
    missing: dict[str, str]


BACKPROPAGATION = """\
Backpropagation computes a gradient: dL/dW for every parameter, by the chain rule, from the loss back to the input.
It needs one forward pass (its activations are reused), the loss, and the derivative of every operation; its input is a
batch of examples, its output as many numbers as there are parameters, at about twice the cost of the forward pass.
What can go wrong: a wrong derivative, a missing sum over the batch, gradients that vanish, explode or meet a kink."""

GRADIENT_DESCENT = """\
Gradient descent uses a gradient: W := W - lr dL/dW, b := b - lr db, step after step, until the loss stops falling.
It comes second: it needs the gradient (from backpropagation or anything else), a learning rate and a start. How many
examples a gradient averages is the batching: one (stochastic), some (mini-batch) or all (batch).
What can go wrong: a rate too large or too small, local minima, saddle points, plateaus, an optimizer's conventions."""


def explain_case(case: Case, frameworks: Sequence[str] | None = None) -> list[Line]:
    """The first step of a case in every framework, a line per quantity in the order of the computation.

    A framework that cannot express the case is `skipped` in every line. Raises HarnessError for what cannot be run.
    """
    job = prepare(replace(case, steps=1), None, None, None)
    names = frameworks or registry.installed()
    steps: dict[str, Watched | None] = {}
    missing: dict[str, Mapping[str, str]] = {}
    for name in names:
        try:
            pair = pair_up(job, name)
        except CannotExpress:
            steps[name] = None
        else:
            (steps[name],) = watch(pair, job.data)
            missing[name] = pair.candidate.missing
    shown = [step for step in steps.values() if step]
    if not shown:
        raise CannotRun(f"case {case.name}: none of {', '.join(names)} can express it")
    return [
        Line(
            name=quantity.name,
            formula=formula_of(resolve(case, PAPER), quantity),
            shape=quantity.shape,
            norm=max((_norm(step, quantity) for step in shown), key=abs),  # 0 where the framework's own case skips it
            agreement={name: _agreement(step, i) for name, step in steps.items()},
            missing={name: reasons[quantity.name] for name, reasons in missing.items() if quantity.name in reasons},
        )
        for i, quantity in enumerate(shown[0].chunk.layout.quantities)
    ]


def _norm(step: Watched, quantity: Quantity) -> float:
    values = step.reference["float64"][0, quantity.columns]
    return float(values[0]) if quantity.shape == () else float(np.linalg.norm(values))


def _agreement(step: Watched | None, i: int) -> str:
    if step is None:
        return "skipped"
    verdict, because = VERDICTS[step.judgement.verdict[0, i]], BECAUSE[step.judgement.because[0, i]]
    return because if because == "missing" else f"{verdict} ({because})" if because else verdict


def formula_of(case: Case, quantity: Quantity) -> str:
    """How a quantity follows from the ones before it, in a resolved case."""
    match quantity.kind:
        case "activation":
            return next(forward_formula(node, reads) for node, reads in wire(case) if node.name == quantity.tensor)
        case "loss":
            return loss_formula(case)
        case "activation_gradient" | "gradient":
            return gradient_formula(case, quantity.tensor)
        case "parameter":
            return update_formula(case, quantity.tensor)
        case "update":
            return f"{quantity.tensor} after the step less {quantity.tensor} before it"
        case "slot" | "buffer":  # a case's network has no buffers
            return f"the optimizer's {quantity.name.split(':')[0]} for {quantity.tensor}"
