"""Any two models: the same training steps on both sides, the verdict and where a difference starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import frameworks as registry
from frameworks.protocol import Watched
from harness.case import PRECISIONS, HarnessError
from harness.checking import choose
from harness.comparison import Comparison
from harness.feeding import feeds
from harness.following import Follower
from harness.pairing import Pairing, pair_parameters, transfer_values
from harness.recipe import Recipe
from harness.remapping import edited_values
from harness.tracking import Tracking

Values = Mapping[str, np.ndarray]


def side(model: Any, **how: Any) -> Recipe:
    """A model and how it is trained, for `compare`; the keywords are the fields of `harness.recipe.Recipe`.

    Raises HarnessError for an unknown keyword.
    """
    for keyword in how:
        _ = choose("argument of side", keyword, [name for name in Recipe.__slots__ if name != "model"])
    return Recipe(model=model, **how)


def compare(
    reference: Any,
    candidate: Any,
    x: Any,
    y: Any = None,
    *,
    steps: int = 1,
    batch_size: int | None = None,
    batches: Any = None,
    sample_weight: Any = None,
    parameter_map: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train two models side by side, in float32 and in float64, and compare every quantity of every step.

    reference, candidate: models, or `side(model, ...)`. x, y: arrays, examples on axis 0; a tuple of two is a pair, one
    for each side's layout; several inputs or targets are a list or dict. steps: 0 is inference only. batch_size: all
    examples by default, taken in their order. batches: index arrays instead, one for each step, over and over (or a
    pair). parameter_map: {reference's name: candidate's name or (name, axes)} instead of what is found by value and
    structure. One step more is taken where only one side has a parameter that was trained. The models, optimizers and
    random states are left as they are. Raises HarnessError for what cannot be compared.
    """
    began = time.perf_counter()
    recipes = _recipe(reference), _recipe(candidate)
    _check(steps, batch_size, parameter_map, recipes)
    fed = feeds(recipes, x, y, steps, batch_size, batches, sample_weight)
    kinds = tuple(registry.framework_of(recipe) for recipe in recipes)
    names = [recipe.name or kind for recipe, kind in zip(recipes, kinds, strict=True)]
    if names[0] == names[1]:
        names = [f"{name} ({role})" for name, role in zip(names, ("reference", "candidate"), strict=True)]
    followers = [
        Follower(
            name=name,
            framework=kind,
            watched={p: registry.models(kind).watch(recipe, p, steps == 0) for p in PRECISIONS},
            feed=feed,
            anew=partial(registry.models(kind).watch, recipe, "float64", steps == 0),
        )
        for name, kind, recipe, feed in zip(names, kinds, recipes, fed, strict=True)
    ]
    found = Tracking((followers[0], followers[1]), parameter_map, steps == 0).to_the_end(max(steps, 1))
    return replace(found, seconds=time.perf_counter() - began)


def _check(steps: Any, batch_size: Any, parameter_map: Any, recipes: tuple[Recipe, Recipe]) -> None:
    """Refuse settings of another kind, which would be misread."""
    counts = [("steps", steps, 0, "0 (inference only) or more"), ("batch_size", batch_size, 1, "at least 1")]
    counts += [("accumulate", recipe.accumulate, 1, "at least 1") for recipe in recipes]
    for name, count, least, allowed in counts:
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not (whole and count >= least) and not (name == "batch_size" and count is None):
            raise HarnessError(f"{name} is {count!r}; it must be an integer, {allowed}")
    if parameter_map is not None and not isinstance(parameter_map, Mapping):
        said = "it must be {reference's name: candidate's name, or (name, axes)}"
        raise HarnessError(f"parameter_map is {type(parameter_map).__name__}; {said}")
    for recipe in recipes:
        _ = choose("schedule_every", recipe.schedule_every, ["batch", "epoch"])
        if not (recipe.class_weight is None or _weighs_classes(recipe.class_weight)):
            said = "it must be {class: weight}, a number for each integer, as {0: 1.0, 1: 2.5}"
            raise HarnessError(f"class_weight is {recipe.class_weight!r}; {said}")


def _weighs_classes(weights: Any) -> bool:
    return isinstance(weights, Mapping) and all(
        isinstance(of, int | np.integer) and isinstance(weight, int | float | np.number)
        for of, weight in weights.items()
    )


def transfer(reference: Any, candidate: Any, x: Any = None) -> Pairing:
    """Write the reference's parameters and buffers into the candidate's model, in its own layout; returns the pairing
    as it is then.

    x: examples, as `compare` takes them. With them both models are run, and a layout that only the forward pass shows
    (in which order an image was flattened) is found and put right. Raises HarnessError where a parameter of the
    candidate has no counterpart.
    """
    recipes = _recipe(reference), _recipe(candidate)
    _, other = (registry.models(registry.framework_of(recipe)) for recipe in recipes)
    pairing, watched, values = _paired(recipes)
    if pairing.unmatched_candidate:
        raise HarnessError(
            f"no counterpart in the reference for {', '.join(note.parameter for note in pairing.unmatched_candidate)}; "
            "the two models must have the same layers"
        )
    other.assign(recipes[1], transfer_values(pairing, values[0], watched[1].parameters, values[1]))
    for _ in pairing.links if x is not None else ():
        first = compare(*recipes, x, steps=0).first
        if first is None or not first.edit:
            break
        other.assign(recipes[1], edited_values(first.edit, *_paired(recipes)[2]))
    return _paired(recipes)[0]


def _paired(recipes: tuple[Recipe, Recipe]) -> tuple[Pairing, list[Watched], tuple[Values, Values]]:
    """The pairing of two models' parameters as they are, with the models and the values."""
    watched = [registry.models(registry.framework_of(recipe)).watch(recipe, "float32", True) for recipe in recipes]
    values = watched[0].state().values, watched[1].state().values
    return pair_parameters(watched[0].parameters, watched[1].parameters, *values), watched, values


def _recipe(model: Any) -> Recipe:
    return model if isinstance(model, Recipe) else Recipe(model=model)
