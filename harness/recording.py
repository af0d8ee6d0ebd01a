"""Judged steps as rows of the tidy frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from harness.comparing import EPS64, worst_index
from harness.folder import SCHEMA
from harness.judging import BECAUSE, DIFFERENT, VERDICTS
from harness.layout import Layout
from harness.watching import Watched


def tidy(watched: Watched, labels: dict[str, str], missing: Mapping[str, str], steps_per_epoch: int) -> pa.Table:
    """Judged steps as rows of the tidy frame, step by step, quantities in report order."""
    layout, shown = watched.chunk.layout, watched.judgement.shown
    steps, quantities = watched.judgement.verdict.shape
    step = np.repeat(np.arange(watched.chunk.first, watched.chunk.first + steps, dtype=np.int32), quantities)
    size = np.where(shown.size > 0, shown.size, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.clip(-np.log10(shown.d32 / size), 0, None)
    columns: dict[str, Any] = {
        **{name: _coded(np.zeros(len(step), np.int32), [word]) for name, word in labels.items()},
        "candidate_name": _coded(np.zeros(len(step), np.int32), [""]),
        "step": step,
        "epoch": (step // steps_per_epoch).astype(np.int32),
    }
    for name, words in (
        ("kind", [q.kind for q in layout.quantities]),
        ("tensor", [q.tensor for q in layout.quantities]),
        ("name", [q.name for q in layout.quantities]),
        ("shape", ["x".join(map(str, q.shape)) for q in layout.quantities]),
        ("detail", [missing.get(q.name, "") for q in layout.quantities]),
    ):
        columns[name] = _coded(np.tile(np.arange(quantities), steps), words)
    columns |= {
        "reference": _scalars(layout, watched.reference["float64"], shown.size_reference),
        "candidate": _scalars(layout, watched.candidate["float64"], shown.size_candidate),
        "d32": shown.d32,
        "d64": shown.d64,
        "noise_reference": shown.noise_reference,
        "noise_candidate": shown.noise_candidate,
        "budget": shown.budget,
        "ratio": shown.ratio,
        "ulp": shown.d64 / (EPS64 * size),
        "digits": digits,
    }
    columns["worst_index"] = _worst(watched)
    columns["verdict"] = _coded(watched.judgement.verdict.ravel(), VERDICTS)
    columns["because"] = _coded(watched.judgement.because.ravel(), BECAUSE)
    arrays = [values.ravel() if isinstance(values := columns[name], np.ndarray) else values for name in SCHEMA.names]
    return pa.Table.from_arrays([pa.array(a) if isinstance(a, np.ndarray) else a for a in arrays], schema=SCHEMA)


def _coded(codes: np.ndarray, words: Sequence[str]) -> pa.DictionaryArray:
    places = {word: place for place, word in enumerate(dict.fromkeys(words))}
    own = np.array([places[word] for word in words], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(own[codes]), pa.array(list(places), pa.string()))


def _scalars(layout: Layout, rows: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Max norms, but a scalar's own value with its sign."""
    shown = size.copy()
    for i, quantity in enumerate(layout.quantities):
        if quantity.shape == ():
            shown[:, i] = rows[:, quantity.start]
    return shown


def _worst(watched: Watched) -> pa.Array:
    different = watched.judgement.verdict == DIFFERENT
    cells = np.full(different.shape, "", dtype=object)
    layout, reference, candidate = watched.chunk.layout, watched.reference["float64"], watched.candidate["float64"]
    for step, i in zip(*np.nonzero(different), strict=True):
        index = worst_index(layout, i, reference[step], candidate[step])
        cells[step, i] = ",".join(map(str, index))
    return pa.array(cells.ravel(), pa.string())
