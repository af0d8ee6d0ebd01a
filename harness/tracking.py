"""Two models followed to the end: every step judged, its alarms told apart into own errors and inherited ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd

import frameworks as registry
from harness.activations import align_activations
from harness.comparing import EPS64, Measures
from harness.comparison import Comparison, Divergence
from harness.elsewhere import Moment
from harness.following import (
    Follower,
    Plan,
    States,
    Taken,
    aside,
    forward,
    mapped,
    mapped_state,
    measures_of,
    parameters_of,
    plan_of,
    pulling,
    retake,
    shown,
    slots_apart,
    states_after,
    take,
)
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
    disproportionate,
    float32_explains,
    is_null,
    judge,
)
from harness.owning import SILENT, Own, missing_block, own_errors, persisting
from harness.pairing import Pairing, pair_parameters
from harness.recipe import State
from harness.remapping import remedy
from harness.stability import unstable

RANDOM = 1e-6
"""Relative change of an activation, when its step is taken again in float64, that no order of summation makes."""

MOVE = 0.05
"""How far parameters are moved, relative to their size, to tell activations apart."""

FLOATS = ("bfloat16", "float16", "float32")

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


@dataclass(slots=True)
class Tracking:
    """A comparison under way."""

    reference: Follower
    candidate: Follower
    parameter_map: Mapping[str, Any] | None
    inference: bool
    rows: list[pd.DataFrame] = field(default_factory=list)
    own: list[Divergence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: str = ""
    lost_because: str = "chaotic"
    apart: set[str] = field(default_factory=set)
    apart_by_rounding: bool = False
    largest: float = 0.0
    coarse: int | None = None

    def to_the_end(self, steps: int) -> Comparison:
        sides = self.reference, self.candidate
        stored = _coarsest(sides)
        states = [_rounded(side.states(), stored) for side in sides]
        for side, start in zip(sides, states, strict=True):
            side.load(start)
        pairing = _pair(sides, self.parameter_map)
        plan: Plan | None = None
        for step in range(steps):
            reference = candidate = None  # the last step's tensors go before this step's come
            reference, candidate = (take(side, step, before) for side, before in zip(sides, states, strict=True))
            states = [states_after(side, taken) for side, taken in zip(sides, (reference, candidate), strict=True)]
            if plan is None:
                with aside(sides, states):
                    plan = _plan(sides, pairing, reference, candidate)
                if _without_loss(reference) and _without_loss(candidate) and not self.inference:
                    records = reference.records["float64"], candidate.records["float64"]
                    self.reference, self.candidate = sides = pulling(sides, plan, records)
                    reference, candidate = (take(side, 0, before) for side, before in zip(sides, states, strict=True))
                    records = reference.records["float64"], candidate.records["float64"]
                    plan = plan_of(plan.alignment, pairing, sides[0].watched["float64"].parameters, *records)
                self.notes += [*(note.text for note in pairing.notes), *_left_out(plan, sides)]
            judgement = self._judge(plan, step, reference, candidate)
            if self._alarmed(plan, judgement):
                with aside(sides, states):
                    self._explain(plan, step, reference, candidate, judgement)
            elif not (self.own or self.lost) and disproportionate(judgement.measures).any():
                with aside(sides, states):
                    self._weigh(self._moment(plan, step, reference, candidate), judgement)
            self.rows.append(_frame(plan, step, judgement))
            if self.apart_by_rounding:
                states[1] = mapped(plan.pairing, states[0], states[1])
                self.candidate.load(states[1])
                self.apart_by_rounding = False
        frame = pd.concat(self.rows, ignore_index=True)
        judged = frame[~frame["kind"].isin(["slot"])]
        verdict = max(set(judged["verdict"]), key=VERDICTS.index)
        because = sorted(set(judged["because"][judged["verdict"] == verdict]) - {""})
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
        self.largest = max(self.largest, _of_outputs(plan, measures.size))
        self._allow_float32(judgement)
        if self.lost or _chaotic(plan, measures, self.largest):
            self.lost = self.lost or f"chaotic from step {step} on: rounding has grown to the size of the outputs"
            self.notes.append(self.lost)
            judgement.mark(judgement.verdict != IDENTICAL, UNDECIDED, self.lost_because)
        return judgement

    def _allow_float32(self, judgement: Judgement) -> None:
        """Behind a place that one side computes in float32, float32 is the yardstick."""
        if self.coarse is None:
            return
        measures = judgement.measures
        only = (judgement.verdict == DIFFERENT) & (measures.d64 <= float32_explains(measures))
        only[:, : self.coarse] = False
        judgement.mark(only, ROUNDING, "one precision")
        self.apart_by_rounding |= bool(only.any())

    def _moment(self, plan: Plan, step: int, reference: Taken, candidate: Taken) -> Moment:
        sides = self.reference, self.candidate
        return Moment(plan=plan, sides=sides, step=step, reference=reference, candidate=candidate, keep=self.apart)

    def _weigh(self, moment: Moment, judgement: Judgement) -> None:
        """Float32 far worse on one side than on the other is a difference, though float64 agrees."""
        found = unstable(moment, judgement.measures)
        judgement.mark((0, np.flatnonzero(found)), DIFFERENT, "unstable")
        self.own += [_worse(moment, i, judgement.measures) for i in np.flatnonzero(found).tolist()]

    def _alarmed(self, plan: Plan, judgement: Judgement) -> bool:
        return any(
            v == DIFFERENT and q.kind not in SILENT for v, q in zip(judgement.verdict[0], plan.compared, strict=True)
        )

    def _explain(self, plan: Plan, step: int, reference: Taken, candidate: Taken, judgement: Judgement) -> None:
        """Settle the alarms of one step: an own error is a difference, all else was inherited or is rounding."""
        measures, alarms = judgement.measures, judgement.verdict[0] == DIFFERENT
        sides = self.reference, self.candidate
        if not self.own:
            restless = _restless(plan, sides, step, reference, candidate, measures)
            self.notes += [note for note, _ in restless]
            if len(restless) == len(sides) or any(not is_random for _, is_random in restless):
                self.lost, self.lost_because = restless[0][0], "nondeterministic"
                judgement.mark((0, np.flatnonzero(alarms)), UNDECIDED, self.lost_because)
                return
        if not self.own:  # behind a difference the slots follow from it
            self.apart = slots_apart(plan, reference.before, candidate.before)
        known = {divergence.name for divergence in self.own}
        own = own_errors(plan, sides, step, reference, candidate, measures, self.apart, known, self.coarse)
        if self.coarse is None and (own.because == "one precision").any():
            self.coarse = int(np.argmax(own.because == "one precision"))
            name = plan.compared[self.coarse].name
            text = "a side has this in float32 only, in its float64 run too (or weights that were computed in float32)"
            self.notes.append(f"{name}: {text}; from there on float32's rounding is the yardstick")
            self._allow_float32(judgement)
            alarms = judgement.verdict[0] == DIFFERENT
        different = own.different
        moment = self._moment(plan, step, reference, candidate)
        if not (different.any() or self.own):
            unsettled = alarms & (own.because == "") & ~_of_null_gradients(measures)
            different = persisting(moment, unsettled, measures)
            own = replace(own, measures=measures)
        if different.any():
            first = int(np.argmax(different))
            early = alarms.copy()
            early[first:] = False
            judgement.mark((0, np.flatnonzero(early)), ROUNDING, "")
            judgement.mark((0, first), DIFFERENT, "")
            new = [i for i in np.flatnonzero(different).tolist() if plan.compared[i].name not in known]
            found = [
                _divergence(plan, i, step, own.measures, reference, candidate)
                if np.isfinite(own.measures.budget[0, i])
                else _worse(moment, i, own.measures)
                for i in new
            ]
            if found and not self.own and plan.compared[first].kind == "activation":
                found[0] = _why(found[0], moment, own, first)
            self.own += found
        elif not self.own:  # else it follows from a difference found before
            judgement.mark((0, np.flatnonzero(alarms)), ROUNDING, _harmless(plan, own, alarms, measures))
            self.apart_by_rounding = True


def _harmless(plan: Plan, own: Own, alarms: np.ndarray, measures: Measures) -> str:
    """Why a step's alarms are none."""
    backward = any(
        alarm and quantity.kind.endswith("gradient") for alarm, quantity in zip(alarms, plan.compared, strict=True)
    )
    null = is_null(measures).any()
    for why in ("one precision", "kink"):
        if why in own.because:
            return why
    return "null" if null else "kink" if backward else ""


