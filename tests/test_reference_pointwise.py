import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few, planted

from harness import ops
from harness.case import LeakyReLU, Linear, ReLU, Sigmoid, Tanh
from reference.functions import FUNCTIONS
from reference.kinds import apply, pull_back
from reference.pointwise import ELEMENTWISE

RELU = ops.Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)
CLIP = ops.ClippedLinear(
    slope=1.0, offset=0.0, minimum=-1.0, maximum=1.0, derivative=1.0, slope_at_minimum=0.0, slope_at_maximum=0.0
)
SWISH6 = ops.HardSwish(slope=1 / 6, offset=0.5, slope_at_minimum=0.0, slope_at_maximum=1.0)

ELSEWHERE = ("power", "sign", "floor", "ceil", "round", "tan")

# name: (op, where it has a kink)
SMOOTH_BUT: dict[str, tuple[Any, tuple[float, ...]]] = {
    "relu": (RELU, (0.0,)),
    "relu6-leaky": (replace(RELU, negative_slope=0.2, threshold=-0.5, maximum=1.5), (-0.5, 1.5)),
    "clip": (CLIP, (-1.0, 1.0)),
    "hard_sigmoid": (
        replace(CLIP, slope=0.5, offset=0.5, derivative=0.5, minimum=0.0),
        (-1.0, 1.0),
    ),
    "hard_swish": (replace(SWISH6, slope=0.5), (-1.0, 1.0)),
    "elu": (ops.ELU(alpha=0.7, scale=1.0, divisor=1.0, slope_at_zero=1.0), (0.0,)),
    "selu": (ops.ELU(alpha=1.6733, scale=1.0507, divisor=1.0, slope_at_zero=1.0), (0.0,)),
    "celu": (ops.ELU(alpha=0.5, scale=1.0, divisor=0.5, slope_at_zero=1.0), (0.0,)),
    "gelu": (ops.GELU(form="erf", scale=1 / math.sqrt(2), cubic=0.0), ()),
    "gelu-tanh": (ops.GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715), ()),
    "swish": (ops.Swish(beta=1.3), ()),
    "mish": (ops.Mish(threshold=20.0), ()),
    "softplus": (ops.Softplus(beta=1.7, threshold=2.0), (2 / 1.7,)),
    "softplus-plain": (ops.Softplus(beta=1.0, threshold=math.inf), ()),
    "softsign": (ops.Softsign(), (0.0,)),
    "log_sigmoid": (ops.LogSigmoid(), ()),
    "tanh_shrink": (ops.TanhShrink(), ()),
    "soft_shrink": (ops.SoftShrink(bound=0.6, slope_at_bound=0.0), (-0.6, 0.6)),
    "hard_shrink": (ops.HardShrink(bound=0.6, slope_at_bound=0.0), (-0.6, 0.6)),
    "threshold": (ops.Threshold(threshold=0.4, value=-2.0), (0.4,)),
    "absolute": (ops.Absolute(slope_at_zero=0.0), (0.0,)),
    "scale": (ops.Scale(factor=-1.7, offset=0.3), ()),
    **{name: (ops.Function(name=name, exponent=1.0), ()) for name in FUNCTIONS if name not in ELSEWHERE},  # type: ignore[arg-type]
    "power": (ops.Function(name="power", exponent=2.5), ()),
    "tan": (ops.Function(name="tan", exponent=1.0), (-math.pi / 2, math.pi / 2)),
}
POSITIVE = ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "power")


def points(name: str, kinks: tuple[float, ...], seed: int, shape: tuple[int, ...]) -> Array:
    """Random points, none within 0.12 of a kink."""
    z = np.random.default_rng(seed).uniform(-2.5, 2.5, shape)
    if name in POSITIVE:
        return np.abs(z) + 0.5
    for kink in kinks:
        z = np.where(np.abs(z - kink) < 0.12, kink + np.where(z > kink, 0.12, -0.12), z)
    return z


@pytest.mark.parametrize("name", SMOOTH_BUT)
@few
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([(7,), (3, 4), (2, 3, 2, 2)]))
def test_derivatives(name: str, seed: int, shape: tuple[int, ...]) -> None:
    op, kinks = SMOOTH_BUT[name]
    check_op(op, [points(name, kinks, seed, shape)])


