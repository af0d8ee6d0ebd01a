"""A user's Keras objects at a precision: own values in the very same objects, for the time of a call.

Not copied but swapped: lambdas, closures and custom objects without a config keep pointing at the same layers and
variables, whose contents are ours within `Copy.in_place` and the user's again behind it.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import zip_longest
from types import CodeType, FunctionType, MethodType
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context

from frameworks.holding import Contents, Global, Holders, container_kind, contents_of
from frameworks.keras_exact import FLOATS, exact
from harness.case import Precision
from harness.widening import Widen

_tensor = tf.convert_to_tensor  # the unpatched one; what reads rows has gradients of rows
_DTYPE_NAMES = ("_dtype", "dtype", "_compute_dtype", "_variable_dtype")
_FOREIGN = {*sys.stdlib_module_names, "tensorflow", "numpy", "torch", "jax", "jaxlib", "absl", "google", "pandas"} - {
    "__main__"
}


class Copy:
    """All that is reachable from `roots`, with own contents: floats all float64, or as they are; the rest as it is."""

    def __init__(self, roots: list[Any], precision: Precision, wide: bool, widen: Widen) -> None:
        """wide: the user's model is float64 itself, so that float32 means narrowing all of it. widen: makes float64 of
        what is held in float32 beside variables."""
        self.precision: Precision = precision
        self._widen = widen
        self._changed = FLOATS if precision == "float64" else ("float64",) if wide else ()
        self._leaves: dict[int, tuple[Any, Any]] = {}
        self._places: list[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = []
        self._seen: dict[int, Any] = {}
        self._queue = deque(roots)
        seeds = global_state.get_global_attribute("global_seed_generator")
        self._queue.extend([seeds] if seeds is not None else [])
        while self._queue:
            self._visit(self._queue.popleft())
        self._holders = Holders([holder for holder, _, _ in self._places])
        self._contents = Contents(*([place[i] for place in self._places] for i in (1, 2)))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The user's objects hold our contents; theirs come back in the end, also after an error."""
        users = self._holders.read()
        with _settings(self.precision):
            try:
                self._holders.write(self._contents, users)
                yield
            finally:
                self._contents = self._holders.read()
                self._holders.write(users, self._contents)

    def dtype(self, name: str) -> str:
        """What a dtype of the user's is here."""
        return self.precision if name in self._changed else name

    def _visit(self, value: Any) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        kind = type(value)
        if kind is FunctionType:
            self._visit_function(value)
        elif kind is MethodType:
            self._queue.extend((value.__self__, value.__func__))
        elif kind is functools.partial:
            self._queue.extend((value.func, value.args, value.keywords))
        elif kind.__name__ in ("_DictWrapper", "_TupleWrapper"):  # tensorflow/python/trackable/data_structures.py
            self._queue.append(value.__wrapped__)
        elif isinstance(value, tuple):
            self._queue.extend(value)
        elif isinstance(value, property | staticmethod | classmethod):
            self._queue.append(getattr(value, "fget", None) or getattr(value, "__func__", None))
        elif hasattr(kind, "python_function"):  # a tf.function
            self._queue.append(value.python_function)
        else:
            if container_kind(value):
                self._hold(value, lambda key, item: self._own(item))
            foreign = kind.__module__.partition(".")[0] in _FOREIGN
            if hasattr(value, "__dict__") and not isinstance(value, type) and (not foreign or container_kind(value)):
                self._hold(vars(value), self._own_attribute)
                for base in kind.__mro__:
                    self._queue.extend(member for member in vars(base).values() if _is_code(member))

    def _visit_function(self, function: FunctionType) -> None:
        """What a user's function reads: its closure, its defaults, and the globals that it names."""
        if function.__module__ is None or function.__module__.partition(".")[0] in {*_FOREIGN, "keras"}:
            return
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not yet filled
                self._patch(cell, cell.cell_contents)
        self._queue.append(function.__defaults__ or ())
        for name in _names(function.__code__) & function.__globals__.keys():
            self._patch(Global(function.__globals__, name), function.__globals__[name])

    def _patch(self, place: Any, value: Any) -> None:
        own = self._own(value)
        if own is not value:
            self._places.append((place, (), (own,)))

    def _hold(self, place: Any, own: Callable[[Any, Any], Any]) -> None:
        keys, values = contents_of(place)
        self._places.append((place, keys, tuple(own(key, value) for key, value in zip_longest(keys, values))))

    def _own_attribute(self, name: str, value: Any) -> Any:
        return self.dtype(value) if name in _DTYPE_NAMES and isinstance(value, str) else self._own(value)

    def _own(self, value: Any) -> Any:
        """The value at this precision if it is one; otherwise itself, and what it holds is visited later."""
        if id(value) in self._leaves:
            return self._leaves[id(value)][1]
        if isinstance(value, keras.DTypePolicy | keras.dtype_policies.DTypePolicyMap):
            same = value.quantization_mode is not None or self.dtype(value.compute_dtype) == value.compute_dtype
            same = same and self.dtype(value.variable_dtype) == value.variable_dtype
            own = value if same else keras.DTypePolicy(self.dtype(value.compute_dtype))
        elif isinstance(value, tf.DType):
            own = tf.as_dtype(self.dtype(value.name))
        elif isinstance(value, tf.Variable):
            own = self._variable(value)
        elif isinstance(value, np.ndarray | tf.Tensor) and (isinstance(value, np.ndarray) or hasattr(value, "numpy")):
            own = self._array(value)
        elif type(value) is tuple or (isinstance(value, tuple) and hasattr(value, "_fields")):
            items = [self._own(item) for item in value]
            changed = any(a is not b for a, b in zip(items, value, strict=True))
            own = (tuple(items) if type(value) is tuple else type(value)(*items)) if changed else value
            return own  # the items are remembered themselves
        else:
            if value is not None and not isinstance(value, str | bytes | int | float | complex | type):
                self._queue.append(value)
            return value
        self._leaves[id(value)] = value, own
        return own

    def _variable(self, variable: tf.Variable) -> tf.Variable:
        dtype = self.dtype(variable.dtype.name)
        value: Any = variable.numpy().astype(dtype) if dtype in FLOATS else variable.value()
        own: Any = tf.Variable(value, dtype=dtype, trainable=variable.trainable, name=variable.name.partition(":")[0])
        # Keras optimizers find a variable's slots, and its exclusion from weight decay, by this id (keras 3.15:
        # backend/tensorflow/optimizer.py, _var_key).
        own._unique_id = variable._unique_id
        return own

    def _array(self, value: Any) -> Any:
        name = value.dtype.name
        if self.dtype(name) == name:
            return value.copy() if isinstance(value, np.ndarray) and value.dtype != object else value
        numbers = value if isinstance(value, np.ndarray) else value.numpy()
        own = self._widen(numbers) if name == "float32" else numbers.astype(self.dtype(name))
        return own if isinstance(value, np.ndarray) else tf.constant(own, self.dtype(name))


