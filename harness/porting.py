"""Any two models: the same training steps on both sides, the verdict and where a difference starts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import frameworks as registry
from harness.activations import align_activations
from harness.case import PRECISIONS, HarnessError
from harness.checking import choose
from harness.comparing import EPS64, Measures
from harness.feeding import feeds
from harness.following import Follower, Plan, Taken, mapped, measures_of, plan_of, retake, shown, take
from harness.judging import (
    BECAUSE,
    CHAOS,
    DIFFERENT,
    IDENTICAL,
    ROUNDING,
    UNDECIDED,
    VERDICTS,
    Judgement,
    K,
    is_null,
    judge,
)
from harness.owning import SILENT, own_errors
from harness.pairing import Pairing, pair_parameters, transfer_values
from harness.recipe import Forced, Recipe, Record

PLACES = {
    "activation": "forward",
    "activation_gradient": "gradient",
    "gradient": "gradient",
    "update": "update",
    "slot": "slot",
    "buffer": "state",
    "parameter": "update",
}
"""Where a difference starts, by the kind of the quantity; the loss is its own place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A quantity that differs by itself, not by what came before.

    place: `forward:<layer>`, `loss`, `gradient:<parameter>`, `update:<parameter>`, `state:<buffer>`, in the
    reference's names; candidate_place in the candidate's. text: one line with the numbers.
    """

    place: str
    candidate_place: str
    step: int
    name: str
    index: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparison of two models found.

    verdict: the worst of all quantities. because: its explanations. first: the first divergence, None without one.
    own: all own errors found, first ones first. frame: a row per step and quantity. notes: what else is to be known.
    """

    verdict: str
    because: str
    first: Divergence | None
    own: tuple[Divergence, ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame
    pairing: Pairing
    sides: tuple[str, str]
    environment: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """0 identical or rounding, 1 different, 3 nothing could be decided."""
        return {"different": 1, "undecided": 3}.get(self.verdict, 0)

    def __str__(self) -> str:
        reference, candidate = self.sides
        words = f"{self.verdict} ({self.because})" if self.because else self.verdict
        steps = int(self.frame["step"].max()) + 1
        lines = [f"{words}: {reference} and {candidate}, {steps} steps, {len(self.frame):,} quantities compared"]
        if self.first:
            lines += [f"first divergence: {self.first.place} at step {self.first.step}", f"  {self.first.text}"]
            if self.first.candidate_place != self.first.place:
                lines.append(f"  {candidate} calls it {self.first.candidate_place}")
            lines += [f"own error too: {d.place} at step {d.step}" for d in self.own[1:6]]
            if len(self.own) > 6:
                lines.append(f"and {len(self.own) - 6} more: result.own")
        elif self.verdict != "undecided":
            worst = self.frame.loc[self.frame["ratio"].idxmax()]
            lines.append(f"largest difference: {worst['ratio']:.2g} times what rounding explains ({worst['name']})")
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"next: {self._next()}")
        return "\n".join(lines)

    def _next(self) -> str:
        if self.first:
            return f'result.frame.query("step == {self.first.step}") shows every quantity of that step'
        return "nothing to do" if self.exit_code == 0 else "the notes say what keeps it from being decided"

    def as_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {
            "verdict": self.verdict,
            "because": self.because,
            "first": asdict(self.first) if self.first else None,
            "own": [asdict(divergence) for divergence in self.own],
            "notes": list(self.notes),
            "environment": dict(self.environment),
        }

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page."""
        table = self.frame[["step", "kind", "name", "candidate_name", "shape", "ratio", "digits", "verdict", "because"]]
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><title>gradparity</title>"
            "<style>body{font:1rem sans-serif;margin:2rem}td,th{padding:.1rem .6rem;text-align:left}</style>"
            f"<h1>{html.escape(self.verdict)}</h1><pre>{html.escape(str(self))}</pre>{table.to_html(index=False)}</html>"
        )
        target = Path(path)
        _ = target.write_text(page, encoding="utf-8")
        return target


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
    examples by default, taken in their order. batches: index arrays instead, one for each step (a tuple of two: a pair).
    parameter_map: {reference's name: candidate's name or (name, axes)} instead of what is found by value and structure.
    The models, optimizers and random states are left as they are. Raises HarnessError for what cannot be compared.
    """
    recipes = _recipe(reference), _recipe(candidate)
    if steps < 0:
        raise HarnessError(f"steps is {steps}; give 0 (inference only) or more")
    fed = feeds(recipes, x, y, steps, batch_size, batches, sample_weight)
    kinds = tuple(framework_of(recipe) for recipe in recipes)
    names = [recipe.name or kind for recipe, kind in zip(recipes, kinds, strict=True)]
    if names[0] == names[1]:
        names = [f"{name} ({role})" for name, role in zip(names, ("reference", "candidate"), strict=True)]
    followers = [
        Follower(
            name=name,
            framework=kind,
            watched={p: registry.models(kind).watch(recipe, p, steps == 0) for p in PRECISIONS},
            feed=feed,
        )
        for name, kind, recipe, feed in zip(names, kinds, recipes, fed, strict=True)
    ]
    return _Run(followers[0], followers[1], parameter_map).to_the_end(max(steps, 1))


