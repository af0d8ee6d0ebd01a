"""Every framework, held against the reference in its native conventions, on every named case."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from frameworks.protocol import Framework
from harness.case import CannotExpress
from harness.cases import CASES, WELL_CONDITIONED
from harness.data import Data
from harness.investigating import pair_up, prepare
from harness.judging import BECAUSE, IDENTICAL, ROUNDING, UNDECIDED
from harness.watching import watch

STEPS = 200


@cache
def data_of(name: str) -> Data:
    from harness.data import DATASETS

    return DATASETS[name]()


@pytest.mark.parametrize("name", CASES)
def test_identical_or_rounding_over_200_steps(framework: Framework, framework_name: str, name: str) -> None:
    job = prepare(CASES[name], STEPS, data_of(CASES[name].data), None)
    try:
        pair = pair_up(job, framework_name)
    except CannotExpress as reason:
        pytest.fail(f"{framework_name} cannot express the named case: {reason}")
    steps = 0
    largest, worst = np.zeros((2, len(job.layout.quantities)))
    for watched in watch(pair, job.data):
        judgement = watched.judgement
        good = (judgement.verdict == IDENTICAL) | (judgement.verdict == ROUNDING)
        wrong = ~(good | pair.missing & (judgement.verdict == UNDECIDED))
        assert not wrong.any(), _first(watched.chunk.first, judgement, wrong, job)
        steps += len(watched.chunk)
        unleaked = judgement.because != BECAUSE.index("leak")
        largest = np.maximum(largest, judgement.shown.size.max(axis=0))
        worst = np.maximum(worst, np.where(unleaked, judgement.measures.d64, 0.0).max(axis=0))
    assert steps == STEPS
    if name in WELL_CONDITIONED:
        assert (worst <= 1e-12 * largest).all()


def _first(start: int, judgement, wrong: np.ndarray, job) -> str:
    step, i = np.argwhere(wrong)[0]
    name = job.layout.quantities[i].name
    return f"{name} at step {start + step}: {judgement.verdict[step, i]} {BECAUSE[judgement.because[step, i]]}"


def test_well_conditioned_cases_exist() -> None:
    assert set(WELL_CONDITIONED) <= set(CASES)


def test_the_same_examples_in_the_same_order() -> None:
    """Every epoch is a permutation of all examples, and every mode of the tutorial sees the same one."""
    from harness.running import chunks

    data = data_of("breast_cancer")
    orders = {}
    for name in ("tutorial-stochastic", "tutorial-minibatch", "tutorial-batch"):
        job = prepare(CASES[name], None, data, None)
        seen = np.concatenate([chunk.x.reshape(-1, 30) for chunk in chunks(job.case, data)])[: len(data.x)]
        assert sorted(map(tuple, seen)) == sorted(map(tuple, data.x))
        orders[name] = seen
    first, *others = orders.values()
    assert all((first == other).all() for other in others)
