"""torch's losses in the reference's words: torch 2.13, torch/nn/modules/loss.py and torch/nn/functional.py."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name that users give it)

from harness.objectives import Loss, Targets, listed
from harness.recipe import Recipe
from harness.terms import (
    AbsoluteError,
    BinaryCrossEntropy,
    CategoricalHinge,
    CrossEntropy,
    HingeEmbedding,
    Huber,
    KLDivergence,
    Poisson,
    SoftMargin,
    SquaredError,
    Term,
    Triplet,
)

Settings = Mapping[str, Any]

_FUNCTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
    nn.KLDivLoss: F.kl_div,
    nn.HingeEmbeddingLoss: F.hinge_embedding_loss,
    nn.SoftMarginLoss: F.soft_margin_loss,
    nn.MultiMarginLoss: F.multi_margin_loss,
    nn.MultiLabelSoftMarginLoss: F.multilabel_soft_margin_loss,
    nn.TripletMarginLoss: F.triplet_margin_loss,
}
_WEIGHTED_BY_ELEMENT = (F.mse_loss, F.l1_loss, F.huber_loss)
# BCELoss keeps 1e-12 in a float: at p = 0 its derivative in float64 is -1/float32(1e-12) (measured)
_ENTROPY = BinaryCrossEntropy(
    reads="probabilities",
    clip=None,
    log_epsilon=0.0,
    log_floor=-100.0,
    denominator_floor=float(np.float32(1e-12)),
    positive_weight=(),
)
_LOGITS = dataclasses.replace(_ENTROPY, reads="logits", log_floor=-math.inf, denominator_floor=0.0)
_CROSS_ENTROPY = CrossEntropy(reads="logits", axis=1, renormalize="none", clip=None, log_epsilon=0.0)


def read_loss(loss: Any, targets: Tensor | None = None) -> Loss | None:
    """A torch loss, module or function (also a functools.partial with keywords), or None for one that is not known.

    targets: an example, for CrossEntropyLoss takes indices and probabilities, and averages otherwise; indices if None.
    """
    function, settings = _settings(loss)
    if function not in _READERS or any(settings.get(name) is not None for name in ("size_average", "reduce")):
        return None
    weights = _per_class(settings.get("weight"))
    if weights is None or (weights and function in _WEIGHTED_BY_ELEMENT):
        return None
    plain = Loss(
        term=SquaredError(half=False),
        targets=Targets(
            form="values", alignment="broadcast", smoothing=0.0, spread="all", ignore_index=None, labels=()
        ),
        inner="none",
        reduction=settings["reduction"],
        class_weights=weights,
        class_weighting="classes",
        factor=1.0,
        offset=0.0,
    )
    if function in (F.cross_entropy, F.nll_loss):
        return _entropy(plain, function, settings, targets is not None and targets.is_floating_point())
    term = _READERS[function](settings)
    if term is None:
        return None
    read = dataclasses.replace(plain, term=term)
    if function is F.multi_margin_loss:
        indices = dataclasses.replace(plain.targets, form="indices")
        return dataclasses.replace(read, targets=indices, class_weighting="rows")
    return dataclasses.replace(read, inner="mean") if function is F.multilabel_soft_margin_loss else read


def read_recipe_loss(recipe: Recipe, targets: Tensor | None, is_weighted: bool) -> Loss | None:
    """A recipe's loss with its class weights, without its penalty, as `pytorch_losses.evaluate` computes it.

    is_weighted: the batch has example weights. With these, or class weights, `mean` divides by the number of terms.
    """
    loss = None if recipe.train_step else read_loss(recipe.loss, targets)
    if loss is None or not (recipe.class_weight or is_weighted):
        return loss
    if loss.reduction not in ("none", "sum", "batchmean"):
        loss = dataclasses.replace(loss, reduction="mean")
    if not recipe.class_weight:
        return loss
    if loss.class_weights or targets is None:
        return None
    classes = max(targets.shape[-1], int(targets.max())) + 1
    return dataclasses.replace(loss, class_weights=listed(recipe.class_weight, classes), class_weighting="rows")


def _settings(loss: Any) -> tuple[Any, Settings]:
    """The function behind a loss, with all its keywords."""
    if type(loss) in _FUNCTIONS:
        function = _FUNCTIONS[type(loss)]
        return function, {**_defaults(function), **vars(loss), **loss._buffers}
    keywords: Settings = {}
    if isinstance(loss, functools.partial) and not loss.args:
        loss, keywords = loss.func, loss.keywords
    return (loss, {**_defaults(loss), **keywords}) if inspect.isfunction(loss) else (None, {})


def _defaults(function: Callable[..., Any]) -> Settings:
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty}


def _per_class(weight: Tensor | None) -> tuple[float, ...] | None:
    """Weights along the last axis or by class, () for none; None where they have another shape."""
    if weight is None:
        return ()
    return tuple(weight.reshape(-1).tolist()) if weight.ndim <= 1 else None


def _entropy(plain: Loss, function: Any, settings: Settings, are_probabilities: bool) -> Loss:
    reads = "logits" if function is F.cross_entropy else "log_probabilities"
    targets = dataclasses.replace(plain.targets, smoothing=settings.get("label_smoothing", 0.0))
    term = dataclasses.replace(_CROSS_ENTROPY, reads=reads)
    if are_probabilities:
        return dataclasses.replace(plain, term=term, targets=targets)
    targets = dataclasses.replace(targets, form="indices", ignore_index=settings["ignore_index"])
    mean = "weighted_mean" if plain.class_weights else "valid_mean"
    reduction = mean if plain.reduction == "mean" else plain.reduction
    return dataclasses.replace(plain, term=term, targets=targets, reduction=reduction)


def _smooth_l1(settings: Settings) -> Term:
    if not settings["beta"]:
        return AbsoluteError(slope_at_zero=0.0)
    return Huber(delta=float(settings["beta"]), divided_by_delta=True, half=True)


def _binary_logits(settings: Settings) -> Term | None:
    weights = _per_class(settings["pos_weight"])
    return None if weights is None else dataclasses.replace(_LOGITS, positive_weight=weights)


_READERS: Mapping[Any, Callable[[Settings], Term | None]] = {
    F.mse_loss: lambda s: SquaredError(half=False),
    F.l1_loss: lambda s: AbsoluteError(slope_at_zero=0.0),
    F.smooth_l1_loss: _smooth_l1,
    F.huber_loss: lambda s: Huber(delta=float(s["delta"]), divided_by_delta=False, half=True),
    F.poisson_nll_loss: lambda s: Poisson(
        reads="log_rate" if s["log_input"] else "rate", epsilon=s["eps"], stirling=s["full"]
    ),
    F.binary_cross_entropy: lambda s: _ENTROPY,
    F.binary_cross_entropy_with_logits: _binary_logits,
    F.cross_entropy: lambda s: _CROSS_ENTROPY,
    F.nll_loss: lambda s: _CROSS_ENTROPY,
    F.kl_div: lambda s: KLDivergence(
        reads="log_probabilities", log_target=s["log_target"], clip=None, target_clip=None
    ),
    F.hinge_embedding_loss: lambda s: HingeEmbedding(margin=s["margin"]),
    F.soft_margin_loss: lambda s: SoftMargin(labels="signs"),
    F.multi_margin_loss: lambda s: CategoricalHinge(
        margin=s["margin"], power=s["p"], over="mean", zero_at_target=False, ties="first", slope_at_margin=0.0
    ),
    F.multilabel_soft_margin_loss: lambda s: _LOGITS,
    F.triplet_margin_loss: lambda s: Triplet(
        margin=s["margin"], norm=s["p"], epsilon=s["eps"], epsilon_placement="difference", swap=s["swap"]
    ),
}
