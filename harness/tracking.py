"""Two models followed to the end: every step judged, its alarms told apart into own errors and inherited ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import frameworks as registry
from harness.case import HarnessError
from harness.comparing import Measures
from harness.comparison import Comparison, Divergence
from harness.cost import Cost
from harness.diagnosing import SEARCH, findings, of_another_form, with_random_layer, without_echoes
from harness.diverging import divergence, explained, worse
from harness.elsewhere import Moment
from harness.finding import Finding
from harness.following import (
    Follower,
    Plan,
    States,
    Taken,
    aside,
    in_order,
    measures_of,
    order_by_keys,
    pulling,
    states_after,
    take,
)
from harness.judging import (
    CHAOS,
    DIFFERENT,
    IDENTICAL,
    ROUNDING,
    UNDECIDED,
    VERDICTS,
    Judgement,
    disproportionate,
    float32_explains,
    is_null,
    judge,
)
from harness.mapping import mapped, slots_apart
from harness.owning import SILENT, Own, own_errors, persisting
from harness.pairing import Note, Pairing
from harness.planning import left_out, plan_of_step, plan_sides, start_together, without_returned
from harness.recipe import Record
from harness.returned import Unlike, unlike_integers, unlike_outputs
from harness.rows import Columns, frame_of, rows_of_step, rows_of_unlike
from harness.stability import restless, unstable


@dataclass(slots=True)
class Tracking:
    """A comparison under way."""

    sides: tuple[Follower, Follower]
    parameter_map: Mapping[str, Any] | None
    inference: bool
    states: list[States] = field(default_factory=list)
    pairing: Pairing = field(init=False)
    plan: Plan | None = None
    updates: bool = False
    unseen: list[str] = field(default_factory=list)
    rows: list[Columns] = field(default_factory=list)
    own: list[Divergence] = field(default_factory=list)
    causes: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: str = ""
    lost_because: str = "chaotic"
    apart: set[str] = field(default_factory=set)
    apart_by_rounding: bool = False
    largest: float = 0.0
    coarse: int | None = None
    random: str = ""
    searched: float = 0.0
    unlike: list[Unlike] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)

    def to_the_end(self, steps: int) -> Comparison:
        self.states, self.pairing = start_together(self.sides, self.parameter_map)
        for step in range(steps):
            self._follow(step)
        if self.unseen and not self.own:
            said = f"{', '.join(self.unseen)}: trained, and the other side has none; a step more shows what that does"
            self.notes.append(said)
            self._follow(steps)
        if self.unlike:
            self.rows.append(rows_of_unlike(self.unlike))
            self.own += [_of_shape(of) for of in self.unlike if of.differs]
        return self._told()

    def _follow(self, step: int) -> None:
        """Take a step of both sides, and judge it."""
        reference, candidate = (take(side, step, own) for side, own in zip(self.sides, self.states, strict=True))
        states = [states_after(side, taken) for side, taken in zip(self.sides, (reference, candidate), strict=True)]
        plan, updates = self.plan, reference.updates or candidate.updates
        if plan is None:
            _check_losses(self.sides, (reference, candidate), self.inference)
            if order := order_by_keys(*_float64(reference, candidate)):
                self.sides = (self.sides[0], replace(self.sides[1], order=order))
                candidate = replace(
                    candidate, records={p: in_order(self.sides[1], of) for p, of in candidate.records.items()}
                )
            with aside(self.sides, states):
                plan = plan_sides(self.sides, self.pairing, reference, candidate)
            if not self.inference and _without_loss(reference) and _without_loss(candidate):
                plan, reference, candidate = self._pulled(plan, reference, candidate)
            self._note(plan, reference, candidate)
        elif updates != self.updates:
            plan = plan_of_step(plan, self.sides, reference, candidate)
        self.cost.observe(reference, candidate)
        moment = Moment(plan=plan, sides=self.sides, step=step, reference=reference, candidate=candidate)
        judgement = self._judge(moment)
        if plan.returned and _loss_agrees(plan, judgement):
            plan = without_returned(plan)
            moment = replace(moment, plan=plan)
            judgement = self._judge(moment)
        if (split := self._only_within(moment, judgement)).any():
            with aside(self.sides, states):
                plan = self._without_split(moment, judgement, split)
            moment = replace(moment, plan=plan)
            judgement = self._judge(moment)
        if _alarmed(plan, judgement):
            with aside(self.sides, states):
                self._explain(moment, judgement)
        elif not (self.own or self.lost) and disproportionate(judgement.measures).any():
            with aside(self.sides, states):
                self._weigh(moment, judgement)
        self.rows.append(rows_of_step(step, [q.candidate for q in plan.compared], judgement))
        if self.apart_by_rounding:
            states[1] = mapped(plan.pairing, states[0], states[1])
            self.sides[1].load(states[1])
            self.apart_by_rounding = False
        self.plan, self.updates, self.states = plan, updates, states
        self.unseen = [
            *_trained_alone(self.pairing.unmatched_reference, reference),
            *_trained_alone(self.pairing.unmatched_candidate, candidate),
        ]

    def _note(self, plan: Plan, reference: Taken, candidate: Taken) -> None:
        """What is said of a plan: how it was found, and what it leaves out."""
        records, names = _float64(reference, candidate), [side.name for side in self.sides]
        self.notes += [*(note.text for note in self.pairing.notes), *left_out(plan, self.sides, records)]
        unlike = [*unlike_outputs(names, *records), *unlike_integers(names, *records)]
        if _without_loss(reference) and _without_loss(candidate):  # else it reads what matters of them
            self.unlike = unlike
        self.notes += [of.text for of in unlike if not (self.unlike and of.differs)]

    def _told(self) -> Comparison:
        frame = frame_of(self.rows)
        judged: Any = frame[~frame["kind"].isin(["slot"])]
        verdict = max(set(judged["verdict"]), key=VERDICTS.index)
        because = sorted(set(judged["because"][judged["verdict"] == verdict]) - {""})
        if verdict == VERDICTS[DIFFERENT] and not self.own:
            self.own.append(_without_effect(judged[judged["verdict"] == verdict].iloc[0]))
        return Comparison(
            verdict=verdict,
            because=", ".join(because),
            first=self.own[0] if self.own else None,
            own=tuple(self.own),
            causes=tuple(self.causes),
            notes=tuple(dict.fromkeys(self.notes)),
            frame=frame,
            pairing=self.pairing,
            sides=(self.sides[0].name, self.sides[1].name),
            environment={s.name: dict(registry.adapter(s.framework).environment()) for s in self.sides},
            cost=self.cost,
        )

    def _pulled(self, plan: Plan, reference: Taken, candidate: Taken) -> tuple[Plan, Taken, Taken]:
        """Without a loss on either side: the first step again, with the outputs' vector-Jacobian product."""
        self.sides = pulling(self.sides, plan, _float64(reference, candidate))
        reference, candidate = (
            take(side, 0, taken.before) for side, taken in zip(self.sides, (reference, candidate), strict=True)
        )
        return plan_of_step(plan, self.sides, reference, candidate), reference, candidate

    def _judge(self, moment: Moment) -> Judgement:
        measures = measures_of(moment.plan, moment.reference, moment.candidate)
        judgement = judge(measures, np.zeros(len(moment.plan.compared), bool))
        self.largest = max(self.largest, _of_outputs(moment.plan, measures.size))
        self._allow_float32(judgement)
        if self.lost or _chaotic(moment.plan, measures, self.largest):
            self.lost = (
                self.lost or f"chaotic from step {moment.step} on: rounding has grown to the size of the outputs"
            )
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

    def _only_within(self, moment: Moment, judgement: Judgement) -> np.ndarray:
        """What differs where all that comes of it agrees: cotangents where the gradients of all parameters do,
        activations where the outputs, the loss and those gradients do."""
        plan, records = moment.plan, _float64(moment.reference, moment.candidate)
        kinds = np.array([quantity.kind for quantity in plan.compared])
        alarms = judgement.verdict[0] == DIFFERENT
        outputs = {*zip(*(record.outputs for record in records), strict=False)}
        pairs = [(quantity.reference, quantity.candidate) for quantity in plan.compared]
        inner = (kinds == "activation") & [pair not in outputs for pair in pairs]
        within = inner & (bool(outputs) and outputs <= set(pairs))
        within |= (kinds == "activation_gradient") & ("gradient" in kinds)
        apart = (alarms & ~within & np.isin(kinds, ("activation", "loss", "gradient", "buffer"))).any()
        return alarms & within & (not (self.own or self.lost or self.unlike or apart))

    def _without_split(self, moment: Moment, judgement: Judgement, split: np.ndarray) -> Plan:
        """The plan without those that belong to values that the two sides use in other ways (a copy here, a second call
        there, examples in another order): they are no quantity that both sides have."""
        plan = moment.plan
        found = [plan.compared[i] for i in np.flatnonzero(persisting(moment, split, judgement.measures))]
        if found:
            said = f"{', '.join(sorted(q.name for q in found))} not compared: the two sides use the value in other ways"
            self.notes.append(f"{said}, all that comes of it agrees")
        pairs = {q.aligned for q in found if q.kind == "activation"}
        compared = tuple(q for q in plan.compared if q not in found and not (q.aligned and q.aligned in pairs))
        return replace(plan, alignment=tuple(a for a in plan.alignment if a not in pairs), compared=compared)

    def _weigh(self, moment: Moment, judgement: Judgement) -> None:
        """Float32 far worse on one side than on the other is a difference, though float64 agrees."""
        found = unstable(moment, judgement.measures)
        judgement.mark((0, np.flatnonzero(found)), DIFFERENT, "unstable")
        differences = [worse(moment, i, judgement.measures) for i in np.flatnonzero(found).tolist()]
        self.own += differences
        self.causes += [of_another_form(difference) for difference in differences]

    def _explain(self, moment: Moment, judgement: Judgement) -> None:
        """Settle the alarms of one step: an own error is a difference, all else was inherited or is rounding."""
        plan, measures, alarms = moment.plan, judgement.measures, judgement.verdict[0] == DIFFERENT
        if not self.own:
            found = restless(moment, measures)
            self.notes += [note for note, _ in found]
            if len(found) == len(self.sides) or any(not is_random for _, is_random in found):
                self.lost, self.lost_because = found[0][0], "nondeterministic"
                judgement.mark((0, np.flatnonzero(alarms)), UNDECIDED, self.lost_because)
                return
            self.random = self.random or next((note for note, _ in found), "")
            # behind a difference the slots follow from it
            self.apart = slots_apart(plan, moment.reference.before, moment.candidate.before)
        moment = replace(moment, keep=frozenset(self.apart))
        known = {difference.name for difference in self.own}
        own = own_errors(moment, measures, known, self.coarse)
        if self.random:  # its float32 run drew other numbers: what lies between the two is no rounding
            own = replace(
                own,
                different=own.different | (own.because == "one precision"),
                because=np.where(own.because == "one precision", "", own.because),
            )
        if self.coarse is None and (own.because == "one precision").any():
            self.coarse = int(np.argmax(own.because == "one precision"))
            text = "a side has this in float32 only, in its float64 run too (or weights that were computed in float32)"
            self.notes.append(
                f"{plan.compared[self.coarse].name}: {text}; from there on float32's rounding is the yardstick"
            )
            self._allow_float32(judgement)
            alarms = judgement.verdict[0] == DIFFERENT
        late = _behind_agreeing_gradients(plan, alarms)
        different = own.different & late
        if not (different.any() or self.own):
            unsettled = alarms & late & (own.because == "") & ~_of_null_gradients(measures)
            different = persisting(moment, unsettled, measures)
            own = replace(own, measures=measures)
        if different.any():
            first = int(np.argmax(different))
            judgement.mark((0, np.flatnonzero(alarms[:first])), ROUNDING, "")
            judgement.mark((0, first), DIFFERENT, "")
            new = [i for i in np.flatnonzero(different).tolist() if plan.compared[i].name not in known]
            differences = [divergence(moment, i, own.measures) for i in new]
            proof = None
            if differences and not self.own and plan.compared[first].kind in ("activation", "loss"):
                differences[0], proof = explained(differences[0], moment, own, first)
            said = {(cause.id, cause.edit) for cause in self.causes}
            began = time.process_time()
            causes = findings(moment, own, new, proof, began + SEARCH - self.searched)
            self.searched += time.process_time() - began
            if self.random:
                causes = with_random_layer(causes, self.random)
            new_causes = [cause for cause in causes if (cause.id, cause.edit) not in said]
            self.causes = without_echoes([*self.causes, *new_causes])
            self.own += differences
        elif not self.own:  # else it follows from a difference found before
            judgement.mark((0, np.flatnonzero(alarms)), ROUNDING, _harmless(plan, own, alarms, measures))
            self.apart_by_rounding = True


