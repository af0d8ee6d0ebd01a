"""The loss of one element, or of one row of classes, every number-changing convention written out.

They are what torch, Keras and optax offer, as read from users' models; `harness.objectives.Loss` weighs and reduces
them, `reference.terms` and `reference.row_terms` compute them. q is the model's output, y the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.case import Positive, Rate

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


# --- terms: sequences of labels ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CTC:
    """-log of the probability that the steps' classes, repetitions and blanks taken out, are the labels y (batch, L).

    reads: "logits", "log_probabilities"; torch's CTCLoss takes the latter, but its derivative is that by the logits
    (`through_softmax`). time_axis: 0 (torch) or 1 (Keras); classes come last. blank: its class. padding: a label that
    stands for none. by_length: over the number of labels, at least 1 (torch's "mean"). zero_infinity: 0 where no
    alignment fits.
    """

    reads: Literal["logits", "log_probabilities"]
    through_softmax: bool
    time_axis: Literal[0, 1]
    blank: int
    padding: int
    by_length: bool
    zero_infinity: bool


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
    | CTC
    | Output
)
