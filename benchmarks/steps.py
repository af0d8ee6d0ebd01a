"""What a training step costs.

    python -m benchmarks.steps --reference     the reference's step beside torch's eager one
    python -m benchmarks.steps --recording     recording and comparing everything beside the frameworks' own loops

Contenders take turns in one process, so that a busy machine slows all of them; times are medians over the rounds.
Compiling and tracing happen before the first round and do not count.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from benchmarks.clocks import Clocks, Parts
from benchmarks.loops import LOOPS, Loop
from benchmarks.tables import median, show
from frameworks import installed
from harness.case import PRECISIONS, Batching
from harness.cases import TUTORIAL
from harness.convergence import Curve
from harness.conventions import TORCH, resolve
from harness.data import DATASETS
from harness.investigating import Job, pair_up, prepare
from harness.layout import layout_of
from harness.pair import Pair
from harness.recording import Recorder, tidy
from harness.running import Chunk, chunks, steps_per_epoch
from harness.summary import Findings
from harness.watching import Watched, watch
from reference import training

STEPS = {1: 512, 32: 320, 512: 64}
"""Steps of one round by batch size: at least tens of milliseconds, and whole epochs of the 512 examples."""

PARTS: Parts = {
    "{0.name}": ("harness.running:Side.advance",),
    "comparing": ("harness.watching:_judge",),
    "explaining": ("harness.watching:explain",),
    "rows": ("benchmarks.steps:tidy", "benchmarks.steps:Findings.observe"),
    "convergence": ("benchmarks.steps:Curve.observe",),
    "writing": ("benchmarks.steps:Recorder.add",),
}


@click.command()
@click.option("--reference", is_flag=True, help="The reference's step beside torch's eager one.")
@click.option("--recording", is_flag=True, help="Recording and comparing beside the frameworks' own loops.")
@click.option("--frameworks", help="Comma-separated; all installed ones by default.")
@click.option("--batches", default="1,32,512", show_default=True, help="Batch sizes of --recording.")
@click.option("--steps", type=int, help="Steps of one round, instead of some dozens to hundreds.")
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
        beside_torch(steps or 320, rounds, save)
    if recording:
        sizes = [int(size) for size in batches.split(",")]
        beside_loops(frameworks.split(",") if frameworks else installed(), sizes, steps, rounds, not simple, save)


def in_turns(contenders: Mapping[str, Loop], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender by round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counted in [False, *[True] * rounds]:
        for name, run in contenders.items():
            began = time.perf_counter()
            _ = run()
            if counted:
                seconds[name].append(time.perf_counter() - began)
    return seconds


# --- the reference beside torch ---------------------------------------------------------------------------------


def beside_torch(steps: int, rounds: int, save: bool) -> None:
    case = resolve(replace(TUTORIAL, steps=steps), TORCH)
    chunk = _whole(next(chunks(case, DATASETS[case.data]())), steps)
    contenders: dict[str, Loop] = {}
    for precision in PRECISIONS:
        contenders[f"reference {precision}"] = _reference_steps(chunk, precision)
        contenders[f"torch {precision}"] = LOOPS["pytorch"](
            chunk.x.astype(precision), chunk.y.astype(precision), False
        )["eager"]
    seconds = in_turns(contenders, rounds)
    table = []
    for precision in PRECISIONS:
        ours, theirs = (median(seconds[f"{who} {precision}"]) / steps * 1e6 for who in ("reference", "torch"))
        table.append(
            {"precision": precision, "reference, us": ours, "torch, us": theirs, "torch / reference": theirs / ours}
        )
    show(
        "The reference's step beside torch's",
        table,
        [
            f"A step of the tutorial network 30-16-8-1 at batch 32: forward, backward, SGD. Medians of {rounds} rounds of "
            f"{steps} steps. The reference writes every quantity of the step into a row; torch is eager, with "
            "torch.optim.SGD, and records nothing. Target: at least 4 times as fast."
        ],
        save_as="reference" if save else None,
    )


def _whole(chunk: Chunk, steps: int) -> Chunk:
    """A chunk with its steps repeated to a number."""
    take = np.arange(steps) % len(chunk)
    return replace(chunk, x=chunk.x[take], y=chunk.y[take])


def _reference_steps(chunk: Chunk, precision: str) -> Loop:
    case = resolve(TUTORIAL, TORCH)
    layout = layout_of(case, chunk.x.shape[1:])
    first = training.initial_parameters(case, layout.parameter_shapes)
    state = np.concatenate([np.ravel(values) for values in first.values()])
    stepper = training.start(case, precision)  # type: ignore[arg-type]
    x, y = chunk.x.astype(precision), chunk.y.astype(precision)
    rows = np.zeros((len(chunk), layout.recorded), precision)

    def run() -> None:
        stepper.load(state, 0)
        stepper.run(x, y, rows)

    return run


# --- recording and comparing beside the frameworks' own loops -----------------------------------------------------


def beside_loops(
    frameworks: list[str], sizes: list[int], steps: int | None, rounds: int, fast: bool, save: bool
) -> None:
    table, parts = [], []
    for size in sizes:
        count = steps or STEPS.get(size, 64)
        measured = [_beside_loops(framework, size, count, rounds, fast) for framework in frameworks]
        rows = [row for row, _ in measured]
        total = {name: sum(row[name] for row in rows) for name in ("ours, us", "fastest loop, us", "simple loop, us")}
        table += [*rows, {"framework": "all", "batch": size, **total}]
        parts += [{"framework": framework, "batch": size, **row} for framework, (_, row) in zip(frameworks, measured)]
    for row in table:
        row["ours / fastest"] = row["ours, us"] / row["fastest loop, us"]
        row["ours / simple"] = row["ours, us"] / row["simple loop, us"]
    show(
        "Recording and comparing every quantity beside the frameworks' own loops",
        table,
        [
            "Microseconds for a step of the tutorial network, float32 and float64 together. Ours: reference and framework "
            "in both precisions, all quantities compared, judged and made rows. The loops: the framework alone, in both "
            f"precisions, recording nothing. Medians of {rounds} rounds, in turns. Target: at most 1.5 times the fastest."
        ],
        save_as="recording" if save else None,
    )
    show(
        "Where the time of recording and comparing goes",
        parts,
        ["Microseconds a step, one more round with clocks; convergence and writing are not in the ratios above."],
        save_as="recording-parts" if save else None,
    )


def _beside_loops(framework: str, size: int, steps: int, rounds: int, fast: bool) -> tuple[Row, dict[str, float]]:
    case = replace(TUTORIAL, batching=Batching(size=size), steps=steps)
    job = prepare(case, None, None, None)
    pair = pair_up(job, framework)
    examples = [np.concatenate(part) for part in zip(*[(c.x, c.y) for c in chunks(case, job.data)], strict=True)]
    contenders: dict[str, Loop] = {"ours": lambda: deque(follow(job, pair), maxlen=0)}
    for precision in PRECISIONS:
        for name, loop in LOOPS[framework](*(part.astype(precision) for part in examples), fast).items():
            contenders[f"{name}, {precision}"] = loop
    micro = {name: median(values) / steps * 1e6 for name, values in in_turns(contenders, rounds).items()}
    names = [name.removesuffix(", float32") for name in micro if name.endswith(", float32")]
    both = {name: sum(micro[f"{name}, {precision}"] for precision in PRECISIONS) for name in names}
    fastest = [min((micro[f"{name}, {precision}"], name) for name in names) for precision in PRECISIONS]
    row = {
        "framework": framework,
        "batch": size,
        "ours, us": micro["ours"],
        "fastest loop, us": sum(best for best, _ in fastest),
        "simple loop, us": both[names[0]],
        "fastest": " / ".join(dict.fromkeys(name for _, name in fastest)),
    }
    return row, _parts(job, pair)


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


def _parts(job: Job, pair: Pair) -> dict[str, float]:
    """Microseconds a step by part, with what a run does besides: convergence and writing."""
    clocks = Clocks()
    curves = [Curve(pair.case, job.data, side, job.layout) for side in (pair.reference, pair.candidate)]
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch) / "run") as recorder:
        with clocks.around(PARTS), clocks.running("the rest"):
            for watched, rows in follow(job, pair):
                for curve, side_rows in zip(curves, (watched.reference, watched.candidate), strict=True):
                    curve.observe(side_rows, watched)
                recorder.add(rows)
        with clocks.running("writing"):
            recorder._close()
    names = {pair.reference.name: "reference", pair.candidate.name: "framework"}
    return {names.get(part, part): 1e6 * seconds / job.case.steps for part, seconds in clocks.seconds.items()}


if __name__ == "__main__":
    main()