def _alarmed(plan: Plan, judgement: Judgement) -> bool:
    return any(
        v == DIFFERENT and q.kind not in SILENT for v, q in zip(judgement.verdict[0], plan.compared, strict=True)
    )


def _without_effect(row: Any) -> Divergence:
    """A parameter that differs while nothing that is computed does."""
    return Divergence(
        place=f"{row['kind']}:{row['name']}",
        candidate_place=f"{row['kind']}:{row['candidate_name']}",
        step=int(row["step"]),
        name=row["name"],
        index=(),
        text=f"{row['name']} differs by {row['d64']:.3g}, and nothing else does: no output or gradient depends on it",
    )


def _trained_alone(unmatched: Sequence[Note], taken: Taken) -> list[str]:
    """What an update of this step has moved by a gradient and no other side's parameter stands for."""
    gradients = taken.records["float64"].gradients if taken.updates else {}
    return [
        of.parameter for of in unmatched if (gradient := gradients.get(of.parameter)) is not None and gradient.any()
    ]


def _of_shape(unlike: Unlike) -> Divergence:
    return Divergence(
        place=f"forward:{unlike.reference}",
        candidate_place=f"forward:{unlike.candidate}",
        step=0,
        name=unlike.reference,
        index=(),
        text=unlike.text,
    )


