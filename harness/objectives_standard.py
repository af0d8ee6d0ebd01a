"""Losses as users write them by hand, to recognise one by what it computes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.objectives import Loss, Targets
from harness.terms import (
    AbsoluteError,
    BinaryCrossEntropy,
    CosineSimilarity,
    CrossEntropy,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    Poisson,
    SoftMargin,
    SquaredError,
    Term,
)

SAME = Targets(form="values", alignment="same", smoothing=0.0, spread="all", ignore_index=None, labels=())
INDICES = Targets(form="indices", alignment="same", smoothing=0.0, spread="all", ignore_index=None, labels=())
BROADCAST = Targets(form="values", alignment="broadcast", smoothing=0.0, spread="all", ignore_index=None, labels=())

BY_ELEMENT: tuple[Term, ...] = (
    SquaredError(half=False),
    AbsoluteError(slope_at_zero=0.0),
    Huber(delta=1.0, divided_by_delta=False, half=True),
    LogCosh(log_2=math.log(2.0)),
    *(
        BinaryCrossEntropy(
            reads=reads, clip=None, log_epsilon=0.0, log_floor=-math.inf, denominator_floor=0.0, positive_weight=()
        )
        for reads in ("logits", "probabilities")
    ),
    *(Hinge(margin=1.0, power=power, labels="signs", slope_at_margin=1.0) for power in (1, 2)),
    SoftMargin(labels="signs"),
    *(Poisson(reads=reads, epsilon=0.0, stirling=False) for reads in ("rate", "log_rate")),
    *(
        KLDivergence(reads=reads, log_target=False, clip=None, target_clip=None)
        for reads in ("probabilities", "log_probabilities")
    ),
)
BY_ROW: tuple[Term, ...] = (
    *(
        CrossEntropy(reads=reads, axis=-1, renormalize="none", clip=None, log_epsilon=0.0)
        for reads in ("logits", "probabilities", "log_probabilities")
    ),
    CosineSimilarity(from_one=True, epsilon=1e-8, epsilon_placement="floor"),
)


def standard_losses() -> Iterator[Loss]:
    """Each with every way of averaging, with indices where rows of classes allow them."""
    for term in (*BY_ELEMENT, *BY_ROW):
        inner = ("none", "mean", "sum") if term in BY_ELEMENT else ("none",)
        forms = (SAME, BROADCAST) if term in BY_ELEMENT else (SAME, INDICES)
        for targets in forms:
            for within in inner:
                yield Loss(
                    term=term,
                    targets=targets,
                    inner=within,
                    reduction="mean",
                    class_weights=(),
                    class_weighting="rows",
                    factor=1.0,
                    offset=0.0,
                )
