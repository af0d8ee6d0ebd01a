"""Two recorded runs of one case against each other.

A run of the reference in a framework's conventions beside that framework's run is what a live comparison sees, and is
judged by the same code. Two frameworks, or two versions of one, are compared directly; where that alarms, a third
party knows: each of the two beside the reference in its own conventions, and these two references beside each other.
If all three agree but for rounding, so do the two, whatever rounding made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

import frameworks as registry
from harness.case import CannotRun, Case, HarnessError
from harness.comparing import compare
from harness.contrasting import contrast_run
from harness.data import Data
from harness.finding import Finding
from harness.investigating import REFERENCE, Job, prepare
from harness.judging import (
    BECAUSE,
    DIFFERENT,
    ROUNDING,
    disproportionate,
    judge,
    lost_in_noise,
)
from harness.pair import Pair
from harness.recording import tidy
from harness.running import Side, Start, chunks, steps_per_epoch
from harness.summary import Findings
from harness.trace.difference import Difference, versions_apart, versions_between
from harness.trace.reading import Trace
from harness.trace.recorded import checksum_of, environment_of, recorded_case, reference_side, resolved_case
from harness.trace.replaying import Replayed, recorded_state
from harness.watching import Watched, watch
from reference import training

CAUSE_STEPS = 5


def compare_cases(reference: Trace, candidate: Trace, data: Data | None) -> Difference:
    """Compare two complete traces of one case. Raises HarnessError for runs that cannot be compared."""
    job = job_of(reference, candidate, data)
    sides = [_Recorded(trace, job) for trace in (reference, candidate)]
    as_live = sides[0].trace.header.framework == "" and sides[0].at_hand and sides[0].case == sides[1].case
    pair = _pair(sides[0].replayed(), sides[1].replayed(), job)
    watched = watch(pair, job.data) if as_live else _direct(pair, sides, job)
    findings = Findings(pair)
    names = _names(sides)
    labels = {"case": job.case.name, "framework": names[1], "mode": job.case.batching.mode}
    missing = {**reference.header.missing, **candidate.header.missing}
    tables: list[pa.Table] = []
    for of in watched:
        findings.observe(of)
        tables.append(tidy(of, labels, missing, steps_per_epoch(job.case, len(job.data.x))))
    row = findings.row()
    return Difference(
        sides=names,
        verdict=row["verdict"],
        because=row["because"],
        first=row["first_divergence"],
        causes=_causes(sides, job) if row["verdict"] == "different" else (),
        versions=versions_between(reference.header, candidate.header),
        notes=list(dict.fromkeys([*row["notes"], *(note for side in sides for note in side.notes)])),
        steps=job.case.steps,
        frame=pa.concat_tables(tables).unify_dictionaries().to_pandas(),
    )


@dataclass(slots=True)
class _Recorded:
    """A trace, and what of it is at hand."""

    trace: Trace
    job: Job
    case: Case = field(init=False)
    start: Start | None = field(init=False)
    notes: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.case = resolved_case(self.trace)
        self.start, reason = start_of(self.trace)
        if reason:
            self.notes.append(reason)

    @property
    def at_hand(self) -> bool:
        return self.start is not None

    def replayed(self) -> Replayed:
        """The run, from its start."""
        return Replayed(self.trace, self.job.layout, self.start)


def start_of(trace: Trace) -> tuple[Start | None, str]:
    """How the run's framework takes a step here; or why that would not be the one that was recorded."""
    name, said = trace.header.framework, f"{trace.header.name} ({trace.label})"
    if not name and trace.header.name == REFERENCE:
        here = environment_of("")
        same = [here[of] == trace.header.environment.get(of) for of in ("gradparity", "numpy")]
        return (training.start, "") if all(same) else (None, f"{said} was recorded by another version")
    if name not in registry.FRAMEWORKS:
        return None, f"{said} is no framework of this gradparity"
    try:
        adapter = registry.adapter(name)
    except CannotRun as absent:
        return None, f"{said}: {absent}"
    apart = versions_apart(trace.header.environment, environment_of(name))
    return (None, f"{said} was recorded elsewhere ({'; '.join(apart)})") if apart else (adapter.start, "")


def job_of(reference: Trace, candidate: Trace, data: Data | None) -> Job:
    """The case that both were recorded of."""
    one, other = (recorded_case(trace) for trace in (reference, candidate))
    if one != other:
        what = f"{one.name} ({one.steps} steps) and {other.name} ({other.steps} steps)"
        if one.name == other.name and one.steps == other.steps:
            what = f"two cases called {one.name}"
        raise HarnessError(f"these are traces of other cases, {what}; record the same case on both sides")
    job = prepare(one, None, data, parameters_of(reference))
    for trace in (reference, candidate):
        if trace.header.data != checksum_of(job.data.x, job.data.y):
            raise HarnessError(f"{trace.folder} was recorded on other data than {one.data} here; record it again")
        start = recorded_state(trace, job.layout, 0, "float64")[: len(job.parameters)]
        if not np.array_equal(start, job.parameters):
            raise HarnessError(f"{trace.folder} starts from other parameters than {reference.folder}; record it again")
    return job