def _of_null_gradients(measures: Measures) -> np.ndarray:
    """What is 0 exactly, and all of a parameter whose gradient is."""
    null = is_null(measures)[0]
    names = {
        q.tensor for q, zero in zip(measures.layout.quantities, null, strict=True) if zero and q.kind == "gradient"
    }
    return null | np.array([q.tensor in names and q.kind != "activation" for q in measures.layout.quantities])


def _pair(sides: tuple[Follower, Follower], given: Mapping[str, Any] | None) -> Pairing:
    one, other = (side.watched["float64"] for side in sides)
    return pair_parameters(one.parameters, other.parameters, one.state().values, other.state().values, given)


def _plan(sides: tuple[Follower, Follower], pairing: Pairing, reference: Taken, candidate: Taken) -> Plan:
    """Align the two sides on the examples of step 0, where all parameters have moved: at the usual start (factors of 1,
    offsets of 0) different activations have equal values."""
    layers = [{p.name: p.layer for p in side.watched["float64"].parameters} for side in sides]
    anchors = dict.fromkeys(
        (layers[0][link.reference.parameter], layers[1][link.candidate.parameter]) for link in pairing.links
    )
    parameters = sides[0].watched["float64"].parameters
    shared = {name for link in pairing.links if link.expected for name in parameters_of(link.reference)}
    movable = shared - {parameter.name for parameter in parameters if parameter.buffer}
    records = reference.records["float64"], candidate.records["float64"]
    batches = [side.feed.batch(0, "float64") for side in sides]
    moved = _moved(reference.before["float64"], movable)
    state = mapped_state(pairing, moved, candidate.before["float64"])
    there = forward(sides[0], moved, batches[0], {}, records[0].activations)
    opaque = {p.layer for side in sides for p in side.watched["float64"].parameters if p.op}
    alignment = align_activations(
        there,
        lambda forced: forward(sides[1], state, batches[1], forced, records[1].activations),
        list(anchors),
        opaque,
    )
    return plan_of(alignment, pairing, parameters, *records)


