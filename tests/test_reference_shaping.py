import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, distinct, few, planted
from reference_checks import away_from_zero

from harness import ops
from harness.case import Sigmoid
from harness.ops_shapes import Tie
from reference.kinds import apply, pull_back

seeds = st.integers(0, 10**6)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


MOVES = {
    "flatten": ops.Flatten(start=1, order=(0, 1, 2)),
    "flatten-hwc": ops.Flatten(start=1, order=(1, 2, 0)),
    "flatten-last": ops.Flatten(start=2, order=(1, 0)),
    "reshape": ops.Reshape(shape=(4, -1)),
    "permute": ops.Permute(axes=(0, -1, 1, 2)),
    "slice": ops.Slice(axis=2, start=1, stop=None, step=2, squeeze=False),
    "flip": ops.Slice(axis=-1, start=None, stop=None, step=-1, squeeze=False),
    "last": ops.Slice(axis=1, start=-1, stop=None, step=1, squeeze=True),
    "repeat": ops.Repeat(axis=2, times=3, order="elements"),
    "tile": ops.Repeat(axis=-1, times=2, order="whole"),
    "expand": ops.Expand(axis=2),
    "pad": ops.Pad(widths=((0, 0), (1, 0), (2, 1), (0, 3)), mode="constant", value=0.7),
    "crop": ops.Pad(widths=((0, 0), (0, 0), (-1, 1), (2, -2)), mode="constant", value=0.0),
    "reflect": ops.Pad(widths=((0, 0), (0, 0), (2, 1), (1, 3)), mode="reflect", value=0.0),
    "replicate": ops.Pad(widths=((0, 0), (0, 0), (2, 1), (0, 5)), mode="replicate", value=0.0),
    "circular": ops.Pad(widths=((0, 0), (0, 0), (2, 1), (1, 3)), mode="circular", value=0.0),
    "gated": ops.Gated(axis=1, activation=Sigmoid(), gate="second"),
    "gated-first": ops.Gated(axis=-1, activation=ops.Swish(beta=1.0), gate="first"),
}


@pytest.mark.parametrize("name", MOVES)
@few
@given(seed=seeds)
def test_moves(name: str, seed: int) -> None:
    check_op(MOVES[name], [normal(seed, 3, 2, 4, 4)])


@pytest.mark.parametrize("name", MOVES)
def test_a_gradient_that_stays_in_the_wrong_place_is_found(name: str) -> None:
    with pytest.raises(AssertionError, match="analytic"):
        check_op(MOVES[name], [normal(1, 3, 2, 4, 4)], back=planted(0, lambda dx: dx.transpose(0, 1, 3, 2)))


def test_flatten_order_is_that_of_channels_last() -> None:
    x = normal(0, 2, 3, 4, 5)
    np.testing.assert_array_equal(
        apply(MOVES["flatten-hwc"], [x], []), np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(2, -1)
    )


KINDS = ("add", "subtract", "multiply", "divide", "power", "average", "maximum", "minimum")


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=seeds, shapes=st.sampled_from([((4, 3), (4, 3)), ((4, 3), (3,)), ((2, 1, 3), (4, 1)), ((1,), (2, 3))]))
def test_combinations_broadcast(kind: str, seed: int, shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(seed)
    a, b = distinct(rng, shapes[0], 0.4), distinct(rng, shapes[1], 0.4) + 0.13
    if kind in ("divide", "power"):
        a, b = rng.uniform(0.5, 2, shapes[0]), rng.uniform(0.5, 2, shapes[1])
    check_op(ops.Combine(kind=kind, tie="first"), [a, b])  # type: ignore[arg-type]
    # a parameter counts as an input
    check_op(ops.Combine(kind=kind, tie="first"), [a], [b])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["add", "multiply", "average", "maximum", "minimum"])