def parameters_of(trace: Trace) -> dict[str, np.ndarray]:
    """The initial ones, by name."""
    found = {}
    for block in trace.blocks(0, 1):
        if (block.first, block.precision, block.kind) == (0, "float64", "before_parameter"):
            found[block.name] = block.values[0]
    return found


def _pair(reference: Side, candidate: Side, job: Job) -> Pair:
    missing = {*reference.missing, *candidate.missing}
    return Pair(
        reference=reference,
        candidate=candidate,
        missing=np.array([quantity.name in missing for quantity in job.layout.quantities]),
        start=reference.states["float64"],
        restart_reference=lambda case: reference_side(job, case),
    )


# --- without the reference between them -------------------------------------------------------------------------


def _direct(pair: Pair, sides: list[_Recorded], job: Job) -> Iterator[Watched]:
    """Both runs as they are; each alarm is settled by the third party."""
    largest, third = np.zeros(2), None
    for chunk in chunks(job.case, job.data):
        rows = pair.reference.advance(chunk), pair.candidate.advance(chunk)
        judgement = judge(compare(chunk.layout, *rows), pair.missing, pair.blown_up)
        pair.blown_up |= bool(judgement.measures.void.any())
        noisy, sizes = lost_in_noise(judgement.measures, largest)
        largest = sizes[-1]
        alarms = (judgement.verdict == DIFFERENT) & (judgement.because == BECAUSE.index(""))
        doubts = alarms | (disproportionate(judgement.measures) & (judgement.verdict == ROUNDING))
        doubts |= (np.any(noisy, axis=1, keepdims=True) | pair.chaotic) & (judgement.verdict == ROUNDING)
        pair.chaotic |= bool(noisy.any())
        if doubts.any():
            if third is None:
                third = _third_party(pair, sides, job)
            steps = slice(chunk.first, chunk.first + len(chunk))
            verdict, because = (of[steps] for of in third)
            doubts &= ~pair.missing
            judgement.verdict[doubts], judgement.because[doubts] = verdict[doubts], because[doubts]
        yield Watched(chunk=chunk, judgement=judgement, reference=rows[0], candidate=rows[1])


def _third_party(pair: Pair, sides: list[_Recorded], job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Verdict and because, (steps, quantities), by way of the reference: the worst on that way."""
    ways: list[tuple[Side, Side]] = [(reference_side(job, side.case), side.replayed()) for side in sides]
    if sides[0].case != sides[1].case:
        ways.append((reference_side(job, sides[0].case), reference_side(job, sides[1].case)))
    shape = job.case.steps, len(job.layout.quantities)
    verdict, because = np.full(shape, ROUNDING, np.int8), np.zeros(shape, np.int8)
    for reference, candidate in ways:
        beside = _pair(reference, candidate, job)
        for of in watch(beside, job.data):
            steps = slice(of.chunk.first, of.chunk.first + len(of.chunk))
            found = of.judgement
            unexplained = (because[steps] == 0) & (found.verdict == verdict[steps])
            worse = ~beside.missing & (unexplained | (found.verdict > verdict[steps]))
            verdict[steps] = np.where(worse, found.verdict, verdict[steps])
            because[steps] = np.where(worse, found.because, because[steps])
        pair.notes += [note for note in beside.notes if note not in pair.notes]
    return verdict, because


# --- in words ---------------------------------------------------------------------------------------------------


def _causes(sides: list[_Recorded], job: Job) -> list[Finding]:
    """The conventions that make the difference, proven: with them edited the reference computes what the candidate
    recorded."""
    if sides[0].case == sides[1].case:
        return []
    short = replace(job, case=replace(job.case, steps=min(job.case.steps, CAUSE_STEPS)))
    own, theirs = sides[1], sides[0].case
    pair = _pair(reference_side(short, own.case), own.replayed(), short)
    names = [side.trace.header.framework or side.trace.header.name for side in sides]
    if names[0] == names[1]:
        names = [*_names(sides)]
    found = contrast_run(short, pair, theirs, {*sides[0].trace.header.missing}, (names[1], names[0]))
    roles = {"reference": names[0], "candidate": names[1]}
    return [replace(cause, advice={role: cause.advice[name] for role, name in roles.items()}) for cause in found.causes]


def _names(sides: list[_Recorded]) -> tuple[str, str]:
    names = [side.trace.header.name for side in sides]
    if names[0] == names[1]:
        roles = [side.trace.label for side in sides]
        roles = ["reference", "candidate"] if roles[0] == roles[1] else roles
        names = [f"{name} ({role})" for name, role in zip(names, roles, strict=True)]
    return names[0], names[1]
