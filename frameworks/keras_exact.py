"""TensorFlow as a float64 run needs it: constants from the numbers typed, and kernels that it does not have."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import dtypes as keras_dtypes
from keras.src.backend.tensorflow import numpy as keras_numpy
from tensorflow.python.ops import gen_nn_ops, math_ops

FLOATS = ("bfloat16", "float16", "float32", "float64")


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """What user code and Keras make as float32 through TensorFlow's public names is float64, from the number typed.

    `tf.cast(0.999, "float64")` is 0.9990000128746033, for a Python float becomes a float32 tensor first; with it Adam's
    bias correction, penalties and schedules would carry float32 in a float64 run. `tf.nn.leaky_relu` keeps its slope in
    a float32 attribute of the operation. Pooling in three dimensions has no float64 kernel on CPU. Keras' `signbit`,
    which its `argmax` needs, reads the bits of a float32 (keras 3.15: backend/tensorflow/numpy.py).
    """
    names = ("cast", "constant", "convert_to_tensor", "zeros", "ones", "zeros_like", "ones_like", "eye", "range")
    patches = [(tf, name, _wide(getattr(tf, name))) for name in (*names, "one_hot", "sequence_mask")]
    patches += [(tf.random, name, _wide(getattr(tf.random, name))) for name in ("normal", "uniform")]
    patches += [(math_ops, "cast", _exact_cast(math_ops.cast)), (tf.nn, "leaky_relu", _leaky_relu)]
    patches += [(keras_numpy, "signbit", _signbit)]
    patches += [(keras_dtypes, "_resolve_weak_type", _weak_integers(keras_dtypes._resolve_weak_type))]
    patches += [(gen_nn_ops, f"{kind}_pool3d", _pool3d(getattr(tf.nn, f"{kind}_pool2d"))) for kind in ("max", "avg")]
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    try:
        for module, name, function in patches:
            setattr(module, name, function)
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def _wide(function: Callable[..., Any]) -> Callable[..., Any]:
    signature, exact = inspect.signature(function), function.__name__ == "cast"
    function = _exact_cast(function) if exact else function

    @functools.wraps(function)
    def wide(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        dtype = given.arguments["dtype"]
        if dtype is not None and tf.as_dtype(dtype).name in FLOATS:
            given.arguments["dtype"] = tf.float64
        elif dtype is None and not any(tf.is_tensor(value) or _is_keras(value) for value in given.args[:1]):
            made = function(*given.args, **given.kwargs)
            if made.dtype != tf.float32:
                return made
            given.arguments["dtype"] = tf.float64
        elif dtype is None and function.__name__ == "one_hot":  # its default is float32
            given.arguments["dtype"] = tf.float64
        return function(*given.args, **given.kwargs)

    return wide


def _is_keras(value: Any) -> bool:
    return isinstance(value, keras.Variable | keras.KerasTensor)


def _exact_cast(cast: Callable[..., Any]) -> Callable[..., Any]:
    constant = tf.constant  # the unpatched one

    @functools.wraps(cast)
    def exact(x: Any, dtype: Any, name: str | None = None) -> Any:
        if isinstance(x, int | float | list | tuple) and tf.as_dtype(dtype).is_floating and not _holds_tensors(x):
            numbers = np.asarray(x)
            if numbers.dtype.kind in "if":
                return constant(numbers, dtype)
        return cast(x, dtype, name)

    return exact


def _holds_tensors(x: Any) -> bool:
    return any(tf.is_tensor(value) or _is_keras(value) for value in tf.nest.flatten(x))


def _weak_integers(resolve: Callable[[str, str], str]) -> Callable[[str, str], str]:
    """Python integers stay int32 under a floatx of 64 bits (keras 3.15: backend/common/dtypes.py), as the user has them
    beside other int32."""

    @functools.wraps(resolve)
    def weak(dtype: str, precision: str) -> str:
        found = resolve(dtype, precision)
        return resolve(dtype, "32") if "int" in found else found

    return weak


def _signbit(x: Any) -> Any:
    x = tf.convert_to_tensor(x)
    if not x.dtype.is_floating:
        return x < 0 if x.dtype.is_integer else tf.zeros_like(x)
    return tf.bitcast(tf.cast(x, tf.float64), tf.int64) < 0


def _leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Any:
    return tf.where(features > 0, features, alpha * features)


def _pool3d(pool2d: Callable[..., Any]) -> Callable[..., Any]:
    """Over height and width, then over depth: as one window, for a mean too (of `SAME`'s padding nothing is counted).

    ksize and strides (5,), as tensorflow/python/ops/nn_ops.py hands them on (tensorflow 2.21).
    """

    def pool(input: Any, ksize: Any, strides: Any, padding: str, data_format: str = "NDHWC", name: Any = None) -> Any:
        if data_format == "NCDHW":
            input, window, steps = tf.transpose(input, (0, 2, 3, 4, 1)), (*ksize[1:], 1), (*strides[1:], 1)
            return tf.transpose(pool(input, window, steps, padding), (0, 4, 1, 2, 3))
        batch, depth, *plane = _sizes(input)
        planes = pool2d(tf.reshape(input, [batch * depth, *plane]), ksize[2:4], strides[2:4], padding)
        _, height, width, channels = _sizes(planes)
        columns = tf.reshape(planes, [batch, depth, height * width, channels])
        pooled = pool2d(columns, (ksize[1], 1), (strides[1], 1), padding)
        return tf.reshape(pooled, [batch, _sizes(pooled)[1], height, width, channels], name)

    return pool


def _sizes(tensor: Any) -> list[Any]:
    found = tf.shape(tensor)
    return [found[i] if size is None else size for i, size in enumerate(tensor.shape)]
