"""A seeded sample of benchmarks/calibration.py: clean pairs raise no alarm, planted factors are found where they are."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measuring import clean, job_of, planted
from benchmarks.nets import draw
from frameworks import FRAMEWORKS
from frameworks.protocol import Framework
from harness.judging import K

SEED = 1
CLEAN = range(10)
PLANTED = range(40)


def planted_rows(excess: float):
    return [planted(job_of(draw(SEED, index)), excess, np.random.default_rng((SEED, index))) for index in PLANTED]


def test_clean_pairs_raise_no_alarm(framework: Framework) -> None:
    name = next(name for name, registered in FRAMEWORKS.items() if registered.module == framework.__name__)
    rows = [clean(job_of(draw(SEED, index)), name) for index in CLEAN]
    alarms = [(index, row) for index, row in zip(CLEAN, rows, strict=True) if row["verdict"] == "different"]
    assert not alarms
    assert sum(row["verdict"] in ("rounding", "identical") for row in rows) >= len(CLEAN) // 2


@pytest.mark.parametrize("excess", [1e-3, -1e-6, 1e-9])
def test_planted_factors_are_found_where_they_are(excess: float) -> None:
    rows = [row for row in planted_rows(excess) if not row["unfit"]]
    assert len(rows) >= len(PLANTED) // 2
    missed = [row for row in rows if not row["found"]]
    assert not missed


def test_nothing_planted_is_identical() -> None:
    rows = planted_rows(0.0)
    assert {row["verdict"] for row in rows} <= {"identical", "different"}
    assert all(row["verdict"] == "identical" or row["because"] == "nonfinite" for row in rows)


def test_what_rounding_explains_is_no_alarm() -> None:
    """A factor of 1 + 2**-60 is none in either precision, and one of an ulp stays far below K."""
    assert all(row["verdict"] in ("identical", "rounding", "undecided") for row in planted_rows(2.0**-52))
    assert all(row["ratio_after"] <= K for row in planted_rows(2.0**-52) if not row["unfit"])
