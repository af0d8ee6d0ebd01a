"""A block of Keras behind known inputs, what the adapter reads of it, and what NumPy makes of that reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from frameworks import keras_models as models
from harness.calls import Call
from harness.recipe import Batch, Recipe, Record, State
from reference.kinds import apply, pull_back

CLOSE = 1e-12
"""Relative to the largest element: both sides sum the same products in float64, in another order."""

RNG = np.random.default_rng


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One call of a block; the record under a random cotangent, with its inputs `given0`, `given1`, ...; and its
    parameters' gradients as a call of the same block with these as weights has them."""

    call: Call
    name: str
    record: Record
    gradients: tuple[tuple[np.ndarray, ...], ...]
    others: dict[str, Call]


def model_of(block: Callable[..., Any], arrays: Sequence[np.ndarray]) -> keras.Model:
    """The block of inputs that show as activations; whole numbers go in as they are."""
    keras.utils.set_random_seed(0)
    inputs: list[Any] = [
        keras.Input(array.shape[1:], dtype="int32" if array.dtype.kind == "i" else "float32") for array in arrays
    ]
    shown = [
        keras.layers.Rescaling(1.5, name=f"given{i}")(x) if x.dtype == "float32" else x for i, x in enumerate(inputs)
    ]
    result = block(*shown)
    return keras.Model(inputs, result[0] if isinstance(result, list | tuple) else result)


def seen(block: Callable[..., Any], *arrays: np.ndarray, training: bool = False, name: str = "") -> Seen:
    """Of the block's last activation, or the one named, with random weights."""
    model = model_of(block, arrays)
    for i, variable in enumerate(model.weights):
        value = RNG(i).normal(size=variable.shape) / 2
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    watched = models.watch(Recipe(model=model, training=training), "float64", False)
    watched._eager = True  # a graph for each example would take most of the time
    batch = Batch(inputs=tuple(arrays))
    state, first = watched.state(), watched.pull_back(batch, {})
    calls = watched.calls(batch, list(first.activations))
    output = first.outputs[0]
    record = watched.pull_back(batch, {output: RNG(9).normal(size=first.activations[output].shape)})
    found = {name: value for name, value in record.gradients.items() if value is not None}
    watched.load(State(values=found))
    name = name or list(first.activations)[-1]
    gradients = watched.calls(batch, [name])[name].parameters
    watched.load(state)
    return Seen(call=calls[name], name=name, record=record, gradients=gradients, others=calls)


def computed(call: Call) -> list[np.ndarray]:
    """The output of each op, each one reading the one before."""
    values: list[np.ndarray] = []
    for op, parameters in zip(call.ops, call.parameters, strict=True):
        values.append(apply(op, (values[-1],) if values else call.inputs, parameters))
    return values


def assert_close(candidate: np.ndarray, reference: np.ndarray, scale: float = 0.0) -> None:
    """scale: of the largest element, where that is larger than the reference's own."""
    assert candidate.shape == reference.shape
    largest = max(np.abs(reference).max(initial=0.0), scale, 1e-300)
    np.testing.assert_allclose(candidate, reference, rtol=0, atol=CLOSE * largest)


def assert_reproduces(found: Seen, backward: bool = True) -> None:
    """The output; the gradients of parameters, and of inputs that this block alone reads."""
    call, record = found.call, found.record
    assert call.ops, call.kind
    values = computed(call)
    assert_close(values[-1], call.output)
    assert_close(call.canonical(record.activations[found.name]), call.output)
    if not backward:
        return
    gradient, into = call.canonical(record.cotangents[found.name]), ()
    largest = max((float(np.abs(one).max(initial=0.0)) for own in found.gradients for one in own), default=0.0)
    for i in reversed(range(len(call.ops))):
        inputs = (values[i - 1],) if i else call.inputs
        into, of_parameters = pull_back(call.ops[i], gradient, values[i], inputs, call.parameters[i])
        for name, own, expected in zip(call.names[i], of_parameters, found.gradients[i], strict=True):
            if record.gradients.get(name) is not None:
                assert own is not None
                assert_close(own, expected, largest)  # a key's bias has no gradient but rounding
        if i:
            assert into[0] is not None
            gradient = into[0]
    names = list(record.activations)
    given = [name for name in names[: names.index(found.name)] if name in record.cotangents]
    matched = [_agrees(record.activations[name], record.cotangents[name], call.inputs, into) for name in given]
    assert any(matched) or not given, "the call does not read what it was given"


def _agrees(value: np.ndarray, cotangent: np.ndarray, inputs: Any, into: Any) -> bool:
    """Whether an activation is read, as it stands or with its channels first; its cotangent sums over all places."""
    for move in (lambda array: array, lambda array: np.moveaxis(array, -1, 1)):
        own = [one for given, one in zip(inputs, into, strict=True) if np.array_equal(given, move(value))]
        if own:
            assert_close(np.sum(own, axis=0), move(cotangent))
            return True
    return False


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return RNG(seed).normal(size=shape)
