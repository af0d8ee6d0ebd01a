"""The blocks of a Keras model's forward pass, each as the reference knows it.

While the model is called, every layer, operation, activation and function of Keras or TensorFlow that the user's code
calls is noted with its arguments and result. Behind it the notes are read, with arrays in the place of tensors.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from frameworks.keras_arithmetic import ARITHMETIC
from frameworks.keras_copies import plain
from frameworks.keras_functions import FUNCTIONS, name_of
from frameworks.keras_layers import LAYERS, ordinary
from frameworks.keras_noting import Note, Notes, Observe
from frameworks.keras_pooling import POOLING
from frameworks.keras_reading import Array, Reading, Seen, same
from frameworks.keras_recording import Names, Recorder, Tensor
from frameworks.keras_sequences import SEQUENCES
from frameworks.keras_shapes import SHAPES
from harness.calls import Call

_BY_CLASS = {**LAYERS, **SEQUENCES}
_BY_NAME = {**FUNCTIONS, **ARITHMETIC, **SHAPES, **POOLING}
_OF_SEVERAL = (*SEQUENCES.values(), SHAPES["split"])  # the others say nothing of a second result


@contextlib.contextmanager
def _kept_variables(names: Names, model: keras.Model) -> Iterator[dict[int, Array]]:
    """All that a forward pass can change, by the variable's id; it is as it was in the end."""
    states = [state for layer in names.layers for state in keras.tree.flatten(getattr(layer, "states", None) or [])]
    variables = [v for v in (*names.variables.values(), *model.variables, *states) if isinstance(v, keras.Variable)]
    before = {id(variable): plain(variable.numpy()) for variable in variables}
    try:
        yield before
    finally:
        for variable in variables:
            variable.assign(before[id(variable)])


def calls_of(
    names: Names,
    model: keras.Model,
    predict: Callable[[Observe], Recorder],
    inside: Callable[[], Any],
    wanted: Sequence[str],
) -> dict[str, Call]:
    """One forward pass, predict(observe), and the blocks of it that show the activations wanted.

    Eagerly; where that fails (some kernels are XLA's alone) from a graph.
    """
    with _kept_variables(names, model) as before:
        try:
            notes = Notes(inside, _BY_NAME)
            with notes.functions():
                recorder = predict(notes.observe)
            tensors = _tensors(notes, recorder)
            numbers = tensors
        except Exception:
            traced: list[Any] = []

            def graph() -> list[Tensor]:
                notes = Notes(inside, _BY_NAME)
                with notes.functions():
                    recorder = predict(notes.observe)
                traced[:] = notes, recorder, _tensors(notes, recorder)
                return traced[2]

            numbers = tf.function(graph, autograph=False, jit_compile=True).get_concrete_function()()
            notes, recorder, tensors = traced
        arrays = {id(tensor): _array(number) for tensor, number in zip(tensors, numbers, strict=True)}
        return _Reader(notes, recorder, names, before, arrays).calls(wanted)


def _tensors(notes: Notes, recorder: Recorder) -> list[Tensor]:
    found = {id(tensor): tensor for tensor in (*recorder.shown.values(), *recorder.read.values())}
    for note in notes.made.values():
        kept = [] if note.kept is None else [note.kept]
        found.update({id(tensor): tensor for tensor in (*note.tensors(), *note.results, *kept)})
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    known = (t for t in found.values() if t.dtype not in (tf.string, tf.variant, tf.resource))
    return [tensor for tensor in known if graph is None or getattr(tensor, "graph", None) is graph]


def _array(value: Any) -> Array:
    array = plain(value.numpy())
    return array.astype(np.float64) if array.dtype.kind == "f" else array


