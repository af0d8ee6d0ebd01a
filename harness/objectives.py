"""What a user's training minimises, every number-changing convention written out: a `Loss` of some `Term`, a `Penalty`.

`harness.case` holds the few losses that a Case may name; these here are what torch, Keras and optax offer besides, as
read from users' models. Only standard library. `reference.objectives` computes them. q is the model's output, y the
target; a term is the loss of one element, or of one row of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

Rate = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Clip = tuple[float, float] | None
"""(low, high): clipped first, derivative 0 outside and 1 at the bounds (torch, TensorFlow). None for no clipping."""

# --- terms: distances by element --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SquaredError:
    """(q - y)², or half of it (tf.nn.l2_loss, optax.l2_loss)."""

    half: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsoluteError:
    """|q - y|. slope_at_zero: its derivative where q = y: 0 in torch and TensorFlow, 1 where JAX's abs is used."""

    slope_at_zero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Huber:
    """e²/2 where |e| <= delta, else delta (|e| - delta/2); e = q - y.

    divided_by_delta: the whole over delta (torch's SmoothL1Loss(beta)). half: False doubles the whole.
    """

    delta: Positive
    divided_by_delta: bool
    half: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCosh:
    """log cosh(q - y) = e + log(1 + exp(-2e)) - log_2. log_2: a number, as Keras rounds it through float32."""

    log_2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentageError:
    """factor |q - y| / max(|y|, floor); Keras: factor 100, floor 1e-7."""

    factor: float
    floor: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class SquaredLogError:
    """(log(max(q, floor) + 1) - log(max(y, floor) + 1))²; floor -inf for none. Keras: 1e-7."""

    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """q - y log(q + epsilon) for a rate, exp(q) - y q for a log rate.

    stirling: adds y log y - y + log(2 pi y)/2 where y > 1: it changes the loss, no gradient (torch: `full`).
    """

    reads: Literal["rate", "log_rate"]
    epsilon: Rate
    stirling: bool


# --- terms: two classes, by element -----------------------------------------------------------------------------

Labels = Literal["signs", "bits", "bits_if_all"]
"""What a hinge's targets hold: -1 and 1; 0 and 1, made -1 and 1; such where all of them are 0 or 1 (Keras)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryCrossEntropy:
    """-(a y log(p + e) + (1 - y) log(1 - p + e)).

    reads: what q holds. "logits" takes the stable form; "activated_logits" takes p = sigmoid(q) and then all below.
    clip: of p (Keras: 1e-7, 1 - 1e-7). log_epsilon: e (tf.compat.v1.losses.log_loss: 1e-7). log_floor: both logarithms
    are bounded below, without effect on the derivative (torch: -100; -inf for none). denominator_floor: p (1 - p) in
    the derivative is bounded below where log_epsilon is 0 (torch: 1e-12; 0 for none). None of them acts on "logits".
    positive_weight: a, one for all or one for each of the last axis (torch: pos_weight), () for 1.
    """

    reads: Literal["logits", "activated_logits", "probabilities"]
    clip: Clip
    log_epsilon: Rate
    log_floor: float
    denominator_floor: Rate
    positive_weight: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryFocal:
    """a_t (1 - p_t)^gamma times the entropy, p_t = y p + (1 - y)(1 - p) with p not clipped (Lin et al., 2017).

    alpha: a_t = alpha y + (1 - alpha)(1 - y); None for 1.
    """

    entropy: BinaryCrossEntropy
    gamma: Rate
    alpha: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge:
    """max(0, margin - y q)^power. slope_at_margin: the part of the derivative that counts where y q = margin: 1 in
    TensorFlow and torch's clamp, 1/2 in JAX; without effect for power 2."""

    margin: float
    power: Literal[1, 2]
    labels: Labels
    slope_at_margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HingeEmbedding:
    """q where y = 1, max(0, margin - q) where y = -1 (torch's HingeEmbeddingLoss)."""

    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftMargin:
    """log(1 + exp(-y q)) (torch's SoftMarginLoss)."""

    labels: Labels


