"""What a user's training minimises, every number-changing convention written out: a `Loss` of some term, a `Penalty`.

`harness.case` holds the few losses that a Case may name; these here are what torch, Keras and optax offer besides, as
read from users' models. Only standard library. `reference.objectives` computes them. q is the model's output, y the
target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.case import Rate
from harness.terms import Term

# --- the loss ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """How a target array becomes the y of the formulas.

    form: "values" as they are; "indices" of classes, made one-hot.
    alignment: "same" gives y the shape of q where a last axis of 1 is the only difference (Keras), "broadcast" lets
    (N, 1) and (N,) make (N, N).
    smoothing: y (1 - s) + s/K with `spread` "all" (K classes along the term's axis, 2 for terms by element), or
    y (1 - s) + (1 - y) s/(K - 1) with "others".
    ignore_index: rows with this index count nothing; None for none.
    labels: what the labels 0, 1, ... stand for, () for themselves: outputs for rows of classes; for terms by element y
    is labels[0] + (labels[1] - labels[0]) y, so that (-1, 1) makes signs of bits.
    """

    form: Literal["values", "indices"]
    alignment: Literal["same", "broadcast"]
    smoothing: Rate
    spread: Literal["all", "others"]
    ignore_index: int | None
    labels: tuple[float, ...]


Reduction = Literal["none", "sum", "mean", "batchmean", "valid_mean", "weighted_mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """L = factor (sum of w_i term_i / n) + offset.

    inner: what is done along the last axis of the terms before they are weighted (Keras: mean).
    reduction: n is 1 ("sum"), the number of terms ("mean"), the length of the first axis ("batchmean"), the number of
    terms neither masked nor ignored ("valid_mean"), the sum of their weights ("weighted_mean"); "none" keeps the terms
    apart, and the gradient is that of their sum.
    w is the product of the example's weight, the class weight, and 0 where masked or ignored.
    class_weights: one for each class, () for none. class_weighting: "rows" weighs a term by its target's class (the
    greatest y_k, or y rounded for terms by element), "classes" each y_k (torch); "weighted_mean" divides by the
    targets' own weights either way. For terms by element "classes" weighs by the place along the last axis.
    factor: the loss's weight among those of several outputs. offset: a constant that no gradient sees.
    """

    term: Term
    targets: Targets
    inner: Literal["none", "mean", "sum"]
    reduction: Reduction
    class_weights: tuple[float, ...]
    class_weighting: Literal["rows", "classes"]
    factor: float
    offset: float


def listed(weights: Mapping[int, float], classes: int) -> tuple[float, ...]:
    """Class weights {class: weight} as `Loss.class_weights`, 1 for the classes that are not named."""
    return tuple(weights.get(k, 1.0) for k in range(max(classes, *weights) + 1))


# --- penalties --------------------------------------------------------------------------------------------------

Scope = Literal["all", "kernels"] | tuple[str, ...]
"""Which parameters: all; those with more than one axis; or the ones named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """l1 sum |W| + l2 sum W² over the parameters in `scope`, added to the loss.

    half: l2/2 in place of l2 (weight_decay's form). rooted: l2 |W| (the norm itself) in place of its square.
    """

    l1: Rate
    l2: Rate
    half: bool
    rooted: bool
    scope: Scope