class _Reader:
    """Notes as calls. A chain of functions between two activations is one call of several ops."""

    def __init__(
        self, notes: Notes, recorder: Recorder, names: Names, before: Mapping[int, Array], arrays: Mapping[int, Array]
    ) -> None:
        self._notes, self._recorder, self._before, self._arrays = notes, recorder, before, arrays
        self._names = {id(variable): name for name, variable in names.variables.items()}
        self._images: dict[int, bool | None] = {}
        self._results: dict[int, Array] = {}
        self._readings: dict[int, Reading | None] = {}
        for key, note in notes.made.items():
            index = next(i for i, tensor in enumerate(note.results) if id(tensor) == key)
            self._readings[key] = self._read(note, index)

    def calls(self, wanted: Sequence[str]) -> dict[str, Call]:
        """By name; what a layer or a function of the user's own is made of stands before it (`attention@1`)."""
        found: dict[str, Call] = {}
        for name in wanted:
            if name in self._recorder.shown:
                self._open(name, self._recorder.shown[name], found, set())
        return found

    def _open(self, name: str, tensor: Tensor, found: dict[str, Call], opened: set[int]) -> None:
        """A call; where it takes several ops that read each other, all of them."""
        call, reading = self._call(tensor), self._readings.get(id(tensor))
        opened.add(id(tensor))
        if not call.ops and reading is not None:
            for given in self._notes.made[id(tensor)].tensors():
                if id(given) in self._arrays and not self._recorder.knows(given) and id(given) not in opened:
                    self._open(f"{name.partition('@')[0]}@{len(opened)}", given, found, opened)
            call = _call_of(call.kind, reading, self._arrays[id(tensor)])
        found[name] = call

    def _read(self, note: Note, index: int) -> Reading | None:
        given = [tensor for tensor in note.tensors() if id(tensor) in self._arrays]
        result = note.results[index]
        if not given or id(result) not in self._arrays:
            return None
        image, output = self._images.get(id(given[0])), self._arrays[id(result)]
        if index == 0:
            self._results[id(note.made)] = output
        seen = None
        with contextlib.suppress(TypeError, ValueError):  # no signature
            seen = Seen(
                made=note.made,
                given=self._given(note),
                x=tuple(self._arrays[id(tensor)] for tensor in given),
                output=output,
                index=index,
                image=image,
                value=self._value,
                name=lambda variable: self._names.get(id(variable), ""),
                results=self._results,
                masked=note.masked,
                kept=None if note.kept is None else self._arrays[id(note.kept)],
            )
        reading = None
        reader = _BY_CLASS.get(type(note.made)) or _BY_NAME.get(name_of(note.made))
        if index and reader not in _OF_SEVERAL:
            reader = None
        if seen is not None and reader is not None and ordinary(note.made):
            with contextlib.suppress(Exception):  # an argument of a kind that the reader does not expect
                reading = reader(seen)
        alike = output.ndim == self._arrays[id(given[0])].ndim
        own = reading.image if reading is not None and reading.image is not None else image if alike else None
        self._images[id(result)] = own
        return reading

    def _given(self, note: Note) -> dict[str, Any]:
        """Arguments by name, with defaults and an operation's own attributes; arrays in the place of tensors."""
        made, args, kwargs = note.made, note.args, note.kwargs
        while isinstance(made, functools.partial):
            made, args, kwargs = made.func, (*made.args, *args), {**made.keywords, **kwargs}
        own = {}
        if isinstance(made, keras.Operation):
            own = {name: value for name, value in vars(made).items() if name[0] != "_"}
        bound = inspect.signature(made.call if isinstance(made, keras.Operation) else made).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments: Any = keras.tree.map_structure(lambda leaf: self._arrays.get(id(leaf), leaf), dict(bound.arguments))
        return {**arguments, **{name: value for name, value in own.items() if name not in arguments}}

    def _value(self, variable: Any) -> Array:
        value = self._before.get(id(variable))
        value = plain(variable.numpy()) if value is None else value
        return value.astype(np.float64) if value.dtype.kind == "f" else value

    def _call(self, tensor: Tensor) -> Call:
        """What made a tensor from tensors that are known; unknown with what it was given."""
        note = self._notes.made.get(id(tensor))
        output = self._arrays[id(tensor)]
        if note is None:
            return Call(kind="", ops=(), inputs=(), parameters=(), names=(), output=output, canonical=same)
        kind = type(note.made).__name__ if isinstance(note.made, keras.layers.Layer) else name_of(note.made)
        kind = kind or getattr(note.made, "__name__", "")
        reading = self._readings[id(tensor)]
        inputs = [t for t in note.tensors() if id(t) in self._arrays]
        unknown = [t for t in inputs if tf.as_dtype(t.dtype).is_floating and not self._recorder.knows(t)]
        if reading is not None and unknown:
            reading = self._chained(reading, unknown) if len(inputs) == len(unknown) == 1 else None
        if reading is None:
            whole = self._notes.outermost[id(tensor)].made
            kind = type(whole).__name__ if isinstance(whole, keras.layers.Layer) else kind
            arrays = tuple(self._arrays[key] for key in self._sources(tensor) if key in self._arrays)
            return Call(kind=kind, ops=(), inputs=arrays, parameters=(), names=(), output=output, canonical=same)
        return _call_of(kind, reading, output)

    def _sources(self, tensor: Tensor) -> dict[int, None]:
        """The known floating tensors that one is made of, by id."""
        found: dict[int, None] = {}
        note = self._notes.outermost.get(id(tensor))
        for given in note.tensors() if note is not None else ():
            if self._recorder.knows(given) and tf.as_dtype(given.dtype).is_floating:
                found[id(given)] = None
            elif given is not tensor:
                found |= self._sources(given)
        return found

    def _chained(self, reading: Reading, unknown: list[Tensor]) -> Reading | None:
        """With what made its one input before it."""
        before = self._call(unknown[0])
        if not before.ops or not np.array_equal(before.output, reading.inputs[0], equal_nan=True):
            return None
        pairs = zip(before.parameters, before.names, strict=True)
        earlier = tuple(tuple(zip(arrays, names, strict=True)) for arrays, names in pairs)
        own = reading.weights if any(reading.weights) else ((),) * len(reading.ops)
        return Reading(
            ops=(*before.ops, *reading.ops), inputs=before.inputs, weights=(*earlier, *own), canonical=reading.canonical
        )


def _call_of(kind: str, reading: Reading, output: Array) -> Call:
    weights = reading.weights if any(reading.weights) else ((),) * len(reading.ops)
    return Call(
        kind=kind,
        ops=reading.ops,
        inputs=reading.inputs,
        parameters=tuple(tuple(array for array, _ in own) for own in weights),
        names=tuple(tuple(name for _, name in own) for own in weights),
        output=reading.canonical(output),
        canonical=reading.canonical,
    )