def _check_losses(sides: tuple[Follower, Follower], taken: tuple[Taken, Taken], inference: bool) -> None:
    """Refuse a side that trains beside one that cannot."""
    without = [side.name for side, of in zip(sides, taken, strict=True) if _without_loss(of)]
    if len(without) == 1 and not inference:
        raise HarnessError(
            f"{without[0]} has no loss and the other side has one; give both sides a loss (harness.side(model, "
            "loss=...), or compile), or neither, or compare the forward pass alone with steps=0"
        )


def _loss_agrees(plan: Plan, judgement: Judgement) -> bool:
    """The loss reads the outputs of both sides alike."""
    kinds = [quantity.kind for quantity in plan.compared]
    return "loss" in kinds and judgement.verdict[0, kinds.index("loss")] != DIFFERENT


def _float64(*taken: Taken) -> tuple[Record, Record]:
    one, other = (of.records["float64"] for of in taken)
    return one, other


def _behind_agreeing_gradients(plan: Plan, alarms: np.ndarray) -> np.ndarray:
    """All but the cotangents before the last parameter whose gradient agrees and behind which one does not: they may
    differ because the sides use a value in other ways."""
    kinds = np.array([quantity.kind for quantity in plan.compared])
    gradients = np.flatnonzero(kinds == "gradient")
    first = min(gradients[alarms[gradients]], default=-1)
    agreeing = max(gradients[gradients < first], default=-1)
    return (kinds != "activation_gradient") | (np.arange(len(kinds)) > agreeing)


