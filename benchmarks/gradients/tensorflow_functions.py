"""tf.custom_gradient as its users write it: closures, variables, tf.function, gathered rows, tuples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.gradients import Subject, fixed, item
from benchmarks.gradients.data import apart, integers, normal

X, Y = normal(3, 4), normal(3, 4, seed=1)
TABLE, WORDS = normal(5, 3), integers(2, 4, below=5)
IMAGE, KERNEL = normal(1, 5, 5, 2), normal(3, 3, 2, 2, seed=1)

Gradient = Callable[..., Any]


@tf.custom_gradient
def log1pexp(x: Any) -> tuple[Any, Gradient]:
    """The example of TensorFlow's own documentation."""
    e = tf.exp(x)
    return tf.math.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))


@tf.custom_gradient
def log1pexp_unstable(x: Any) -> tuple[Any, Gradient]:
    return tf.math.softplus(x), lambda upstream: upstream * tf.exp(x) / (1 + tf.exp(x))


@tf.custom_gradient
def clipped(x: Any) -> tuple[Any, Gradient]:
    """Gradient clipping as a layer, announced or not."""
    return tf.identity(x), lambda upstream: tf.clip_by_value(upstream, -0.1, 0.1)


@tf.custom_gradient
def by_norm(x: Any) -> tuple[Any, Gradient]:
    return tf.sin(x), lambda upstream: tf.clip_by_norm(upstream * tf.cos(x), 0.5)


@tf.custom_gradient
def rounded(x: Any) -> tuple[Any, Gradient]:
    return tf.round(x), lambda upstream: upstream


@tf.custom_gradient
def gathered(table: Any, words: Any) -> tuple[Any, Gradient]:
    def gradient(upstream: Any) -> tuple[Any, None]:
        flat = tf.reshape(upstream, (-1, tf.shape(table)[1]))
        return tf.math.unsorted_segment_sum(flat, tf.reshape(words, (-1,)), tf.shape(table)[0]), None

    return tf.gather(table, words), gradient


@tf.custom_gradient
def gathered_sparsely(table: Any, words: Any) -> tuple[Any, Gradient]:
    def gradient(upstream: Any) -> tuple[Any, None]:
        flat = tf.reshape(upstream, (-1, table.shape[1]))
        return tf.IndexedSlices(flat, tf.reshape(words, (-1,)), tf.shape(table)), None

    return tf.gather(table, words), gradient


@tf.custom_gradient
def gathered_overwritten(table: Any, words: Any) -> tuple[Any, Gradient]:
    def gradient(upstream: Any) -> tuple[Any, None]:
        flat = tf.reshape(upstream, (-1, tf.shape(table)[1]))
        return tf.tensor_scatter_nd_update(tf.zeros_like(table), tf.reshape(words, (-1, 1)), flat), None

    return tf.gather(table, words), gradient


def convolution(padding: Any, gradient_padding: Any, flip: bool = False) -> Callable[..., Any]:
    @tf.custom_gradient
    def convolved(x: Any, k: Any) -> tuple[Any, Gradient]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            kernel = tf.reverse(k, [0, 1]) if flip else k
            dx = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(x), 1, gradient_padding)
            return dx, kernel_gradient(x, k, upstream, padding)

        return tf.nn.conv2d(x, k, 1, padding), gradient

    return convolved


def kernel_gradient(x: Any, k: Any, upstream: Any, padding: str) -> Any:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=tf.shape(k), out_backprop=upstream, strides=[1, 1, 1, 1], padding=padding
    )


def pooling(shift: int) -> Callable[..., Any]:
    """Maximum over pairs of a row; the index of the larger one moved by `shift`."""

    @tf.custom_gradient
    def pooled(x: Any) -> tuple[Any, Gradient]:
        pairs = tf.reshape(x, (3, 2, 2))
        index = tf.math.floormod(tf.argmax(pairs, axis=-1) + shift, 2)

        def gradient(upstream: Any) -> Any:
            return tf.reshape(upstream[..., None] * tf.one_hot(index, 2, dtype=upstream.dtype), (3, 4))

        return tf.reduce_max(pairs, axis=-1), gradient

    return pooled


def remembered() -> Callable[..., Any]:
    """A tf.Variable holds the first call's activation."""
    kept: dict[str, Any] = {}

    @tf.custom_gradient
    def layer(x: Any) -> tuple[Any, Gradient]:
        kept.setdefault("x", tf.identity(x))
        return tf.tanh(x), lambda upstream: upstream * (1 - tf.tanh(tf.cast(kept["x"], upstream.dtype)) ** 2)

    return layer


@tf.function
def in_a_graph(x: Any) -> Any:
    return log1pexp(x)


def scaled_by_variable(half: bool) -> Callable[..., Any]:
    scale = tf.Variable(tf.constant(1.5, tf.float64))

    @tf.custom_gradient
    def layer(x: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any, variables: Any = None) -> Any:
            s = tf.cast(scale, x.dtype)
            dscale = tf.cast(tf.reduce_sum(upstream * tf.sin(x)), scale.dtype)
            dx = upstream * s * tf.cos(x)
            return (0.5 * dx if half else dx), [dscale for _ in variables or []]

        return tf.cast(scale, x.dtype) * tf.sin(x), gradient

    return layer


