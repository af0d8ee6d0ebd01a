import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from op_checks import Array, check_op, distinct, planted
from reference_checks import assert_gradient, case_of
from test_reference_attention import HEADS, PLAIN
from test_reference_convolution import plain, plain_transpose
from test_reference_normalising import batch, layer
from test_reference_pointwise import SMOOTH_BUT, points
from test_reference_pooling import average, maximum
from test_reference_recurrence import GRU, LSTM, SIMPLE, arrays
from test_reference_resizing import resize
from test_reference_shaping import MOVES

from harness import ops
from harness.case import CategoricalCrossEntropy, Dense, MeanSquaredError, Node
from harness.layout import layout_of
from reference.kinds import LAYERS, apply, pull_back
from reference.network import backward, forward, shapes, tensors_of

Example = tuple[Any, list[Array], list[Array]]


def normal(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape) for shape in shapes]


IMAGE = (2, 4, 5, 6)
MATRICES = normal((4, 4), (4, 4), (4, 4), (4, 4))
ROWS = np.random.default_rng(1).integers(0, 3, (2, 4))
REDUCTION: dict[str, Any] = {"axes": (1,), "keep": False}

EXAMPLES: tuple[Example, ...] = (
    *((op, [points(name, kinks, 1, (3, 4))], []) for name, (op, kinks) in SMOOTH_BUT.items()),
    *((op, normal((3, 2, 4, 4)), []) for op in MOVES.values()),
    (ops.Concat(axis=1), normal((2, 3), (2, 4)), []),
    (ops.Stack(axis=-1), normal((2, 3), (2, 3)), []),
    (ops.CumulativeSum(axis=1, reverse=False), normal((2, 3)), []),
    (ops.CumulativeSum(axis=0, reverse=True), normal((2, 3)), []),
    (ops.Gather(axis=1), [*normal((2, 3)), ROWS], []),
    (ops.Select(), [ROWS > 1, *normal((2, 4), (2, 4))], []),
    (ops.Combine(kind="multiply", tie="first"), normal((3, 4), (4,)), []),
    (ops.PReLU(shared_axes=(2, 3), slope_at_zero="alpha"), normal(IMAGE), normal((4, 1, 1))),
    (ops.Affine(bias=True, kernel_axes=(0, 1)), normal((3, 4)), normal((2, 4), (2,))),
    (ops.Einsum(equation="ab,cb->ac"), normal((3, 4)), normal((2, 4))),
    (ops.Embedding(padding_index=None), [ROWS], normal((3, 2))),
    (plain(2, bias=True), normal(IMAGE), normal((3, 4, 2, 2), (3,))),
    (plain_transpose(2, bias=True), normal(IMAGE), normal((4, 3, 2, 2), (3,))),
    (batch(scale=True, offset=True), normal(IMAGE), normal((4,), (4,), (4,), (4,))),
    (layer(scale=True, offset=True), normal(IMAGE), normal((6,), (6,))),
    (
        ops.GroupNorm(groups=2, group_order="blocks", epsilon=0.1, epsilon_placement="inside", scale=True, offset=True),
        normal(IMAGE),
        normal((4,), (4,)),
    ),
    (ops.ResponseNorm(below=1, above=1, alpha=0.3, beta=0.75, k=1.0), normal(IMAGE), []),
    (ops.Dropout(rate=0.5, active=True, scaling="kept"), [*normal((2, 4)), ROWS > 1], []),
    *((op, *arrays(op, 1)) for op in (SIMPLE, LSTM, GRU)),
    (PLAIN, normal((2, 3, 4), (2, 5, 4), (2, 5, 3)), []),
    (HEADS, normal((2, 3, 4), (2, 5, 4), (2, 5, 4)), [*MATRICES, *normal((4,), (4,), (4,), (4,))]),
    (ops.Reduce(kind="mean", masked=False, **REDUCTION), normal((3, 4)), []),
    (ops.Extremum(kind="max", tie="first", **REDUCTION), [distinct(np.random.default_rng(0), (3, 4))], []),
    (
        ops.Deviation(kind="standard_deviation", ddof=1, epsilon=0.0, slope_at_zero="zero", **REDUCTION),
        normal((3, 4)),
        [],
    ),
    (ops.Norm(power=2.0, epsilon=0.0, slope_at_zero="zero", **REDUCTION), normal((3, 4)), []),
    (ops.UnitNorm(axes=(1,), epsilon=0.1, epsilon_placement="inside"), normal((3, 4)), []),
    (ops.LogSumExp(**REDUCTION), normal((3, 4)), []),
    (ops.SoftmaxOver(axes=(1,), log=False), normal((3, 4)), []),
    (maximum(), [distinct(np.random.default_rng(0), IMAGE)], []),
    (average(), normal(IMAGE), []),
    (ops.LpPool(power=2.0, size=(2, 2), stride=(2, 2), ceil_mode=False), normal(IMAGE), []),
    (ops.AdaptivePool(kind="mean", size=(3, 2), tie="first"), normal(IMAGE), []),
    (resize((3, 9), (5, 6)), normal(IMAGE), []),
    (ops.Detach(), normal((3, 4)), []),
)