def _harmless(plan: Plan, own: Own, alarms: np.ndarray, measures: Measures) -> str:
    """Why a step's alarms are none."""
    kinds = {quantity.kind for alarm, quantity in zip(alarms, plan.compared, strict=True) if alarm}
    for why in ("one precision", "kink"):
        if why in own.because:
            return why
    if is_null(measures).any():
        return "null"
    if "activation" in kinds:  # fed alike, both compute the same: the weights are apart by what one side was rounded to
        return "one precision"
    return "kink" if any(kind.endswith("gradient") for kind in kinds) else ""


def _of_null_gradients(measures: Measures) -> np.ndarray:
    """What is 0 exactly, and all of a parameter whose gradient is."""
    null = is_null(measures)[0]
    names = {
        q.tensor for q, zero in zip(measures.layout.quantities, null, strict=True) if zero and q.kind == "gradient"
    }
    return null | np.array([q.tensor in names and q.kind != "activation" for q in measures.layout.quantities])


def _without_loss(taken: Taken) -> bool:
    return taken.records["float64"].loss is None


def _chaotic(plan: Plan, measures: Measures, largest: float) -> bool:
    """Rounding of the outputs has passed a tenth of their size on both sides; converging to 0 is no chaos."""
    noise = min(_of_outputs(plan, measures.noise_reference), _of_outputs(plan, measures.noise_candidate))
    return noise > CHAOS * largest > 0


def _of_outputs(plan: Plan, values: np.ndarray) -> float:
    """A measure of the last activation."""
    return float(values[0, max(i for i, quantity in enumerate(plan.compared) if quantity.kind == "activation")])
