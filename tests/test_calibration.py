"""A seeded sample of the calibration: clean pairs raise no alarm, planted factors are found where they are."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest

from benchmarks.measuring import Row, clean, job_of, planted
from benchmarks.nets import describe, draw
from frameworks import FRAMEWORKS, adapter
from frameworks.protocol import Framework

SEED = 1
DEPTH = 6
"""Deeper nets take seconds to compile; the calibration itself has them."""

CLEAN = list(islice((index for index in count() if describe(draw(SEED, index))["depth"] <= DEPTH), 5))
PLANTED = range(20)


def planted_rows(excess: float) -> list[Row]:
    return [planted(job_of(draw(SEED, index)), excess, np.random.default_rng((SEED, index))) for index in PLANTED]


# Layers of width 1 are drawn on purpose.
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")
def test_clean_pairs_raise_no_alarm(framework: Framework) -> None:
    name = next(name for name in FRAMEWORKS if FRAMEWORKS[name].module == getattr(framework, "__name__", ""))
    assert adapter(name) is framework
    rows = [clean(job_of(draw(SEED, index)), name) for index in CLEAN]
    assert [row for row in rows if row["verdict"] == "different"] == []
    assert sum(row["verdict"] in ("rounding", "identical") for row in rows) >= len(rows) // 2


@pytest.mark.parametrize("excess", [1e-3, -1e-6])
def test_planted_factors_are_found_where_they_are(excess: float) -> None:
    rows = [row for row in planted_rows(excess) if not row["unfit"]]
    assert len(rows) >= len(PLANTED) // 2
    assert [row for row in rows if not row["found"]] == []


@pytest.mark.parametrize("excess", [0.0, 2.0**-52])
def test_rounding_is_not_found(excess: float) -> None:
    rows = planted_rows(excess)
    assert not any(row["found"] for row in rows)
    assert {row["because"] for row in rows if row["verdict"] == "different"} <= {"nonfinite"}
