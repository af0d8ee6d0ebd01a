"""The main job: case -> run -> compare -> judge -> explain -> record -> report."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import frameworks as registry
from harness.case import CannotExpress, CannotRun, Case
from harness.checking import check_case, check_data, check_parameters, choose
from harness.conventions import resolve
from harness.convergence import COLUMNS, Curve, perturbed_losses
from harness.data import DATASETS, Data
from harness.describing import describe_case, describe_conventions, describe_environment
from harness.folder import Recorder
from harness.judging import VERDICTS
from harness.keeping import map_of
from harness.layout import Layout, layout_of
from harness.memory import growth, resident
from harness.pair import Pair
from harness.recording import tidy
from harness.report.fragment import as_fragment
from harness.report.frames import read_frame
from harness.running import Side, steps_per_epoch
from harness.summary import Findings
from harness.watching import watch
from reference import training
from reference.landscapes import LANDSCAPES
from reference.optimizers import initial_slots

REFERENCE = "numpy"
RECORDED = 2 * (4 + 8)
"""Bytes for each number of a step: of two sides, in two precisions."""

Progress = Callable[[str, str, int], None]
"""Told (case, framework, steps just done)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an investigation found.

    frame: the tidy frame, a row per case, framework, step and quantity (thinned above a million rows; frame.parquet in
    the run folder never is). convergence: a row per case, framework and evaluated epoch. summary: a row per case and
    framework. skipped: case -> framework -> why it was not run. verdict: the worst of all. folder: None if not kept.
    """

    frame: pd.DataFrame
    convergence: pd.DataFrame
    summary: pd.DataFrame
    skipped: Mapping[str, Mapping[str, str]]
    verdict: str
    folder: Path | None

    @property
    def exit_code(self) -> int:
        """0 identical or rounding, 1 different, 3 nothing could be decided."""
        return {"different": 1, "undecided": 3}.get(self.verdict, 0)

    def _repr_html_(self) -> str:
        return as_fragment({"summary": self.summary.to_dict("records")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A checked case with its data and initial parameters (flat, layout order).

    Gathered while it runs: why a framework was skipped, the conventions spoken beside each, maps of where tensors
    differ, and the names of the arrays that hold the paths over a landscape.
    """

    case: Case
    data: Data
    layout: Layout
    parameters: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)
    conventions: dict[str, dict[str, Any]] = field(default_factory=dict)
    maps: list[dict[str, Any]] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)


def investigate(
    *cases: Case,
    frameworks: Sequence[str] | None = None,
    steps: int | None = None,
    out: Path | str | None = None,
    data: Data | None = None,
    parameters: Mapping[str, np.ndarray] | None = None,
    progress: Progress = lambda case, framework, steps: None,
    command: str = "harness.investigate",
) -> Result:
    """Run cases in the reference and in each framework; compare and judge every quantity of every step.

    frameworks: names; all installed ones by default. steps: instead of each case's own number. out: the run folder to
    write; none by default. data, parameters: instead of what the case names (initial parameters by name). progress is
    told (case, framework, steps done) as they are done.
    Raises HarnessError for input that cannot be run.
    """
    began = time.perf_counter()
    names = [choose("framework", name, registry.FRAMEWORKS) for name in frameworks or registry.installed()]
    if not names:
        raise CannotRun(f"no framework is installed; run, for example: {registry.pip_line('pytorch')}")
    for name in names:
        registry.require(name)
    jobs = [prepare(case, steps, data, parameters) for case in cases]
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(out or Path(scratch) / "run")) as recorder:
        summary: list[dict[str, Any]] = []
        curves: list[dict[str, Any]] = []
        for name in names:  # framework by framework: each is imported once and stays warm
            for job in jobs:
                try:
                    pair = pair_up(job, name)
                except CannotExpress as reason:
                    job.skipped[name] = str(reason)
                    continue
                met = any(row["case"] == job.case.name for row in curves)
                row, rows = follow(job, pair, recorder, progress, with_reference=not met)
                summary.append(row)
                curves += rows
        convergence = pd.DataFrame(curves, columns=list(COLUMNS))
        recorder.finish(convergence, _header(jobs, names, summary, command, time.perf_counter() - began))
        return Result(
            frame=read_frame(recorder.folder / "frame.parquet"),
            convergence=convergence,
            summary=pd.DataFrame(summary),
            skipped={job.case.name: job.skipped for job in jobs},
            verdict=max((row["verdict"] for row in summary), key=VERDICTS.index, default="undecided"),
            folder=recorder.folder if out else None,
        )


