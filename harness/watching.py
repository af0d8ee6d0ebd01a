"""A pair of sides taking all steps of a case, chunk by chunk: every quantity compared, judged and, where it alarms,
explained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.comparing import compare
from harness.data import Data
from harness.explaining import Outcome, explain, inherits_noise
from harness.judging import (
    DIFFERENT,
    IDENTICAL,
    ROUNDING,
    UNDECIDED,
    Judgement,
    K,
    disproportionate,
    float32_explains,
    judge,
    lost_in_noise,
)
from harness.pair import Moment, Pair
from harness.running import Chunk, Rows, chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Judged steps with the rows they were judged by."""

    chunk: Chunk
    judgement: Judgement
    reference: Rows
    candidate: Rows


def watch(pair: Pair, data: Data) -> Iterator[Watched]:
    """Run both sides to the end of the case; memory holds one chunk."""
    for chunk in chunks(pair.case, data):
        rest = chunk
        while len(rest):
            watched = settle(pair, rest)
            if len(watched.chunk):
                yield watched
            rest = rest.part(len(watched.chunk), len(rest))


def settle(pair: Pair, chunk: Chunk) -> Watched:
    """Take a chunk's steps, judge them and explain their alarms, one step at a time in order.

    Returns the steps settled so: all of them, or those up to one after which the sides had to restart.
    """
    before: list[Rows] = [side.states for side in pair.sides]
    rows = [side.advance(chunk) for side in pair.sides]
    judgement = _judge(pair, chunk, rows)
    noisy, sizes = lost_in_noise(judgement.measures, pair.largest)
    settled = len(chunk)
    horizon = 0 if pair.chaotic else len(chunk)
    alarming = np.any(_alarms(judgement), axis=1)
    suspicious = disproportionate(judgement.measures) & ~pair.missing
    steadied = np.zeros(len(pair.missing), bool)  # a quantity is checked once a chunk: a suspicion mostly is inherited
    for step in np.flatnonzero(alarming | suspicious.any(axis=1) | noisy.any(axis=1)).tolist():
        if pair.lost is not None or pair.chaotic:
            break
        alarmed, suspect = alarming[step], bool((suspicious[step] & ~steadied).any())
        moment = Moment(
            chunk=chunk.part(step, step + 1),
            before=[_state_before(chunk, rows[i], before[i], step) for i in range(len(rows))],
            rows=[{precision: values[step : step + 1] for precision, values in side.items()} for side in rows],
        )
        if inherits_noise(pair, moment, noisy[step], sizes[step]):
            pair.chaotic, horizon = True, step
            break
        if not (alarmed or suspect):
            continue
        if not alarmed:
            steadied |= suspicious[step]
        outcome = explain(pair, moment, judgement.part(slice(step, step + 1)))
        if outcome is Outcome.RESYNCHRONISE:
            settled = step + 1
            leader = rows[1] if pair.candidate.bound else rows[0]
            after: Rows = {precision: values[step, chunk.layout.state] for precision, values in leader.items()}
            for side in pair.sides:
                side.restart(after, chunk.first + settled)
            break
        if outcome is Outcome.RETAKE:
            settled = step
            states = [*moment.before, moment.before[0]][:3]  # a first leak has made the reference a third side
            for side, state in zip(pair.sides, states, strict=True):
                side.restart(state, chunk.first + settled)
            break
    steps = slice(0, settled)
    judgement = judgement.part(steps)
    pair.largest = sizes[settled - 1] if settled else pair.largest
    pair.blown_up |= bool(judgement.measures.void.any())
    if pair.candidate.bound:
        judgement.mark(suspicious[steps] & (judgement.verdict == ROUNDING), UNDECIDED, "unconfirmed")
    _mark_chaos(pair, judgement.part(slice(horizon, None)))
    _mark_lost(pair, judgement)
    kept: list[Rows] = [{precision: values[steps] for precision, values in side.items()} for side in rows]
    return Watched(chunk=chunk.part(0, settled), judgement=judgement, reference=kept[0], candidate=kept[1])


def _judge(pair: Pair, chunk: Chunk, rows: list[Rows]) -> Judgement:
    judgement = judge(compare(chunk.layout, rows[0], rows[1]), pair.missing, pair.blown_up)
    if pair.plain is not None:
        judgement.shown = compare(chunk.layout, rows[2], rows[1])
        leaked = (judgement.shown.ratio > K) & (judgement.verdict <= ROUNDING)
        judgement.mark(leaked, ROUNDING, "leak")
    return judgement


def _alarms(judgement: Judgement) -> np.ndarray:
    return judgement.verdict == DIFFERENT


def _state_before(chunk: Chunk, rows: Rows, before: Rows, step: int) -> Rows:
    if step == 0:
        return before
    return {precision: values[step - 1, chunk.layout.state].copy() for precision, values in rows.items()}


def _mark_chaos(pair: Pair, judgement: Judgement) -> None:
    """From the chaos horizon on nothing but identity can be judged."""
    judgement.mark((judgement.verdict != IDENTICAL) & ~pair.missing, UNDECIDED, "chaotic")


def _mark_lost(pair: Pair, judgement: Judgement) -> None:
    """After a step that could not be decided, the differences that follow from it cannot be either."""
    if pair.lost in ("nondeterministic", "one precision"):
        within = _alarms(judgement) & (judgement.measures.d64 <= float32_explains(judgement.measures))
        judgement.mark(within, UNDECIDED, pair.lost)
    if pair.lost == "unconfirmed":
        judgement.mark(_alarms(judgement), UNDECIDED, pair.lost)