def transfer(reference: Any, candidate: Any) -> Pairing:
    """Write the reference's parameters and buffers into the candidate's model, in its own layout; returns the pairing.

    Raises HarnessError where a parameter of the candidate has no counterpart.
    """
    recipes = _recipe(reference), _recipe(candidate)
    kinds = [framework_of(recipe) for recipe in recipes]
    watched = [registry.models(k).watch(r, "float32", True) for k, r in zip(kinds, recipes, strict=True)]
    values = [w.state().values for w in watched]
    pairing = pair_parameters(watched[0].parameters, watched[1].parameters, values[0], values[1], structure_only=True)
    if pairing.unmatched_candidate:
        raise HarnessError(
            f"no counterpart in the reference for {', '.join(pairing.unmatched_candidate)}; "
            "the two models must have the same layers"
        )
    registry.models(kinds[1]).assign(recipes[1], transfer_values(pairing, values[0], watched[1].parameters, values[1]))
    return pairing


def _recipe(model: Any) -> Recipe:
    return model if isinstance(model, Recipe) else Recipe(model=model)


def framework_of(recipe: Recipe) -> str:
    """The framework whose model it is, told by its classes' modules; a function with params is JAX's."""
    roots = {cls.__module__.partition(".")[0] for cls in type(recipe.model).__mro__}
    if "torch" in roots:
        return "pytorch"
    if "keras" in roots:
        return "keras"
    if callable(recipe.model) and recipe.params is not None:
        return "jax"
    raise HarnessError(
        f"a {type(recipe.model).__name__} is no model that can be compared; give a torch.nn.Module, a keras.Model, "
        "or a JAX function apply(params, x) as harness.side(apply, params=...)"
    )