def _coarsest(sides: tuple[Follower, Follower]) -> np.dtype:
    """The lowest precision, float32 at most, in which either side stores a parameter."""
    stored = [np.dtype(p.dtype) for side in sides for p in side.watched["float64"].parameters if p.dtype in FLOATS]
    return max([np.dtype("float32"), *stored], key=lambda dtype: float(ml_dtypes.finfo(dtype).eps))


def _rounded(states: States, stored: np.dtype) -> States:
    """Both sides and both precisions start from the same numbers: those that the lowest precision can hold."""

    def once(array: np.ndarray) -> np.ndarray:
        return array.astype(stored).astype(array.dtype) if array.dtype.kind == "f" else array

    return {
        precision: replace(
            state,
            values={name: once(array) for name, array in state.values.items()},
            slots={slot: {name: once(array) for name, array in of.items()} for slot, of in state.slots.items()},
        )
        for precision, state in states.items()
    }


def _moved(state: State, movable: Collection[str]) -> State:
    rng = np.random.default_rng(0)
    values = {}
    for name, array in state.values.items():
        noise = rng.standard_normal(array.shape)
        scale = MOVE * (np.sqrt(np.mean(array**2)) + MOVE) if name in movable and array.dtype.kind == "f" else 0
        values[name] = (array + scale * noise).astype(array.dtype) if scale else array
    return State(values=values, count=state.count)


def _without_loss(taken: Taken) -> bool:
    return taken.records["float64"].loss is None


