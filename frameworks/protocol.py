"""What a framework adapter is: a module with these names. The reference satisfies `Start` and `Stepper` too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from harness.calls import Call
from harness.case import Case, Precision
from harness.conventions import Conventions
from harness.objectives import Loss, Penalty
from harness.recipe import Batch, Forced, Parameter, Recipe, Record, State
from harness.rules import Rule
from harness.widening import Widen, typed


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

    def rule(self) -> Rule | None:
        """From gradients to updates, by the parameters' names, as far as it can be read (user code between them is left
        out, so that only what the rule reproduces is to be believed); None for an optimizer that is not known."""
        ...

    def losses(self, batch: Batch) -> Sequence[Loss | None]:
        """The loss of each output, without penalties; None for one that is not known, () where there is none. To be
        asked behind the first step."""
        ...

    def penalty(self) -> Penalty | None:
        """What is added to the losses for the parameters, by their names; None where there is none, or none that is
        known."""
        ...

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

    def calls(self, batch: Batch, names: Sequence[str], forced: Forced | None = None) -> Mapping[str, Call]:
        """The blocks of a forward pass that show the activations named, by activation; forced as in `step`; the state
        stays as it is."""
        ...


class Models(Protocol):
    """A framework's adapter module for users' own models."""

    def watch(self, recipe: Recipe, precision: Precision, inference: bool, widen: Widen = typed) -> Watched:
        """A model with its loss and optimizer, all float64; or as the user runs it (bfloat16 and all), at most float32.

        Arrays go in and out in the precision named. inference: no loss, no update, evaluation mode. widen: makes
        float64 of what is held in float32 outside the state (constants in attributes, closures, globals).
        Raises HarnessError, naming the layer and what to do, for a model that cannot be watched.
        """
        ...

    def assign(self, recipe: Recipe, values: Mapping[str, np.ndarray]) -> None:
        """Write parameters and buffers by name into the user's own model: the one call that changes it."""
        ...

    def written(self, op: Any, fields: Sequence[str]) -> str:
        """How a user of this framework writes an op with these fields, for advice:
        `nn.BatchNorm2d(eps=0.001, momentum=0.1)`; "" where it has none."""
        ...


Arrays = tuple[np.ndarray, ...]

Pullback = Callable[[Arrays], tuple[np.ndarray | None, ...]]
"""From a cotangent for each output to a gradient for each input, None where the framework gives none; may be called
again. Complex numbers by torch's convention: the change of the loss is Re(conj(gradient) dx)."""


class Differentiable(Protocol):
    """A user's function, seen through NumPy arrays, which it is given as they are: float32 stays float32.

    Arrays may be handed over without a copy, and are not to be changed afterwards.
    """

    strided: bool
    """Whether the function sees the memory layout of the arrays that it is given."""

    def value(self, xs: Arrays) -> Arrays:
        """The outputs."""
        ...

    def apply(self, other: Callable[..., Any], arrays: Arrays) -> tuple[np.ndarray | None, ...]:
        """What another function gives for such arrays as this one is given; it may return NumPy arrays, or None."""
        ...

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        """The outputs as they are under differentiation, and the vector-Jacobian product."""
        ...

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        """The Jacobian-vector product by forward mode (ds of integer inputs is ignored); None where not offered."""
        ...

    def gradient(self, count: int) -> Differentiable | None:
        """The function of count inputs and then a cotangent for each output whose values are the gradients of the
        floating inputs, zero for None; for second order. None where it is not offered."""
        ...


class Functions(Protocol):
    """A framework's adapter module for users' own functions."""

    def owns(self, value: Any) -> bool:
        """Whether a value is this framework's array."""
        ...

    def plain(self, value: Any) -> np.ndarray:
        """An array's values."""
        ...

    def array(self, value: np.ndarray) -> Any:
        """The framework's array of these values."""
        ...

    def differentiable(self, f: Callable[..., Any], inputs: Sequence[Any]) -> Differentiable:
        """f, run where its inputs are."""
        ...