def plain(value: Any) -> np.ndarray:
    """In memory of its own; what is stored in less than float32 as float32, for NumPy has no bfloat16."""
    return np.array(value, np.float32 if value.dtype.name in FLOATS[:2] else None)


def seen(value: Any) -> np.ndarray:
    """A variable's or tensor's values, read-only and without a copy where NumPy has the type: TensorFlow writes into no
    memory that somebody else holds (tensorflow 2.21, core/kernels/training_op_helpers.h, PrepareToUpdateVariable)."""
    tensor: Any = value if isinstance(value, tf.Tensor) else _tensor(value)
    return plain(tensor.numpy()) if tensor.dtype.name in FLOATS[:2] else np.asarray(memoryview(tensor))


TYPED_DIGITS = 12
"""Nobody types more digits of a rate; a rounded one has 16 or 17."""


def shortest(number: Any) -> float:
    """What was typed before it was rounded to the number's dtype: its own decimal where that is short (2**-12), else
    the shortest decimal that rounds to it."""
    exact = repr(float(number))
    digits = exact.partition("e")[0].replace(".", "").strip("-0")
    return float(exact) if len(digits) <= TYPED_DIGITS else float(str(number))


def _is_code(member: Any) -> bool:
    kinds = FunctionType | property | staticmethod | classmethod
    return isinstance(member, kinds) or hasattr(type(member), "python_function")


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names(constant) for constant in inner))


@contextlib.contextmanager
def _settings(precision: Precision) -> Iterator[None]:
    """Keras's floatx, policy (the user's own in float32), name counters and seed, and all random states, put back.

    The compiled loss and the learning rate follow floatx whatever the model's dtype (keras 3.15: losses/loss.py;
    optimizers/base_optimizer.py). An unset policy becomes floatx at its first reading and stays so. A tf.function that
    the user's code called before holds the user's own variables: it runs as plain Python here.
    """
    floatx, eager = keras.config.floatx(), cast(Any, context.context())
    names = ("dtype_policy", "global_seed_generator", "traceback_filtering")
    attributes = {name: global_state.get_global_attribute(name) for name in names}
    counters = global_state.get_global_attribute("object_name_uids")
    counted = dict(counters or {})
    functions_eager = tf.config.functions_run_eagerly()
    states = random.getstate(), np.random.get_state(), getattr(eager, "_rng", None) and eager._rng.getstate()
    if precision == "float64" or floatx == "float64":
        keras.config.set_floatx(precision)
    policy = keras.config.dtype_policy()
    if precision == "float64" or "float64" in (policy.compute_dtype, policy.variable_dtype):
        keras.config.set_dtype_policy(precision)
    tf.config.run_functions_eagerly(True)
    keras.config.disable_traceback_filtering()  # it puts words in front of the user's errors
    try:
        with exact() if precision == "float64" else contextlib.nullcontext():
            yield
    finally:
        tf.config.run_functions_eagerly(functions_eager)
        keras.config.set_floatx(floatx)
        for name, value in attributes.items():
            global_state.set_global_attribute(name, value)
        if counters is not None:
            counters.clear()
            counters.update(counted)
        else:
            global_state.set_global_attribute("object_name_uids", None)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if states[2]:
            eager._rng.setstate(states[2])
