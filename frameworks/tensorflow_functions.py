"""A user's TensorFlow function as NumPy sees it: values and vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from frameworks.protocol import Arrays, Pullback
from harness.case import HarnessError

_NONE = tf.UnconnectedGradients.NONE


def owns(value: Any) -> bool:
    """Whether it is a tensor or a variable, Keras's variables among them."""
    return tf.is_tensor(value) or isinstance(value, tf.Variable)


def plain(value: Any) -> np.ndarray:
    """A tensor's values; bfloat16, which NumPy lacks, as float32; slices as a whole."""
    tensor = tf.convert_to_tensor(value)
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def array(value: np.ndarray) -> tf.Tensor:
    """A tensor of these values."""
    return tf.constant(value)


def differentiable(f: Callable[..., Any], inputs: Sequence[Any]) -> TensorflowFunction:
    """f, wherever TensorFlow puts it."""
    return TensorflowFunction(f)


class TensorflowFunction:
    """Satisfies `frameworks.protocol.Differentiable`. Forward mode is not offered: TensorFlow derives the products of a
    tf.custom_gradient from its backward (python/eager/forwardprop.py, 2.21), so they say nothing new."""

    strided = False

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f

    def value(self, xs: Arrays) -> Arrays:
        return tuple(plain(y) for y in _flat(self.f(*map(tf.constant, xs))))

    def apply(self, other: Callable[..., Any], arrays: Arrays) -> tuple[np.ndarray | None, ...]:
        result = other(*map(tf.constant, arrays))
        results = result if isinstance(result, tuple | list) else (result,)
        return tuple(None if r is None else plain(r) if owns(r) else np.asarray(r) for r in results)

    def pull(self, xs: Arrays) -> tuple[Arrays, Pullback]:
        inputs = [tf.constant(x) for x in xs]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x for x in inputs if _differentiable(x)])
            ys = _flat(self.f(*inputs))

        def pullback(vs: Arrays) -> tuple[np.ndarray | None, ...]:
            pairs = [(y, tf.constant(v)) for y, v in zip(ys, vs, strict=True) if _differentiable(y)]
            wanted = [x for x in inputs if _differentiable(x)]
            if not pairs or not wanted:
                return (None,) * len(inputs)
            outputs, cotangents = zip(*pairs, strict=True)
            found = iter(tape.gradient(list(outputs), wanted, list(cotangents), _NONE))
            grads = [next(found) if _differentiable(x) else None for x in inputs]
            return tuple(None if grad is None else plain(grad) for grad in grads)

        return tuple(plain(y) for y in ys), pullback

    def push(self, xs: Arrays, ds: Arrays) -> Arrays | None:
        return None

    def gradient(self, count: int) -> TensorflowFunction:
        def gradient(*args: tf.Tensor) -> list[tf.Tensor]:
            xs, vs = list(args[:count]), args[count:]
            wanted = [x for x in xs if _differentiable(x)]
            with tf.GradientTape() as tape:
                tape.watch(wanted)
                pairs = [(y, v) for y, v in zip(_flat(self.f(*xs)), vs, strict=True) if _differentiable(y)]
            outputs, cotangents = zip(*pairs, strict=True)
            found = tape.gradient(list(outputs), wanted, list(cotangents), tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(grad) for grad in found]

        return TensorflowFunction(gradient)


def _differentiable(x: tf.Tensor) -> bool:
    return x.dtype.is_floating or x.dtype.is_complex


def _flat(outputs: Any) -> list[tf.Tensor]:
    found = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    for y in found:
        if not owns(y):
            raise HarnessError(
                f"the TensorFlow function returned a {type(y).__name__}; it must be a tensor or a tuple of them"
            )
    return found
