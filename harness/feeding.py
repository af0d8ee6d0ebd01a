"""What each side of a comparison sees at each step: examples in its own layout, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.case import HarnessError, Precision
from harness.recipe import Batch, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One side's examples: inputs and targets with the examples on axis 0; batches: the indices of each step, and of
    one step more."""

    inputs: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]
    weights: np.ndarray | None
    batches: tuple[np.ndarray, ...]
    steps_per_epoch: int

    def batch(self, step: int, precision: Precision) -> Batch:
        """The batch of a step; floats have been rounded to float32 once, so both precisions see the same numbers."""
        index = self.batches[step]
        return Batch(
            inputs=tuple(_in(values[index], precision) for values in self.inputs),
            targets=tuple(_in(values[index], precision) for values in self.targets),
            weights=None if self.weights is None else _in(self.weights[index], precision),
            step=step,
            epoch=step // self.steps_per_epoch,
        )


def feeds(
    recipes: tuple[Recipe, Recipe],
    x: Any,
    y: Any,
    steps: int,
    batch_size: int | None,
    batches: Sequence[Any] | tuple[Sequence[Any], Sequence[Any]] | None,
    sample_weight: Any,
) -> tuple[Feed, Feed]:
    """Both sides' feeds. A tuple of two is a pair, one for each side; several inputs or targets are a list or dict.

    Without batches the examples are taken in their order, batch_size at a time, over and over. Raises HarnessError.
    """
    given = batches if isinstance(batches, tuple) and len(batches) == 2 else (batches, batches)
    made = []
    for i, (recipe, name) in enumerate(zip(recipes, ("reference", "candidate"), strict=True)):
        inputs, targets = _arrays(_of_side(x, i), f"x of the {name}"), _arrays(_of_side(y, i), f"y of the {name}")
        if not inputs:
            raise HarnessError("x holds no input; give at least one array")
        examples = len(inputs[0])
        for values in (*inputs, *targets):
            if len(values) != examples:
                raise HarnessError(
                    f"{name}: {examples} examples in the first input, {len(values)} in another array; "
                    "axis 0 must count the same examples in all of them"
                )
        if not examples:
            raise HarnessError(f"{name}: x holds no example; give at least one")
        weights = _weights(recipe, targets, sample_weight, name)
        index = recipe.batches if recipe.batches is not None else given[i]
        cut = _cut(examples, max(steps, 1), batch_size, index, name)
        epoch = max(1, -(-examples // (batch_size or examples))) if index is None else max(steps, 1)
        made.append(Feed(inputs=inputs, targets=targets, weights=weights, batches=cut, steps_per_epoch=epoch))
    if len(made[0].inputs[0]) != len(made[1].inputs[0]):
        raise HarnessError(
            f"x: {len(made[0].inputs[0])} examples for the reference, {len(made[1].inputs[0])} for the candidate; "
            "both sides must see the same ones (a tuple of two is read as a pair; several inputs are a list)"
        )
    for step, (one, other) in enumerate(zip(made[0].batches, made[1].batches, strict=True)):
        if len(one) != len(other):
            raise HarnessError(
                f"batches: {len(one)} examples for the reference at step {step}, {len(other)} for the candidate; "
                "both sides must see as many"
            )
    return made[0], made[1]


def _cut(
    examples: int, steps: int, batch_size: int | None, batches: Sequence[Any] | None, name: str
) -> tuple[np.ndarray, ...]:
    if batches is not None:
        index = [np.asarray(batch) for batch in batches]
        if not index or not all(_indexes(batch, examples) for batch in index):
            raise HarnessError(f"{name}: batches must be index arrays, not empty and below {examples}, one for a step")
        return tuple(index[step % len(index)] for step in range(steps + 1))
    size = min(batch_size or examples, examples)
    starts = list(range(0, examples, size))
    return tuple(np.arange(s, min(s + size, examples)) for s in (starts[t % len(starts)] for t in range(steps + 1)))


def _indexes(batch: np.ndarray, examples: int) -> bool:
    """Whether an array of integers names some of so many examples."""
    fits = batch.ndim == 1 and batch.size > 0 and batch.dtype.kind in "iu"
    return bool(fits and batch.min() >= -examples and batch.max() < examples)


def _weights(recipe: Recipe, targets: tuple[np.ndarray, ...], shared: Any, name: str) -> np.ndarray | None:
    """Sample weights; class weights are the adapter's business."""
    given = recipe.sample_weight if recipe.sample_weight is not None else shared
    if given is None:
        return None
    weights = np.asarray(given, np.float32)
    if weights.ndim != 1 or (targets and len(weights) != len(targets[0])):
        examples = f"{len(targets[0])} examples" if targets else "the examples"
        raise HarnessError(f"{name}: sample_weight has shape {weights.shape} for {examples}; give one number for each")
    if not np.isfinite(weights).all():
        raise HarnessError(f"{name}: sample_weight holds {weights[~np.isfinite(weights)][0]}; give finite numbers")
    return weights


def _of_side(values: Any, side: int) -> Any:
    return values[side] if isinstance(values, tuple) and len(values) == 2 else values


def _arrays(values: Any, what: str) -> tuple[np.ndarray, ...]:
    parts = () if values is None else tuple(_parts(values))
    arrays = tuple(_array(part) for part in parts)
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise HarnessError(f"{what} holds {array[where]} at {where}; clean the data")
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise HarnessError(f"{what} is {array.dtype} of shape {array.shape}; give numbers with examples on axis 0")
    return arrays


def _parts(values: Any) -> Iterator[Any]:
    if isinstance(values, Mapping):
        yield from values.values()
    elif isinstance(values, list | tuple) and values and hasattr(values[0], "shape") and values[0].shape:
        yield from values
    else:
        yield values


def _array(values: Any) -> np.ndarray:
    """Any framework's array in memory of its own; floats rounded to float32."""
    try:
        if hasattr(values, "detach"):  # torch's, perhaps on a device, or sparse
            values = values.detach().to_dense().cpu()
            values = values.float() if values.is_floating_point() else values
        array = np.asarray(values)
    except Exception as error:
        raise HarnessError(f"x, y: a {type(values).__name__} is no array ({error}); give arrays of numbers") from error
    return array.astype(np.float32) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array.copy()


def _in(values: np.ndarray, precision: Precision) -> np.ndarray:
    return values.astype(precision) if values.dtype.kind == "f" else values
