"""One random net through the harness's own machinery: beside a framework, and beside itself with a planted factor."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.nets import Net
from harness.case import CannotExpress, Case, Precision
from harness.comparing import Measures
from harness.conventions import TORCH, resolve
from harness.data import Data
from harness.explaining import noise_samples
from harness.hypotheses import of_null_gradients
from harness.investigating import Job, pair_up, prepare
from harness.judging import BECAUSE, ROUNDING, UNDECIDED, Judgement, K, is_null, proportion
from harness.layout import layout_of
from harness.pair import Moment, Pair
from harness.running import Side, chunks
from harness.summary import Findings
from harness.watching import watch
from reference import training
from reference.optimizers import initial_slots, update_rule

EXPLAINED = {"kink": "kink", "null": "null", "leak": "leak", "inherited": ""}
"""How alarms that stayed after confirmation were explained, with the because that says so."""

OVER = {f"over_{k}": k for k in (1, 3, 10, 30, 100)}
Row = dict[str, Any]


def job_of(net: Net) -> Job:
    return prepare(net.case, None, net.data, net.parameters)


def clean(job: Job, framework: str) -> Row:
    """The reference beside a framework: nothing but rounding is to be found."""
    began = time.perf_counter()
    try:
        pair = pair_up(job, framework)
    except CannotExpress as reason:
        return {"verdict": "skipped", "note": str(reason)}
    own = _own_noises(pair, job.data)
    findings = Findings(pair)
    judgements: list[Judgement] = []
    for watched in watch(pair, job.data):
        findings.observe(watched)
        judgements.append(watched.judgement)
    row = findings.row()
    return {
        **{name: row[name] for name in ("verdict", "because", "ratio", "chaotic_from")},
        **{"quantity": row["worst"], "step": row["step"]},
        **_rounding(pair, judgements),
        **_noise(pair, judgements[0].part(slice(0, 1)), own),
        **_explained(judgements),
        "proportion_run": max(_proportion(j.measures, pair.missing) for j in judgements),
        "seconds": time.perf_counter() - began,
        "note": "; ".join([*([row["first_divergence"]["text"]] if row["first_divergence"] else []), *row["notes"]]),
    }


def _rounding(pair: Pair, judgements: list[Judgement]) -> Row:
    """How large clean ratios are, before and after confirmation, where the run can be judged; and how d shrinks."""
    before, after, shrinks = [], [], []
    for judgement in judgements:
        measures = judgement.measures
        judged = ~pair.missing & (judgement.because != BECAUSE.index("chaotic"))
        before.append(_unconfirmed(measures)[judged])
        after.append(measures.ratio[judged])
        differ = judged & (measures.d32 > 0) & (measures.d64 > 0)
        shrinks.append(np.log2(measures.d32[differ] / measures.d64[differ]))
    ratios, shrink = np.concatenate(before), np.concatenate(shrinks)
    return {
        "cells": len(ratios),
        **{name: int((ratios > k).sum()) for name, k in OVER.items()},
        "ratio_before": _largest(ratios),
        "ratio_after": _largest(np.concatenate(after)),
        "shrink": float(np.median(shrink)) if len(shrink) else np.nan,
    }


def _unconfirmed(measures: Measures) -> np.ndarray:
    """The ratio as it was before confirmation widened the budget."""
    return replace(measures, spread=np.zeros_like(measures.spread)).ratio


def _own_noises(pair: Pair, data: Data) -> list[np.ndarray]:
    """Float32 noises of the first step, (samples, quantities) for reference and candidate, as K32 judges them."""
    first = next(chunks(pair.case, data)).part(0, 1)
    moment = Moment(chunk=first, before=[], rows=[])
    return [noise_samples(side, pair.start, moment) for side in (pair.reference, pair.candidate)]


def _noise(pair: Pair, judgement: Judgement, own: list[np.ndarray]) -> Row:
    """How far one side's own noise at the first step is out of proportion to the other's."""
    first = judgement.measures
    null = is_null(first)[0] | of_null_gradients(judgement)[0]
    proportions = np.where(pair.missing | null, 0, proportion(own[0], own[1], first.grain).min(axis=0))
    worst = int(np.argmax(np.nan_to_num(proportions, nan=0.0)))
    return {
        "proportion_own": _largest(proportions),
        "proportion_at": first.layout.quantities[worst].name,
    }


def _proportion(measures: Measures, missing: np.ndarray) -> float:
    proportions = proportion(measures.noise_reference, measures.noise_candidate, measures.grain)
    return _largest(np.where(missing | is_null(measures), 0, proportions))


def _explained(judgements: list[Judgement]) -> Row:
    """Steps at which an alarm needed confirmation, or one of the explanations."""
    found = dict.fromkeys(("confirmed", *EXPLAINED), 0)
    for judgement in judgements:
        found["confirmed"] += int((judgement.measures.spread > 0).any(axis=1).sum())
        alarms = (judgement.shown.ratio > K) & (judgement.verdict == ROUNDING)
        for name, because in EXPLAINED.items():
            found[name] += int((alarms & (judgement.because == BECAUSE.index(because))).any(axis=1).sum())
    return {**found}


def _largest(values: np.ndarray) -> float:
    return float(np.nan_to_num(values, nan=0.0, posinf=np.inf).max(initial=0.0))


# --- planted factors --------------------------------------------------------------------------------------------


class Planted:
    """The reference, but one parameter's gradient is multiplied before the update; a `Stepper`."""

    def __init__(self, gradient: str, factor: float, case: Case, precision: Precision) -> None:
        self.gradient = gradient
        self.factor = factor
        self.case = case
        self.training = training.start(case, precision)
        self.update = update_rule(case.optimizer, np.dtype(precision), case.float32_constants)

    def load(self, state: np.ndarray, step: int) -> None:
        self.state = state.copy()
        self.step = step

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        layout = layout_of(self.case, x.shape[1:])
        for t, row in enumerate(rows):
            self.training.load(self.state, self.step)
            self.training.run(x[t : t + 1], y[t : t + 1], rows[t : t + 1])
            row[layout.find(self.gradient).columns] *= row.dtype.type(self.factor)
            W, *slots = self.state.reshape(-1, layout.parameters.stop - layout.parameters.start)  # noqa: N806
            self.step += 1
            with np.errstate(all="ignore"):
                self.update(self.step, W, row[layout.gradients], *slots)
            row[layout.state] = self.state


