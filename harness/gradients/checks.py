"""Is the gradient of a function the derivative of its values? The checks, in one place, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from frameworks.protocol import Arrays, Differentiable
from harness.case import HarnessError
from harness.gradients.agreeing import Others, by_intention, others_of
from harness.gradients.comparisons import resolution
from harness.gradients.directions import cotangents
from harness.gradients.examining import examined
from harness.gradients.patterns import explained
from harness.gradients.points import Counted
from harness.gradients.result import GradientCheck
from harness.gradients.sweeping import sweep_on
from harness.gradients.telling import Function, told


def check_gradient(
    f: Function,
    *inputs: Any,
    against: Function | None = None,
    vjp: Callable[..., Any] | None = None,
    order: int = 1,
    sweep: bool = True,
    seed: int = 0,
) -> GradientCheck:
    """Check the gradient that a function's own backward gives, at the inputs and, with sweep, at points of other kinds.

    f: a function of torch, TensorFlow or JAX, told by its inputs, that returns an array or a tuple of them; or a NumPy
    pair (f, f_vjp), f_vjp(cotangent, *inputs) giving an array or a tuple with one for each input (cotangent a tuple if
    f returns one). Floating inputs are promoted to float64, integers passed through. against: the same function in
    another framework, a NumPy pair, or its NumPy formula (values only). vjp: vjp(cotangent, *inputs), what a surrogate
    gradient is meant to be. order: 2 checks the gradient's own gradient too.
    Raises HarnessError for what is no function or no array; whatever f does is in the result.
    """
    if order not in (1, 2):
        raise HarnessError(f"order is {order}; it must be 1, or 2 for the gradient's own gradient too")
    function, xs, framework = told(f, inputs)
    counted = Counted(function)
    others = Others(
        meant=None if vjp is None else by_intention(counted, vjp),
        functions=() if against is None else (others_of(against, xs),),
    )
    with np.errstate(all="ignore"):
        result = _checked(counted, xs, framework, others, sweep, seed)
        if order == 1 or result.verdict != "pass":
            return result
        return _second(function, xs, framework, sweep, seed, result)


def _checked(counted: Counted, xs: Arrays, framework: str, others: Others, sweep: bool, seed: int) -> GradientCheck:
    done = examined(counted, xs, others, seed)
    at_point = counted.count
    swept = 0
    if sweep and done.point and not done.finding and not done.undecided:
        swept = sweep_on(done, counted, xs, others, seed)
    after = counted.count
    finding = explained(done)
    return GradientCheck(
        verdict="fail" if finding else "inconclusive" if done.undecided else "pass",
        pattern=finding.pattern if finding else "",
        reason=finding.reason if finding else done.undecided,
        where=finding.where if finding else None,
        factor=finding.factor if finding else None,
        error=done.shown.off if done.shown else float("inf"),
        resolution=resolution(done.comparisons),
        precision=done.precision,
        kinks=done.kinks,
        notes=tuple(done.notes),
        points=swept,
        evaluations=at_point,
        sweep_evaluations=after - at_point,
        locating_evaluations=counted.count - after,
        framework=framework,
    )


def _second(
    function: Differentiable, xs: Arrays, framework: str, sweep: bool, seed: int, first: GradientCheck
) -> GradientCheck:
    """The gradients as functions of inputs and cotangents, checked in the same way."""
    ys = function.value(tuple(x.copy() for x in xs))
    gradient = function.gradient(len(xs))
    if gradient is None:
        return replace(first, verdict="inconclusive", reason="a second order is not offered by a pair (f, f_vjp)")
    vs = tuple(np.array(v) for v in cotangents(ys, 3, seed, relative=False))
    second = _checked(Counted(gradient), (*xs, *vs), framework, Others(), sweep, seed)
    total = replace(
        second,
        evaluations=first.evaluations + second.evaluations,
        sweep_evaluations=first.sweep_evaluations + second.sweep_evaluations,
        points=first.points + second.points,
        notes=(*first.notes, *second.notes),
        kinks=(*first.kinks, *second.kinks),
    )
    if second.pattern == "raises":
        return replace(
            total, verdict="inconclusive", pattern="", reason=f"a second order is not offered: {second.reason}"
        )
    if second.verdict == "fail":
        return replace(total, pattern="second-order", reason=f"second order: {second.reason}")
    return total