@tf.custom_gradient
def moments(x: Any) -> tuple[Any, Gradient]:
    mean, variance = tf.nn.moments(x, axes=[1])

    def gradient(dmean: Any, dvariance: Any) -> Any:
        return dmean[:, None] / 4 + dvariance[:, None] * (x - mean[:, None]) / 2

    return (mean, variance), gradient


@tf.custom_gradient
def moments_with_the_mean_detached(x: Any) -> tuple[Any, Gradient]:
    mean, variance = tf.nn.moments(x, axes=[1])
    return (mean, variance), lambda dmean, dvariance: dvariance[:, None] * (x - mean[:, None]) / 2


@tf.custom_gradient
def second_order(x: Any) -> tuple[Any, Gradient]:
    """TensorFlow's nested pattern: the gradient's own gradient is given by hand too, here without its 6."""

    @tf.custom_gradient
    def slope(u: Any) -> tuple[Any, Gradient]:
        return 3 * u**2, lambda upstream: upstream * u

    return x**3, lambda upstream: upstream * slope(x)


@tf.custom_gradient
def raises(x: Any) -> tuple[Any, Gradient]:
    return tf.sin(x), lambda upstream: tf.matmul(upstream, tf.cos(x))


@tf.custom_gradient
def noisy(x: Any) -> tuple[Any, Gradient]:
    return tf.tanh(
        x
    ), lambda upstream: upstream * (1 - tf.tanh(x) ** 2) * tf.random.uniform(tf.shape(x), 0.9, 1.1, dtype=x.dtype)


@tf.custom_gradient
def minimum_of_two(x: Any, y: Any) -> tuple[Any, Gradient]:
    nearer = x < y
    return tf.minimum(x, y), lambda upstream: (
        tf.where(nearer, upstream, tf.zeros_like(upstream)),
        tf.where(nearer, tf.zeros_like(upstream), upstream),
    )


_tf = partial(fixed, "tensorflow_functions", "tensorflow")


def _same(v: Any, x: Any) -> Any:
    return v


def _clipped(v: Any, x: Any) -> Any:
    return tf.clip_by_value(v, -0.1, 0.1)


ITEMS = [
    _tf("log(1 + exp)", "ordinary", log1pexp, (X,)),
    _tf("log(1 + exp), unstable", "wrong", log1pexp_unstable, (400 * X,), "nan"),
    _tf("in a tf.function", "ordinary", in_a_graph, (X,)),
    _tf("clipped gradient, announced", "awkward", clipped, (X,), vjp=_clipped),
    _tf("clipped gradient", "wrong", clipped, (X,), "nonlinear-cotangent surrogate"),
    _tf("clipped by the norm", "wrong", by_norm, (X,), "nonlinear-cotangent"),
    _tf("rounding, announced", "awkward", rounded, (3 * X,), vjp=_same),
    _tf("rounding", "wrong", rounded, (3 * X,), "surrogate"),
    _tf("gathered rows", "ordinary", gathered, (TABLE, WORDS)),
    _tf("gathered rows, sparse gradient", "awkward", gathered_sparsely, (TABLE, WORDS)),
    _tf("gathered rows, overwritten", "wrong", gathered_overwritten, (TABLE, WORDS), "element missing-term unknown"),
    _tf("valid convolution", "ordinary", convolution("VALID", "VALID"), (IMAGE, KERNEL)),
    _tf("same convolution", "ordinary", convolution("SAME", "SAME"), (IMAGE, KERNEL)),
    _tf("convolution, other padding", "wrong", convolution("SAME", "VALID"), (IMAGE, KERNEL), "shape raises unknown"),
    _tf("convolution, flipped", "wrong", convolution("SAME", "SAME", flip=True), (IMAGE, KERNEL), "unknown"),
    _tf("pooling", "ordinary", pooling(0), (apart(3, 4),)),
    _tf("pooling, the other one", "wrong", pooling(1), (apart(3, 4),), "unknown"),
    item(
        "tensorflow_functions/first call's activation",
        "tensorflow",
        "wrong",
        lambda: Subject(function=remembered(), inputs=(X,)),
        "stale",
    ),
    _tf("variable inside", "awkward", scaled_by_variable(False), (X,)),
    _tf("variable inside, half", "wrong", scaled_by_variable(True), (X,), "factor"),
    _tf("moments", "ordinary", moments, (X,)),
    _tf("moments, mean detached", "wrong", moments_with_the_mean_detached, (X,), "zero missing-term"),
    _tf("second order by hand", "wrong", second_order, (X,), "second-order", order=2),
    _tf("raises in the backward", "wrong", raises, (X,), "raises"),
    _tf("noise in the backward", "wrong", noisy, (X,), "nondeterministic"),
    _tf("smaller of two", "ordinary", minimum_of_two, (X, Y)),
]