def test_every_kind_has_an_example() -> None:
    assert {type(op) for op, *_ in EXAMPLES} == set(LAYERS)


WRONG: tuple[Callable[[Array], Array], ...] = (
    lambda g: g * (1 + 1e-6),
    lambda g: -g,
    lambda g: g * 0,
    lambda g: g + 1e-6 * np.abs(g).max(),
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example[0]).__name__)
def test_each_gradient_planted_wrong_is_found(example: Example) -> None:
    op, inputs, parameters = example
    x = (*inputs, *parameters)
    buffers = [len(x) - 2, len(x) - 1] if isinstance(op, ops.BatchNorm) else []
    gradients = [g for part in pull_back(op, *_cotangent(example), inputs, parameters) for g in part]
    for k, g in enumerate(gradients):
        if g is not None and np.abs(g).max() > 1e-12:  # (a key's bias moves no softmax)
            for wrong in WRONG:
                with pytest.raises(AssertionError, match="analytic"):
                    check_op(op, inputs, parameters, constant=buffers, step=0.02, back=planted(k, wrong))


def _cotangent(example: Example) -> tuple[Array, Array]:
    y = apply(*example)
    return np.random.default_rng(5).normal(size=y.shape), y


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example[0]).__name__)
def test_nothing_given_is_changed(example: Example) -> None:
    op, inputs, parameters = example
    arrays = (*inputs, *parameters)
    before = [a.copy() for a in arrays]
    dy, y = _cotangent(example)
    dy_before, y_before = dy.copy(), y.copy()
    for part in pull_back(op, dy, y, inputs, parameters):
        for g in part:
            if g is not None and g.flags.writeable:
                assert not any(np.shares_memory(g, a) for a in arrays)
    for a, b in zip((*arrays, dy, y), (*before, dy_before, y_before), strict=True):
        np.testing.assert_array_equal(a, b)


# --- one changed field is another op ----------------------------------------------------------------------------

