"""An optax transformation and its state: slots by parameter, and the numbers that go with a count of updates."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import GetAttrKey, tree_flatten_with_path, tree_leaves, tree_unflatten

from frameworks.holding import contents_of
from frameworks.jax_trees import Path, Tree, is_float, plain
from harness.case import Precision
from harness.recipe import PILED, State

SLOTS = {
    **{"trace": "velocity", "sum_of_squares": "accumulator", "mu": "m", "nu": "v", "nu_max": "v_max"},
    **{"e_g": "mean_square", "e_x": "mean_square_step", "acc_grads": PILED},
}
"""optax's fields (optax 0.2.8, optax/_src/transform.py) by the slots that `harness.recipe.State` names."""

ADAMAX = {"adamax", "adamaxw", "scale_by_adamax"}


class Updater:
    """optax's transformation with a fresh state for the given parameters; one compiled update.

    A State has no place for optax's other numbers (rates, flags): they are kept for each count that was met.
    `MultiSteps` gets the sum of all passes so far instead of the last one, and is counted by its updates.
    """

    def __init__(self, optimizer: Any, tree: Tree, trained: Mapping[str, Any], precision: Precision) -> None:
        self.gathering = _gathering(optimizer, precision)
        self.optimizer, self.tree = self.gathering or optimizer, tree
        fresh = self.optimizer.init(tree.only(trained))
        flat, self.structure = tree_flatten_with_path(fresh)
        self.paths, self.leaves = [path for path, _ in flat], [_wide_count(leaf) for _, leaf in flat]
        self.places = slot_places(fresh, tree, list(trained), self.optimizer.update)
        self.numbers: dict[int, list[Any]] = {}
        self.passes: dict[int, Any] = {}
        self.count = 0
        self._keep_numbers()
        self.compiled = jax.jit(self._update)

    def slots(self) -> dict[str, dict[str, np.ndarray]]:
        slots: dict[str, dict[str, np.ndarray]] = {}
        for place, leaf in zip(self.places, self.leaves, strict=True):
            if place:
                slots.setdefault(place[0], {})[place[1]] = plain(leaf)
        return slots

    def load(self, state: State) -> None:
        """Slots that this optimizer does not have are left out; its counts become the state's."""
        for i, place in enumerate(self.places):
            leaf = self.leaves[i]
            if place:
                value = state.slots.get(place[0], {}).get(place[1])
                self.leaves[i] = leaf if value is None else jnp.array(value, leaf.dtype)
            elif state.count in self.numbers:
                self.leaves[i] = self.numbers[state.count][i]
            elif self.paths[i][-1:] == (GetAttrKey("count"),):
                self.leaves[i] = jnp.array(state.count, leaf.dtype)
        self.count = state.count

    def piled(self, gradients: Mapping[str, Any], step: int) -> Mapping[str, Any]:
        """The gradients of a step's pass with those that `MultiSteps` holds back, taken out of it: of their sum it
        computes the same (optax 0.2.8, optax/transforms/_accumulation.py, MultiSteps.update)."""
        if self.gathering is None:
            return gradients
        at = self._number("mini_step")
        self.leaves[at] = self.passes.setdefault(step, self.leaves[at])
        passes = self.leaves[at] if self.gathering._use_grad_mean else 1
        sums = dict(gradients)
        for i, place in enumerate(self.places):
            if place and place[0] == PILED:
                sums[place[1]] = gradients[place[1]] + (self.leaves[i] * passes).astype(gradients[place[1]].dtype)
                self.leaves[i] = jnp.zeros_like(self.leaves[i])
        return sums

    def update(self, gradients: Any, trained: Mapping[str, Any], step: int) -> tuple[Mapping[str, Any], bool]:
        """The trained parameters behind a step's pytree of gradients, and whether that was an update."""
        before = self.count
        after, self.leaves = self.compiled(gradients, self.leaves, trained)
        self.count += 1
        if self.gathering is not None:
            self.count = int(self.leaves[self._number("gradient_step")])
            _ = self.passes.setdefault(step + 1, self.leaves[self._number("mini_step")])
        self._keep_numbers()
        return after, self.count > before

    def _number(self, field: str) -> int:
        """Where a field of the outermost state is."""
        return self.paths.index((GetAttrKey(field),))

    def _update(self, gradients: Any, leaves: list[Any], trained: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        params, state = self.tree.only(trained), tree_unflatten(self.structure, leaves)
        updates, after = self.optimizer.update(gradients, state, params)
        return self.tree.named(optax.apply_updates(params, updates)), tree_leaves(after)

    def _keep_numbers(self) -> None:
        pairs = zip(self.places, self.leaves, strict=True)
        self.numbers[self.count] = [None if place else leaf for place, leaf in pairs]


def slot_places(state: Any, tree: Tree, trained: Sequence[str], update: Any) -> list[tuple[str, str] | None]:
    """For each leaf of an optax state its slot and the parameter it belongs to: it lies below a field under the
    parameter's own path. None for the rest (counts, rates). update: the transformation's function."""
    paths = {path: name for path, name in zip(tree.paths, tree.names, strict=True) if name in trained}
    flat, _ = tree_flatten_with_path(state)
    found = [_below_field(path, leaf, paths, tree.arrays) for path, leaf in flat]
    fields = {place[0] for place in found if place}
    canonical = SLOTS if "mu" in fields else SLOTS | {"nu": "mean_square"}
    if "nu" in fields and ADAMAX & _made_by(update):  # its state is of Adam's class
        canonical = SLOTS | {"nu": "u"}
    if "nu" in fields or "sum_of_squares" in fields:  # optax.rmsprop's trace holds steps, in units of its rate
        canonical = {field: slot for field, slot in canonical.items() if field != "trace"}
    counts = Counter[tuple[str, str]]()
    places: list[tuple[str, str] | None] = []
    for place in found:
        if place:
            slot, name = canonical.get(place[0], place[0]), place[1]
            counts[slot, name] += 1
            place = (slot if counts[slot, name] == 1 else f"{slot}#{counts[slot, name]}", name)
        places.append(place)
    return places


def _made_by(update: Any) -> set[str]:
    """The names of the functions of optax that made an update function, and those that it holds."""
    found: set[str] = set()
    queue, seen = [update], set[int]()
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, list | tuple):
            queue += thing
        elif inspect.isfunction(thing):
            found.add(thing.__qualname__.partition(".")[0])
            queue += [part for cell in thing.__closure__ or () for part in contents_of(cell)[1]]
        elif inspect.ismethod(thing):
            queue += [*vars(thing.__self__).values()]
    return found


