"""check_gradient: what is right passes, whatever is planted is found and named, in every framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import harness
from frameworks import functions
from harness.case import HarnessError
from tests.gradient_functions import BUILDERS

RNG = np.random.default_rng(7)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 3))


def sine(xp: Any, x: Any) -> Any:
    return xp.sin(x)


def product(xp: Any, x: Any, w: Any) -> Any:
    return xp.matmul(x, w)


def flipped(w: Any) -> Any:
    return w.T if isinstance(w, np.ndarray) else w.mT if hasattr(w, "mT") else _tf_transposed(w)


def _tf_transposed(w: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(w)


CORRECT = {
    "sine": (sine, lambda xp, v, x: v * xp.cos(x), [X]),
    "exponential": (lambda xp, x: xp.exp(x), lambda xp, v, x: v * xp.exp(x), [X]),
    "product": (product, lambda xp, v, x, w: (xp.matmul(v, flipped(w)), xp.matmul(flipped(x), v)), [X, W]),
    "two outputs": (
        lambda xp, x: (xp.sin(x), xp.exp(x)),
        lambda xp, v, x: v[0] * xp.cos(x) + v[1] * xp.exp(x),
        [X],
    ),
    "scaled badly": (lambda xp, x: x * x, lambda xp, v, x: 2 * v * x, [np.array([1e-8, -1.0, 1e8])]),
    "steep": (
        lambda xp, x: xp.tanh(1e5 * x),
        lambda xp, v, x: 1e5 * v / xp.cosh(1e5 * x) ** 2,
        [np.array([1e-6, -2e-5, 0.1])],
    ),
}

# name: (forward, backward, inputs, patterns)
WRONG = {
    "sign": (sine, lambda xp, v, x: -v * xp.cos(x), [X], {"sign"}),
    "factor": (sine, lambda xp, v, x: 2 * v * xp.cos(x), [X], {"factor"}),
    "a billionth": (sine, lambda xp, v, x: (1 + 1e-9) * v * xp.cos(x), [X], {"factor"}),
    "zero": (sine, lambda xp, v, x: 0 * v, [X], {"zero"}),
    "ignored cotangent": (sine, lambda xp, v, x: xp.cos(x), [X], {"ignores-cotangent"}),
    "squared cotangent": (sine, lambda xp, v, x: v * v * xp.cos(x), [X], {"nonlinear-cotangent"}),
    "absolute cotangent": (sine, lambda xp, v, x: xp.abs(v) * xp.cos(x), [X], {"nonlinear-cotangent"}),
    "small cotangents dropped": (
        sine,
        lambda xp, v, x: xp.where(xp.abs(v) < 1e-3, 0 * v, v) * xp.cos(x),
        [X],
        {"nonlinear-cotangent"},
    ),
    "transposed": (product, lambda xp, v, x, w: (xp.matmul(v, w), xp.matmul(flipped(x), v)), [X, W], {"transposed"}),
    "missing term": (lambda xp, x: x * xp.sin(x), lambda xp, v, x: v * xp.sin(x), [X], {"missing-term"}),
    "negatives": (lambda xp, x: x * x, lambda xp, v, x: xp.where(x < 0, v * x, 2 * v * x), [X], {"region"}),
    "large values": (
        sine,
        lambda xp, v, x: v * xp.cos(x) * xp.where(xp.abs(x) > 4, 1.1 + 0 * x, 1 + 0 * x),
        [X],
        {"region"},
    ),
    "nan from a masked branch": (
        lambda xp, x: xp.where(x > 0, x, 0 * x),
        lambda xp, v, x: v * xp.where(x > 0, 1 + 0 * x, (x - x) / (x - x)),
        [X],
        {"nan"},
    ),
    "straight through": (lambda xp, x: xp.floor(x), lambda xp, v, x: 1.0 * v, [X], {"surrogate"}),
    "second output forgotten": (
        lambda xp, x: (xp.sin(x), xp.exp(x)),
        lambda xp, v, x: v[0] * xp.cos(x),
        [X],
        {"zero"},
    ),
    "all of a tie": (
        lambda xp, x: (x[0] + x[1] + xp.abs(x[0] - x[1])) / 2,
        lambda xp, v, x: v * xp.where(x == x, 1 + 0 * x, x),
        [np.array([0.5, 0.5])],
        {"subgradient"},
    ),
}


def built(kind: str, forward: Any, backward: Any, inputs: list[np.ndarray]) -> tuple[Any, list[Any]]:
    given = inputs if kind == "numpy" else [functions(kind).array(x) for x in inputs]
    return BUILDERS[kind](forward, backward), given


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("name", CORRECT)
def test_what_is_right_passes(kind: str, name: str) -> None:
    f, inputs = built(kind, *CORRECT[name])
    result = harness.check_gradient(f, *inputs, sweep=kind in ("numpy", "pytorch"))
    assert result.verdict == "pass", str(result)
    assert result.resolution < 1e-8
    assert result.framework == kind


def test_assert_gradient_raises_with_the_printed_result() -> None:
    harness.assert_gradient((np.sin, lambda v, x: v * np.cos(x)), X)
    with pytest.raises(AssertionError, match="fail: the sign is wrong"):
        harness.assert_gradient((np.sin, lambda v, x: -v * np.cos(x)), X)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_and_named(kind: str, name: str) -> None:
    forward, backward, arrays, patterns = WRONG[name]
    f, inputs = built(kind, forward, backward, arrays)
    result = harness.check_gradient(f, *inputs, sweep=kind == "numpy" or name == "large values")
    assert (result.verdict, result.pattern in patterns) == ("fail", True), str(result)


def pair(f: Any, backward: Any, *inputs: Any, **options: Any) -> Any:
    return harness.check_gradient((f, backward), *inputs, **options)


def test_a_smooth_function_takes_at_most_40_evaluations_and_they_are_counted() -> None:
    calls = []

    def f(x: np.ndarray) -> np.ndarray:
        calls.append(1)
        return np.tanh(x)

    result = pair(f, lambda v, x: v / np.cosh(x) ** 2, X)
    assert result.evaluations <= 40
    assert len(calls) == result.evaluations + result.sweep_evaluations + result.locating_evaluations


def test_one_wrong_element_of_100000_is_found() -> None:
    x = RNG.standard_normal(100_000)
    off = np.ones(x.size)
    off[77_777] = 1.001
    result = pair(np.sin, lambda v, x: v * np.cos(x) * off, x, sweep=False)
    assert (result.pattern, result.where) == ("element", (0, 0, (77_777,)))


def test_the_factor_is_given() -> None:
    result = pair(lambda x: np.mean(x), lambda v, x: v * np.ones(x.shape), X)
    assert result.factor == pytest.approx(12)
    assert "sum for a mean" in result.reason


def test_a_missing_sum_over_what_was_broadcast() -> None:
    assert pair(np.add, lambda v, x, b: (v, v), X, W[0]).pattern == "broadcast"
    assert pair(np.add, lambda v, x, b: (v, v[0]), X, W[0]).pattern == "broadcast"


def test_repeated_indices() -> None:
    def overwritten(v: np.ndarray, table: np.ndarray, i: np.ndarray) -> tuple[np.ndarray, None]:
        grad = np.zeros_like(table)
        grad[i] = v
        return grad, None

    def added(v: np.ndarray, table: np.ndarray, i: np.ndarray) -> tuple[np.ndarray, None]:
        grad = np.zeros_like(table)
        np.add.at(grad, i, v)
        return grad, None

    def f(table: np.ndarray, i: np.ndarray) -> np.ndarray:
        return table[i]

    assert pair(f, added, X, np.array([2, 0])).verdict == "pass"
    assert pair(f, overwritten, X, np.array([2, 0])).verdict == "fail"  # seen only where indices repeat, in the sweep


def test_shapes_types_and_numbers_of_gradients() -> None:
    assert pair(np.sin, lambda v, x: (v * np.cos(x))[0], X).pattern == "shape"
    assert pair(np.add, lambda v, x, y: v, X, X).pattern == "shape"
    assert pair(np.sin, lambda v, x: v * np.cos(x) + 0j, X).pattern == "shape"
    assert pair(np.sin, lambda v, x: (v * np.cos(x)).astype(np.float32), X).pattern == "float32"
    none = pair(np.add, lambda v, x, y: (v, None), X, X)
    assert (none.pattern, none.notes) == ("zero", ("the gradient of input 1 is None, taken as zero",))


def test_float32_on_the_way_back() -> None:
    assert pair(np.sin, lambda v, x: (v * np.cos(x)).astype(np.float32).astype(float), X).pattern == "float32"
    assert pair(np.sin, lambda v, x: v * np.cos(x.astype(np.float32)).astype(float), X).pattern == "float32"


def test_float32_inside_is_told_and_judged_at_its_own_precision() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        return np.sin(x.astype(np.float32)).astype(float)

    right = pair(f, lambda v, x: v * np.cos(x), X)
    assert (right.verdict, right.precision) == ("pass", "float32")
    assert 1e-8 < right.resolution < 1e-3
    assert pair(f, lambda v, x: 1.001 * v * np.cos(x), X).verdict == "fail"


def test_the_float32_path_is_held_against_the_float64_path() -> None:
    def vjp(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        return v * np.cos(x) * (1 if x.dtype == np.float64 else 1.01)

    assert pair(np.sin, vjp, X).pattern == "float32"


def test_a_function_that_does_not_repeat_itself_is_inconclusive() -> None:
    rng = np.random.default_rng(0)
    result = pair(lambda x: x * rng.random(), lambda v, x: v, X)
    assert result.verdict == "inconclusive"
    assert "repeat" in result.reason


def test_a_backward_that_does_not_repeat_itself() -> None:
    rng = np.random.default_rng(0)
    assert pair(np.sin, lambda v, x: v * np.cos(x) * (1 + 1e-6 * rng.random()), X).pattern == "nondeterministic"


def test_hopeless_cancellation_is_inconclusive() -> None:
    x = np.array([[1e-9, 2e-9], [3e-9, -1e-9]])
    result = pair(lambda x: (1 + x - 1) / x, lambda v, x: 0 * v, x, sweep=False)
    assert result.verdict != "fail"
    assert result.verdict == "inconclusive" or result.resolution > 1e-8


def test_values_of_another_call() -> None:
    saved = []

    def first(x: np.ndarray) -> np.ndarray:
        saved[1:] = []
        saved.append(x.copy())
        return np.sin(x)

    assert pair(first, lambda v, x: v * np.cos(saved[0]), X).pattern == "stale"

    def last(x: np.ndarray) -> np.ndarray:
        saved[:] = [x.copy()]
        return np.sin(x)

    assert pair(last, lambda v, x: v * np.cos(saved[0]), X).pattern == "stale"


def test_what_is_written_into_is_said() -> None:
    def forward(x: np.ndarray) -> np.ndarray:
        y = np.sin(x)
        x *= 2
        return y

    assert pair(forward, lambda v, x: v * np.cos(x / 2), X).pattern == "mutates"

    def backward(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        v *= np.cos(x)
        return v

    assert pair(np.sin, backward, X).pattern == "mutates"


def test_another_memory_layout() -> None:
    def vjp(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        return v * np.cos(x if x.flags.c_contiguous else np.zeros(x.shape))

    assert pair(np.sin, vjp, X).pattern == "non-contiguous"


def test_a_backward_that_raises() -> None:
    def vjp(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no backward here")

    result = pair(np.sin, vjp, X)
    assert result.pattern == "raises"
    assert "no backward here" in result.reason


def test_a_kink_is_no_error_and_is_shown() -> None:
    x = np.array([0.0, 1.0, -2.0, 0.5])
    for slope in (0.0, 0.5, 1.0):
        result = pair(lambda x: np.maximum(x, 0), lambda v, x, s=slope: v * np.where(x == 0, s, x > 0), x)
        assert result.verdict == "pass", str(result)
        kink = result.kinks[0]
        assert (kink.input, kink.index, kink.valid) == (0, (0,), True)
        assert (kink.left, kink.right, kink.returned) == pytest.approx((0, result.kinks[0].right, slope * kink.right))
    outside = pair(lambda x: np.maximum(x, 0), lambda v, x: v * np.where(x == 0, 1.5, x > 0), x)
    assert outside.pattern == "subgradient"
    beside = pair(lambda x: np.maximum(x, 0), lambda v, x: v * np.where(x == 0, 0, 2.0 * (x > 0)), x)
    assert beside.verdict == "fail"


def test_a_boundary_of_the_domain_is_no_error() -> None:
    with np.errstate(all="ignore"):
        result = pair(np.sqrt, lambda v, x: v / (2 * np.sqrt(x)), np.array([0.0, 1.0, 2.0]))
    assert result.verdict == "pass", str(result)
    assert np.isinf(result.kinks[0].returned)


def test_a_surrogate_that_is_announced() -> None:
    f = np.floor
    assert pair(f, lambda v, x: v, X, vjp=lambda v, x: v).verdict == "pass"
    wrong = pair(f, lambda v, x: v, X, vjp=lambda v, x: v * (np.abs(x) < 1))
    assert (wrong.verdict, wrong.pattern) == ("fail", "unlike")
    assert pair(f, lambda v, x: 2 * v, X, vjp=lambda v, x: v).pattern == "factor"
    reason = pair(f, lambda v, x: v, X).reason
    assert "vjp=" in reason
    clipped = pair(np.sin, lambda v, x: np.clip(v, -1, 1), X, vjp=lambda v, x: np.clip(v, -1, 1))
    assert clipped.verdict == "pass"


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind != "numpy"])
def test_two_frameworks_and_numpy_against_each_other(kind: str) -> None:
    forward, backward, arrays = CORRECT["product"]
    f, inputs = built(kind, forward, backward, arrays)
    numpy_pair = BUILDERS["numpy"](forward, backward)
    assert harness.check_gradient(f, *inputs, against=numpy_pair).verdict == "pass"
    assert harness.check_gradient(f, *inputs, against=lambda x, w: x @ w).verdict == "pass"
    assert harness.check_gradient(numpy_pair, *arrays, against=f).verdict == "pass"
    other = harness.check_gradient(f, *inputs, against=lambda x, w: x @ w + 1e-9)
    assert (other.verdict, other.pattern) == ("fail", "value")
    half = BUILDERS["numpy"](forward, lambda xp, v, x, w: (xp.matmul(v, w.T), 0.5 * xp.matmul(x.T, v)))
    assert harness.check_gradient(f, *inputs, against=half).pattern == "factor"


def test_complex_numbers_integers_scalars_and_nothing_at_all() -> None:
    z = X[0] + 1j * X[1]
    assert pair(lambda z: z**2, lambda v, z: v * 2 * z.conj(), z).verdict == "pass"
    assert pair(lambda z: z**2, lambda v, z: v * 2 * z, z).verdict == "fail"
    assert pair(np.sin, lambda v, x: v * np.cos(x), np.zeros((0, 3))).verdict == "pass"
    assert pair(np.sin, lambda v, x: v * np.cos(x), 1.5).verdict == "pass"
    assert pair(lambda x, n: x**n, lambda v, x, n: v * n * x ** (n - 1.0), np.abs(X), 3).verdict == "pass"


def test_where_a_function_is_not_defined_the_sweep_passes_over() -> None:
    with np.errstate(all="ignore"):
        assert pair(np.log, lambda v, x: v / x, np.abs(X)).verdict == "pass"

    def only_small(x: np.ndarray) -> np.ndarray:
        if np.abs(x).max() > 5:
            raise ValueError("too large")
        return np.sin(x)

    assert pair(only_small, lambda v, x: v * np.cos(x), X).verdict == "pass"


def test_an_endless_loop_is_left() -> None:
    def root(x: np.ndarray) -> np.ndarray:
        y = np.ones_like(x)
        while np.abs(y * y - x).max() > 1e-13:
            y = (y + x / y) / 2
        return y

    result = pair(root, lambda v, x: v / (2 * root(x)), np.array([0.3, 1.2, 2.0]))
    assert result.verdict == "pass", str(result)
    assert any("no answer within" in note for note in result.notes)


def test_wrong_use_is_one_line() -> None:
    for f, match in ((3, "cannot be called"), ((np.sin,), "pair"), (np.sin, "pair")):
        with pytest.raises(HarnessError, match=match):
            _ = harness.check_gradient(f, X)  # pyright: ignore[reportArgumentType]
    with pytest.raises(HarnessError, match="order is 3"):
        _ = harness.check_gradient((np.sin, np.cos), X, order=3)
    assert pair(lambda x: 1 / 0, np.cos, X).verdict == "inconclusive"


def test_no_call_however_slow_escapes_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.gradients import examining

    monkeypatch.setattr(examining, "PATIENCE", -1e9)  # every call elsewhere is given up at once
    monkeypatch.setattr("harness.gradients.patience.LEAST", 1e-6)

    def slow(x: np.ndarray) -> np.ndarray:
        return np.sin(sum((x for _ in range(20_000)), 0 * x) / 20_000)

    result = pair(slow, lambda v, x: v * np.cos(x), X)
    assert result.verdict == "pass"
    assert result.notes  # one or two: a clock's tick can be longer than a call