MASK = np.array([[True, False, True, True], [True, True, False, False]])
OFF: tuple[tuple[Any, dict[str, Any], list[Array], list[Array], tuple[int, ...]], ...] = (
    (ops.Affine(bias=True, kernel_axes=(0, 1)), {"bias": False}, normal((3, 4)), normal((2, 4), (2,)), (2,)),
    (plain(2, bias=True), {"bias": False}, normal(IMAGE), normal((3, 4, 2, 2), (3,)), (2,)),
    (plain_transpose(2, bias=True), {"bias": False}, normal(IMAGE), normal((4, 3, 2, 2), (3,)), (2,)),
    (layer(scale=True, offset=True), {"scale": False}, normal((3, 4)), normal((4,), (4,)), (1,)),
    (layer(scale=True, offset=True), {"offset": False}, normal((3, 4)), normal((4,), (4,)), (2,)),
    (layer(scale=True), {"scale": False}, normal((3, 4)), normal((4,)), (1,)),
    (batch(scale=True, offset=True), {"scale": False}, normal(IMAGE), normal((4,), (4,), (4,), (4,)), (1,)),
    (batch(axis=2, masked=True), {"masked": False}, [*normal((2, 4, 3)), MASK], normal((3,), (3,)), (1,)),
    (
        ops.Reduce(kind="mean", axes=(1,), keep=False, masked=True),
        {"masked": False},
        [*normal((2, 4, 3)), MASK],
        [],
        (1,),
    ),
    *(
        (replace(op, masked=True), {"masked": False}, [arrays(op, 1)[0][0], MASK], arrays(op, 1)[1], (1,))
        for op in (SIMPLE, LSTM, GRU)
    ),
    *(
        (of, {"initial": False}, *arrays(of, 1), tuple(range(1, len(arrays(of, 1)[0]))))
        for of in (replace(op, initial=True) for op in (SIMPLE, LSTM, GRU))
    ),
    (
        ops.Dropout(rate=0.5, active=True, scaling="kept"),
        {"active": False},
        [*normal((2, 4)), MASK],
        [],
        (1,),
    ),
    (
        replace(PLAIN, mask="attend"),
        {"mask": "none"},
        [*normal((1, 2, 3), (1, 4, 3), (1, 4, 3)), MASK],
        [],
        (3,),
    ),
    (
        replace(HEADS, mask="attend"),
        {"mask": "none"},
        [*normal((1, 2, 4), (1, 4, 4), (1, 4, 4)), MASK],
        [*MATRICES, *normal((4,), (4,), (4,), (4,))],
        (3,),
    ),
    (
        HEADS,
        {"bias": False},
        normal((1, 2, 4), (1, 4, 4), (1, 4, 4)),
        [*MATRICES, *normal((4,), (4,), (4,), (4,))],
        (7, 8, 9),
    ),
    (
        HEADS,
        {"out_bias": False},
        normal((1, 2, 4), (1, 4, 4), (1, 4, 4)),
        [*MATRICES, *normal((4,), (4,), (4,), (4,))],
        (10,),
    ),
)


@pytest.mark.parametrize(
    ("op", "changes", "inputs", "parameters", "unused"),
    OFF,
    ids=[f"{type(op).__name__}-{next(iter(c))}" for op, c, *_ in OFF],
)
def test_what_an_op_does_not_use_has_no_effect(
    op: Any, changes: dict[str, Any], inputs: list[Array], parameters: list[Array], unused: tuple[int, ...]
) -> None:
    """The result and the gradients are those without the arrays; those of the arrays are 0, or None for a mask."""
    off = replace(op, **changes)
    given = [*inputs, *parameters]
    kept_inputs = [a for k, a in enumerate(inputs) if k not in unused]
    kept = [a for k, a in enumerate(parameters, len(inputs)) if k not in unused]
    y = apply(off, inputs, parameters)
    np.testing.assert_array_equal(y, apply(off, kept_inputs, kept))
    assert not np.allclose(y, apply(op, inputs, parameters))
    with_all = [g for part in pull_back(off, y, y, inputs, parameters) for g in part]
    without = iter([g for part in pull_back(off, y, y, kept_inputs, kept) for g in part])
    assert len(with_all) == len(given)
    for k, (g, a) in enumerate(zip(with_all, given, strict=True)):
        if k in unused:
            assert g is None if a.dtype == bool else g is not None and not g.any()
        else:
            np.testing.assert_array_equal(g, next(without))  # type: ignore[arg-type]


# --- whole networks ---------------------------------------------------------------------------------------------