def test_combinations_of_three(kind: str) -> None:
    rng = np.random.default_rng(2)
    check_op(ops.Combine(kind=kind, tie="first"), list(distinct(rng, (3, 4, 2), 0.4)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tie", "expected"),
    [
        ("first", [[1, 0], [0, 0], [0, 1]]),
        ("last", [[0, 0], [0, 0], [1, 1]]),
        ("split", [[0.5, 0], [0, 0], [0.5, 1]]),
        ("each", [[1, 0], [0, 0], [1, 1]]),
    ],
)
def test_ties_of_a_maximum(tie: Tie, expected: list[list[float]]) -> None:
    x = np.array([[3.0, 1], [2, 2], [3, 4]])
    op = ops.Combine(kind="maximum", tie=tie)
    found, _ = pull_back(op, np.ones(2), x.max(axis=0), list(x), [])
    np.testing.assert_array_equal(found, expected)  # type: ignore[arg-type]


@few
@given(seed=seeds, axes=st.sampled_from([(0,), (1,), (1, 2), (1, 3), (2,)]), shared=st.booleans())
def test_prelu(seed: int, axes: tuple[int, ...], shared: bool) -> None:
    rng = np.random.default_rng(seed)
    z = away_from_zero(rng, (3, 2, 4, 2))
    axes = tuple(axis for axis in axes if axis)
    shape = tuple(1 if axis in axes else z.shape[axis] for axis in range(1, 4))
    check_op(ops.PReLU(shared_axes=axes, slope_at_zero="alpha"), [z], [rng.normal(size=shape)])


def test_copies_of_a_shared_slope_move_together() -> None:
    z = away_from_zero(np.random.default_rng(0), (5, 2, 3))
    dy = np.random.default_rng(1).normal(size=z.shape)
    copies, one = np.full((2, 3), 0.2), np.full((2, 1), 0.2)
    op = ops.PReLU(shared_axes=(2,), slope_at_zero="alpha")
    y = apply(op, [z], [copies])
    _, (each,) = pull_back(op, dy, y, [z], [copies])
    _, (together,) = pull_back(op, dy, y, [z], [one])
    assert each is not None
    assert together is not None
    np.testing.assert_allclose(each, np.broadcast_to(together, (2, 3)), rtol=1e-15)
    _, (own,) = pull_back(ops.PReLU(shared_axes=(), slope_at_zero="alpha"), dy, y, [z], [copies])
    assert own is not None
    assert not np.allclose(own, each)


@pytest.mark.parametrize(("at_zero", "expected"), [("alpha", 0.25), ("one", 1.0), ("zero", 0.0)])
def test_prelu_at_zero(at_zero: str, expected: float) -> None:
    op = ops.PReLU(shared_axes=(), slope_at_zero=at_zero)  # type: ignore[arg-type]
    (dz,), _ = pull_back(op, np.ones((1, 1)), np.zeros((1, 1)), [np.zeros((1, 1))], [np.full(1, 0.25)])
    np.testing.assert_array_equal(dz, [[expected]])  # type: ignore[arg-type]


@few
@given(seed=seeds, axis=st.sampled_from([0, 1, -1]))
def test_concat_and_gather(seed: int, axis: int) -> None:
    shapes = [[4, 3, 2], [4, 3, 2]]
    shapes[1][axis] = 5
    check_op(ops.Concat(axis=axis), [normal(seed, *shape) for shape in shapes])
    check_op(ops.Stack(axis=axis), [normal(seed, 3, 2), normal(seed + 1, 3, 2)])
    x, indices = normal(seed, 3, 3, 3), np.random.default_rng(seed).integers(0, 3, (2, 4))
    check_op(ops.Gather(axis=axis), [x, indices])


def test_repeated_indices_add() -> None:
    op = ops.Gather(axis=0)
    x, indices = np.zeros((3, 1)), np.array([2, 2, 0])
    (dx, none), _ = pull_back(op, np.array([[1.0], [10], [100]]), x[indices], [x, indices], [])
    np.testing.assert_array_equal(dx, [[100], [0], [11]])  # type: ignore[arg-type]
    assert none is None


@few
@given(seed=seeds)
def test_select_broadcasts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_op(ops.Select(), [rng.random((4, 3)) < 0.5, normal(seed, 4, 3), normal(seed + 1, 3)])
