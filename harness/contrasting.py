"""Why a case gives other numbers in one framework than in another: which of their conventions, proven by an edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import frameworks as registry
from harness.case import PRECISIONS, CannotExpress, Case, Precision
from harness.cause import kind
from harness.causes import Named, named
from harness.conventions import resolve
from harness.data import Data
from harness.editing import Edit, Parts, Puzzle, apart, differing, edited, smallest
from harness.finding import Finding
from harness.investigating import Job, pair_up, prepare
from harness.judging import DIFFERENT, UNDECIDED, K
from harness.pair import Pair
from harness.running import Chunk, chunks, take
from harness.watching import Watched, settle
from reference import training
from reference.optimizers import initial_slots

STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A framework's first steps of a case beside the reference's in another framework's conventions.

    verdict: "rounding" where nothing differs, "different", or "undecided". steps: those compared. causes: each with the
    first quantity that differs without its edit, and by how much there without and with it; the advice is by framework.
    idle: conventions that differ without effect on these steps. reason: why there are neither. notes: constants that
    the framework rounds through float32.
    """

    case: str
    framework: str
    against: str
    verdict: str
    steps: int = 0
    causes: tuple[Finding, ...] = ()
    idle: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The words and numbers as plain data."""
        return {name: getattr(self, name) for name in self.__slots__} | {"causes": [f.as_json() for f in self.causes]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a framework did: its judged steps in order, and the case as the reference reproduces it.

    asked: by name, what both frameworks show in units of their own kind: all but slots and what one of them misses.
    """

    job: Job
    case: Case
    watched: Sequence[Watched]
    asked: frozenset[str]

    @property
    def differs(self) -> bool:
        """Whether it is another run than the reference's in the framework's own conventions."""
        return any((of.judgement.verdict == DIFFERENT)[:, self._columns(of)].any() for of in self.watched)

    @property
    def enough(self) -> list[float]:
        """What rounding explains of each quantity of each step; inf where it is not asked for, where it cannot be
        judged, and where a kink or an exact 0 explains more."""
        limits = []
        for of in self.watched:
            judgement = of.judgement
            judged = (judgement.verdict != UNDECIDED) & (judgement.measures.ratio <= K) & self._columns(of)
            limits += np.where(judged, K * judgement.measures.budget, np.inf).ravel().tolist()
        return limits

    @property
    def places(self) -> list[tuple[int, str]]:
        """Step and name of each quantity of each step."""
        return [
            (of.chunk.first + step, quantity.name)
            for of in self.watched
            for step in range(len(of.chunk))
            for quantity in of.chunk.layout.quantities
        ]

    def values(self, precision: Precision) -> list[np.ndarray]:
        """The framework's quantities, step by step."""
        return [array for of in self.watched for array in _quantities(of.chunk, of.candidate[precision])]

    def reference(self, parts: Parts, precision: Precision) -> list[np.ndarray]:
        """The reference's quantities of the same steps, with these ops, loss and optimizer."""
        case = _with_parts(self.case, parts)
        slots = initial_slots(case.optimizer, len(self.job.parameters))
        state = np.concatenate([self.job.parameters, slots]).astype(precision)
        stepper = training.start(case, precision)
        stepper.load(state, 0)
        found = []
        for of in self.watched:
            rows = take(stepper, of.chunk, precision, state)
            state = rows[-1, of.chunk.layout.state]
            found += _quantities(of.chunk, rows)
        return found

    def _columns(self, of: Watched) -> np.ndarray:
        return np.array([quantity.name in self.asked for quantity in of.chunk.layout.quantities])


def contrast(case: Case, framework: str, against: str, steps: int = STEPS) -> Contrast:
    """Which conventions of a framework make its run of a case differ from one in another framework's conventions.

    Raises HarnessError for a case or a framework that cannot be run.
    """
    job = prepare(case, steps, None, None)
    theirs = resolve(job.case, registry.adapter(against).CONVENTIONS)
    try:
        pair = pair_up(job, framework)
    except CannotExpress as reason:
        return Contrast(case=case.name, framework=framework, against=against, verdict="undecided", reason=str(reason))
    return contrast_run(job, pair, theirs, {*registry.adapter(against).missing(theirs)}, (framework, against))


def contrast_run(job: Job, pair: Pair, theirs: Case, missing: Set[str], names: tuple[str, str]) -> Contrast:
    """Which conventions make the candidate's run, of which the pair's reference speaks the conventions, differ from one
    in theirs, a resolved case. missing: what the other run does not show. names: of this run and of the other."""
    framework, against = names
    said: dict[str, Any] = {"case": job.case.name, "framework": framework, "against": against}
    own, other = _parts(pair.case), _parts(theirs)
    asked = {q.name for q in job.layout.quantities if q.kind != "slot"} - {*pair.candidate.missing, *missing}
    watched = list(_straight(pair, job.case, job.data))
    run = Run(job=job, case=pair.case, watched=watched, asked=frozenset(asked))
    said |= {"steps": sum(len(of.chunk) for of in watched), "notes": tuple(pair.notes)}
    puzzle = Puzzle(
        compute=lambda parts: run.reference(parts, "float64"), wanted=run.values("float64"), enough=run.enough
    )
    if run.differs or apart(puzzle, own) > 1:
        reason = (
            f"{framework} differs from its own conventions too: gradparity run {job.case.name} --frameworks {framework}"
        )
        return Contrast(**said, verdict="different", reason=reason)
    if np.isinf(puzzle.enough).all():
        return Contrast(**said, verdict="undecided", reason="rounding leaves nothing to judge in these steps")
    edits = differing(other, own)
    fits = [_needed(puzzle, other, fit) for fit in smallest(puzzle, other, edits)] if apart(puzzle, other) > 1 else [()]
    needed, instead = fits[0], [_by_id(named(fit, other)) for fit in fits[1:]]
    causes = [_with_others(cause, instead) for cause in _by_id(named(needed, other))]
    found = [_finding(run, puzzle, other, needed, cause, said) for cause in causes]
    return Contrast(
        **said,
        verdict="different" if found else "rounding",
        causes=tuple(cause for _, cause in sorted(found, key=lambda pair: pair[0])),
        idle=tuple(_text(e, other, framework, against) for e in edits if not any(e in fit for fit in fits)),
    )