CROSS_ENTROPY = CategoricalCrossEntropy(
    reads="logits", sparse=True, fused=False, clip_probability=0.0, renormalize="none", reduction="mean"
)
SQUARES = MeanSquaredError(reduction="mean")
SWISH = SMOOTH_BUT["swish"][0]

NETWORKS: dict[str, tuple[tuple[tuple[Any, ...], ...], Any, Array, Array, dict[str, Array]]] = {
    "convolutional": (
        (
            ("z1", plain(2, padding=((1, 1), (1, 1)), bias=True), (), ("W1", "b1")),
            ("n1", batch(scale=True, offset=True), (), ("scale", "offset", "mean", "variance")),
            ("a1", SWISH),
            ("s1", ops.Combine(kind="add", tie="first"), ("a1", "z1")),
            ("p1", average()),
            ("f1", ops.Flatten(start=1, order=(1, 2, 0))),
            ("z2", ops.Affine(bias=True, kernel_axes=(0, 1)), (), ("W2", "b2")),
        ),
        CROSS_ENTROPY,
        np.random.default_rng(0).normal(size=(4, 2, 4, 4)),
        np.array([0, 2, 1, 1]),
        {
            "W1": np.random.default_rng(1).normal(size=(3, 2, 3, 3)) * 0.4,
            "b1": np.zeros(3),
            "scale": np.array([1.0, 0.5, 1.5]),
            "offset": np.array([0.1, 0.2, 0.3]),
            "mean": np.zeros(3),
            "variance": np.ones(3),
            "W2": np.random.default_rng(2).normal(size=(3, 12)) * 0.4,
            "b2": np.zeros(3),
        },
    ),
    "recurrent": (
        (
            ("h", replace(GRU, biases=1), (), ("W", "U", "b")),
            ("y", PLAIN, ("h", "h", "h")),
            ("last", ops.Slice(axis=1, start=-1, stop=None, step=1, squeeze=True)),
            ("out", Dense(units=1), (), ("V", "c")),
        ),
        SQUARES,
        np.random.default_rng(0).normal(size=(4, 5, 3)),
        np.random.default_rng(1).normal(size=(4, 1)),
        {
            "W": np.random.default_rng(1).normal(size=(6, 3)) * 0.6,
            "U": np.random.default_rng(2).normal(size=(6, 2)) * 0.6,
            "b": np.zeros(6),
            "V": np.array([[0.5, -0.7]]),
            "c": np.zeros(1),
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks(name: str) -> None:
    wired, loss, x, y, parameters = NETWORKS[name]
    nodes = tuple(
        Node(name=n, op=op, inputs=rest[0] if rest else (), parameters=rest[1] if len(rest) > 1 else ())
        for n, op, *rest in wired
    )
    case = case_of(nodes, loss=loss)
    layout = layout_of(case, x.shape, shapes(case, x, parameters))
    tensors = tensors_of(case, layout, x.shape, y.shape, np.dtype("float64"))
    tensors.x[...], tensors.y[...] = x, y
    run = [forward(case, tensors), backward(case, tensors)]

    def loss_at(flat: Array) -> float:
        start = 0
        for key, value in parameters.items():
            tensors.parameters[key][...] = flat[start : start + value.size].reshape(value.shape)
            start += value.size
        for call in run[0]:
            call()
        return float(tensors.loss)

    point = np.concatenate([value.ravel() for value in parameters.values()])
    assert math.isfinite(loss_at(point))
    for call in run[1]:
        call()
    analytic = np.concatenate([tensors.gradients[key].ravel() for key in parameters])
    own = np.concatenate([np.full(v.size, key not in ("mean", "variance")) for key, v in parameters.items()])
    assert not analytic[~own].any()  # training does not read the moving statistics

    def loss_of(values: Array) -> float:
        whole = point.copy()
        whole[own] = values
        return loss_at(whole)

    assert_gradient(loss_of, point[own], analytic[own], step=0.02)