def _left_out(plan: Plan, sides: tuple[Follower, Follower]) -> list[str]:
    notes = []
    for name, side in ((plan.pairing.unmatched_reference, sides[0]), (plan.pairing.unmatched_candidate, sides[1])):
        notes += [f"{side.name}: {note.text}" for note in name]
    return notes


def _chaotic(plan: Plan, measures: Measures, largest: float) -> bool:
    """Rounding of the outputs has passed a tenth of their size on both sides; converging to 0 is no chaos."""
    noise = min(_of_outputs(plan, measures.noise_reference), _of_outputs(plan, measures.noise_candidate))
    return noise > CHAOS * largest > 0


def _of_outputs(plan: Plan, values: np.ndarray) -> float:
    """A measure of the last activation."""
    return float(values[0, max(i for i, quantity in enumerate(plan.compared) if quantity.kind == "activation")])


def _restless(
    plan: Plan, sides: tuple[Follower, Follower], step: int, reference: Taken, candidate: Taken, measures: Measures
) -> list[tuple[str, bool]]:
    """What to say of each side that does not reproduce its step from the same state, and whether that is a random layer
    (which against none is a difference) or how it computes."""
    notes = []
    for side, taken in zip(sides, (reference, candidate), strict=True):
        again = retake(side, taken.before, side.batches(step))
        if name := _random_layer(taken, again):
            hint = "switch random layers off (dropout rate 0, or training=False)"
            notes.append((f"{side.name}: {name} gives other values when step {step} is repeated; {hint}", True))
            continue
        pair = (again, candidate) if side is sides[0] else (reference, again)
        with np.errstate(invalid="ignore"):
            apart = np.abs(measures_of(plan, *pair).d64 - measures.d64)[0] / measures.budget[0]
        if (apart > K).any():
            name = plan.compared[int(np.nanargmax(apart))].name
            notes.append((f"{side.name} does not reproduce {name} of step {step} from the same state", False))
    return notes


def _random_layer(taken: Taken, again: Taken) -> str:
    """The first activation that is another one when the same step is taken again; "" without one."""
    for name, values in taken.records["float64"].activations.items():
        repeated = again.records["float64"].activations.get(name)
        if repeated is None or repeated.shape != values.shape:
            return name
        if np.abs(repeated - values).max(initial=0.0) > RANDOM * np.abs(values).max(initial=0.0):
            return name
    return ""


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


def _worse(moment: Moment, i: int, measures: Measures) -> Divergence:
    """A quantity whose float32 is far worse on one side, or not finite there."""
    quantity = moment.plan.compared[i]
    noises = measures.noise_reference[0, i], measures.noise_candidate[0, i]
    worse = int(not (np.isnan(noises[0]) or noises[0] > noises[1]))
    names = [side.name for side in moment.sides]
    off = f"off by {noises[worse]:.2g}" if np.isfinite(noises[worse]) else "not finite"
    text = (
        f"{quantity.name}: the same function in float64, but in float32 {names[worse]} is {off}, {names[1 - worse]} "
        f"off by {noises[1 - worse]:.2g}, of {measures.size[0, i]:.3g}"
    )
    places = [_place(moment.plan, i, side) for side in (0, 1)]
    return Divergence(
        place=places[0], candidate_place=places[1], step=moment.step, name=quantity.name, index=(), text=text
    )


def _why(divergence: Divergence, moment: Moment, own: Own, i: int) -> Divergence:
    """With what proves a first difference in the forward pass: a block that one side lacks (its place is right before
    the quantity that shows it), or a wrong map of the weights."""
    names = missing_block(moment, own, i)
    if names is not None:
        who = "the candidate" if names[0] == names[1] else "the reference"
        text = f"{names[0]} is there in {who} alone; {divergence.text}"
        return replace(divergence, place=f"forward:{names[0]}", candidate_place=f"forward:{names[1]}", text=text)
    found = remedy(moment, own, i)
    return replace(divergence, cause=found.cause, why=found.text, edit=found.edit) if found else divergence


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


def _frame(plan: Plan, step: int, judgement: Judgement) -> pd.DataFrame:
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
