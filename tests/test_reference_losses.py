import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from reference_checks import BCE, Array, assert_gradient

from harness.case import BinaryCrossEntropy, CategoricalCrossEntropy, Loss, MeanSquaredError, Objective
from reference.losses import formula, target_shape

CCE = CategoricalCrossEntropy(
    reads="probabilities", sparse=False, fused=False, clip_probability=0.0, renormalize="none", reduction="mean"
)
RNG = np.random.default_rng(5)
P, Z = RNG.uniform(0.1, 0.9, (5, 1)), RNG.normal(size=(5, 1)) * 2
CLASS_P, CLASS_Z = RNG.uniform(0.1, 0.9, (5, 4)), RNG.normal(size=(5, 4)) * 2
Y, SOFT_Y = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]]), RNG.random((5, 1))
INDICES = np.array([0, 3, 1, 2, 3])
ONE_HOT = np.eye(4)[INDICES]


def log_sum_exp(z: Array) -> float:
    return math.log(math.fsum(math.exp(float(v)) for v in z))


def minus_log(p: float, y: float) -> float:
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def clipped(p: float, c: float) -> float:
    return min(max(float(p), c), 1 - c)


# name: (loss, what it reads, targets, the terms of the sum written a second way, one number each)
LOSSES: dict[str, tuple[Loss, Array, Array, list[float]]] = {
    "binary": (BCE, P, Y, [minus_log(float(p), float(y)) for p, y in zip(P.flat, Y.flat, strict=True)]),
    "binary-soft": (BCE, P, SOFT_Y, [minus_log(float(p), float(y)) for p, y in zip(P.flat, SOFT_Y.flat, strict=True)]),
    "binary-clip": (
        dataclasses.replace(BCE, clip_probability=0.3, log_floor=-math.inf, denominator_floor=0.0),
        P,
        Y,
        [minus_log(clipped(p, 0.3), float(y)) for p, y in zip(P.flat, Y.flat, strict=True)],
    ),
    **{
        f"binary-epsilon-{complement}": (
            dataclasses.replace(BCE, log_epsilon=0.05, log_complement=complement),
            P,
            SOFT_Y,
            [
                -y * math.log(p + 0.05) - (1 - y) * math.log(1 - p + 0.05)
                for p, y in zip(P.ravel().tolist(), SOFT_Y.ravel().tolist(), strict=True)
            ],
        )
        for complement in ("log1p", "log")
    },
    "binary-logits": (
        dataclasses.replace(BCE, reads="logits"),
        Z,
        SOFT_Y,
        [minus_log(1 / (1 + math.exp(-z)), float(y)) for z, y in zip(Z.flat, SOFT_Y.flat, strict=True)],
    ),
    "categorical": (CCE, CLASS_P, ONE_HOT, [-math.log(p[k]) for p, k in zip(CLASS_P, INDICES, strict=True)]),
    "categorical-sparse": (
        dataclasses.replace(CCE, sparse=True),
        CLASS_P,
        INDICES,
        [-math.log(p[k]) for p, k in zip(CLASS_P, INDICES, strict=True)],
    ),
    "categorical-logits": (
        dataclasses.replace(CCE, reads="logits"),
        CLASS_Z,
        ONE_HOT,
        [log_sum_exp(z) - z[k] for z, k in zip(CLASS_Z, INDICES, strict=True)],
    ),
    "categorical-sparse-logits": (
        dataclasses.replace(CCE, reads="logits", sparse=True),
        CLASS_Z,
        INDICES,
        [log_sum_exp(z) - z[k] for z, k in zip(CLASS_Z, INDICES, strict=True)],
    ),
    "categorical-sum-clip": (
        dataclasses.replace(CCE, renormalize="sum", clip_probability=0.15),
        CLASS_P,
        ONE_HOT,
        [-math.log(clipped(p[k] / sum(p), 0.15)) for p, k in zip(CLASS_P, INDICES, strict=True)],
    ),
    "categorical-softmax-clip": (
        dataclasses.replace(CCE, renormalize="softmax", clip_probability=0.3, sparse=True),
        CLASS_P,
        INDICES,
        [
            -math.log(clipped(p[k], 0.3) / sum(clipped(q, 0.3) for q in p))
            for p, k in zip(CLASS_P, INDICES, strict=True)
        ],
    ),
    "squared": (MeanSquaredError(reduction="mean"), CLASS_Z, CLASS_P, list(((CLASS_Z - CLASS_P) ** 2).flat)),
    "objective": (Objective(), CLASS_Z[0], np.zeros(0), list(CLASS_Z[0])),
}


def with_reduction(name: str, reduction: str) -> tuple[Loss, Array, Array, float]:
    loss, q, y, terms = LOSSES[name]
    if not isinstance(loss, Objective):
        loss = dataclasses.replace(loss, reduction=reduction)
    mean = reduction == "mean" and not isinstance(loss, Objective)
    return loss, q, y, math.fsum(terms) / (len(terms) if mean else 1)


