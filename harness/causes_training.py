"""Causes that act in the loss, the optimizer and the training loop."""

from __future__ import annotations

from functools import partial

from harness.cause import Cause
from harness.editing import Edit

_L = partial(Cause, acts="loss")
_U = partial(Cause, acts="update")
_D = partial(Cause, acts="data")

DEFAULT_RATES = (0.001, 0.01, 1.0, 0.002)
"""Keras 3.15: SGD 0.01, the others 0.001; torch 2.13: Adam 0.001, RMSprop, Adagrad 0.01, Adadelta 1, NAdam 0.002."""


def _default_rate(edit: Edit) -> bool:
    return edit.before in DEFAULT_RATES or edit.after in DEFAULT_RATES


def _is_count(edit: Edit) -> bool:
    """A number of things times as large: a sum of them for their mean."""
    small, large = sorted((edit.before, edit.after))
    return small > 0 and abs(large / small - round(large / small)) <= 1e-9 * large / small


def _default_decay(edit: Edit) -> bool:
    return bool({edit.before, edit.after} & {0.01, 0.004})


CAUSES = (
    # --- loss ---------------------------------------------------------------------------------------------------
    _L(
        id="class-weight-normalisation",
        meaning="weighted mean divided by the sum of weights or by the batch size",
        edits=("Loss.reduction", "Loss.class_weights", "Loss.class_weighting"),
        along=("Loss.reduction",),
        when=lambda edit: edit.field != "reduction" or "weighted_mean" in (edit.before, edit.after),
        source="torch 2.13 cross_entropy(weight, 'mean') divides by the weights' sum; Keras 3.15 by the examples",
    ),
    _L(
        id="masked-loss-normalisation",
        meaning="padded steps counted in the denominator or not",
        edits=("Loss.reduction", "Targets.ignore_index"),
        when=lambda edit: edit.field != "reduction" or {edit.before, edit.after} == {"mean", "valid_mean"},
        source="Keras 3.15 losses/loss.py divides by the valid steps",
    ),
    _L(
        id="kldiv-reduction",
        meaning="KLDivLoss 'mean' against 'batchmean'",
        edits=("KLDivergence:Loss.reduction", "KLDivergence:Loss.inner"),
        source="torch 2.13 nn/functional.py kl_div: 'mean' divides by all elements",
    ),
    _L(
        id="loss-half-factor",
        meaning="a factor 1/2 in one of the two losses (tf.nn.l2_loss)",
        edits=("SquaredError.half", "Huber.half", "Loss.factor", "loss:half", "loss:half-or-summed"),
        when=lambda edit: edit.field != "factor" or edit.after in (0.5 * edit.before, 2 * edit.before),
    ),
    _L(
        id="loss-reduction",
        meaning="sum, mean, sum over batch size, including Keras' inner mean over the last axis",
        edits=("Loss.reduction", "Loss.inner", "Loss.factor", "loss:summed", "loss:half-or-summed"),
        along=("Loss.inner",),
        when=lambda edit: edit.field != "factor" or _is_count(edit),
    ),
    _L(
        id="loss-weights",
        meaning="a loss, or the losses of several outputs or terms, weighed by another factor",
        edits=("Loss.factor", "loss:weights"),
        source="Keras 3.15 compile(loss_weights); by hand in torch and JAX",
    ),
    _L(id="loss-constant-offset", meaning="losses differ by a constant; gradients agree", edits=("Loss.offset",)),
    _L(
        id="target-shape-broadcast",
        meaning="(N,1) prediction against (N,) target broadcasts to (N,N)",
        edits=("Targets.alignment",),
        along=("Given.targets",),
        source="torch broadcasts with a warning; Keras 3.15 losses/loss.py squeeze_or_expand_to_same_rank",
    ),
    _L(
        id="from-logits",
        meaning="a loss told 'probabilities' but given logits (or the reverse)",
        edits=("BinaryCrossEntropy.reads", "CrossEntropy.reads"),
        along=(
            *("BinaryCrossEntropy.clip", "BinaryCrossEntropy.log_floor", "BinaryCrossEntropy.denominator_floor"),
            *("CrossEntropy.clip", "CrossEntropy.renormalize", "BinaryCrossEntropy.log_epsilon"),
            "CrossEntropy.log_epsilon",
        ),
        when=lambda edit: {edit.before, edit.after} != {"logits", "activated_logits"},  # both read logits
        source="Keras 3.15 from_logits=False; torch CrossEntropyLoss reads logits",
    ),
    _L(
        id="bce-clipping",
        meaning="Keras clips probabilities at 1e-7, torch clamps the logarithm at -100",
        edits=(
            *("BinaryCrossEntropy.clip", "BinaryCrossEntropy.log_epsilon", "BinaryCrossEntropy.log_floor"),
            *("BinaryCrossEntropy.denominator_floor", "BinaryCrossEntropy.clip_probability"),
        ),
        along=(
            "BinaryCrossEntropy.reads",
            "BinaryCrossEntropy.fused",
            "BinaryCrossEntropy.clip_probability",
            "BinaryCrossEntropy.log_floor",
            "BinaryCrossEntropy.denominator_floor",
        ),
        source="Keras 3.15 backend/tensorflow/nn.py binary_crossentropy; torch 2.13 ATen/native/Loss.cpp",
    ),
    _L(
        id="crossentropy-clipping",
        meaning="Keras clips softmax probabilities at 1e-7, or a number is added inside the logarithm",
        edits=(
            *("CrossEntropy.clip", "CrossEntropy.renormalize", "CrossEntropy.log_epsilon"),
            *("CategoricalCrossEntropy.clip_probability", "CategoricalCrossEntropy.renormalize"),
        ),
        along=(
            *("CrossEntropy.reads", "CrossEntropy.renormalize"),
            *("CategoricalCrossEntropy.renormalize", "CategoricalCrossEntropy.fused"),
        ),
        source="Keras 3.15 backend/tensorflow/nn.py categorical_crossentropy",
    ),
    _L(
        id="kldiv-clipping",
        meaning="Keras clips KL targets and predictions at 1e-7",
        edits=("KLDivergence.clip", "KLDivergence.target_clip"),
        along=("KLDivergence.target_clip",),
        source="Keras 3.15 losses/losses.py kl_divergence",
    ),
    _L(
        id="kldiv-log-input",
        meaning="probabilities given where log-probabilities are expected",
        edits=("KLDivergence.reads", "KLDivergence.log_target"),
        along=("KLDivergence.clip", "KLDivergence.target_clip"),
        source="torch 2.13 kl_div reads log-probabilities; Keras 3.15 probabilities",
    ),
    _L(
        id="label-smoothing",
        meaning="smoothing mass spread over K or K-1 classes, or on one side only",
        edits=("Targets.smoothing", "Targets.spread"),
    ),
    _L(
        id="label-encoding",
        meaning="classes in another order, one-hot against index, {0,1} against {-1,1}",
        edits=("Targets.labels", "Hinge.labels", "SoftMargin.labels", "Targets.form", "Given.targets"),
        along=("Given.targets",),
    ),
    _L(
        id="huber-delta-scale",
        meaning="SmoothL1(beta) = Huber(beta)/beta",
        edits=("Huber.divided_by_delta", "Huber.delta"),
        source="torch 2.13 smooth_l1_loss against huber_loss; Keras 3.15 Huber",
    ),
    _L(
        id="sample-weight",
        meaning="example weights applied on one side or normalised otherwise",
        edits=("Given.weights",),
        source="Keras 3.15 divides by the number of examples, not by the weights",
    ),
    _L(
        id="l2-missing",
        meaning="a regulariser present on one side only",
        edits=("+Penalty", "Penalty.l1", "gradient:penalty", "loss:activity"),
        when=lambda edit: edit.field != "l1" or not (edit.before and edit.after),
    ),
    _L(
        id="l2-factor-two",
        meaning="c*||w||^2 against (c/2)*||w||^2, or another factor",
        edits=("Penalty.half", "Penalty.l2", "Penalty.rooted", "Penalty.l1"),
        source="Keras L2(c) is c sum W^2; weight_decay c adds c W to the gradient",
    ),
    _L(
        id="unstable-form",
        meaning="the same function in a form that loses digits in float32",
        unproven="no edit of the mathematics: the float32 runs prove it (verdict `different (unstable)`)",
    ),
    _L(
        id="loss-different",
        meaning="another loss function",
        edits=(
            *(
                "loss>loss",
                "+loss",
                "loss:other",
                "Hinge.margin",
                "Hinge.power",
                "CategoricalHinge.margin",
                "CategoricalHinge.over",
            ),
            *("Triplet.margin", "Triplet.norm", "Poisson.reads", "Poisson.epsilon", "Poisson.stirling", "Focal.gamma"),
            *("BinaryFocal.gamma", "BinaryFocal.alpha", "Focal.alpha", "CosineSimilarity.epsilon"),
            *(
                "PercentageError.floor",
                "SquaredLogError.floor",
                "BinaryCrossEntropy.positive_weight",
                *("CrossEntropy.axis", "CategoricalHinge.zero_at_target", "CategoricalHinge.ties"),
            ),
        ),
    ),
    # --- optimizer ----------------------------------------------------------------------------------------------
    _U(id="learning-rate", meaning="another learning rate value", edits=("optimizer.learning_rate",)),
    _U(
        id="learning-rate-groups",
        meaning="some parameters have a learning rate of their own on one side only, or another one",
        edits=("Rule.multiples",),
        source="torch 2.13 torch/optim/optimizer.py param_groups; Keras 3.15 has one rate",
    ),
    _U(
        id="maximize",
        meaning="an optimizer that goes uphill: it takes the gradients with the other sign",
        edits=("Rule.maximize",),
        source="torch 2.13 torch/optim: every optimizer's maximize=True, -grads[i]; Keras 3.15 has none",
    ),
    _U(
        id="optimizer-default-lr",
        meaning="default learning rate",
        edits=("optimizer.learning_rate",),
        when=_default_rate,
        source="Keras 3.15 RMSprop 0.001, torch 2.13 0.01",
    ),
    _U(
        id="adam-epsilon",
        meaning="Adam epsilon value",
        edits=("Adam.epsilon", "Adamax.epsilon", "Nadam.epsilon"),
        source="torch 2.13 1e-8; Keras 3.15 1e-7",
    ),
    _U(
        id="adam-epsilon-placement",
        meaning="epsilon before or after bias correction",
        edits=("Adam.epsilon_placement", "Adamax.epsilon_placement"),
        source="Kingma and Ba 2014, section 2 (Keras) against algorithm 1 (torch, optax)",
    ),
    _U(
        id="adam-bias-correction",
        meaning="bias correction missing or of another form",
        edits=("Adam.bias_correction",),
    ),
    _U(
        id="amsgrad",
        meaning="AMSGrad on one side only, or of the corrected moment",
        edits=("Adam.amsgrad",),
        source="optax 0.2 maximises the corrected moment; torch and Keras the uncorrected",
    ),
    _U(
        id="adagrad-initial-accumulator",
        meaning="Adagrad accumulator start",
        edits=("Adagrad.initial_accumulator", "RMSprop.initial_mean_square"),
        source="torch 2.13 0; Keras 3.15 0.1",
    ),
    _U(
        id="adagrad-epsilon",
        meaning="Adagrad epsilon value or placement",
        edits=("Adagrad.epsilon", "Adagrad.epsilon_placement"),
        source="torch 2.13 1e-10 outside the root; Keras 3.15 1e-7 inside",
    ),
    _U(
        id="rmsprop-epsilon-placement",
        meaning="RMSprop epsilon inside or outside the square root, or its value",
        edits=("RMSprop.epsilon_placement", "RMSprop.epsilon"),
        source="torch 2.13 outside; Keras 3.15 inside",
    ),
    _U(
        id="rmsprop-rho",
        meaning="RMSprop decay constant",
        edits=("RMSprop.rho",),
        source="torch 2.13 alpha 0.99; Keras 3.15 rho 0.9",
    ),
    _U(id="rmsprop-centered", meaning="centered variance on one side only", edits=("RMSprop.centered",)),
    _U(
        id="adadelta-rho",
        meaning="Adadelta decay or epsilon",
        edits=("Adadelta.rho", "Adadelta.epsilon"),
        source="torch 2.13 0.9, 1e-6; Keras 3.15 0.95, 1e-7",
    ),
    _U(
        id="nadam-momentum-decay",
        meaning="NAdam momentum schedule",
        edits=("Nadam.momentum_damping", "Nadam.momentum_decay", "Nadam.decay_base"),
        source="torch 2.13 momentum_decay 0.004; Keras 3.15 0.96^t; optax none",
    ),
    _U(
        id="momentum-value",
        meaning="another momentum or beta value",
        edits=("optimizer.momentum", "optimizer.beta_1", "optimizer.beta_2"),
    ),
    _U(
        id="momentum-dampening",
        meaning="velocity accumulates g or (1 - mu) g",
        edits=("SGD.dampening", "SGD.first_velocity"),
        along=("SGD.first_velocity",),
    ),
    _U(id="nesterov-form", meaning="Nesterov's update in another form, or on one side only", edits=("SGD.nesterov",)),
    _U(
        id="sgd-momentum-lr-schedule",
        meaning="learning rate inside or outside the velocity while it changes",
        edits=("SGD.velocity", "RMSprop.velocity"),
        source="torch 2.13 outside; Keras 3.15 inside",
    ),
    _U(
        id="adamw-default-weight-decay",
        meaning="AdamW default decay",
        edits=("optimizer.weight_decay",),
        when=_default_decay,
        source="torch 2.13 0.01; Keras 3.15 0.004",
    ),
    _U(id="weight-decay-value", meaning="another decay value", edits=("optimizer.weight_decay",)),
    _U(
        id="weight-decay-coupling",
        meaning="L2 in the gradient against decoupled decay",
        edits=("optimizer.decay",),
        source="torch Adam(weight_decay) coupled; AdamW and Keras decoupled",
    ),
    _U(
        id="weight-decay-scope",
        meaning="penalty or decay on all parameters or on kernels only",
        edits=("Rule.decayed", "Penalty.scope"),
    ),
    _U(
        id="grad-clip-per-variable",
        meaning="per-variable against global-norm clipping",
        edits=("Clipping.by",),
        when=lambda edit: "value" not in (edit.before, edit.after),
        source="Keras clipnorm is per variable, global_clipnorm and torch's clip_grad_norm_ are global",
    ),
    _U(
        id="grad-clip-epsilon",
        meaning="the 1e-6 in clip_grad_norm_",
        edits=("Clipping.epsilon",),
        source="torch 2.13 nn/utils/clip_grad.py",
    ),
    _U(
        id="grad-clip-value",
        meaning="clipping by value, by norm, or none",
        edits=("+Clipping", "Clipping.by", "Clipping.limit", "Clipping.order", "update:rates"),
    ),
    _U(
        id="lr-schedule-granularity",
        meaning="schedule advanced per batch or per epoch",
        edits=("Rule.schedule_every", "Rule.first_position"),
    ),
    _U(
        id="lr-schedule-form",
        meaning="another schedule formula",
        edits=("schedule>schedule", "schedule.*", "update:rates"),
    ),
    _U(id="optimizer-different", meaning="another optimizer", edits=("optimizer>optimizer", "+optimizer")),
    _U(
        id="sparse-gradient-square",
        meaning="rows that occur several times are squared one by one, not their sum",
        edits=("update:rows",),
        source="Keras 3.15 adaptive optimizers on IndexedSlices",
    ),
    # --- data ---------------------------------------------------------------------------------------------------
    _D(id="data-order", meaning="other batches per step", edits=("batches:order", "batches:columns")),
    _D(
        id="batch-size",
        meaning="another batch size or a dropped last batch",
        unproven="no difference of two models: a comparison refuses sides that do not take as many examples",
    ),
    # --- precision ----------------------------------------------------------------------------------------------
    Cause(
        id="float32-constant",
        acts="forward",
        meaning="a constant passes through float32 in a float64 run (`because: leak`)",
        edits=("Leaks.names",),
    ),
    Cause(
        id="float32-kernel",
        acts="forward",
        meaning="a whole computation runs in float32 in a float64 run (`because: one precision`)",
        unproven="a rounding: its results lie on the float32 grid or do not follow a move of 2^-40",
    ),
    Cause(
        id="tf32-or-reduced-precision",
        acts="forward",
        meaning="matrix products in reduced precision on one side",
        unproven="no difference in float64: the flags recorded with the environment say it",
    ),
    Cause(
        id="nondeterminism",
        acts="forward",
        meaning="a side does not reproduce itself",
        unproven="no edit: the step taken twice from the same state proves it",
    ),
    Cause(
        id="stale-weights",
        acts="gradient",
        meaning="a gradient computed with already updated weights",
        unproven="a race of TensorFlow 2.21's graph training, which a comparison does not use",
    ),
)
"""Loss, optimizer, loop, data, precision."""
