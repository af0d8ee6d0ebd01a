"""Ported models as users write them, most with one planted mistake: what the comparison of any two models must tell.

Each module holds one family and a list PORTS; `ports()` gathers them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from harness.recipe import Recipe

FAMILIES = (
    *("mlp", "training", "losses", "gradients", "convolutional", "normalised", "residual", "recurrent"),
    *("attention", "autoencoder", "several", "functions", "refactored", "hard", "delicate", "long", "near"),
    *("rows", "rows_training", "rows_gradients", "rows_again", "spelled"),
)
CLEAN, PLANTED = "rounding", "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A model and its port, and what they are run on.

    x, y: one array for both, or a tuple of two (the reference's layout, the candidate's); several inputs or targets
    are a list inside. steps=0: the forward pass alone.
    """

    reference: Recipe
    candidate: Recipe
    x: Any
    y: Any = None
    steps: int = 5
    batch_size: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A pair and what is to be found.

    verdict: "rounding" (also met by "identical") for a clean port, "different" for one with a mistake.
    place: acceptable first divergences (`forward:fc1`, `loss`, `gradient:fc1.weight`, ...) in the names of either side,
    as fnmatch patterns: with `update:*` all parameters start to differ together. step: when. cause: an id of the table
    of causes, "" for clean ports.
    """

    name: str
    build: Callable[[], Pair]
    verdict: Literal["rounding", "different"]
    place: frozenset[str] = frozenset({"none"})
    step: frozenset[int] = frozenset({0})
    cause: str = ""

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]


def clean(name: str, build: Callable[[], Pair]) -> Port:
    """A correct port."""
    return Port(name=name, build=build, verdict=CLEAN)


def planted(name: str, build: Callable[[], Pair], cause: str, place: str, step: int | Iterable[int] = 0) -> Port:
    """A port with a mistake; `place` holds the acceptable places with spaces between them."""
    steps = frozenset({step} if isinstance(step, int) else step)
    return Port(name=name, build=build, verdict=PLANTED, place=frozenset(place.split()), step=steps, cause=cause)


def ports(families: Iterable[str] = FAMILIES) -> list[Port]:
    """All ports of some families, in order; imports torch, Keras and JAX."""
    return [port for family in families for port in importlib.import_module(f"{__name__}.{family}").PORTS]
