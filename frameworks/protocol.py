"""What a framework adapter is: a module with these names. The reference satisfies `Start` and `Stepper` too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from harness.case import Case, Optimizer, Precision
from harness.conventions import Conventions
from harness.recipe import Batch, Forced, Parameter, Recipe, Record, State


class Stepper(Protocol):
    """A case compiled by one implementation at one precision, ready to take steps."""

    def load(self, state: np.ndarray, step: int) -> None:
        """Set parameters and slots from a flat state (`Layout.state`: canonical shapes, network order, slot by slot) as
        they are after `step` updates (Adam counts them)."""
        ...

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        """Take len(x) steps; x (steps, batch, ...), y (steps, batch, ...) in this precision (indices int64).

        Writes step t into rows[t, :] (`Layout.recorded` columns, storage order of `harness.layout`); what `missing`
        names is written as 0.
        """
        ...


class Framework(Protocol):
    """A framework's adapter module."""

    CONVENTIONS: Conventions
    """What the framework's own layers, losses and optimizers compute: fills a case's `native` fields."""

    def environment(self) -> Mapping[str, Any]:
        """Versions, device and the flags that change numbers (TF32, x64, oneDNN, threads), for the record."""
        ...

    def missing(self, case: Case) -> Mapping[str, str]:
        """Quantities (by name) that the framework cannot show for a resolved case, each with the reason."""
        ...

    def start(self, case: Case, precision: Precision) -> Stepper:
        """Compile a resolved case. Raises CannotExpress where a field cannot be had."""
        ...


class Watched(Protocol):
    """A copy of a user's model at one precision, which takes steps and shows everything.

    All it computes is deterministic but for what the user's model itself does; process-wide settings (floatx, x64,
    random state) are set for the time of a call and put back, also after an error.
    """

    parameters: tuple[Parameter, ...]
    """In the order of definition, buffers among them."""

    optimizer: Optimizer | None
    """The update rule as the reference knows it, conventions filled in; None for one that it does not know, with
    clipping, or with anything else between gradient and update."""

    def state(self) -> State:
        """A copy of the present state."""
        ...

    def load(self, state: State) -> None:
        """Go on from a state; what it does not name stays as it is."""
        ...

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        """Forward; with a loss also backward; with an optimizer also the update."""
        ...

    def pull_back(self, batch: Batch, cotangents: Mapping[str, np.ndarray], forced: Forced | None = None) -> Record:
        """Forward, and the vector-Jacobian product of the outputs (by name) with the given cotangents; no update."""
        ...


class Models(Protocol):
    """A framework's adapter module for users' own models."""

    def watch(self, recipe: Recipe, precision: Precision, inference: bool) -> Watched:
        """A model with its loss and optimizer, all float64; or as the user runs it (bfloat16 and all), at most float32.

        Arrays go in and out in the precision named. inference: no loss, no update, evaluation mode.
        Raises HarnessError, naming the layer and what to do, for a model that cannot be watched.
        """
        ...

    def assign(self, recipe: Recipe, values: Mapping[str, np.ndarray]) -> None:
        """Write parameters and buffers by name into the user's own model: the one call that changes it."""
        ...