# --- terms: rows of classes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """-sum_k y_k log p_k along `axis` (torch: 1, Keras: -1).

    reads: what q holds. "logits" takes log softmax(q); "activated_logits" takes p = softmax(q) and then all below;
    "log_probabilities" takes log p = q (NLLLoss).
    renormalize: "sum" divides p by its sum before clipping (Keras, one-hot targets), "softmax" subtracts log sum p
    behind it (Keras, indices). clip: of p (Keras: 1e-7, 1 - 1e-7). log_epsilon: added inside the logarithm.
    Neither acts on "logits" and "log_probabilities".
    """

    reads: Literal["logits", "activated_logits", "probabilities", "log_probabilities"]
    axis: int
    renormalize: Literal["none", "sum", "softmax"]
    clip: Clip
    log_epsilon: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Focal:
    """sum_k alpha (1 - p_k)^gamma (-y_k log p_k), p_k as the entropy has it in its logarithm (Keras)."""

    entropy: CrossEntropy
    gamma: Rate
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KLDivergence:
    """y (log y - log p) by element, 0 where y = 0; exp(y) (y - log p) with log_target.

    reads: what q holds; clip, target_clip: of p and of y where they are probabilities (Keras: 1e-7, 1). Keras sums the
    last axis (`Loss.inner`), torch's "mean" divides by all elements.
    """

    reads: Literal["probabilities", "log_probabilities"]
    log_target: bool
    clip: Clip
    target_clip: Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalHinge:
    """max(0, margin + q_k - q_t)^power over classes k other than the target t, along the last axis.

    over: "worst" takes the greatest of them (Crammer and Singer; optax), "sum" adds them (Weston and Watkins), "mean"
    divides the sum by the number of classes, the target's own among them (torch's MultiMarginLoss).
    zero_at_target: the greatest q_k is not below 0, as the target's own place holds 0 (Keras).
    ties: of equal greatest ones the "first" gets the derivative, or they "split" it (TensorFlow, JAX).
    slope_at_margin: as in Hinge (torch: 0, TensorFlow: 1).
    """

    margin: float
    power: Literal[1, 2]
    over: Literal["worst", "sum", "mean"]
    zero_at_target: bool
    ties: Literal["first", "split"]
    slope_at_margin: float


# --- terms: vectors along the last axis -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineSimilarity:
    """-cos(q, y), or 1 - cos with `from_one` (torch's CosineEmbeddingLoss for alike pairs, optax's cosine_distance).

    epsilon_placement: "floor" bounds each norm below by epsilon (Keras 1e-7, torch's cosine_similarity 1e-8; optax
    bounds its square), "added" adds it to each squared norm (torch's CosineEmbeddingLoss 1e-12).
    """

    from_one: bool
    epsilon: Rate
    epsilon_placement: Literal["floor", "added"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Triplet:
    """max(0, margin + |a - p| - |a - n|) with q = (anchor a, positive p, negative n) stacked along axis 0.

    norm: the order of the norm. epsilon_placement: "difference" adds epsilon to each difference (torch: 1e-6), "sum"
    to the sum of powers (optax). swap: |p - n| in place of |a - n| where it is smaller.
    """

    margin: float
    norm: Positive
    epsilon: Rate
    epsilon_placement: Literal["difference", "sum"]
    swap: bool


# --- terms: regions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """1 - (I + added) / (I + alpha sum y (1 - q) + beta sum q (1 - y) + epsilon), I = sum y q over `axes`.

    alpha and beta 1/2 make Dice's (2 I + 2 added) / (sum y + sum q + 2 epsilon), so that Keras's Dice with 1e-7 has
    epsilon 5e-8; Keras's Tversky has 1e-7. axes: () for all.
    """

    alpha: Rate
    beta: Rate
    epsilon: Rate
    added: Rate
    axes: tuple[int, ...]


# --- terms: the output itself -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """q itself, no target. weighted: y q (a Wasserstein critic)."""

    weighted: bool


Term = (
    SquaredError
    | AbsoluteError
    | Huber
    | LogCosh
    | PercentageError
    | SquaredLogError
    | Poisson
    | BinaryCrossEntropy
    | BinaryFocal
    | Hinge
    | HingeEmbedding
    | SoftMargin
    | CrossEntropy
    | Focal
    | KLDivergence
    | CategoricalHinge
    | CosineSimilarity
    | Triplet
    | Overlap
    | Output
)

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
