"""Thinned runs: smaller, never another verdict, and every changed element is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import frameworks as registry
from harness.case import Case, HarnessError
from harness.cases import CASES
from harness.trace import Run, Thinning, record
from harness.trace.mixing import Recordable
from harness.trace.thinning import PROJECTIONS, fingerprint, least_difference
from tests.test_traces import altered, diff, foreign

NET = replace(CASES["tutorial-minibatch"], steps=6)
THIN = {
    "every": Thinning(every=4),
    "only": Thinning(only=("gradient:*", "loss:*")),
    "above": Thinning(above=100),
    "all": Thinning(every=3, only=("activation:*",), above=20),
    "nothing in full": Thinning(above=0),
}


@pytest.fixture(params=[name for name in registry.installed()[:1]])
def run(request: pytest.FixtureRequest) -> Run:
    return Run(case=NET, framework=request.param)


@pytest.mark.parametrize("thinning", THIN)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("beside", ["itself", "reference", "full"])
def test_a_sound_thinned_run_says_the_same_or_undecided(
    thinning: str, known: bool, beside: str, run: Run, tmp_path: Path
) -> None:
    other: Recordable = {"itself": run, "reference": NET, "full": record(run, tmp_path / "full")}[beside]
    thin = record(run, tmp_path / "thin", thinning=THIN[thinning])
    if not known:
        thin = foreign(thin)
    full, found = diff(other, record(run, tmp_path / "whole")), diff(other, thin)
    assert found.verdict in (full.verdict, "undecided")
    if known:
        assert (found.verdict, found.because) == (full.verdict, full.because)
        assert found.frame["verdict"].astype(str).tolist() == full.frame["verdict"].astype(str).tolist()
    elif beside != "reference":
        assert found.verdict == "identical", "the digests say so"
    else:
        paired = zip(full.frame["verdict"].astype(str), found.frame["verdict"], strict=True)
        assert all(one in (other, "undecided") for other, one in paired)


@pytest.mark.parametrize("thinning", THIN)
@pytest.mark.parametrize(
    ("kind", "name", "step"),
    [("gradient", "dL/dW1", 5), ("activation", "z1", 2), ("parameter", "W2", 1), ("loss", "L", 3)],
)
@pytest.mark.parametrize("factor", [1 + 1e-12, 1 + 1e-3, -1.0])
def test_a_change_of_one_element_is_seen_in_a_thinned_run(
    thinning: str, kind: str, name: str, step: int, factor: float, run: Run, tmp_path: Path
) -> None:
    wrong = altered(record(run, tmp_path / "sound"), tmp_path / "wrong", step, kind, name, factor)
    thin = foreign(record(run, tmp_path / "thin", thinning=THIN[thinning]))
    found, full = diff(thin, wrong), diff(foreign(record(run, tmp_path / "whole")), wrong)
    assert found.exit_code in (1, 3), str(found)
    assert found.verdict in (full.verdict, "undecided")
    assert found.changes == step
    if found.verdict == "undecided":
        assert f"bit for bit the same up to {name} at step {step}" in str(found) or kind == "parameter"


def test_a_thinned_trace_that_its_framework_does_not_run_again_is_not_completed(run: Run, tmp_path: Path) -> None:
    wrong = altered(record(run, tmp_path / "t", thinning=Thinning(every=2)), tmp_path / "w", 2, "gradient", "dL/dW1", 2)
    found = diff(run, wrong)
    assert (found.verdict, found.changes) == ("different", 2), str(found)


# --- fingerprints -----------------------------------------------------------------------------------------------


def both(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return q.astype(np.float32), q


@pytest.mark.parametrize("size", [1, 63, 64, 65, 16_384, 16_385, 200_000])
def test_projections_are_as_documented(size: int) -> None:
    q = np.random.default_rng(0).normal(size=size)
    found = fingerprint(*both(q))
    for k in range(PROJECTIONS):
        words = np.random.Philox(key=k).random_raw(-(-size // 64))
        signs = np.array([1.0 if int(words[i // 64]) >> (i % 64) & 1 else -1.0 for i in range(size)])
        assert np.isclose(found.numbers[1, 7 + k], signs @ q, rtol=0, atol=1e-12 * size)
    assert found.noise == np.abs(q - q.astype(np.float32)).max()
    assert (found.elements, found.size) == (size, np.abs(q).max())
    assert found.numbers[1, 3:5].tolist() == [q.min(), q.max()]
    assert np.allclose(found.numbers[1, 5:7], [np.abs(q).sum(), (q * q).sum()])


@pytest.mark.parametrize("size", [1, 10, 1000, 300_000])
@pytest.mark.parametrize("seed", range(5))
def test_the_least_difference_is_never_more_than_the_difference(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=size) * 10.0 ** rng.integers(-8, 9)
    for change in (1e-15, 1e-9, 1e-3, 1.0):
        other = q * (1 + change * rng.uniform(-1, 1, size))
        for which in (0, 1):
            one, two = (both(of)[which].astype(np.float64) for of in (q, other))
            least = least_difference(fingerprint(*both(q)), fingerprint(*both(other)), which)
            assert 0 <= least <= np.abs(one - two).max()


def test_one_element_in_a_million_is_found_and_proven() -> None:
    q = np.random.default_rng(0).normal(size=1_000_000)
    for index, factor in ((0, 1 + 1e-3), (999_999, -1.0), (123_456, 0.0)):
        wrong = q.copy()
        wrong[index] *= factor
        one, other = fingerprint(*both(q)), fingerprint(*both(wrong))
        assert not np.array_equal(one.digests[1], other.digests[1])
        budget = 2 * one.noise * 2**-29 + 2**-52 * one.size
        assert 30 * budget < least_difference(one, other, 1) <= np.abs(q - wrong).max()


def test_fingerprints_of_what_is_not_finite_are_no_zero_difference() -> None:
    q = np.ones(100)
    for value in (np.nan, np.inf, -np.inf):
        wrong = q.copy()
        wrong[3] = value
        found = least_difference(fingerprint(*both(q)), fingerprint(*both(wrong)), 1)
        assert found != 0


def test_the_steps_of_a_large_model_cost_no_more_than_those_of_a_small_one(tmp_path: Path) -> None:
    growth = []
    for width in (64, 512):
        sizes = []
        for steps in (2, 8):
            trace = record(wide(width, steps), tmp_path / f"{width}-{steps}", thinning=Thinning(above=10))
            sizes.append(sum(shard.bytes for shard in trace.header.shards))
        growth.append(sizes[1] - sizes[0])
    assert growth[0] == pytest.approx(growth[1], rel=0.1)
    assert growth[0] < 6 * 60 * 600


def wide(width: int, steps: int) -> Case:
    first, *rest = NET.nodes
    return replace(NET, nodes=(replace(first, op=replace(first.op, units=width)), *rest), steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"above": -1}, {"unknown": 1}])
def test_a_thinning_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _ = Thinning(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_fingerprint_where_the_reader_needs_the_tensor_is_refused(run: Run, tmp_path: Path) -> None:
    from harness.trace.versus import compare_cases

    thin = record(run, tmp_path / "thin", thinning=THIN["above"])
    with pytest.raises(HarnessError, match="lacks") as caught:
        _ = compare_cases(thin, thin, None)
    assert "\n" not in str(caught.value)
