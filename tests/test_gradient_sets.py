"""The set of custom gradients: it holds what it says, and a seeded sample of it is told apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import frameworks as registry

pytest.importorskip("torch")
SEED = 5
FAMILIES = (
    *("slopes", "pairs", "reductions", "layers", "losses", "products", "places", "outputs", "small"),
    *("cells", "cotangents", "kinks", "ties", "steep", "narrow", "scales", "solvers", "dtypes", "special"),
    *("torch_functions", "torch_layers", "tensorflow_functions", "jax_functions"),
)
SMALL = 500
"""Elements, above which central differences would take long."""


@pytest.fixture(scope="module", autouse=True)
def _every_framework() -> None:
    absent = next((name for name in registry.FRAMEWORKS if name not in registry.installed()), "")
    if absent:
        pytest.skip(registry.pip_line(absent))


def test_there_are_enough_of_each_kind() -> None:
    from benchmarks.gradients import items

    every = items()
    names = [item.name for item in every]
    functions = {kind: {i.function for i in every if i.kind == kind} for kind in ("wrong", "awkward", "ordinary")}
    assert len(names) == len(set(names))
    assert len(functions["wrong"]) >= 75
    assert len(functions["ordinary"]) >= 30
    assert len(functions["awkward"] | functions["ordinary"]) >= 75
    assert all(bool(item.patterns) == (item.kind == "wrong") for item in every)


def pairs(kind: str) -> Iterator[tuple[str, Any]]:
    """Small NumPy pairs of the rules' families."""
    from benchmarks.gradients import items

    for item in items(["slopes", "pairs", "reductions", "layers", "losses", "products", "places", "outputs"]):
        if item.framework == "numpy" and item.kind == kind:
            subject = item.build()
            if sum(np.size(x) for x in subject.inputs) < SMALL and "factor" not in item.patterns:
                yield item.name, subject


def mismatch(subject: Any) -> float:
    """The gradient against central differences, relative to the largest; infinite for another shape or a nan."""
    f, vjp = subject.function
    inputs = [np.asarray(x) for x in subject.inputs]
    out = f(*inputs)
    rng = np.random.default_rng(SEED)
    several = isinstance(out, tuple)
    cotangents = [rng.standard_normal(np.shape(o)) for o in (out if several else (out,))]
    gradients = vjp(tuple(cotangents) if several else cotangents[0], *inputs)
    worst = 0.0
    for k, gradient in enumerate(gradients if isinstance(gradients, tuple) else (gradients,)):
        if np.shape(gradient) != inputs[k].shape or not np.isfinite(gradient).all():
            return np.inf
        numeric = np.zeros(inputs[k].shape)
        for index in np.ndindex(numeric.shape):
            for step in (1e-6, -1e-6):
                moved = [x.copy() for x in inputs]
                moved[k][index] += step
                outs = f(*moved) if several else (f(*moved),)
                numeric[index] += sum(np.sum(v * o) for v, o in zip(cotangents, outs, strict=True)) / 2 / step
        worst = max(worst, np.abs(gradient - numeric).max() / np.abs(numeric).max())
    return float(worst)


def test_the_correct_ones_are_correct() -> None:
    assert {name for name, subject in pairs("ordinary") if mismatch(subject) > 1e-6} == set()


def test_the_wrong_ones_are_wrong() -> None:
    """Beyond what these differences can see: errors planted at 1e-6 and below."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        found = {name for name, subject in pairs("wrong") if mismatch(subject) < 1e-6}
    assert found == {"slopes/sine, an offset of 1e-7@numpy"}


@pytest.mark.parametrize("kind", ["wrong", "correct"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_item_is_judged(family: str, kind: str) -> None:
    from benchmarks.gradients import items
    from benchmarks.gradients.looking import looked_at

    every = items([family])
    candidates = [item for item in every if (item.kind == "wrong") == (kind == "wrong")]
    candidates = [item for item in candidates if item.framework == "numpy"] or candidates  # the fastest
    item = candidates[np.random.default_rng((SEED, FAMILIES.index(family), kind == "wrong")).integers(len(candidates))]
    found = looked_at(item)
    assert found.verdict in ({"fail"} if kind == "wrong" else {"pass", "inconclusive"}), f"{item.name}: {found}"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_random_graph_is_judged(seed: int) -> None:
    from benchmarks.gradients.graphs import graph
    from benchmarks.gradients.looking import looked_at, place_right

    clean, whole, one = graph(seed)
    assert looked_at(clean).verdict == "pass"
    assert looked_at(whole).verdict == "fail"
    assert place_right(one, looked_at(one))