def _gathering(optimizer: Any, precision: Precision) -> optax.MultiSteps | None:
    """The `MultiSteps` that an optimizer is, or was made by; in a float64 run with sums in float64 (its own default is
    float32)."""
    owner = getattr(optimizer.update, "__self__", None)
    if not isinstance(owner, optax.MultiSteps):
        return None
    own: Any = copy.copy(owner)
    own._accumulator_dtype = np.dtype(precision) if precision == "float64" else own._accumulator_dtype
    return own


def _wide_count(leaf: Any) -> Any:
    """A count as int64 where float64 is on: optax makes it int32, of which JAX makes float32 in float64 too (jax 0.10,
    jax/_src/dtypes.py, to_inexact_dtype): rates and bias corrections computed from it would be rounded."""
    is_count = np.shape(leaf) == () and getattr(leaf, "dtype", None) == np.int32
    return leaf.astype(int) if is_count else leaf


def _below_field(
    path: Path, leaf: Any, parameters: Mapping[Path, str], arrays: Mapping[str, Any]
) -> tuple[str, str] | None:
    for start in range(len(path)):
        name = parameters.get(path[start:])
        if name is not None and np.shape(leaf) == np.shape(arrays[name]) and is_float(leaf.dtype):
            fields = [key.name for key in path[:start] if isinstance(key, GetAttrKey)]
            return (fields[-1] if fields else "state"), name
    return None