def planted(job: Job, excess: float, rng: np.random.Generator) -> Row:
    """The reference beside itself with 1 + excess planted into a parameter's gradient: it is to be found there."""
    case = resolve(job.case, TORCH)  # finite where a probability saturates
    name = f"dL/d{rng.choice(list(job.layout.parameter_shapes))}"
    state = np.concatenate([job.parameters, initial_slots(case.optimizer, len(job.parameters))])

    def reference(of: Case) -> Side:
        return Side(name="reference", case=of, start=training.start, state=state, missing={})

    pair = Pair(
        reference=reference(case),
        candidate=Side(name="planted", case=case, start=partial(Planted, name, 1 + excess), state=state, missing={}),
        missing=np.zeros(len(job.layout.quantities), bool),
        start=state,
        restart_reference=reference,
    )
    findings = Findings(pair)
    judgements: list[Judgement] = []
    for watched in watch(pair, job.data):
        findings.observe(watched)
        judgements.append(watched.judgement)
    row, first = findings.row(), judgements[0].measures.part(slice(0, 1))
    where = row["first_divergence"] or {"name": "", "step": 0}
    at = [quantity.name for quantity in first.layout.quantities].index(name)
    size = float(first.size[0, at])
    if size == 0 or is_null(first)[0, at]:
        unfit = "exact zero"
    elif not np.isfinite(first.noise[0, at]):
        unfit = "overflow"
    else:
        unfit = "chaotic" if judgements[0].verdict[0, at] == UNDECIDED else ""
    return {
        **{column: row[column] for column in ("verdict", "because", "chaotic_from")},
        "planted": name,
        "excess": excess,
        "found": int(where["name"] == name and where["step"] == 0),
        "unfit": unfit,
        "relative_noise": float(first.noise_reference[0, at]) / size if size else np.nan,
        "quantity": where["name"],
        "step": where["step"],
        "ratio_before": float(_unconfirmed(first)[0, at]),
        "ratio_after": float(first.ratio[0, at]),
    }
