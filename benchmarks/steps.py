"""What a training step costs: python -m benchmarks.steps --reference --recording.

--reference: the reference's step beside torch's eager one. --recording: running, comparing and recording every quantity
of every step beside the frameworks' own loops. Contenders take turns in one process, so that a busy machine slows all
of them; times are medians over the rounds. Compiling and tracing happen in a first round that does not count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from benchmarks.clocks import Clocks, Parts
from benchmarks.loops import LOOPS, Loop
from benchmarks.tables import Row, median, show
from frameworks import installed
from harness.case import PRECISIONS, Batching, Case, Precision
from harness.cases import TUTORIAL
from harness.convergence import Curve
from harness.data import DATASETS
from harness.folder import Recorder
from harness.investigating import Job, pair_up, prepare
from harness.pair import Pair
from harness.recording import tidy
from harness.running import chunks, steps_per_epoch
from harness.summary import Findings
from harness.watching import Watched, watch

STEPS = {1: 512, 32: 320, 512: 100}
"""Steps of one round by batch size: whole epochs of the 512 examples, tens of milliseconds at least."""

PARTS: Parts = {
    "{0.name}": ("harness.running:Side.advance",),
    "comparing": ("harness.watching:_judge",),
    "explaining": ("harness.watching:explain",),
    "rows": (f"{__name__}:tidy", f"{__name__}:Findings.observe"),
    "convergence": ("harness.convergence:Curve.observe",),
    "writing": ("harness.folder:Recorder.add", "harness.folder:Recorder.__exit__"),
}


@click.command(help=__doc__)
@click.option("--reference", is_flag=True, help="The reference beside torch.")
@click.option("--recording", is_flag=True, help="Recording beside the frameworks' own loops.")
@click.option("--frameworks", help="Comma-separated; all installed ones by default.")
@click.option("--batches", default="1,32,512", show_default=True, help="Batch sizes of --recording.")
@click.option("--steps", type=int, help="Steps of one round, instead of 100 to 512.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--simple", is_flag=True, help="Beside the simple loops only, a call per step: nothing is compiled.")
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-NAME.md too.")
def main(
    reference: bool,
    recording: bool,
    frameworks: str | None,
    batches: str,
    steps: int | None,
    rounds: int,
    simple: bool,
    save: bool,
) -> None:
    if not (reference or recording):
        raise click.UsageError("say --reference or --recording")
    if reference:
        beside_torch(steps or STEPS[32], rounds, save)
    if recording:
        names = frameworks.split(",") if frameworks else installed()
        sizes = {int(size): steps or STEPS.get(int(size), 100) for size in batches.split(",")}
        beside_loops(names, sizes, rounds, not simple, save)


def in_turns(contenders: Mapping[str, Loop], rounds: int) -> dict[str, float]:
    """Microseconds a step of each contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counts in [False, *[True] * rounds]:
        for name, run in contenders.items():
            began = time.perf_counter()
            steps = run()
            if counts:
                seconds[name].append((time.perf_counter() - began) / steps)
    return {name: 1e6 * median(each) for name, each in seconds.items()}


