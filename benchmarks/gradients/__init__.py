"""Gradients written by hand, many with one planted mistake: what a gradient checker must tell from correct ones.

Each module holds one family and a list ITEMS; `items()` gathers them. The mathematics that makes sense everywhere is
written once as a rule (`rules.rule`) and built in every framework; what only one framework can get wrong stands in
that framework's own module, as its users write it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FAMILIES = (
    *(
        "slopes",
        "pairs",
        "reductions",
        "layers",
        "losses",
        "products",
        "places",
        "outputs",
        "small",
        "cells",
        "cotangents",
    ),
    *("kinks", "ties", "steep", "narrow", "scales", "solvers", "dtypes"),
    *("torch_functions", "torch_layers", "tensorflow_functions", "jax_functions", "numpy_functions", "special"),
)
UNSPECIFIC = {"unknown": ("", "missing-term")}
"""A wrong formula has no name of its own: `missing-term` says that a term is missing or wrong."""

Kind = Literal["wrong", "awkward", "ordinary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A function with its gradient by hand, and the point where it is looked at.

    function: on the framework's own tensors; for NumPy the pair (f, vjp) on arrays, as harness.check_gradient takes it.
    inputs: arrays, or tensors where their strides matter. options: passed to the checker.
    """

    function: Any
    inputs: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A subject and what is to be found.

    kind: "wrong", or correct: "awkward" where a numeric derivative is delicate, else "ordinary". patterns: names of the
    mistake as harness.check_gradient has them, any of which will do; "" where none fits. at: (input, index) of the one
    wrong element, where it is one.
    """

    name: str
    framework: str
    kind: Kind
    build: Callable[[], Subject]
    patterns: frozenset[str] = frozenset()
    at: tuple[int, tuple[int, ...]] | None = None

    @property
    def function(self) -> str:
        """The name without the framework: one function, however many frameworks it is written in."""
        return self.name.rpartition("@")[0]


def item(
    name: str,
    framework: str,
    kind: Kind,
    build: Callable[[], Subject],
    patterns: str = "",
    at: tuple[int, tuple[int, ...]] | None = None,
) -> Item:
    """`patterns` holds the acceptable ones with spaces between them, `unknown` for none."""
    return Item(
        name=f"{name}@{framework}",
        framework=framework,
        kind=kind,
        build=build,
        patterns=frozenset(name for pattern in patterns.split() for name in UNSPECIFIC.get(pattern, (pattern,))),
        at=at,
    )


def fixed(
    family: str,
    framework: str,
    name: str,
    kind: Kind,
    function: Any,
    inputs: tuple[Any, ...],
    patterns: str = "",
    **options: Any,
) -> Item:
    """An item whose function keeps nothing from call to call, so that one will do for all who build it."""
    subject = Subject(function=function, inputs=inputs, options=options)
    return item(f"{family}/{name}", framework, kind, lambda: subject, patterns)


def items(families: Iterable[str] = FAMILIES) -> list[Item]:
    """All items of some families, in order, named family/function@framework."""
    return [found for family in families for found in importlib.import_module(f"{__name__}.{family}").ITEMS]
