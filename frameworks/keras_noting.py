"""Notes of what makes each tensor while a Keras model is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from frameworks.keras_functions import name_of
from frameworks.keras_recording import Tensor

Observe = Callable[[Any, Any, Any, Any], None]

_BINARY = ("add", "sub", "mul", "truediv", "pow", "matmul")
_OPERATORS = {f"__{name}__": getattr(operator, name) for name in (*_BINARY, "neg", "getitem")}
_REVERSED = {f"__r{name}__": getattr(operator, name) for name in _BINARY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A call, its results in order, and which elements a dropout kept. masked: an argument bears a Keras mask."""

    made: Any
    args: Any
    kwargs: Any
    results: list[Tensor]
    masked: bool
    kept: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Those given."""
        return [leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if tf.is_tensor(leaf)]


class Notes:
    """What made each tensor: what did first, where several handed it on; and the outermost, whose it is."""

    def __init__(self, inside: Callable[[], Any], known: Collection[str]) -> None:
        """inside: the innermost layer that is being called. known: functions to be noted, by Keras's names."""
        self.made: dict[int, Note] = {}
        self.outermost: dict[int, Note] = {}
        self._inside, self._known, self._within = inside, known, False

    def observe(self, made: Any, args: Any, kwargs: Any, result: Any) -> None:
        results = [leaf for leaf in keras.tree.flatten(result) if tf.is_tensor(leaf)]
        given = [leaf for leaf in keras.tree.flatten((args, kwargs)) if tf.is_tensor(leaf)]
        old = {*self.made, *map(id, given)}  # handed on as it is
        new = [tensor for tensor in results if id(tensor) not in old]
        if isinstance(made, keras.layers.MultiHeadAttention):  # its last projection is its own
            new.append(results[0])
        shown = [tensor for tensor in results if id(tensor) not in map(id, given)]
        if isinstance(made, keras.Model) or not shown:  # a model is no more than its layers
            return
        note = Note(
            made=made,
            args=args,
            kwargs=kwargs,
            results=results,
            masked=any(getattr(tensor, "_keras_mask", None) is not None for tensor in given),
            kept=_kept(made, given[0]) if isinstance(made, keras.layers.Dropout) else None,
        )
        self.made.update({id(tensor): note for tensor in new})
        self.outermost.update({id(tensor): note for tensor in shown})

    @contextlib.contextmanager
    def functions(self) -> Iterator[None]:
        """Functions and operators in the user's own code are noted; those inside Keras's layers are the layers' own."""
        tensors: Any = tf.Tensor
        patches = [
            (module, name, self._noted(function, function)) for module, name, function in _functions(self._known)
        ]
        for methods, flipped in ((_OPERATORS, False), (_REVERSED, True)):
            for name, function in methods.items():
                patches.append((tensors, name, self._noted(getattr(tensors, name), function, flipped)))
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
        try:
            for owner, name, function in patches:
                setattr(owner, name, function)
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)

    def _noted(self, call: Callable[..., Any], function: Any, flipped: bool = False) -> Callable[..., Any]:
        @functools.wraps(call)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if self._within or _of_keras(self._inside()):
                return call(*args, **kwargs)
            self._within = True
            try:
                result = call(*args, **kwargs)
            finally:
                self._within = False
            self.observe(function, args[::-1] if flipped else args, kwargs, result)
            return result

        return noted


def _functions(names: Collection[str]) -> list[tuple[Any, str, Any]]:
    """The public functions that a reader knows, where users find them."""
    prefixes = ("keras.", "keras._tf_keras.keras.")
    modules = [sys.modules.get(prefix + name) for prefix in prefixes for name in ("ops", "activations", "ops.image")]
    found = [module for module in (*modules, tf, tf.nn, tf.math, tf.image, tf.linalg) if module is not None]
    pairs = [(module, name, getattr(module, name)) for module in found for name in dir(module) if name[0] != "_"]
    known = {*names} - {"linear"}  # by which layers without an activation are told
    return [triple for triple in pairs if inspect.isfunction(triple[2]) and name_of(triple[2]) in known]


def _of_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.layers.Lambda)


def _kept(layer: Any, x: Tensor) -> Tensor | None:
    """Which elements a dropout has just kept: the same draw, of ones (keras 3.15: random/seed_generator.py, next)."""
    if not hasattr(layer, "seed_generator"):
        return None
    state = layer.seed_generator.state
    state.assign(state.value - tf.constant([0, 1], state.dtype))
    return layer.call(tf.ones_like(x), training=True) != 0