def examples(case: Case, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    """All batches of a case: x (steps, batch, features), y (steps, batch, 1)."""
    parts = [(chunk.x, chunk.y) for chunk in chunks(case, DATASETS[case.data]())]
    x, y = (np.concatenate(part).astype(precision) for part in zip(*parts, strict=True))
    return x, y


# --- the reference beside torch ---------------------------------------------------------------------------------


def beside_torch(steps: int, rounds: int, save: bool) -> None:
    case = replace(TUTORIAL, steps=steps)
    contenders: dict[str, Loop] = {}
    for precision in PRECISIONS:
        x, y = examples(case, precision)
        contenders[f"reference {precision}"] = _reference(case, x, y)
        contenders[f"torch {precision}"] = LOOPS["pytorch"](x, y, False)["eager"]
    micro = in_turns(contenders, rounds)
    rows = []
    for precision in PRECISIONS:
        ours, theirs = (micro[f"{who} {precision}"] for who in ("reference", "torch"))
        rows.append(
            {"precision": precision, "reference, us": ours, "torch, us": theirs, "times as fast": theirs / ours}
        )
    remark = (
        "A step of the tutorial network 30-16-8-1 at batch 32: forward, backward, SGD. The reference writes every "
        "quantity of the step into a row; torch is eager, with torch.optim.SGD, and records nothing. Medians of "
        f"{rounds} rounds of {steps} steps. Target: at least 4 times as fast."
    )
    show("The reference's step beside torch's", rows, [remark], save_as="reference" if save else None)


def _reference(case: Case, x: np.ndarray, y: np.ndarray) -> Loop:
    pair = pair_up(prepare(case, None, None, None), "pytorch")
    precision: Precision = "float32" if x.dtype == np.float32 else "float64"
    stepper = pair.reference.steppers[precision]
    rows = np.zeros((len(x), next(chunks(case, DATASETS[case.data]())).layout.recorded), x.dtype)

    def run() -> int:
        stepper.load(pair.start.astype(precision), 0)
        stepper.run(x, y, rows)
        return len(x)

    return run


# --- recording beside the frameworks' own loops -----------------------------------------------------------------


def beside_loops(names: list[str], sizes: Mapping[int, int], rounds: int, fast: bool, save: bool) -> None:
    """sizes: batch size -> steps of one round."""
    rows: list[Row] = []
    parts: list[Row] = []
    for size, steps in sizes.items():
        found = [_measured(name, size, steps, rounds, fast) for name in names]
        rows += [row for row, _ in found]
        total = {column: sum(row[column] for row, _ in found) for column in ("ours, us", "simple, us", "fastest, us")}
        rows.append({"framework": "all", "batch": size, **total})
        parts += [part for _, part in found]
    for row in rows:
        row["ours / simple"], row["ours / fastest"] = (
            row["ours, us"] / row[f"{loop}, us"] for loop in ("simple", "fastest")
        )
    remarks = [
        "Microseconds for a step of the tutorial network, float32 and float64 together. Ours: reference and framework "
        "in both precisions, every quantity compared, judged and made a row. Simple and fastest: the framework's own "
        "loops in both precisions, recording nothing; simple is a call per step, fastest the best for each precision "
        f"of what the framework offers. Medians of {rounds} rounds. Target: at most 1.5 times the fastest, in total."
    ]
    if not fast:
        remarks.append("Only the simple loops were run.")
    show("Recording beside the frameworks' own loops", rows, remarks, save_as="recording" if save else None)
    remark = (
        "Microseconds a step, in one more round with clocks. Convergence and writing are not part of the ratios above."
    )
    show("Where recording spends its time", parts, [remark], save_as="recording-parts" if save else None)


def _measured(name: str, size: int, steps: int, rounds: int, fast: bool) -> tuple[Row, Row]:
    job = prepare(replace(TUTORIAL, batching=Batching(size=size), steps=steps), None, None, None)
    pair = pair_up(job, name)
    contenders: dict[str, Loop] = {"ours": lambda: sum(len(watched.chunk) for watched, _ in follow(job, pair))}
    for precision in PRECISIONS:
        for loop, run in LOOPS[name](*examples(job.case, precision), fast).items():
            contenders[f"{precision}: {loop}"] = run
    micro = in_turns(contenders, rounds)
    loops = [
        {loop.removeprefix(f"{precision}: "): us for loop, us in micro.items() if loop.startswith(precision)}
        for precision in PRECISIONS
    ]
    row = {
        "framework": name,
        "batch": size,
        "ours, us": micro["ours"],
        "simple, us": sum(next(iter(of.values())) for of in loops),
        "fastest, us": sum(min(of.values()) for of in loops),
        "fastest loop": "; ".join(dict.fromkeys(min(of, key=of.__getitem__) for of in loops)),
    }
    return row, {"framework": name, "batch": size, **_parts(job, pair)}


def follow(job: Job, pair: Pair) -> Iterator[tuple[Watched, pa.Table]]:
    """The harness's own path with warm sides, from the start of the case: run, compare, judge, make rows."""
    fresh = replace(pair, notes=[])
    for side in fresh.sides:
        side.restart({precision: pair.start.astype(precision) for precision in PRECISIONS}, 0)
    findings = Findings(fresh)
    labels = {"case": job.case.name, "framework": pair.candidate.name, "mode": job.case.batching.mode}
    for watched in watch(fresh, job.data):
        findings.observe(watched)
        yield watched, tidy(watched, labels, pair.candidate.missing, steps_per_epoch(job.case, len(job.data.x)))


def _parts(job: Job, pair: Pair) -> Row:
    """Microseconds a step by part, with what a run does besides: convergence and writing."""
    clocks = Clocks()
    curve = Curve(pair.case, job.data, pair.candidate, job.layout)
    with (
        tempfile.TemporaryDirectory() as scratch,
        clocks.around(PARTS),
        clocks.running("the rest"),
        Recorder(Path(scratch) / "run") as recorder,
    ):
        for watched, rows in follow(job, pair):
            curve.observe(watched.candidate, watched)
            recorder.add(rows)
    names = {pair.reference.name: "reference", pair.candidate.name: "candidate"}
    micro = {names.get(part, part): 1e6 * seconds / job.case.steps for part, seconds in clocks.seconds.items()}
    order = ("reference", "candidate", "comparing", "explaining", "rows", "the rest", "convergence", "writing")
    return {part: micro.get(part, 0.0) for part in order}


if __name__ == "__main__":
    main()