@dataclass(slots=True)
class _Run:
    """A comparison under way."""

    reference: Follower
    candidate: Follower
    parameter_map: Mapping[str, Any] | None
    rows: list[pd.DataFrame] = field(default_factory=list)
    own: list[Divergence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    because: dict[str, set[str]] = field(default_factory=dict)
    lost: str = ""
    ends: dict[str, Any] = field(default_factory=dict)

    def to_the_end(self, steps: int) -> Comparison:
        sides = self.reference, self.candidate
        pairing = _pair(sides, self.parameter_map)
        plan: Plan | None = None
        for step in range(steps):
            reference, candidate = (take(side, step) for side in sides)
            if plan is None:
                plan = _plan(sides, pairing, reference, candidate)
                self.notes += [*pairing.notes, *_left_out(plan, sides)]
            judgement = self._judge(plan, step, reference, candidate)
            self.rows.append(_frame(plan, step, judgement, reference, candidate))
        frame = pd.concat(self.rows, ignore_index=True)
        judged = frame[frame["kind"] != "slot"]
        verdict = max(judged["verdict"].unique(), key=VERDICTS.index)
        because = sorted(set(judged.loc[judged["verdict"] == verdict, "because"]) - {""})
        return Comparison(
            verdict=verdict,
            because=", ".join(because),
            first=self.own[0] if self.own else None,
            own=tuple(self.own),
            notes=tuple(dict.fromkeys(self.notes)),
            frame=frame,
            pairing=pairing,
            sides=(self.reference.name, self.candidate.name),
            environment={s.name: dict(registry.adapter(s.framework).environment()) for s in sides},
        )

    def _judge(self, plan: Plan, step: int, reference: Taken, candidate: Taken) -> Judgement:
        measures = measures_of(plan, reference, candidate)
        judgement = judge(measures, np.zeros(len(plan.compared), bool))
        alarms = judgement.verdict[0] == DIFFERENT
        silent = np.array([quantity.kind in SILENT for quantity in plan.compared])
        if self.lost or _chaotic(plan, measures):
            self.lost = self.lost or f"chaotic from step {step} on: rounding has grown to the size of the outputs"
            self.notes.append(self.lost)
            judgement.mark(judgement.verdict != IDENTICAL, UNDECIDED, "chaotic")
            return judgement
        if not (alarms & ~silent).any():
            return judgement
        sides = self.reference, self.candidate
        if restless := _restless(plan, sides, step, reference, candidate, measures):
            self.lost = restless
            self.notes.append(restless)
            judgement.mark((0, np.flatnonzero(alarms)), UNDECIDED, "nondeterministic")
            return judgement
        own = own_errors(plan, sides, step, reference, candidate, measures)
        if own.different.any():
            first = int(np.argmax(own.different))
            early = alarms.copy()
            early[first:] = False
            judgement.mark((0, np.flatnonzero(early)), ROUNDING, "")
            judgement.mark((0, first), DIFFERENT, "")
            known = {divergence.name for divergence in self.own}
            new = [i for i in np.flatnonzero(own.different) if plan.compared[i].name not in known]
            self.own += [_divergence(plan, i, step, own.measures, reference, candidate) for i in new]
            return judgement
        if self.own:
            return judgement  # what follows from a difference found before
        reasons = set(own.because) - {""}
        if own.leak:
            self.notes.append(own.leak)
            judgement.mark((0, np.flatnonzero(alarms)), ROUNDING, "leak")
            self._resynchronise(plan, reference, candidate)
            return judgement
        if "one precision" in reasons:
            judgement.mark((0, np.flatnonzero(alarms)), UNDECIDED, "one precision")
            self.notes.append(f"float32 inside one side's float64 run, first at {_first_name(plan, own.because)}")
            return judgement
        backward = any(alarms[i] and plan.compared[i].kind.endswith("gradient") for i in range(len(alarms)))
        null = is_null(measures)[0]
        why = "kink" if "kink" in reasons or (backward and not null.any()) else "null" if null.any() else ""
        judgement.mark((0, np.flatnonzero(alarms)), ROUNDING, why)
        self._resynchronise(plan, reference, candidate)
        return judgement

    def _resynchronise(self, plan: Plan, reference: Taken, candidate: Taken) -> None:
        """Rounding was amplified to a real difference of the states: both go on from the reference's."""
        self.candidate.load(mapped(plan, self.reference.states(), self.candidate.states()))


def _pair(sides: tuple[Follower, Follower], given: Mapping[str, Any] | None) -> Pairing:
    one, other = (side.watched["float64"] for side in sides)
    return pair_parameters(one.parameters, other.parameters, one.state().values, other.state().values, given)


def _plan(sides: tuple[Follower, Follower], pairing: Pairing, reference: Taken, candidate: Taken) -> Plan:
    """Align the two sides on the examples of step 0, from the states before it."""
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in sides]
    anchors = dict.fromkeys(
        (layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in pairing.links
    )
    batches = sides[1].batches(0)

    def forward(values: Mapping[str, np.ndarray]) -> Record:
        if not values:
            return candidate.records["float64"]
        forced = {p: Forced(activations={n: v.astype(p) for n, v in values.items()}) for p in PRECISIONS}
        return retake(sides[1], candidate.before, batches, forced).records["float64"]

    alignment = align_activations(reference.records["float64"], forward, list(anchors))
    parameters = sides[0].watched["float64"].parameters
    return plan_of(alignment, pairing, parameters, reference.records["float64"], candidate.records["float64"])


def _left_out(plan: Plan, sides: tuple[Follower, Follower]) -> list[str]:
    notes = []
    for name, side in ((plan.pairing.unmatched_reference, sides[0]), (plan.pairing.unmatched_candidate, sides[1])):
        if name:
            notes.append(f"{side.name}: no counterpart for {', '.join(name)}")
    return notes


def _chaotic(plan: Plan, measures: Measures) -> bool:
    """Rounding of the loss (the outputs, without one) has passed a tenth of its size on both sides."""
    kinds = [quantity.kind for quantity in plan.compared]
    i = kinds.index("loss") if "loss" in kinds else len(kinds) - 1 - kinds[::-1].index("activation")
    noise = min(measures.noise_reference[0, i], measures.noise_candidate[0, i])
    return bool(noise > CHAOS * max(measures.size[0, i], 1e-300)) and not is_null(measures)[0, i]


def _restless(
    plan: Plan, sides: tuple[Follower, Follower], step: int, reference: Taken, candidate: Taken, measures: Measures
) -> str:
    """What to say of a side that does not reproduce its step from the same state; "" where both do."""
    for side, taken in zip(sides, (reference, candidate), strict=True):
        again = retake(side, taken.before, side.batches(step))
        for name, values in taken.records["float64"].activations.items():
            repeated = again.records["float64"].activations.get(name)
            if repeated is None or repeated.shape != values.shape:
                return f"{side.name}: {name} is not computed each time; make the model take the same path every time"
            gap = np.abs(repeated - values).max(initial=0.0)
            if gap > 1e3 * EPS64 * np.abs(values).max(initial=0.0):
                return (
                    f"{side.name}: {name} gives other values when step {step} is repeated; "
                    "switch random layers off (dropout rate 0, or training=False)"
                )
        pair = (again, candidate) if side is sides[0] else (reference, again)
        apart = measures_of(plan, *pair).d64
        if (np.abs(apart - measures.d64) > K * measures.budget)[0].any():
            worst = int(np.argmax(np.abs(apart - measures.d64) / measures.budget))
            return f"{side.name} does not reproduce {plan.compared[worst].name} of step {step} from the same state"
    return ""


def _first_name(plan: Plan, because: np.ndarray) -> str:
    return plan.compared[int(np.argmax(because == "one precision"))].name


def _divergence(plan: Plan, i: int, step: int, measures: Measures, reference: Taken, candidate: Taken) -> Divergence:
    quantity = plan.compared[i]
    one, other = shown(quantity, reference, candidate)
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.abs(one - other), nan=np.inf)
    index = tuple(int(k) for k in np.unravel_index(int(gap.argmax()), gap.shape))
    count = int((gap > K * measures.budget[0, i]).sum())
    places = [_place(plan, i, name) for name in (0, 1)]
    text = (
        f"{quantity.name}: {count}/{gap.size} elements differ, worst {measures.d64[0, i]:.3g}"
        f"{f' at {index}' if index else ''} of {measures.size[0, i]:.3g}; rounding explains {measures.budget[0, i]:.2g}"
    )
    return Divergence(place=places[0], candidate_place=places[1], step=step, name=quantity.name, index=index, text=text)


