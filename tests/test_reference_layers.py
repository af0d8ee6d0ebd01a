from collections.abc import Callable

import numpy as np
import pytest
from reference_checks import Array, assert_gradient, away_from_zero

from harness.case import Add, Dense, LeakyReLU, Linear, Op, Polynomial, ReLU, Sigmoid, Softmax, Tanh
from reference.layers import BACKWARD, FORWARD, derivative, logistic, polynomial_hessian, polynomial_value

Shapes = tuple[tuple[int, ...], ...]

TERMS = ((1.0, 4, 0), (-2.0, 2, 1), (0.5, 1, 3), (3.0, 0, 2), (-1.0, 0, 0))

# name: (op, output shape, input shapes, parameter shapes)
LAYERS: dict[str, tuple[Op, tuple[int, ...], Shapes, Shapes]] = {
    "dense": (Dense(units=2), (5, 2), ((5, 3),), ((2, 3), (2,))),
    "dense-square": (Dense(units=3), (5, 3), ((5, 3),), ((3, 3), (3,))),
    "dense-sequence": (Dense(units=2), (4, 3, 2), ((4, 3, 5),), ((2, 5), (2,))),
    "relu": (ReLU(), (4, 3), ((4, 3),), ()),
    "leaky_relu": (LeakyReLU(negative_slope=0.1, slope_at_zero="negative_slope"), (4, 3), ((4, 3),), ()),
    "leaky_relu-one": (LeakyReLU(negative_slope=0.1, slope_at_zero="one"), (4, 3), ((4, 3),), ()),
    "sigmoid": (Sigmoid(), (4, 3), ((4, 3),), ()),
    "tanh": (Tanh(), (4, 3), ((4, 3),), ()),
    "softmax": (Softmax(), (4, 3), ((4, 3),), ()),
    "linear": (Linear(), (4, 3), ((4, 3),), ()),
    "add": (Add(), (4, 3), ((4, 3), (4, 3)), ()),
    "add-broadcast": (Add(), (4, 3), ((4, 1), (4, 3), (1, 3)), ()),
    "add-rank": (Add(), (2, 4, 3), ((4, 3), (2, 4, 3), (3,)), ()),
    "polynomial": (Polynomial(terms=TERMS, points=3), (3,), (), ((3, 2),)),
}


def check_backward(name: str, backward: Callable[..., object]) -> None:
    """dL/d(input) and dL/d(parameter) for L = Σ dy * y with random dy, against differences of the forward function."""
    op, output, inputs, parameters = LAYERS[name]
    rng = np.random.default_rng(3)
    arrays = [away_from_zero(rng, shape) for shape in (*inputs, *parameters)]
    y, dy = np.zeros(output), rng.normal(size=output)

    def scalar(flat: Array) -> float:
        out, ends = np.zeros(output), np.cumsum([a.size for a in arrays])[:-1]
        parts = [part.reshape(a.shape) for part, a in zip(np.split(flat, ends), arrays, strict=True)]
        FORWARD[type(op)](op, out, *parts)
        return float((dy * out).sum())

    FORWARD[type(op)](op, y, *arrays)
    gradients = [np.full_like(a, np.nan) for a in arrays]
    backward(op, dy, y, *arrays, *gradients)
    assert_gradient(scalar, np.concatenate([a.ravel() for a in arrays]), np.concatenate([g.ravel() for g in gradients]))


@pytest.mark.parametrize("name", LAYERS)
def test_backward_agrees_with_differences(name: str) -> None:
    check_backward(name, BACKWARD[type(LAYERS[name][0])])


def test_every_layer_is_checked() -> None:
    assert {type(op) for op, *_ in LAYERS.values()} == set(FORWARD) == set(BACKWARD)


def scaled(gradient: int, factor: float) -> Callable[..., Callable[..., None]]:
    def plant(backward: Callable[..., object]) -> Callable[..., None]:
        def wrong(op: Op, *arrays: Array) -> None:
            backward(op, *arrays)
            arrays[gradient][...] *= factor

        return wrong

    return plant


def dense_transposed(
    op: Dense, dz: Array, z: Array, x: Array, W: Array, b: Array, dx: Array, dW: Array, db: Array
) -> None:
    BACKWARD[Dense](op, dz, z, x, W, b, dx, dW, db)
    dx[...] = dz @ W.T


