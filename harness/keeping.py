"""A comparison of two models as a run folder: the same frames and header that a run of cases has."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.folder import SCHEMA, Recorder
from harness.mismatch import Mismatch
from harness.report.columns import CONVERGENCE, FRAME

if TYPE_CHECKING:
    from harness.comparison import Comparison

HEADER = "comparison.json"
CASE = "two models"


def save(comparison: Comparison, folder: Path) -> Path:
    """Write a comparison's run folder, its page among the files. Raises HarnessError where that is not possible."""
    with Recorder(folder, HEADER) as recorder:
        recorder.add(_table(comparison))
        maps = _maps(comparison, recorder)
        recorder.finish(_convergence(comparison), {**header_of(comparison), "maps": maps})
    return folder


def header_of(comparison: Comparison) -> dict[str, Any]:
    """The header of a comparison: its answer, as a run of one case in one framework."""
    reference, candidate = comparison.sides
    frame: Any = comparison.frame
    command = f"gradparity {' '.join(sys.argv[1:])}" if Path(sys.argv[0]).name == "gradparity" else ""
    return {
        "two_models": True,
        "reference": reference,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command or f"harness.compare(reference, candidate, x, y, steps={frame['step'].nunique()})",
        "seconds": comparison.seconds,
        "environment": {"python": sys.version.split()[0], "frameworks": dict(comparison.environment)},
        "cases": {
            CASE: {
                "summary": f"{reference} and {candidate}",
                "mode": "as fed",
                "steps": int(frame["step"].nunique()),
                "seed": None,
                "loss": None,
                "optimizer": None,
                "network": [],
                "conventions": {},
                "skipped": {},
            }
        },
        "summary": [_entry(comparison)],
        "causes": causes_of(comparison),
        "own": [divergence.as_json() for divergence in comparison.own],
    }


def causes_of(comparison: Comparison) -> list[dict[str, Any]]:
    """The causes of the differences as plain data."""
    causes = getattr(comparison, "causes", ())
    return [dict(c) if isinstance(c, Mapping) else {f.name: getattr(c, f.name) for f in fields(c)} for c in causes]


def _entry(comparison: Comparison) -> dict[str, Any]:
    frame: Any = comparison.frame
    judged = frame[(frame["verdict"] == comparison.verdict) & (frame["kind"] != "slot")]
    worst = judged.loc[judged["ratio"].fillna(np.inf).idxmax()] if len(judged) else None
    first = comparison.first
    return {
        "case": CASE,
        "framework": comparison.sides[1],
        "mode": "as fed",
        "verdict": comparison.verdict,
        "because": comparison.because,
        "worst": "" if worst is None else worst["name"],
        "step": 0 if worst is None else int(worst["step"]),
        "ratio": None if worst is None else float(worst["ratio"]),
        "digits": float(frame["digits"].min()) if len(frame) else None,
        **_ends(frame),
        **_cost(comparison),
        "first_divergence": first and {key: getattr(first, key) for key in ("name", "step", "place", "text")},
        "notes": list(comparison.notes),
    }


def _ends(frame: Any) -> dict[str, float | None]:
    """The candidate's loss and the distance of the parameters at the end."""
    last = frame[frame["step"] == frame["step"].max()]
    loss, parameters = (last[last["kind"] == kind] for kind in ("loss", "parameter"))
    size = parameters["reference"].max()
    return {
        "final_loss": float(loss["candidate"].iloc[0]) if len(loss) else None,
        "distance64": float(parameters["d64"].max() / (size or 1.0)) if len(parameters) else None,
    }


def _cost(comparison: Comparison) -> dict[str, Any]:
    cost = comparison.cost
    if cost is None or not cost.seconds:
        return {}
    reference, candidate = np.min(cost.seconds, axis=0).tolist()
    fastest = {"reference_seconds_per_step": reference, "seconds_per_step": candidate}
    return {**fastest, "bytes_per_step": cost.recorded, "memory_growth": cost.grown}


def _table(comparison: Comparison) -> pa.Table:
    """The frame with the columns that only a run of cases has."""
    candidate = comparison.sides[1]
    frame = comparison.frame.assign(
        **{"case": CASE, "framework": candidate, "mode": "as fed", "epoch": 0, "detail": "", "worst_index": ""}
    )
    frame["tensor"] = frame["name"].str.removeprefix("dL/d").str.split(":").str[-1]
    if comparison.first:
        at = (frame["step"] == comparison.first.step) & (frame["name"] == comparison.first.name)
        frame.loc[at, "worst_index"] = ",".join(map(str, comparison.first.index))
    return pa.Table.from_pandas(frame[list(FRAME)], schema=SCHEMA, preserve_index=False)


def _convergence(comparison: Comparison) -> Any:
    """Loss and distance by step, as the frame has them: loss and gradient on a step's batch, parameters behind it."""
    frame: Any = comparison.frame
    steps = pd.Index(sorted(frame["step"].unique()), name="step")
    kinds = dict(iter(frame.groupby("kind")))
    empty = frame.iloc[:0]
    loss = kinds.get("loss", empty).set_index("step")
    gradients = kinds.get("gradient", empty).groupby("step")[["reference", "candidate"]].max()
    parameters = kinds.get("parameter", empty).groupby("step")[["reference", "d32", "d64"]].max()
    size = parameters["reference"].where(parameters["reference"] > 0, 1.0)
    parts = []
    spent = np.cumsum(comparison.cost.seconds if comparison.cost else [], axis=0).reshape(-1, 2)
    for i, (side, name) in enumerate(zip(("reference", "candidate"), comparison.sides, strict=True)):
        part = pd.DataFrame(index=steps)
        part["loss"] = loss[side]
        part["gradient_norm"] = gradients[side]
        part["seconds"] = spent[:, i] if len(spent) == len(steps) else np.nan
        for bits in ("32", "64"):
            part[f"distance{bits}"] = 0.0 if side == "reference" else parameters[f"d{bits}"] / size
        part = part.reset_index().assign(case=CASE, framework=name, mode="as fed")
        parts.append(part.assign(step=part["step"] + 1, epoch=np.nan, accuracy=np.nan))
    return pd.concat(parts, ignore_index=True)[list(CONVERGENCE)]


def map_of(found: Mismatch, recorder: Recorder, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keep the map of a tensor's differences; its row in the header. A scalar has none."""
    if found.elements == 1:
        return []
    return [{**place, "block": found.block, "budget": found.budget, "array": recorder.keep(found.gap)}]


def _maps(comparison: Comparison, recorder: Recorder) -> list[dict[str, Any]]:
    first = comparison.first
    if first is None or first.mismatch is None:
        return []
    place = {"case": CASE, "framework": comparison.sides[1], "name": first.name, "step": first.step}
    return map_of(first.mismatch, recorder, place)