def _place(plan: Plan, i: int, side: int) -> str:
    """A cotangent's place is that of the first parameter gradient behind it."""
    quantity = plan.compared[i]
    if quantity.kind == "loss":
        return "loss"
    if quantity.kind == "activation_gradient":
        behind = [q for q in plan.compared[i:] if q.kind == "gradient"]
        quantity = behind[0] if behind else quantity
    name = quantity.candidate if side else quantity.reference
    if quantity.kind == "activation":
        name = name.removesuffix("/linear")
    return f"{PLACES[quantity.kind]}:{name}"


def _frame(plan: Plan, step: int, judgement: Judgement, reference: Taken, candidate: Taken) -> pd.DataFrame:
    m = judgement.measures
    size = np.where(m.size > 0, m.size, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.clip(-np.log10(m.d32 / size), 0, None)
    return pd.DataFrame(
        {
            "step": step,
            "kind": [q.kind for q in plan.compared],
            "name": [q.name for q in plan.compared],
            "candidate_name": [q.candidate for q in plan.compared],
            "shape": ["x".join(map(str, q.shape)) for q in m.layout.quantities],
            "reference": m.size_reference[0],
            "candidate": m.size_candidate[0],
            "d32": m.d32[0],
            "d64": m.d64[0],
            "noise_reference": m.noise_reference[0],
            "noise_candidate": m.noise_candidate[0],
            "budget": m.budget[0],
            "ratio": m.ratio[0],
            "ulp": m.d64[0] / (EPS64 * size[0]),
            "digits": digits[0],
            "verdict": [VERDICTS[v] for v in judgement.verdict[0]],
            "because": [BECAUSE[b] for b in judgement.because[0]],
        }
    )