def value_and_gradient(compute: Callable[..., None], loss: Loss, q: Array, y: Array) -> tuple[float, Array]:
    L, dq = np.zeros((), q.dtype), np.full_like(q, np.nan)
    compute(loss, L, dq, q, y)
    return float(L), dq


def check_loss(compute: Callable[..., None], loss: Loss, q: Array, y: Array) -> None:
    _, dq = value_and_gradient(compute, loss, q, y)
    assert_gradient(
        lambda flat: value_and_gradient(compute, loss, flat.reshape(q.shape), y)[0], q.ravel(), dq.ravel(), step=0.01
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name: str, reduction: str) -> None:
    loss, q, y, expected = with_reduction(name, reduction)
    compute = formula(loss, fused=False)
    assert value_and_gradient(compute, loss, q, y)[0] == pytest.approx(expected, rel=20 * np.finfo(float).eps, abs=0)
    check_loss(compute, loss, q, y)


@pytest.mark.parametrize("factor", [1.001, -1.0, 1 + 1e-6])
@pytest.mark.parametrize("name", LOSSES)
def test_check_finds_planted_mistakes(name: str, factor: float) -> None:
    loss, q, y, _ = LOSSES[name]

    def wrong(loss: Loss, L: Array, dq: Array, q: Array, y: Array) -> None:
        formula(loss, fused=False)(loss, L, dq, q, y)
        dq *= factor

    with pytest.raises(AssertionError, match="analytic"):
        check_loss(wrong, loss, q, y)


def test_fused_reads_the_logits() -> None:
    assert formula(BCE, fused=True) is formula(dataclasses.replace(BCE, reads="logits"), fused=False)
    assert formula(CCE, fused=True) is formula(dataclasses.replace(CCE, reads="logits"), fused=False)
    assert formula(CCE, fused=True) is not formula(CCE, fused=False)


def test_torch_bounds_the_logarithm_and_the_denominator() -> None:
    p, y = np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([[1.0], [0.0], [0.0], [1.0]])
    loss = dataclasses.replace(BCE, reduction="sum")
    with np.errstate(divide="ignore"):
        L, dp = value_and_gradient(formula(loss, fused=False), loss, p, y)
    assert L == 200
    np.testing.assert_array_equal(dp.ravel(), [-1e12, 1e12, 0, 0])


def test_log1p_keeps_the_digits_that_log_loses() -> None:
    p, y = np.array([[1e-12]]), np.zeros((1, 1))
    losses = (dataclasses.replace(BCE, log_complement=complement) for complement in ("log1p", "log"))
    kept, lost = (value_and_gradient(formula(loss, fused=False), loss, p, y)[0] for loss in losses)
    assert kept == pytest.approx(1e-12, rel=1e-11, abs=0)  # -log(1 - p) = p + p²/2
    assert 1e-6 < abs(lost / 1e-12 - 1) < 1e-3


def test_clip_passes_the_gradient_at_its_bounds_only() -> None:
    p = np.array([[0.25], [0.75], [0.2], [0.8]])
    loss = dataclasses.replace(BCE, clip_probability=0.25, reduction="sum")
    _, dp = value_and_gradient(formula(loss, fused=False), loss, p, np.ones((4, 1)))
    np.testing.assert_allclose(dp.ravel(), [-4, -4 / 3, 0, 0], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize(("loss", "classes"), [(BCE, 1), (CCE, 2)], ids=["binary", "categorical"])
def test_large_logits_neither_overflow_nor_lose_the_loss(
    loss: BinaryCrossEntropy | CategoricalCrossEntropy, classes: int, dtype: type
) -> None:
    z = np.array([[12000.0], [-12000.0]], dtype) if classes == 1 else np.array([[6000, -6000], [-6000, 6000]], dtype)
    wrong = np.array([[0.0], [1.0]], dtype) if classes == 1 else np.array([[0, 1], [1, 0]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        L, dz = value_and_gradient(formula(loss, fused=True), loss, z, wrong)
    assert L == 12000
    np.testing.assert_array_equal(dz, np.sign(z) / 2)


def test_sparse_targets_pick_and_ignore_the_other_probabilities() -> None:
    loss = dataclasses.replace(CCE, sparse=True)
    with np.errstate(all="ignore"):
        value, _ = value_and_gradient(formula(loss, fused=False), loss, np.array([[0.0, 0.5, 0.5]]), np.array([1]))
    assert value == pytest.approx(math.log(2), rel=1e-15, abs=0)


def test_target_shapes() -> None:
    assert target_shape(BCE, (5, 1)) == (5, 1)
    assert target_shape(CCE, (5, 3)) == (5, 3)
    assert target_shape(dataclasses.replace(CCE, sparse=True), (5, 3)) == (5,)
    assert target_shape(Objective(), (5,)) is None
