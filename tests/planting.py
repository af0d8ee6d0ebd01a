"""Planted candidates: a real stepper whose steps are altered, to prove that the verdicts find what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from frameworks.protocol import Stepper
from harness.case import Batching, Case, CategoricalCrossEntropy, Precision
from harness.conventions import TORCH, resolve
from harness.data import Data
from harness.judging import BECAUSE, VERDICTS
from harness.layout import layout_of
from harness.pair import Pair
from harness.running import Side, Start
from harness.summary import Findings
from harness.watching import watch
from reference import training
from reference.layers import BACKWARD, FORWARD
from reference.optimizers import initial_slots, update_rule

Views = Mapping[str, np.ndarray]
Edit = Callable[[Views], object]
"""Alters, in place, the quantities that a step shows (but its updates, which follow from the parameters)."""

FEATURES = 4
ALL = range(10**9)
BOTH: tuple[Precision, ...] = ("float32", "float64")


# --- altered steppers -------------------------------------------------------------------------------------------


def planted(
    edit: Edit, at: range = ALL, precisions: tuple[Precision, ...] = BOTH, real: Start = training.start
) -> Start:
    """`real`, but its steps `at` are altered by `edit`. Altered gradients reach the optimizer, altered parameters and
    slots are what the next step starts from."""

    def start(case: Case, precision: Precision) -> Stepper:
        stepper = real(case, precision)
        return Altered(case, precision, stepper, edit, at) if precision in precisions else stepper

    return start


class Altered:
    """A stepper taking one step at a time, to alter some of them."""

    def __init__(self, case: Case, precision: Precision, real: Stepper, edit: Edit, at: range) -> None:
        self.case, self.real, self.edit, self.at = case, real, edit, at
        self.update = update_rule(case.optimizer, np.dtype(precision), case.float32_constants)

    def load(self, state: np.ndarray, step: int) -> None:
        self.real.load(state, step)
        self.state, self.step = state.copy(), step

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        layout = layout_of(self.case, x.shape[1:])
        for t, row in enumerate(rows):
            self.real.run(x[t : t + 1], y[t : t + 1], rows[t : t + 1])
            self.step += 1
            if self.step - 1 in self.at:
                gradients = row[layout.gradients].copy()
                shown = [quantity for quantity in layout.quantities if quantity.kind != "update"]
                _ = self.edit({quantity.name: row[quantity.columns].reshape(quantity.shape) for quantity in shown})
                if not np.array_equal(gradients, row[layout.gradients]):
                    W, *slots = self.state.reshape(-1, len(gradients))
                    with np.errstate(all="ignore"):
                        self.update(self.step, W, row[layout.gradients], *slots)
                    row[layout.state] = self.state
                self.real.load(row[layout.state], self.step)
            self.state[...] = row[layout.state]


def with_ops(
    forward: Mapping[type, Callable[..., object]],
    backward: Mapping[type, Callable[..., object]],
    precisions: tuple[Precision, ...] = BOTH,
) -> Start:
    """The reference with other functions for some kinds of nodes."""

    def start(case: Case, precision: Precision) -> Stepper:
        stepper = training.start(case, precision)
        return Rewired(stepper, forward, backward) if precision in precisions else stepper

    return start


@dataclass(frozen=True)
class Rewired:
    """The reference's stepper, compiled with other layers."""

    stepper: Stepper
    forward: Mapping[type, Callable[..., object]]
    backward: Mapping[type, Callable[..., object]]

    def load(self, state: np.ndarray, step: int) -> None:
        self.stepper.load(state, step)

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        with patch.dict(FORWARD, self.forward), patch.dict(BACKWARD, self.backward):  # type: ignore[arg-type]
            self.stepper.run(x, y, rows)


# --- runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Found:
    """What watching a planted pair found: its summary row, and the verdict and because of every quantity and step."""

    row: Mapping[str, Any]
    names: tuple[str, ...]
    verdicts: np.ndarray
    becauses: np.ndarray

    @property
    def verdict(self) -> str:
        return self.row["verdict"]

    @property
    def because(self) -> str:
        return self.row["because"]

    @property
    def notes(self) -> list[str]:
        return self.row["notes"]

    @property
    def first(self) -> tuple[str, int] | None:
        """First divergence: quantity and step."""
        divergence = self.row["first_divergence"]
        return divergence and (divergence["name"], divergence["step"])

    def at(self, name: str, step: int) -> tuple[str, str]:
        """Verdict and because of one quantity at one step."""
        i = self.names.index(name)
        return VERDICTS[self.verdicts[step, i]], BECAUSE[self.becauses[step, i]]


def watched(
    case: Case,
    candidate: Start,
    *,
    data: Data | None = None,
    parameters: np.ndarray | None = None,
    missing: Mapping[str, str] = {},
) -> Found:
    """Reference and candidate on a resolved case from the same start, watched to the end."""
    data = data or examples(case)
    layout = layout_of(case, (1, FEATURES))
    parameters = (flat(case) if parameters is None else parameters).astype(np.float32).astype(np.float64)
    state = np.concatenate([parameters, initial_slots(case.optimizer, len(parameters))])

    def reference(of: Case) -> Side:
        return Side(name="numpy", case=of, start=training.start, state=state, missing={})

    pair = Pair(
        reference=reference(case),
        candidate=Side(name="planted", case=case, start=candidate, state=state, missing=missing),
        start=state,
        missing=np.array([quantity.name in missing for quantity in layout.quantities]),
        restart_reference=reference,
    )
    findings, verdicts, becauses = Findings(pair), [], []
    for part in watch(pair, data):
        findings.observe(part)
        verdicts.append(part.judgement.verdict)
        becauses.append(part.judgement.because)
    return Found(
        row=findings.row(),
        names=tuple(quantity.name for quantity in layout.quantities),
        verdicts=np.concatenate(verdicts),
        becauses=np.concatenate(becauses),
    )


def flat(case: Case) -> np.ndarray:
    """The case's initial parameters, in layout order."""
    drawn = training.initial_parameters(case, layout_of(case, (1, FEATURES)).parameter_shapes)
    return np.concatenate([array.ravel() for array in drawn.values()]).astype(np.float64)


def examples(case: Case, count: int = 32, seed: int = 1, grid: float = 0.0) -> Data:
    """Random inputs (count, 4), on a grid if given, with targets that fit the case's loss and last layer."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, FEATURES))
    x = np.round(x / grid) * grid if grid else x
    x = x.astype(np.float32).astype(np.float64)
    outputs = list(layout_of(case, (1, FEATURES)).activation_shapes.values())[-1][-1]
    if isinstance(case.loss, CategoricalCrossEntropy):
        y = rng.integers(outputs, size=count)
        y = y if case.loss.sparse else np.eye(outputs)[y]
    else:
        y = rng.integers(2, size=(count, outputs)).astype(float)
    return Data(x=x, y=y, x_test=x, y_test=y, task="random")


def ready(case: Case, steps: int = 8, size: int = 8) -> Case:
    """A case in torch's conventions, of that many steps on batches of that size."""
    return resolve(replace(case, steps=steps, batching=Batching(size=size)), TORCH)