@pytest.mark.parametrize("name", SMOOTH_BUT)
@pytest.mark.parametrize("factor", [1 + 1e-6, -1.0, 0.0])
def test_wrong_derivatives_are_found(name: str, factor: float) -> None:
    op, kinks = SMOOTH_BUT[name]
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, [points(name, kinks, 1, (3, 4))], back=planted(0, lambda dz: dz * factor))


def test_every_elementwise_op_is_checked() -> None:
    assert {type(op) for op, _ in SMOOTH_BUT.values()} | {ops.Detach} == set(ELEMENTWISE)


def slope(op: Any, z: float) -> float:
    at = np.array([z])
    (dz,), _ = pull_back(op, np.ones(1), apply(op, [at], []), [at], [])
    assert dz is not None
    return float(dz[0])


@pytest.mark.parametrize(
    ("op", "z", "expected"),
    [
        (replace(RELU, slope_at_threshold=0.5), 0.0, 0.5),
        (replace(RELU, maximum=6.0, slope_at_maximum=1.0), 6.0, 1.0),
        (replace(RELU, maximum=6.0), 7.0, 0.0),
        (replace(CLIP, slope_at_minimum=1.0), -1.0, 1.0),
        (replace(CLIP, slope=0.5, derivative=0.5, slope_at_maximum=0.5), 2.0, 0.25),
        (replace(CLIP, derivative=0.75), 0.5, 0.75),
        (SWISH6, 3.0, 1 + 3 / 6),
        (replace(SWISH6, slope_at_maximum=0.0), 3.0, 1.0),
        (ops.ELU(alpha=0.7, scale=2.0, divisor=1.0, slope_at_zero=1.4), 0.0, 1.4),
        (ops.SoftShrink(bound=0.5, slope_at_bound=0.25), -0.5, 0.25),
        (ops.HardShrink(bound=0.5, slope_at_bound=0.0), 0.5, 0.0),
        (ops.Threshold(threshold=0.5, value=0.0), 0.5, 0.0),
        (ops.Absolute(slope_at_zero=1.0), 0.0, 1.0),
        (ops.Detach(), 0.3, 0.0),
    ],
)
def test_slope_at_a_kink_is_what_the_op_says(op: Any, z: float, expected: float) -> None:
    assert slope(op, z) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "op", [ReLU(), LeakyReLU(negative_slope=0.1, slope_at_zero="one"), Sigmoid(), Tanh(), Linear()]
)
def test_the_older_kinds_join_in(op: Any) -> None:
    check_op(op, [points("", (0.0,), 3, (4, 3))])


@pytest.mark.parametrize(
    "name", [name for name in SMOOTH_BUT if name not in (*POSITIVE, "exp", "expm1", "square", "sinh", "cosh")]
)
def test_nothing_overflows_or_is_nan_far_out(name: str) -> None:
    z = np.array([-800.0, -30.0, 30.0, 800.0])
    y = apply(SMOOTH_BUT[name][0], [z], [])
    assert np.isfinite(y).all()
    assert np.isfinite(pull_back(SMOOTH_BUT[name][0], np.ones(4), y, [z], [])[0][0]).all()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sign", [-1, 0, 1]), ("floor", [-2, 0, 2]), ("ceil", [-1, 0, 3]), ("round", [-2, 0, 2])],
)
def test_steps_are_flat(name: Any, expected: list[float]) -> None:
    z, op = np.array([-1.5, 0.0, 2.5]), ops.Function(name=name, exponent=1.0)
    y = apply(op, [z], [])
    assert y.tolist() == expected
    assert not pull_back(op, np.ones(3), y, [z], [])[0][0].any()  # type: ignore[union-attr]


def test_an_infinite_cotangent_stops_where_the_slope_is_zero() -> None:
    z = np.array([-1.0, 1.0])
    (dz,), _ = pull_back(RELU, np.array([np.inf, 2.0]), apply(RELU, [z], []), [z], [])
    np.testing.assert_array_equal(dz, [0, 2])  # type: ignore[arg-type]


def test_known_values() -> None:
    z = np.array([-1.0, 0.5])
    assert apply(ops.Mish(threshold=math.inf), [z], [])[1] == pytest.approx(
        0.5 * math.tanh(math.log(1 + math.exp(0.5)))
    )
    assert apply(SMOOTH_BUT["gelu"][0], [z], [])[0] == pytest.approx(-0.15865525393145707, rel=1e-15)
    assert apply(SMOOTH_BUT["selu"][0], [z], [])[0] == pytest.approx(1.0507 * 1.6733 * (math.exp(-1) - 1))
