"""What a row of the table of causes is, and the words in which it names edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.editing import Edit, Part, Parts

Acts = Literal["forward", "loss", "gradient", "update", "state", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A reason for which the same model gives different numbers.

    id: stable. acts: where it first shows. edits: signatures of the edits of a Case that produce it (see `signatures`),
    any one of them; along: those that may go with it. when: what else must hold of the edit. source: where frameworks
    differ so, file and version. unproven: why no edit proves it, where none does.
    """

    id: str
    acts: Acts
    meaning: str
    edits: tuple[str, ...] = ()
    along: tuple[str, ...] = ()
    when: Callable[[Edit], bool] | None = None
    source: str = ""
    unproven: str = ""


GROUPS = {
    "activation": (
        *("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "Softmax", "SoftmaxOver", "Rectifier", "ClippedLinear", "HardSwish"),
        *(
            "ELU",
            "GELU",
            "Swish",
            "Mish",
            "Softplus",
            "Softsign",
            "LogSigmoid",
            "TanhShrink",
            "SoftShrink",
            "HardShrink",
        ),
        *("Threshold", "PReLU", "Gated", "Function", "Absolute", "Linear"),
    ),
    "norm": ("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "ResponseNorm", "UnitNorm"),
    "optimizer": ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "Adamax", "Nadam", "RAdam", "Lion"),
    "loss": (
        *("SquaredError", "AbsoluteError", "Huber", "LogCosh", "PercentageError", "SquaredLogError", "Poisson"),
        *("BinaryCrossEntropy", "BinaryFocal", "Hinge", "HingeEmbedding", "SoftMargin", "CrossEntropy", "Focal"),
        *("KLDivergence", "CategoricalHinge", "CosineSimilarity", "Triplet", "Output"),
        *("MeanSquaredError", "CategoricalCrossEntropy", "Objective"),
    ),
    "scores": ("SoftmaxOver", "Attention", "MultiHeadAttention"),
    "schedule": ("Constant", "Exponential", "InverseTime", "Piecewise", "Cosine", "Polynomial", "Warmup"),
}
"""Kinds that stand for each other; "scores": that make weights of the scores of an attention."""

Near = tuple[Parts, Parts]
"""What makes, and what reads, that which some parts compute, in the order of the computation."""

PASSING = (
    *("NoneType", "Combine", "Select", "Mask", "Scale", "Dropout", "Reshape", "Permute", "Expand", "Einsum"),
    *("Extremum", "ClippedLinear", "Detach"),  # the largest of them, which jax.nn.softmax takes off first
)
"""Kinds through which scores remain scores of the same attention."""


def kind(part: Part) -> str:
    """A part's kind in the table's words."""
    name = type(part).__name__
    if name == "LayerNorm" and not part.center:
        return "RMSNorm"
    if name == "Rectifier" and part.negative_slope:
        return "LeakyReLU"
    return name


def signatures(edit: Edit, parts: Parts, near: Near = ((), ())) -> tuple[str, ...]:
    """How the table may name an edit of some parts, the most telling first: `BatchNorm.epsilon`, `norm.epsilon`; a part
    replaced `ReLU>Tanh`, `activation>activation`, `>`; one that only one side has `+Scale`, `+norm`, `+`. Each
    first with the kind of another part before it: `KLDivergence:Loss.reduction`; `scores:` where it is one of the
    scores of an attention."""
    plain = _signatures(edit, parts[edit.position])
    beside = dict.fromkeys(kind(part) for i, part in enumerate(parts) if part is not None and i != edit.position)
    of = [*(("scores",) if _of_scores(edit, parts, near) else ()), *beside]
    return (*(f"{other}:{signature}" for other in of for signature in plain), *plain)


def _of_scores(edit: Edit, parts: Parts, near: Near) -> bool:
    """Whether an attention reads what is edited: a layer of it, or a softmax with a product before it or behind."""
    before = _up_to([*near[0], *parts[: edit.position]][::-1], ("Einsum",))
    behind = _up_to([*parts[edit.position + 1 :], *near[1]], GROUPS["scores"])
    if not behind or behind[-1] not in GROUPS["scores"]:
        return False
    rest = [*parts[edit.position + 1 :], *near[1]][len(behind) :]
    return behind[-1] != "SoftmaxOver" or "Einsum" in (*before, *behind, *_up_to(rest, ("Einsum",)))


def _up_to(parts: Sequence[Part], wanted: Sequence[str]) -> list[str]:
    """The kinds of parts in a row, up to the first that is wanted or that scores do not pass."""
    kinds = [type(part).__name__ for part in parts]
    end = next((i for i, name in enumerate(kinds) if name in wanted or name not in PASSING), len(kinds) - 1)
    return kinds[: end + 1]


def _signatures(edit: Edit, part: Part) -> tuple[str, ...]:
    if edit.field:
        return tuple(f"{name}.{field}" for name in (kind(part), *_groups(part)) for field in (edit.field, "*"))
    one, other = edit.before, edit.after
    if one is None or other is None:
        there = other if one is None else one
        return (f"+{kind(there)}", *(f"+{group}" for group in _groups(there)), "+")
    names = [(kind(side), *_groups(side)) for side in (one, other)]
    return (*(f"{a}>{b}" for pair in (names, names[::-1]) for a in pair[0] for b in pair[1]), ">")


def _groups(part: Part) -> tuple[str, ...]:
    return tuple(group for group, kinds in GROUPS.items() if kind(part) in kinds)
