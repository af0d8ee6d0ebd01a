import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few

from harness import ops
from reference import convolution
from reference.kinds import apply, pull_back

seeds = st.integers(0, 10**6)
options: dict[str, Any] = {
    "seed": seeds,
    "rank": st.integers(1, 3),
    "groups": st.sampled_from([1, 2, 4]),
    "order": st.sampled_from(["blocks", "interleaved"]),
    "bias": st.booleans(),
    "data": st.data(),
}


def axes(data: st.DataObject, rank: int, values: Any) -> tuple[Any, ...]:
    return tuple(data.draw(values) for _ in range(rank))


def plain(rank: int, **changes: Any) -> ops.Conv:
    settings: dict[str, Any] = {
        "stride": (1,) * rank,
        "dilation": (1,) * rank,
        "groups": 1,
        "group_order": "blocks",
        "padding": ((0, 0),) * rank,
        "padding_mode": "constant",
        "padding_value": 0.0,
        "bias": False,
        "kernel_axes": tuple(range(rank + 2)),
    }
    return ops.Conv(**{**settings, **changes})


def plain_transpose(rank: int, **changes: Any) -> ops.ConvTranspose:
    settings: dict[str, Any] = {
        "stride": (1,) * rank,
        "dilation": (1,) * rank,
        "groups": 1,
        "group_order": "blocks",
        "padding": ((0, 0),) * rank,
        "output_padding": (0,) * rank,
        "flip": False,
        "bias": False,
        "kernel_axes": tuple(range(rank + 2)),
    }
    return ops.ConvTranspose(**{**settings, **changes})


@few
@given(mode=st.sampled_from(["constant", "reflect", "replicate", "circular"]), **options)
def test_convolution(mode: str, seed: int, rank: int, groups: int, order: str, bias: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    kernel = axes(data, rank, st.integers(1, 3))
    op = plain(
        rank,
        stride=axes(data, rank, st.integers(1, 2)),
        dilation=axes(data, rank, st.integers(1, 2)),
        groups=groups,
        group_order=order,
        padding=axes(data, rank, st.tuples(st.integers(0, 2), st.integers(0, 2))),
        padding_mode=mode,
        padding_value=0.5,
        bias=bias,
    )
    x = rng.normal(size=(2, 4, *axes(data, rank, st.integers(5, 6))))
    W = rng.normal(size=(8, 4 // groups, *kernel))
    check_op(op, [x], [W, rng.normal(size=8)] if bias else [W])


@few
@given(flip=st.booleans(), **options)
def test_transposed_convolution(
    flip: bool, seed: int, rank: int, groups: int, order: str, bias: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    kernel = axes(data, rank, st.integers(1, 3))
    op = plain_transpose(
        rank,
        stride=axes(data, rank, st.integers(1, 3)),
        dilation=axes(data, rank, st.integers(1, 2)),
        groups=groups,
        group_order=order,
        padding=axes(data, rank, st.tuples(st.integers(0, 1), st.integers(0, 1))),
        output_padding=axes(data, rank, st.integers(0, 2)),
        flip=flip,
        bias=bias,
    )
    x = rng.normal(size=(2, 4, *axes(data, rank, st.integers(3, 4))))
    W = rng.normal(size=(4, 2, *kernel))
    check_op(op, [x], [W, rng.normal(size=2 * groups)] if bias else [W])


@pytest.mark.parametrize("make", [plain, plain_transpose])
@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2)])
def test_kernel_axes_read_another_kernel(make: Any, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(3, 3, 2, 2))
    check_op(make(2, kernel_axes=order), [x], [W])
    np.testing.assert_array_equal(
        apply(make(2, kernel_axes=order), [x], [W]), apply(make(2), [x], [np.ascontiguousarray(W.transpose(order))])
    )


def test_one_window_is_the_sum_over_its_elements() -> None:
    rng = np.random.default_rng(0)
    x, W, b = rng.normal(size=(1, 2, 3, 3)), rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4)
    z = apply(plain(2, bias=True), [x], [W, b])
    np.testing.assert_allclose(z[0, :, 0, 0], (W * x).sum(axis=(1, 2, 3)) + b, rtol=1e-13)


def test_depthwise_is_one_convolution_for_each_channel() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(2, 3, 6)), rng.normal(size=(6, 1, 3))
    z = apply(plain(1, groups=3), [x], [W])
    for c in range(3):
        alone = apply(plain(1), [x[:, c : c + 1]], [W[2 * c : 2 * c + 2]])
        np.testing.assert_allclose(z[:, 2 * c : 2 * c + 2], alone, rtol=1e-13)
    other = apply(plain(1, groups=3, group_order="interleaved"), [x], [W])
    np.testing.assert_allclose(other[:, 4], apply(plain(1), [x[:, 1:2]], [W[4:5]])[:, 0], rtol=1e-13)


def test_the_transpose_is_the_adjoint() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(3, 4, 3, 2))
    geometry: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 1), (0, 1))}
    z = apply(plain(2, **geometry), [x], [W])
    v = rng.normal(size=z.shape)
    back = apply(plain_transpose(2, **geometry), [v], [W])
    assert back.shape == x.shape
    assert (z * v).sum() == pytest.approx((x * back).sum(), rel=1e-12)


def test_padding_that_is_asymmetric_is_another_convolution() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(1, 1, 8)), rng.normal(size=(1, 1, 3))
    one, other = (apply(plain(1, stride=(2,), padding=(widths,)), [x], [W]) for widths in ((0, 1), (1, 1)))
    assert one.shape == other.shape == (1, 1, 4)
    assert not np.allclose(one, other)


# --- planted ----------------------------------------------------------------------------------------------------


def kernel_flipped(op: Any, dz: Array, x: Array, W: Array) -> Array:
    return np.flip(kernel_gradient(op, dz, x, W), axis=-1)


def spread_without_stride(op: Any, dz: Array, W: Array, positions: tuple[int, ...]) -> Array:
    return np.roll(spread(op, dz, W, positions), 1, axis=-1)


def groups_mixed(op: Any, dz: Array, W: Array, positions: tuple[int, ...]) -> Array:
    dx = spread(op, dz, W, positions)
    return dx.reshape(len(dx), op.groups, -1, *positions)[:, ::-1].reshape(dx.shape)


kernel_gradient, spread = convolution.kernel_gradient, convolution.spread


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("kernel_gradient", kernel_flipped), ("spread", spread_without_stride), ("spread", groups_mixed)],
)
def test_planted_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(convolution, name, wrong)
    with pytest.raises(AssertionError, match="analytic"):
        check_op(plain(2, groups=2, stride=(2, 1)), [rng.normal(size=(2, 4, 6, 6))], [rng.normal(size=(4, 2, 3, 2))])


def test_it_is_fast_enough() -> None:
    rng = np.random.default_rng(0)
    x, W, b = rng.normal(size=(16, 8, 28, 28)), rng.normal(size=(16, 8, 3, 3)), rng.normal(size=16)
    op = plain(2, padding=((1, 1), (1, 1)), bias=True)
    start = time.perf_counter()
    z = apply(op, [x], [W, b])
    pull_back(op, z, z, [x], [W, b])
    assert time.perf_counter() - start < 1  # tens of milliseconds on an idle machine
