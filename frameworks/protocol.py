"""What a framework adapter is: a module with these names. The reference satisfies `Start` and `Stepper` too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from harness.case import Case, Precision
from harness.conventions import Conventions


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
