"""Bad input is refused at the boundary: one line that says what, where, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import numpy as np

from harness.case import BinaryCrossEntropy, Case, CategoricalCrossEntropy, HarnessError, MeanSquaredError
from harness.data import Data
from harness.layout import Shape, shapes_of


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """The name if it is known; otherwise a HarnessError with the nearest ones."""
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}"
    raise HarnessError(f"unknown {kind} {name!r}{hint}")


def check_case(case: Case) -> Case:
    """The case, if every field is of its type and in its range; otherwise a HarnessError naming all that are not."""
    from pydantic import TypeAdapter, ValidationError

    try:
        checked = TypeAdapter(Case).validate_python(case)
    except ValidationError as error:
        found = [(".".join(str(part) for part in e["loc"]), e["msg"], e["input"]) for e in error.errors()]
        lines = [f"{where}: {message[0].lower()}{message[1:]} (is {value!r})" for where, message, value in found]
        raise HarnessError(f"case {getattr(case, 'name', '?')}: " + "; ".join(lines)) from None
    if checked.float32_constants:
        raise HarnessError(f"case {case.name}: float32_constants is for the proofs of leaks; leave it empty")
    return checked


def check_data(case: Case, data: Data) -> None:
    """Raises HarnessError where the data are empty, not finite or do not fit the network and the loss."""
    for name in ("x", "y", "x_test", "y_test"):
        values = getattr(data, name)
        if not len(values):
            raise HarnessError(f"case {case.name}: {name} of {case.data} holds no example; give at least one")
        if not np.isfinite(values).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise HarnessError(
                f"case {case.name}: {name} of {case.data} holds {values[where]} at {where}; clean the data"
            )
    if len(data.x) != len(data.y):
        raise HarnessError(f"case {case.name}: {len(data.x)} inputs but {len(data.y)} targets; they must be as many")
    _, activations = shapes_of(case, (1, *data.x.shape[1:]))
    output, target = activations[case.nodes[-1].name], data.y.shape[1:]
    match case.loss:
        case CategoricalCrossEntropy(sparse=True):
            fits = target == () and data.y.dtype == np.int64 and data.y.min() >= 0 and data.y.max() < output[-1]
            wanted = f"class indices below {output[-1]} of shape (examples,)"
        case BinaryCrossEntropy() | CategoricalCrossEntropy() | MeanSquaredError():
            fits, wanted = target == output[1:], f"shape (examples, {', '.join(map(str, output[1:]))})"
        case _:
            return
    if not fits:
        raise HarnessError(
            f"case {case.name}: targets of shape {data.y.shape} ({data.y.dtype}) do not fit; need {wanted}"
        )


def check_parameters(case: Case, data: Data, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises HarnessError where given initial parameters lack a name, have another shape or are not finite."""
    shapes: Mapping[str, Shape] = shapes_of(case, (1, *data.x.shape[1:]))[0]
    for name, shape in shapes.items():
        if name not in arrays:
            raise HarnessError(
                f"case {case.name}: no initial value for parameter {name}; give an array of shape {shape}"
            )
        if np.shape(arrays[name]) != shape:
            raise HarnessError(f"case {case.name}: parameter {name} has shape {np.shape(arrays[name])}, needs {shape}")
        if not np.isfinite(arrays[name]).all():
            raise HarnessError(f"case {case.name}: parameter {name} is not finite at the start")
