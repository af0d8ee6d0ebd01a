"""torch's words for the reference's optimizers, clippings and losses; rows as in `writing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frameworks.writing import Entry, Rows, given, named
from harness import case, objectives, rules, terms

# --- optimizers -------------------------------------------------------------------------------------------------


def _betas(op: Any) -> str:
    return f"betas=({op.beta_1}, {op.beta_2})"


_RATES: Mapping[str, Entry] = {"learning_rate": "lr", "weight_decay": "weight_decay"}
_EPSILON: Mapping[str, Entry] = _RATES | {"epsilon": "eps"}
_ADAM: Mapping[str, Entry] = _EPSILON | {"beta_1": _betas, "beta_2": _betas}
_SGD: Mapping[str, Entry] = _RATES | {"momentum": "momentum", "nesterov": "nesterov"}


def _adam(op: Any) -> str:
    return "torch.optim.AdamW" if op.decay == "decoupled" and op.weight_decay else "torch.optim.Adam"


def _clipping(op: Any) -> str:
    if op.by == "value":
        return f"torch.nn.utils.clip_grad_value_(model.parameters(), {op.limit})"
    if op.by == "global_norm":
        return f"torch.nn.utils.clip_grad_norm_(model.parameters(), {op.limit})"
    return f"for p in model.parameters(): torch.nn.utils.clip_grad_norm_(p, {op.limit})"


_CASE_AND_RULES: Rows = {
    kind: row
    for package in (case, rules)
    for kind, row in {
        package.SGD: ("torch.optim.SGD", _SGD | {"dampening": "dampening"}),
        package.Adagrad: (
            "torch.optim.Adagrad",
            _EPSILON | {"initial_accumulator": "initial_accumulator_value", "rate_decay": "lr_decay"},
        ),
        package.RMSprop: (
            "torch.optim.RMSprop",
            _EPSILON | {"rho": "alpha", "momentum": "momentum", "centered": "centered"},
        ),
        package.Adam: (
            _adam,
            _ADAM | {**named("decay"), "amsgrad": given("amsgrad", lambda op: op.amsgrad != "no")},
        ),
    }.items()
}

# --- losses -----------------------------------------------------------------------------------------------------


def _huber(op: Any) -> str:
    return f"nn.SmoothL1Loss(beta={op.delta})" if op.divided_by_delta else f"nn.HuberLoss(delta={op.delta})"


def _binary(op: Any) -> str:
    return "nn.BCEWithLogitsLoss()" if op.reads == "logits" else "nn.BCELoss()"


def _classes(op: Any) -> str:
    """torch has no loss of probabilities: it is written with the logarithm."""
    if op.reads in ("logits", "log_probabilities"):
        return "nn.CrossEntropyLoss()" if op.reads == "logits" else "nn.NLLLoss()"
    p = f"F.softmax(output, {op.axis})" if op.reads == "activated_logits" else "output"
    p = p if op.clip is None else f"{p}.clamp{op.clip}"
    p = f"{p} + {op.log_epsilon}" if op.log_epsilon else p
    return f"F.nll_loss(torch.log({p}), target)" if op.renormalize == "none" else ""


_REDUCTIONS = {"none": "none", "sum": "sum", "mean": "mean", "batchmean": "batchmean", "weighted_mean": "mean"}


def _reduced(op: Any) -> str:
    known = op.reduction in _REDUCTIONS
    return f'loss(output, target, reduction="{_REDUCTIONS[op.reduction]}")' if known else ""


def _shape(op: Any) -> str:
    return "target.reshape(output.shape)" if op.alignment == "same" else ""


ROWS: Rows = {
    **_CASE_AND_RULES,
    rules.Adadelta: ("torch.optim.Adadelta", _EPSILON | {"rho": "rho"}),
    rules.Adamax: ("torch.optim.Adamax", _ADAM),
    rules.Nadam: ("torch.optim.NAdam", _ADAM | {"momentum_decay": "momentum_decay"}),
    rules.Clipping: (_clipping, named("by", "limit")),
    rules.Rule: ("optimizer", {"maximize": "maximize"}),
    rules.Accumulation: (
        "optimizer.zero_grad()",
        named("cleared"),
    ),
    terms.SquaredError: (lambda op: "nn.MSELoss() / 2" if op.half else "nn.MSELoss()", named("half")),
    terms.AbsoluteError: ("nn.L1Loss()", {}),
    terms.Huber: (_huber, named("delta", "divided_by_delta")),
    terms.Poisson: (
        "nn.PoissonNLLLoss",
        {
            "reads": given("log_input", lambda op: op.reads == "log_rate"),
            "epsilon": "eps",
            "stirling": "full",
        },
    ),
    terms.BinaryCrossEntropy: (_binary, named("reads")),
    terms.CrossEntropy: (_classes, named("reads", "clip", "log_epsilon")),
    terms.KLDivergence: ("nn.KLDivLoss", {"log_target": "log_target"}),
    terms.HingeEmbedding: ("nn.HingeEmbeddingLoss", {"margin": "margin"}),
    terms.SoftMargin: ("nn.SoftMarginLoss()", {}),
    terms.Triplet: (
        "nn.TripletMarginLoss",
        {"margin": "margin", "norm": "p", "epsilon": "eps", "swap": "swap"},
    ),
    objectives.Targets: (_shape, named("alignment")),
    objectives.Loss: (_reduced, named("reduction")),
}