def dense_transposed_gradient(op: Dense, *arrays: Array) -> None:
    BACKWARD[Dense](op, *arrays)
    arrays[-2][...] = arrays[-2].T.copy()


def dense_without_batch_sum(op: Dense, *arrays: Array) -> None:
    BACKWARD[Dense](op, *arrays)
    arrays[-1][...] = arrays[0][-1]


def add_without_broadcast_sum(op: Add, ds: Array, s: Array, *arrays: Array) -> None:
    BACKWARD[Add](op, ds, s, *arrays)
    arrays[3][...] = ds[:, :1]


def relu_without_mask(op: ReLU, da: Array, a: Array, z: Array, dz: Array) -> None:
    dz[...] = da


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, scaled(-1, 1.001)(BACKWARD[type(layer[0])])) for name, layer in LAYERS.items()),
        *((name, scaled(-1, -1.0)(BACKWARD[type(layer[0])])) for name, layer in LAYERS.items()),
        ("dense", scaled(-2, 1 + 1e-6)(BACKWARD[Dense])),
        ("dense-square", dense_transposed),
        ("dense-square", dense_transposed_gradient),
        ("dense", dense_without_batch_sum),
        ("add-broadcast", add_without_broadcast_sum),
        ("relu", relu_without_mask),
    ],
)
def test_check_finds_planted_mistakes(name: str, wrong: Callable[..., object]) -> None:
    with pytest.raises(AssertionError, match="analytic"):
        check_backward(name, wrong)


def test_data_needs_no_gradient() -> None:
    dW, db = np.zeros((2, 3)), np.zeros(2)
    x, W, dz = np.ones((4, 3)), np.ones((2, 3)), np.ones((4, 2))
    BACKWARD[Dense](Dense(units=2), dz, dz, x, W, db, None, dW, db)
    np.testing.assert_array_equal(dW, np.full((2, 3), 4))
    np.testing.assert_array_equal(db, [4, 4])


@pytest.mark.parametrize(
    ("op", "slope"),
    [
        (ReLU(), 0.0),
        (LeakyReLU(negative_slope=0.25, slope_at_zero="negative_slope"), 0.25),
        (LeakyReLU(negative_slope=0.25, slope_at_zero="one"), 1.0),
    ],
)
def test_derivative_at_zero_and_its_replacement(op: Op, slope: float) -> None:
    z, da = np.array([-2.0, 0.0, 0.0, 3.0]), np.array([5.0, 7.0, 7.0, 11.0])
    ordinary, replaced = np.zeros(4), np.zeros(4)
    BACKWARD[type(op)](op, da, z, z, ordinary)
    BACKWARD[type(op)](op, da, z, z, replaced, slopes=np.array([np.nan, np.nan, 0.5, np.nan]))
    np.testing.assert_array_equal(ordinary[1:], [7 * slope, 7 * slope, 11])
    np.testing.assert_array_equal(replaced, [ordinary[0], 7 * slope, 3.5, 11])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_sigmoid_and_softmax_do_not_overflow(dtype: type) -> None:
    z = np.array([-2000.0, -50.0, 0.0, 50.0, 2000.0], dtype)
    p = np.zeros((1, 5), dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        a = logistic(z)
        FORWARD[Softmax](Softmax(), p, z[None])
    assert a.dtype == dtype
    assert a[0] == 0 or a[0] < np.finfo(dtype).tiny or dtype is np.longdouble
    assert (a[2], a[4]) == (0.5, 1)
    assert a[1] == pytest.approx(np.exp(dtype(-50)), rel=4 * float(np.finfo(dtype).eps), abs=0)
    assert p[0, 4] == 1


def test_polynomial_hessian_is_the_gradient_of_the_gradient() -> None:
    W = np.array([[0.3, -0.7], [1.1, 0.4]])
    H = polynomial_hessian(TERMS, W)
    for point, hessian in zip(W, H, strict=True):
        for axis in (0, 1):
            terms = derivative(TERMS, axis)
            assert_gradient(lambda w, terms=terms: float(polynomial_value(terms, w[None])[0]), point, hessian[axis])
