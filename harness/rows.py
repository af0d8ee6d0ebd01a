"""Rows of the tidy frame of a comparison, column by column."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.comparing import EPS64
from harness.judging import BECAUSE, DIFFERENT, UNDECIDED, VERDICTS, Judgement
from harness.returned import Unlike

Columns = Mapping[str, Any]
"""Columns of the tidy frame for one step: lists and arrays of one length."""

COLUMNS = (
    *("step", "kind", "name", "candidate_name", "shape", "reference", "candidate", "d32", "d64", "noise_reference"),
    *("noise_candidate", "budget", "ratio", "ulp", "digits", "verdict", "because"),
)


def frame_of(steps: Sequence[Columns]) -> pd.DataFrame:
    """The tidy frame of all steps: built once, since pandas takes longer for a step's frame than a step may take."""
    return pd.DataFrame({name: _joined([step[name] for step in steps]) for name in steps[0]})


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [*itertools.chain.from_iterable(parts)]


def rows_of_unlike(unlike: Sequence[Unlike]) -> Columns:
    """Rows of the tidy frame for outputs that cannot be compared, without numbers."""
    verdicts = [VERDICTS[DIFFERENT if of.differs else UNDECIDED] for of in unlike]
    words = {
        "step": [0] * len(unlike),
        "kind": ["activation"] * len(unlike),
        "name": [of.reference for of in unlike],
        "candidate_name": [of.candidate for of in unlike],
        "shape": [""] * len(unlike),
        "verdict": verdicts,
        "because": ["" if of.differs else "missing" for of in unlike],
    }
    return {name: words.get(name, np.full(len(unlike), np.nan)) for name in COLUMNS}


def rows_of_step(step: int, candidate_names: Sequence[str], judgement: Judgement) -> Columns:
    """A step's rows of the tidy frame, column by column."""
    m, quantities = judgement.measures, judgement.measures.layout.quantities
    size = np.where(m.size > 0, m.size, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = np.clip(-np.log10(m.d32 / size), 0, None)
    return {
        "step": [step] * len(quantities),
        "kind": [q.kind for q in quantities],
        "name": [q.name for q in quantities],
        "candidate_name": list(candidate_names),
        "shape": ["x".join(map(str, q.shape)) for q in quantities],
        "reference": m.size_reference[0],
        "candidate": m.size_candidate[0],
        "d32": m.d32[0],
        "d64": m.d64[0],
        "noise_reference": m.noise_reference[0],
        "noise_candidate": m.noise_candidate[0],
        "budget": m.budget[0],
        "ratio": m.ratio[0],
        "ulp": m.d64[0] / (EPS64 * size[0]),
        "digits": digits[0],
        "verdict": [VERDICTS[v] for v in judgement.verdict[0]],
        "because": [BECAUSE[b] for b in judgement.because[0]],
    }
