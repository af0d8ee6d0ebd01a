"""Keras models on any backend, only to be recorded: what `train_on_batch` shows from outside.

Activations, the loss, parameters and buffers; no gradients, which each backend computes in its own way, and nothing can
be forced. Models are rebuilt by their config at either precision, so Sequential and functional ones only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras.src.backend.common import dtypes
from keras.src.models.functional import Functional

from frameworks.keras_recording import Names
from harness.case import HarnessError, Precision
from harness.recipe import Batch, Parameter, Recipe, Record, State


def watch(recipe: Recipe, precision: Precision, inference: bool) -> Recorded:
    """A copy of a compiled Keras model at a precision. Raises HarnessError for a model that has no config."""
    return Recorded(recipe, precision, inference)


class Recorded:
    """As much of `frameworks.protocol.Watched` as recording needs."""

    def __init__(self, recipe: Recipe, precision: Precision, inference: bool) -> None:
        model = recipe.model
        if not isinstance(model, keras.Sequential | Functional) or not model.built:
            raise HarnessError(
                f"{type(model).__name__} is no built Sequential or functional Keras model; on other backends than "
                "TensorFlow only these are recorded"
            )
        parts = recipe.loss, recipe.optimizer, recipe.penalty, recipe.schedule, recipe.train_step, recipe.class_weight
        if any(part is not None for part in parts) or (not inference and not model.compiled):
            raise HarnessError("on Keras's other backends compile the model with its loss and optimizer, nothing else")
        self._precision, self._inference = precision, inference
        with self._floats():
            self._model: Any = keras.models.clone_model(model, clone_function=self._layer)
            self._model.set_weights([np.asarray(value, precision) for value in model.get_weights()])
            if not inference:
                optimizer = type(model.optimizer).from_config(_typed(model.optimizer.get_config()))
                self._model.compile(optimizer, model.loss, jit_compile=False)
                self._model.optimizer.build(self._model.trainable_variables)
            self._shown = {layer.name: layer.output for layer in self._model.layers}
            self._outside = keras.Model(self._model.inputs, [*self._shown.values()])
        self._names = Names(self._model)
        self.parameters: tuple[Parameter, ...] = self._names.parameters

    def state(self) -> State:
        """Parameters and buffers; an optimizer's own go on from step to step."""
        with self._floats():
            return State(values=dict(zip(self._names.variables, _values(self._names.variables.values()), strict=True)))

    def load(self, state: State) -> None:
        with self._floats():
            for name, value in state.values.items():
                self._names.variables[name].assign(value)

    def step(self, batch: Batch, forced: None = None) -> Record:
        """Forward from outside, then one `train_on_batch`."""
        with self._floats():
            before = self.state()
            found = self._outside(list(batch.inputs), training=not self._inference)
            values = _values(found if isinstance(found, list) else [found])
            self.load(before)  # running statistics moved
            activations = dict(zip(self._shown, values, strict=True))
            outputs = tuple(name for name, of in self._shown.items() if any(of is out for out in self._model.outputs))
            if self._inference:
                return Record(activations=activations, outputs=outputs)
            x, y = ([*of] if len(of) != 1 else of[0] for of in (batch.inputs, batch.targets))
            loss = self._model.train_on_batch(x, y, sample_weight=batch.weights, return_dict=True)["loss"]
            return Record(
                activations=activations,
                outputs=outputs,
                loss=np.asarray(loss, self._precision),
                after=self.state(),
            )

    def _layer(self, layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": self._precision})

    @contextlib.contextmanager
    def _floats(self) -> Iterator[None]:
        before = keras.config.floatx()
        keras.config.set_floatx(self._precision)
        try:
            with _double() if self._precision == "float64" else contextlib.nullcontext():
                yield
        finally:
            keras.config.set_floatx(before)


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """Within, float64 stays float64. On other backends than TensorFlow Keras 3.15 makes every result of it float32
    (keras/src/backend/common/dtypes.py, BIT64_TO_BIT32_DTYPE), and JAX has it only where it is asked for."""
    with contextlib.ExitStack() as stack:
        _ = stack.enter_context(mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"))
        if keras.config.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        yield


def _typed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The learning rate as typed: it came out of a float32 variable."""
    rate = config.get("learning_rate")
    return {**config, **({"learning_rate": float(str(np.float32(rate)))} if isinstance(rate, float) else {})}


def _values(variables: Any) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(of)) for of in variables]