# --- the framework's run ----------------------------------------------------------------------------------------


def _straight(pair: Pair, case: Case, data: Data) -> Iterator[Watched]:
    """Judged steps, up to the one behind which both sides had to start again from one state."""
    for chunk in chunks(case, data):
        rest = chunk
        while len(rest):
            watched = settle(pair, rest)
            rest = rest.part(len(watched.chunk), len(rest))
            if len(watched.chunk):
                yield watched
                left = watched.candidate["float64"][-1, chunk.layout.state]
                if not np.array_equal(left, pair.candidate.states["float64"], equal_nan=True):
                    return


def _quantities(chunk: Chunk, rows: np.ndarray) -> list[np.ndarray]:
    return [row[quantity.columns] for row in rows for quantity in chunk.layout.quantities]


# --- the edits --------------------------------------------------------------------------------------------------


def _parts(case: Case) -> Parts:
    return (*(node.op for node in case.nodes), case.loss, case.optimizer)


def _with_parts(case: Case, parts: Parts) -> Case:
    *ops, loss, optimizer = parts
    nodes = tuple(replace(node, op=op) for node, op in zip(case.nodes, ops, strict=True))
    return replace(case, nodes=nodes, loss=loss, optimizer=optimizer)


def _needed(puzzle: Puzzle, parts: Parts, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Of edits that fit, those without which the others do not."""
    for edit in edits:
        fewer = tuple(one for one in edits if one != edit)
        if apart(puzzle, edited(parts, fewer)) <= 1:
            return _needed(puzzle, parts, fewer)
    return edits


# --- in words ---------------------------------------------------------------------------------------------------


def _by_id(causes: Sequence[Named]) -> list[Named]:
    """One for each id, with all its edits."""
    found: dict[str, Named] = {}
    for cause in causes:
        before = found.get(cause.id, replace(cause, edits=()))
        found[cause.id] = replace(before, edits=(*before.edits, *cause.edits))
    return list(found.values())


def _with_others(cause: Named, instead: Sequence[Sequence[Named]]) -> Named:
    """With the ids of sets of edits that fit as well without it."""
    others = [{other.id for other in causes} for causes in instead]
    ids = {id_ for ids in others if cause.id not in ids for id_ in ids}
    return replace(cause, same=tuple(sorted({*cause.same, *ids} - {cause.id})))


def _finding(
    run: Run, puzzle: Puzzle, parts: Parts, needed: Sequence[Edit], cause: Named, said: dict[str, Any]
) -> tuple[int, Finding]:
    """A cause, and where it first shows: what is left there with all other edits made, and with all."""
    framework, against = said["framework"], said["against"]
    without, with_all = edited(parts, [edit for edit in needed if edit not in cause.edits]), edited(parts, needed)
    pairs = zip(puzzle.compute(without), puzzle.wanted, puzzle.enough, strict=True)
    at = next(i for i, (one, other, enough) in enumerate(pairs) if not _gap(one, other) <= enough)
    step, place = run.places[at]
    gaps = {
        f"{when}{precision[-2:]}": _gap(run.reference(of, precision)[at], run.values(precision)[at])
        for precision in PRECISIONS
        for when, of in (("before", without), ("after", with_all))
    }
    return at, Finding(
        id="" if cause.id == "layer-different" else cause.id,  # the last resort for what no row names
        same=cause.same,
        where=place,
        candidate_where=place,
        step=step,
        status="proven",
        edit="; ".join(_text(edit, parts, framework, against) for edit in cause.edits),
        advice={
            against: _written(against, edited(parts, cause.edits), cause.edits),
            framework: _written(framework, parts, cause.edits),
        },
        **gaps,
    )


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0.0))


def _text(edit: Edit, parts: Parts, framework: str, against: str) -> str:
    return f"{kind(parts[edit.position])}.{edit.field} {edit.before!r} in {against}, {edit.after!r} in {framework}"


def _written(framework: str, parts: Parts, edits: Sequence[Edit]) -> str:
    """What a user of a framework writes to have these fields of the parts."""
    if framework not in registry.FRAMEWORKS or not registry.FRAMEWORKS[framework].models:
        return ""
    written = registry.models(framework).written
    fields = {edit.position: [one.field for one in edits if one.position == edit.position] for edit in edits}
    lines = [written(parts[position], names) for position, names in fields.items()]
    return ", ".join(line for line in dict.fromkeys(lines) if line)
