"""Keras's losses in the reference's words: Keras 3.15, keras/src/losses/{loss,losses}.py, on TensorFlow."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import losses

from harness.objectives import Loss, Reduction, Targets, listed
from harness.terms import (
    CTC,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    CategoricalHinge,
    Clip,
    CosineSimilarity,
    CrossEntropy,
    Focal,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    Overlap,
    PercentageError,
    Poisson,
    SquaredError,
    SquaredLogError,
    Term,
)

Settings = Mapping[str, Any]

_REDUCTIONS: Mapping[str | None, Reduction] = {
    **{None: "none", "none": "none", "sum": "sum", "mean_with_sample_weight": "weighted_mean"},
    **{"sum_over_batch_size": "valid_mean", "mean": "valid_mean"},
}

_ONE_BY_ROW = (CrossEntropy, Focal, CategoricalHinge, CosineSimilarity, Overlap, CTC)


def read_loss(loss: Any, fused: bool = False) -> Loss | None:
    """A Keras loss, object, function or name, or None for one that is not known.

    fused: q comes straight out of a sigmoid or softmax, which an entropy skips to read the logits before it: nothing
    is clipped or divided by its sum then (keras/src/backend/tensorflow/nn.py, _get_logits).
    """
    if isinstance(loss, str):
        loss = losses.get(loss)
    function, settings = _settings(loss)
    if function not in _READERS:
        return None
    term = _READERS[function](settings, fused)
    if term is None:
        return None
    is_sparse = function is losses.sparse_categorical_crossentropy
    return Loss(
        term=term,
        targets=Targets(
            form="indices" if is_sparse else "values",
            alignment="same",
            smoothing=settings.get("label_smoothing", 0.0),
            spread="all",
            ignore_index=settings.get("ignore_class"),
            labels=(),
        ),
        inner=_inner(function, term),
        reduction=_REDUCTIONS[settings["reduction"]],
        class_weights=(),
        class_weighting="rows",
        factor=1.0,
        offset=0.0,
    )


def read_compiled(
    compiled: Any, fused: Sequence[bool], class_weight: Mapping[int, float] | None, targets: Sequence[np.ndarray]
) -> tuple[Loss | None, ...]:
    """The losses that `fit` adds up, one for each output that has one, in their order; factors are loss_weights.

    compiled: the model's `_compile_loss` behind its first step (before, it does not know its parts: none is read).
    fused, targets: one for each loss. class_weight: as `fit` has it, from the first targets.
    """
    found: list[Loss | None] = []
    parts: Sequence[Any] = compiled._flat_losses or ()
    for (_, loss, weight, _), is_fused in zip(parts, fused, strict=False):
        read = read_loss(loss, is_fused)
        if read and weight is not None:
            read = dataclasses.replace(read, factor=float(weight))
        if read and class_weight and len(targets):
            classes = max(targets[0].shape[-1], int(np.max(targets[0]))) + 1
            read = dataclasses.replace(read, class_weights=listed(class_weight, classes))
        found.append(read)
    return tuple(found)


def _settings(loss: Any) -> tuple[Any, Settings]:
    """The function behind a loss, with all its keywords and the reduction."""
    reduction = "sum_over_batch_size"
    keywords: Settings = {}
    if isinstance(loss, _WRAPPER) and type(loss).call is _WRAPPER.call and type(loss).__call__ is losses.Loss.__call__:
        loss, keywords, reduction = loss.fn, loss._fn_kwargs, loss.reduction
    if not inspect.isfunction(loss):
        return None, {}
    defaults = {n: p.default for n, p in inspect.signature(loss).parameters.items() if p.default is not p.empty}
    return loss, {**defaults, **keywords, "reduction": reduction}


_WRAPPER: Any = next(kind for kind in losses.MeanSquaredError.__mro__ if "call" in vars(kind))


def _inner(function: Any, term: Term) -> Any:
    if isinstance(term, KLDivergence):
        return "sum"
    return "none" if isinstance(term, _ONE_BY_ROW) else "mean"


def _clip(fused: bool) -> Clip:
    return None if fused else (keras.config.epsilon(), 1 - keras.config.epsilon())


def _binary(settings: Settings, fused: bool) -> BinaryCrossEntropy | None:
    if settings["axis"] != -1:
        return None
    return BinaryCrossEntropy(
        reads="logits" if settings["from_logits"] else "probabilities",
        clip=None if settings["from_logits"] else _clip(fused),
        log_epsilon=0.0,
        log_floor=-math.inf,
        denominator_floor=0.0,
        positive_weight=(),
    )


def _binary_focal(settings: Settings, fused: bool) -> Term | None:
    entropy = _binary(settings, fused)
    alpha = settings["alpha"] if settings["apply_class_balancing"] else None
    return entropy and BinaryFocal(entropy=entropy, gamma=float(settings["gamma"]), alpha=alpha)


def _categorical(settings: Settings, fused: bool) -> Term:
    from_logits = settings["from_logits"]
    sparse = "ignore_class" in settings
    return CrossEntropy(
        reads="logits" if from_logits else "probabilities",
        axis=settings["axis"],
        renormalize="none" if from_logits or fused else "softmax" if sparse else "sum",
        clip=None if from_logits else _clip(fused),
        log_epsilon=0.0,
    )


def _focal(settings: Settings, fused: bool) -> Term:
    # never fused: the loss forms its probabilities itself
    reads = "activated_logits" if settings["from_logits"] else "probabilities"
    entropy = CrossEntropy(reads=reads, axis=settings["axis"], renormalize="sum", clip=_clip(False), log_epsilon=0.0)
    return Focal(entropy=entropy, gamma=float(settings["gamma"]), alpha=settings["alpha"])


def _cosine(settings: Settings, fused: bool) -> Term | None:
    if settings["axis"] != -1:
        return None
    return CosineSimilarity(from_one=False, epsilon=keras.config.epsilon(), epsilon_placement="floor")


def _overlap(settings: Settings, alpha: float, beta: float, epsilon: float) -> Term:
    axis = settings["axis"]
    axes = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    return Overlap(alpha=alpha, beta=beta, epsilon=epsilon, added=0.0, axes=axes)


def _hinge(power: Any) -> Callable[[Settings, bool], Term]:
    return lambda settings, fused: Hinge(margin=1.0, power=power, labels="bits_if_all", slope_at_margin=1.0)


_READERS: Mapping[Any, Callable[[Settings, bool], Term | None]] = {
    losses.mean_squared_error: lambda s, f: SquaredError(half=False),
    losses.mean_absolute_error: lambda s, f: AbsoluteError(slope_at_zero=0.0),
    losses.mean_absolute_percentage_error: lambda s, f: PercentageError(factor=100.0, floor=keras.config.epsilon()),
    losses.mean_squared_logarithmic_error: lambda s, f: SquaredLogError(floor=keras.config.epsilon()),
    losses.cosine_similarity: _cosine,
    losses.huber: lambda s, f: Huber(delta=float(s["delta"]), divided_by_delta=False, half=True),
    losses.log_cosh: lambda s, f: LogCosh(log_2=float(np.float32(math.log(2)))),
    losses.hinge: _hinge(1),
    losses.squared_hinge: _hinge(2),
    losses.categorical_hinge: lambda s, f: CategoricalHinge(
        margin=1.0, power=1, over="worst", zero_at_target=True, ties="split", slope_at_margin=1.0
    ),
    losses.kl_divergence: lambda s, f: KLDivergence(
        reads="probabilities",
        log_target=False,
        clip=(keras.config.epsilon(), 1.0),
        target_clip=(keras.config.epsilon(), 1.0),
    ),
    losses.poisson: lambda s, f: Poisson(reads="rate", epsilon=keras.config.epsilon(), stirling=False),
    losses.dice: lambda s, f: _overlap(s, 0.5, 0.5, keras.config.epsilon() / 2),
    losses.tversky: lambda s, f: _overlap(s, s["alpha"], s["beta"], keras.config.epsilon()),
    losses.ctc: lambda s, f: CTC(
        reads="logits",
        through_softmax=False,
        time_axis=1,
        blank=0,
        padding=0,
        by_length=False,
        zero_infinity=False,
    ),
    losses.binary_crossentropy: _binary,
    losses.binary_focal_crossentropy: _binary_focal,
    losses.categorical_crossentropy: _categorical,
    losses.categorical_focal_crossentropy: _focal,
    losses.sparse_categorical_crossentropy: _categorical,
}
