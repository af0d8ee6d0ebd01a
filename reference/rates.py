"""The learning rate at a position t = 0, 1, 2, ... of a schedule.

Formulas were checked against torch 2.13 torch/optim/lr_scheduler.py (the closed forms), Keras 3.15
keras/src/optimizers/schedules/learning_rate_schedule.py and optax 0.2.8 optax/schedules/_schedule.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

from harness.schedules import Constant, Cosine, Exponential, InverseTime, Piecewise, Polynomial, Schedule, Warmup


def rate(schedule: Schedule, base: float, t: float) -> float:
    """The rate at position t, from the base rate, which is the optimizer's own."""
    match schedule:
        case Constant():
            return base
        case Exponential(factor=factor, every=every, staircase=staircase):
            return base * factor ** _elapsed(t, every, staircase)
        case InverseTime(factor=factor, every=every, staircase=staircase):
            return base / (1 + factor * _elapsed(t, every, staircase))
        case Piecewise(boundaries=boundaries, rates=rates, at_boundary=at_boundary):
            return rates[(bisect_right if at_boundary == "next" else bisect_left)(boundaries, t)]
        case Cosine():
            return _cosine(schedule, base, t)
        case Polynomial(length=length, end_rate=end, power=power, cycle=cycle):
            length = length * max(1, math.ceil(t / length)) if cycle else length
            return end + (base - end) * (1 - min(t, length) / length) ** power
        case Warmup(length=length, start_rate=start, then=then):
            return start + (base - start) * t / length if t < length else rate(then, base, t - length)


def _elapsed(t: float, every: float, staircase: bool) -> float:
    return math.floor(t / every) if staircase else t / every


def _cosine(schedule: Cosine, base: float, t: float) -> float:
    """Loshchilov and Hutter, arXiv:1608.03983, eq. 5."""
    length, height = schedule.length, base - schedule.end_rate
    if schedule.beyond == "stays":
        t = min(t, length)
    while schedule.beyond == "restarts" and t >= length:
        t, length, height = t - length, length * schedule.stretch, height * schedule.shrink
    return schedule.end_rate + height * (1 + math.cos(math.pi * t / length)) / 2