def prepare(case: Case, steps: int | None, data: Data | None, parameters: Mapping[str, np.ndarray] | None) -> Job:
    """Check a case, its data and its initial parameters. Raises HarnessError."""
    case = check_case(case if steps is None else replace(case, steps=steps))
    if data is None:
        data = DATASETS[choose("data set", case.data, DATASETS)]()
    check_data(case, data)
    layout = layout_of(case, (1, *data.x.shape[1:]))
    if parameters is None and case.initialization == "given" and case.name in LANDSCAPES:
        parameters = {"points": np.array(list(LANDSCAPES[case.name].starts), dtype=float)}
    if parameters is None:
        parameters = training.initial_parameters(case, layout.parameter_shapes)
    check_parameters(case, data, parameters)
    flat = np.concatenate([np.ravel(parameters[name]) for name in layout.parameter_shapes])
    return Job(case=case, data=data, layout=layout, parameters=flat.astype(np.float32).astype(np.float64))


def pair_up(job: Job, framework: str) -> Pair:
    """The reference, in the framework's native conventions, beside the framework. Raises CannotExpress."""
    adapter = registry.adapter(framework)
    case = resolve(job.case, adapter.CONVENTIONS)
    job.conventions[framework] = describe_conventions(job.case, case)
    missing = adapter.missing(case)
    state = np.concatenate([job.parameters, initial_slots(case.optimizer, len(job.parameters))])

    def reference(of: Case) -> Side:
        return Side(name=REFERENCE, case=of, start=training.start, state=state, missing={})

    return Pair(
        reference=reference(case),
        candidate=Side(name=framework, case=case, start=adapter.start, state=state, missing=missing),
        start=state,
        missing=np.array([quantity.name in missing for quantity in job.layout.quantities]),
        restart_reference=reference,
    )


def follow(
    job: Job, pair: Pair, recorder: Recorder, progress: Progress, *, with_reference: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Watch a pair to its end. Returns its summary row and the convergence rows of the candidate, and if asked of the
    reference."""
    findings = Findings(pair)
    reference = Curve(pair.case, job.data, pair.reference, job.layout) if with_reference else None
    candidate = Curve(pair.case, job.data, pair.candidate, job.layout)
    before = largest = resident()
    labels = {"case": job.case.name, "framework": pair.candidate.name, "mode": job.case.batching.mode}
    for watched in watch(pair, job.data):
        findings.observe(watched)
        recorder.add(tidy(watched, labels, pair.candidate.missing, steps_per_epoch(job.case, len(job.data.x))))
        if reference:
            reference.observe(watched.reference, watched)
        candidate.observe(watched.candidate, watched)
        largest = max(filter(None, (largest, resident())), default=None)
        progress(job.case.name, pair.candidate.name, len(watched.chunk))
    row = {**findings.row(), **candidate.end(), "seconds_per_step": pair.candidate.seconds_per_step("float32")}
    row["reference_seconds_per_step"] = pair.reference.seconds_per_step("float32")
    row |= {"bytes_per_step": job.layout.size * RECORDED, "memory_growth": growth(before, largest)}
    if findings.mismatch and findings.first:
        place = {key: findings.first[key] for key in ("name", "step")} | {"case": job.case.name}
        job.maps.extend(map_of(findings.mismatch, recorder, place | {"framework": pair.candidate.name}))
    job.paths.update(
        {side.side.name: recorder.keep(np.array(side.path)) for side in (reference, candidate) if side and side.path}
    )
    if findings.chaotic_from is not None:
        row["notes"].append(_after_chaos(job, pair, findings.chaotic_from, row["final_loss"]))
    return row, [*(reference.rows if reference else []), *candidate.rows]


def _after_chaos(job: Job, pair: Pair, step: int, loss: float) -> str:
    """Past the chaos horizon only the spread of perturbed runs says what is usual."""
    losses = perturbed_losses(pair.case, job.data, pair.start)
    inside = "within" if losses.min() <= loss <= losses.max() else "outside"
    return (
        f"chaotic from step {step} on; the final loss {loss:.3g} lies {inside} the spread {losses.min():.3g} to "
        f"{losses.max():.3g} of {len(losses)} reference runs started an ulp apart"
    )


def _header(jobs: list[Job], names: list[str], summary: list[dict], command: str, seconds: float) -> dict[str, Any]:
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": seconds,
        "environment": describe_environment({name: registry.adapter(name).environment() for name in names}),
        "cases": {
            job.case.name: {
                **describe_case(job.case, job.layout, job.paths),
                "conventions": job.conventions,
                "skipped": job.skipped,
            }
            for job in jobs
        },
        "summary": summary,
        "reference": REFERENCE,
        "causes": [],
        "maps": [found for job in jobs for found in job.maps],
    }
