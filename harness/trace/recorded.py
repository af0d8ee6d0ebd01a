"""A case's run, written down step by step as it goes."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

import frameworks as registry
from harness.case import PRECISIONS, CannotExpress, Case, HarnessError
from harness.checking import choose
from harness.conventions import PRESETS, resolve
from harness.data import Data
from harness.describing import describe_environment
from harness.investigating import REFERENCE, Job, pair_up, prepare
from harness.layout import Layout, Quantity
from harness.running import Chunk, Rows, Side, chunks
from harness.trace.header import Thinning
from harness.trace.reading import Trace, read_trace
from harness.trace.spelling import case_from, spelled
from harness.trace.thinning import fingerprint
from harness.trace.writing import Writer
from reference import training
from reference.optimizers import initial_slots

FULL = Thinning()


def record_case(
    case: Case,
    folder: Path | str,
    *,
    framework: str | None = None,
    conventions: str | Trace = "paper",
    steps: int | None = None,
    thinning: Thinning = FULL,
    data: Data | None = None,
    parameters: Mapping[str, np.ndarray] | None = None,
) -> Trace:
    """Run a case on one side in both precisions and write every step into a folder; an earlier trace there is replaced
    at the end, in one go.

    framework: whose run; the reference's by default, which then speaks `conventions`: a preset's ("paper", "torch",
    "keras"), a framework's or a recorded run's. data, parameters: instead of what the case names. Raises HarnessError.
    """
    job = prepare(case, steps, data, parameters)
    if framework is None:
        side = reference_side(job, _resolved(job.case, conventions))
    else:
        try:
            side = pair_up(job, choose("framework", framework, registry.FRAMEWORKS)).candidate
        except CannotExpress as reason:
            raise CannotExpress(f"case {case.name}: {reason}; record another framework's run") from reason
    with Writer(Path(folder)) as writer:
        for chunk, before, rows in _steps(side, job):
            write_chunk(writer, chunk, before, rows, thinning)
        writer.finish(
            name=side.name,
            framework=framework or "",
            case=spelled(job.case),
            resolved=spelled(side.case),
            missing=dict(side.missing),
            data=checksum_of(job.data.x, job.data.y),
            seed=job.case.seed,
            steps=job.case.steps,
            thinning=thinning,
            environment=environment_of(framework or ""),
        )
    return read_trace(folder)


def _steps(side: Side, job: Job) -> Iterator[tuple[Chunk, Rows, Rows]]:
    for chunk in chunks(side.case, job.data):
        before = side.states
        yield chunk, before, side.advance(chunk)


def reference_side(job: Job, case: Case) -> Side:
    """The reference, at the start of a resolved case."""
    state = np.concatenate([job.parameters, initial_slots(case.optimizer, len(job.parameters))])
    return Side(name=REFERENCE, case=case, start=training.start, state=state, missing={})


def _resolved(case: Case, conventions: str | Trace) -> Case:
    if isinstance(conventions, Trace):
        if case != recorded_case(conventions):
            raise HarnessError(f"{conventions.folder} is a trace of another case than {case.name}; record the same")
        return resolved_case(conventions)
    name = choose("conventions", conventions, [*PRESETS, *registry.FRAMEWORKS])
    return resolve(case, PRESETS.get(name) or registry.adapter(name).CONVENTIONS)


def recorded_case(trace: Trace) -> Case:
    """The case as it was given."""
    return case_from(trace.header.case, f"{trace.folder}: case")


def resolved_case(trace: Trace) -> Case:
    """The case that was run, conventions and all."""
    return case_from(trace.header.resolved, f"{trace.folder}: resolved")


def environment_of(framework: str) -> dict[str, Any]:
    """The machine, the versions and the flags that change numbers, as JSON has them."""
    found = describe_environment({framework: _environment(framework)} if framework else {})
    try:
        own = version("gradparity")
    except PackageNotFoundError:  # from a checkout, in another environment
        own = ""
    return json.loads(json.dumps({"gradparity": own, **found}, default=str))


def _environment(framework: str) -> Mapping[str, Any]:
    try:
        return registry.adapter(framework).environment()
    except HarnessError:  # Keras on another backend than its adapter is for
        return {**registry.versions(framework), "backend": os.environ.get("KERAS_BACKEND")}


def checksum_of(*arrays: np.ndarray) -> str:
    """XXH3-128 of what was trained on: dtypes, shapes and bytes."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# --- one chunk --------------------------------------------------------------------------------------------------


def write_chunk(writer: Writer, chunk: Chunk, before: Rows, rows: Rows, thinning: Thinning) -> None:
    """The steps of a chunk; in full but for the updates, which follow from the parameters, or thinned step by step."""
    layout, tensors = chunk.layout, dict[str, np.ndarray]()
    for i in range(0, len(chunk), 1 if thinning.thins else len(chunk)):
        first, part = chunk.first + i, slice(i, i + 1 if thinning.thins else len(chunk))
        for quantity in layout.quantities:
            if thinning.thins or quantity.kind != "update":
                both = [rows[p][part, quantity.columns].reshape(-1, *quantity.shape) for p in PRECISIONS]
                tensors |= keyed(thinning, first, quantity.kind, quantity.name, both)
    if chunk.first == 0:
        for quantity in state_quantities(layout):
            columns = slice(quantity.start - layout.state.start, quantity.columns.stop - layout.state.start)
            both = [before[p][columns].reshape(1, *quantity.shape) for p in PRECISIONS]
            tensors |= keyed(FULL, 0, f"before_{quantity.kind}", quantity.name, both)
    writer.add(chunk.first, len(chunk), tensors)


def state_quantities(layout: Layout) -> list[Quantity]:
    return [quantity for quantity in layout.quantities if quantity.kind in ("parameter", "slot")]


def keyed(thinning: Thinning, first: int, kind: str, name: str, both: list[np.ndarray]) -> dict[str, np.ndarray]:
    """A quantity at consecutive steps (axis 0) in both precisions, or fingerprints of it, by the names in a shard."""
    if in_full(thinning, first, kind, name, both[0][0].size):
        return {f"{first}/{precision}/{kind}/{name}": of for precision, of in zip(PRECISIONS, both, strict=True)}
    found = [fingerprint(*pair) for pair in zip(*both, strict=True)]
    return {
        f"{first}/fingerprint/{kind}/{name}": np.stack([of.numbers for of in found]),
        f"{first}/digest/{kind}/{name}": np.stack([of.digests for of in found]),
    }


def in_full(thinning: Thinning, step: int, kind: str, name: str, size: int) -> bool:
    """Whether more than a fingerprint is kept."""
    wanted = not thinning.only or any(fnmatch.fnmatchcase(f"{kind}:{name}", pattern) for pattern in thinning.only)
    return wanted and not step % thinning.every and (thinning.above is None or size <= thinning.above)
