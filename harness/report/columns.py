"""What the columns of the frames hold: the one table that schemas, pages and the README are made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """dtype: category is text of few different values. unit: empty for what has none."""

    dtype: str
    unit: str
    meaning: str


def _table(*rows: tuple[str, str, str, str]) -> dict[str, Column]:
    return {name: Column(dtype=dtype, unit=unit, meaning=meaning) for name, dtype, unit, meaning in rows}


FRAME = _table(
    ("case", "category", "", "what was trained"),
    ("framework", "category", "", "the candidate"),
    ("mode", "category", "", "stochastic, mini-batch or batch"),
    ("step", "int32", "updates", "counted from 0"),
    ("epoch", "int32", "epochs", "counted from 0"),
    ("kind", "category", "", "activation, loss, activation_gradient, gradient, update, parameter, slot, buffer"),
    ("tensor", "category", "", "the tensor it belongs to: W1"),
    ("name", "category", "", "the quantity, in the reference's names: dL/dW1"),
    ("candidate_name", "category", "", "the quantity, as the candidate calls it; empty: the same"),
    ("shape", "category", "", "16x30; empty for a scalar"),
    ("reference", "float64", "of the tensor", "largest entry in float64, by size; a scalar's value"),
    ("candidate", "float64", "of the tensor", "the same of the candidate"),
    ("d32", "float64", "of the tensor", "largest difference of the two sides in float32"),
    ("d64", "float64", "of the tensor", "largest difference of the two sides in float64"),
    ("noise_reference", "float64", "of the tensor", "largest difference of the reference's own two precisions"),
    ("noise_candidate", "float64", "of the tensor", "the same of the candidate"),
    ("budget", "float64", "of the tensor", "what rounding can explain in float64"),
    ("ratio", "float64", "budgets", "d64 / budget; rounding explains up to 30"),
    ("ulp", "float64", "eps64 x size", "d64 in units of float64's grain"),
    ("digits", "float64", "decimal digits", "in which the two float32 runs agree"),
    ("worst_index", "string", "", "where in a tensor that is different"),
    ("verdict", "category", "", "identical, rounding, undecided or different"),
    ("because", "category", "", "what explains the verdict"),
    ("detail", "category", "", "why a side cannot show the quantity"),
)
"""The tidy frame: a row per case, framework, step and quantity."""

CONVERGENCE = _table(
    ("case", "string", "", "what was trained"),
    ("framework", "string", "", "whose run: the reference's or a candidate's"),
    ("mode", "string", "", "stochastic, mini-batch or batch"),
    ("epoch", "float64", "epochs", "how often the training data were seen"),
    ("step", "int64", "updates", "taken so far; 0 is the start"),
    ("loss", "float64", "of the loss", "on all training data (of a comparison of two models: on the step's batch)"),
    ("accuracy", "float64", "share", "of right answers on the test data; empty without classes"),
    ("gradient_norm", "float64", "of the loss", "of the gradient of all parameters (of two models: its largest entry)"),
    ("distance32", "float64", "largest parameter", "largest difference of any parameter from the reference's, float32"),
    ("distance64", "float64", "largest parameter", "the same in float64"),
    ("seconds", "float64", "s", "spent in the float32 run so far"),
)
"""The convergence frame: a row per case, framework and evaluated step."""
