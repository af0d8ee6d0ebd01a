"""Keras's words for the reference's losses, targets and penalties; rows as in `writing`.

Arguments: Keras 3.15, keras/src/losses/losses.py, keras/src/regularizers/regularizers.py, keras/src/trainers/trainer.py
and keras/src/backend/tensorflow/trainer.py. `loss`, `model`, `x`, `y` and `output` stand for the user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from frameworks.writing import Entry, Rows, given, named, only
from harness import case, objectives, terms

# --- losses -----------------------------------------------------------------------------------------------------


def _weighted(loss: str, factor: float) -> str:
    return loss if factor == 1 else f"model.compile(loss={loss}, loss_weights={factor})"


def _squared(op: Any) -> str:
    return _weighted("keras.losses.MeanSquaredError()", 0.5 if op.half else 1.0)


def _huber(op: Any) -> str:
    factor = (1.0 if op.half else 2.0) / (op.delta if op.divided_by_delta else 1.0)
    return _weighted(f"keras.losses.Huber(delta={op.delta})", factor)


def _percentage(op: Any) -> str:
    return _weighted("keras.losses.MeanAbsolutePercentageError()", op.factor / 100)


def _from_logits(of: Callable[[Any], Any], logits: str) -> Callable[[Any], str | None]:
    """What the entropy reads; probabilities otherwise."""
    known = {logits: True, "probabilities": False}
    return lambda op: f"from_logits={known[of(op).reads]}" if of(op).reads in known else None


def _classes(op: Any) -> str:
    """A term does not know whether its targets are one-hot or indices; probabilities may tell."""
    if op.reads not in ("logits", "probabilities"):
        return ""
    both = ("CategoricalCrossentropy", "SparseCategoricalCrossentropy")
    kinds = {"sum": both[:1], "softmax": both[1:]}.get(op.renormalize, both)
    arguments = f"from_logits={op.reads == 'logits'}" + (f", axis={op.axis}" if op.axis != -1 else "")
    return " or ".join(f"keras.losses.{kind}({arguments})" for kind in kinds)


def _case_classes(op: Any) -> str:
    return f"keras.losses.{'Sparse' if op.sparse else ''}CategoricalCrossentropy"


def _focal_entropy(op: Any) -> str | None:
    reads = _from_logits(lambda op: op.entropy, "activated_logits")(op)
    return reads and (reads if op.entropy.axis == -1 else f"{reads}, axis={op.entropy.axis}")


def _balance(op: Any) -> str:
    return "apply_class_balancing=" + ("False" if op.alpha is None else f"True, alpha={op.alpha}")


def _is_dice(op: Any) -> bool:
    return op.alpha == op.beta == 0.5


def _share(name: str) -> Callable[[Any], str]:
    return lambda op: "" if _is_dice(op) else f"{name}={getattr(op, name)}"


_REDUCTION: Mapping[str, Entry] = {
    "reduction": given("reduction", lambda op: "sum_over_batch_size" if op.reduction == "mean" else op.reduction)
}

_TERMS: Rows = {
    case.MeanSquaredError: ("keras.losses.MeanSquaredError", _REDUCTION),
    case.BinaryCrossEntropy: (
        "keras.losses.BinaryCrossentropy",
        {"reads": _from_logits(lambda op: op, "logits"), **_REDUCTION},
    ),
    case.CategoricalCrossEntropy: (
        _case_classes,
        {**named("sparse"), "reads": _from_logits(lambda op: op, "logits"), **_REDUCTION},
    ),
    terms.SquaredError: (_squared, named("half")),
    terms.AbsoluteError: ("keras.losses.MeanAbsoluteError", {}),
    terms.Huber: (_huber, named("delta", "divided_by_delta", "half")),
    terms.LogCosh: ("keras.losses.LogCosh", {}),
    terms.PercentageError: (_percentage, named("factor")),
    terms.SquaredLogError: ("keras.losses.MeanSquaredLogarithmicError", {}),
    terms.Poisson: ("keras.losses.Poisson", {"reads": only("reads", "rate"), "stirling": only("stirling", False)}),
    terms.BinaryCrossEntropy: (
        "keras.losses.BinaryCrossentropy",
        {"reads": _from_logits(lambda op: op, "logits"), "positive_weight": only("positive_weight", ())},
    ),
    terms.BinaryFocal: (
        "keras.losses.BinaryFocalCrossentropy",
        {"entropy": _from_logits(lambda op: op.entropy, "logits"), "gamma": "gamma", "alpha": _balance},
    ),
    terms.Hinge: (
        lambda op: f"keras.losses.{'Hinge' if op.power == 1 else 'SquaredHinge'}",
        {"power": lambda op: "", "margin": only("margin", 1.0)},
    ),
    terms.CrossEntropy: (_classes, named("reads", "axis", "renormalize")),
    terms.Focal: (
        "keras.losses.CategoricalFocalCrossentropy",
        {"entropy": _focal_entropy, "gamma": "gamma", "alpha": "alpha"},
    ),
    terms.KLDivergence: (
        "keras.losses.KLDivergence",
        {"reads": only("reads", "probabilities"), "log_target": only("log_target", False)},
    ),
    terms.CategoricalHinge: (
        "keras.losses.CategoricalHinge",
        {"margin": only("margin", 1.0), "power": only("power", 1), "over": only("over", "worst")},
    ),
    terms.CosineSimilarity: ("keras.losses.CosineSimilarity", {"from_one": only("from_one", False)}),
    terms.Overlap: (
        lambda op: f"keras.losses.{'Dice' if _is_dice(op) else 'Tversky'}",
        {
            "alpha": _share("alpha"),
            "beta": _share("beta"),
            "axes": lambda op: f"axis={op.axes or None}",
            "added": only("added", 0.0),
        },
    ),
    terms.CTC: (
        "keras.losses.CTC",
        {
            "reads": only("reads", "logits"),
            "blank": only("blank", 0),
            "by_length": only("by_length", False),
            "zero_infinity": only("zero_infinity", False),
        },
    ),
}

# --- around the loss --------------------------------------------------------------------------------------------

_REDUCED = {
    "none": 'loss(reduction="none")',
    "sum": 'loss(reduction="sum")',
    "valid_mean": 'loss(reduction="sum_over_batch_size")',
    "weighted_mean": 'loss(reduction="mean_with_sample_weight")',
    # Keras divides by what a mask leaves
    "mean": 'keras.ops.mean(loss(reduction="none")(y, output))',
    "batchmean": 'keras.ops.sum(loss(reduction="none")(y, output)) / len(output)',
}


def _smoothing(op: Any) -> str | None:
    """Keras smooths one-hot targets, not indices."""
    if op.smoothing and op.spread == "others":
        return None
    if op.smoothing and op.form == "indices":
        return (
            f"keras.ops.one_hot(y, classes) then keras.losses.CategoricalCrossentropy(label_smoothing={op.smoothing})"
        )
    return f"loss(label_smoothing={op.smoothing})"


def _ignored(op: Any) -> str | None:
    indices = op.form == "indices"
    return f"keras.losses.SparseCategoricalCrossentropy(ignore_class={op.ignore_index})" if indices else None


def _class_weights(op: Any) -> str | None:
    by_row = op.class_weighting == "rows" or not op.class_weights
    return f"model.fit(x, y, class_weight={dict(enumerate(op.class_weights)) or None})" if by_row else None


def _penalty(op: Any) -> str:
    if op.rooted:
        return ""
    l2 = op.l2 / 2 if op.half else op.l2
    if op.l1 and l2:
        return f"keras.regularizers.L1L2(l1={op.l1}, l2={l2})"
    return f"keras.regularizers.L1({op.l1})" if op.l1 else f"keras.regularizers.L2({l2})"


_AROUND: Rows = {
    objectives.Loss: (
        None,
        {
            "reduction": lambda op: _REDUCED[op.reduction],
            "factor": lambda op: f"model.compile(loss=loss, loss_weights={op.factor})",
            "class_weights": _class_weights,
        },
    ),
    objectives.Targets: (
        None,
        {
            "form": lambda op: f"keras.losses.{'Sparse' if op.form == 'indices' else ''}CategoricalCrossentropy()",
            "smoothing": _smoothing,
            "ignore_index": _ignored,
        },
    ),
    objectives.Penalty: (_penalty, named("l1", "l2", "half", "rooted")),
}

ROWS: Rows = {**_TERMS, **_AROUND}
