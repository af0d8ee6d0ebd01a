"""Users' own Keras models (on TensorFlow): watched at either precision, and written to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

from frameworks.clipping import only_bounded
from frameworks.keras_calls import calls_of
from frameworks.keras_copies import Copy, plain, seen
from frameworks.keras_objectives import read_compiled
from frameworks.keras_optimizers import Slots, piled, typed_rate
from frameworks.keras_penalties import read_penalty
from frameworks.keras_recording import Names, Recorder, Tensor
from frameworks.keras_rules import read_rule
from frameworks.keras_writing import written as written
from harness.calls import Call
from harness.case import HarnessError, Precision
from harness.objectives import Loss, Penalty
from harness.recipe import Batch, Forced, Parameter, Recipe, Record, State
from harness.rules import Rule
from harness.widening import Widen, typed

_Arrays = Mapping[str, np.ndarray]

_PUT = "gradparity_put"
"""The scope of what the watcher adds to a graph."""


def watch(recipe: Recipe, precision: Precision, inference: bool, widen: Widen = typed) -> WatchedKeras:
    """The user's model, loss and optimizer at a precision; all of it is the user's own again behind every call.

    Raises HarnessError for a model that is not built, holds NaN, or is not Keras on TensorFlow.
    """
    return WatchedKeras(recipe, precision, inference, widen)


def assign(recipe: Recipe, values: _Arrays) -> None:
    """Write weights by name (`dense/kernel`) into the user's model. Raises HarnessError for a name or shape."""
    _write(_checked(recipe).variables, values)


class WatchedKeras:
    """`frameworks.protocol.Watched` for a Keras model. Gradients come from one graph, updates from another.

    (TensorFlow 2.21 can back-propagate through already updated weights within one.) A model that cannot be traced runs
    eagerly. Velocities are those of torch's SGD and RMSprop: Keras's, divided by the present learning rate.
    """

    def __init__(self, recipe: Recipe, precision: Precision, inference: bool, widen: Widen) -> None:
        self._names = _checked(recipe)
        self._recipe, self._inference, self._model = recipe, inference, recipe.model
        wide = all(variable.dtype == "float64" for variable in self._model.trainable_weights)
        given = (recipe.loss, recipe.optimizer, recipe.penalty, recipe.schedule, recipe.train_step)
        self._copy = Copy([self._model, *(part for part in given if part is not None)], precision, wide, widen)
        self._piled: dict[int, list[Tensor]] = {}
        self._bounded: dict[int, bool] = {}
        self._graphs: dict[Any, tuple[Callable[..., Any], dict[str, Any]]] = {}
        self._recorder: Recorder | None = None
        self._shared: set[str] = set()
        with self._context():
            self._optimizer: Any = None if inference else self._compiled()
            self._slots = Slots(self._optimizer, self._names.variables) if self._optimizer else None
            self._trained = list(self._model.trainable_weights)
            own = type(self._model).train_step is not keras.Model.train_step and recipe.loss is None
            self._own_step = None if inference else recipe.train_step or (self._fit_step if own else None)
            own = type(self._model).compute_loss is not keras.Model.compute_loss
            self._trains = not inference and bool(self._model.compiled or own or recipe.penalty or self._own_step)
        self.parameters: tuple[Parameter, ...] = self._names.parameters
        self._xla = False
        self._eager = bool(getattr(self._model, "run_eagerly", False)) or self._own_step is not None
        self._update = tf.function(self._apply, autograph=False)

    def rule(self) -> Rule | None:
        """From gradients to updates, by the weights' names."""
        with self._context():
            bare = replace(self._recipe, train_step=None)  # what the user's own code adds is asked
            read = None if self._optimizer is None else read_rule(self._optimizer, bare, self._model)
            if read is None:
                return None
            names = {variable.path: name for name, variable in self._names.variables.items()}
            scopes = {kind: tuple(names[path] for path in getattr(read, kind)) for kind in ("decayed", "trained")}
            return replace(read, first_position=0, **scopes)

    def losses(self, batch: Batch) -> tuple[Loss | None, ...]:
        """The compiled losses, with their weights."""
        compiled = getattr(self._model, "_compile_loss", None)
        if compiled is None or self._inference or self._own_step is not None:
            return ()
        with self._context():
            return read_compiled(compiled, self._fused(batch), self._recipe.class_weight, batch.targets)

    def penalty(self) -> Penalty | None:
        """The weights' regularizers, where all are alike."""
        names = {id(variable): name for name, variable in self._names.variables.items()}
        return read_penalty({names[id(v)]: v.regularizer for v in self._trained if v.regularizer is not None})

    def _fused(self, batch: Batch) -> list[bool]:
        """Whether each output carries the logits from which Keras takes an entropy."""
        recorder = Recorder(self._names, self._model, None)
        predicted = self._predicted(recorder, [tf.constant(value) for value in batch.inputs])
        return [getattr(tensor, "_keras_logits", None) is not None for tensor in keras.tree.flatten(predicted)]

    def state(self) -> State:
        """A copy of the present state. Weights and slots in their own layout; `count` counts calls of the optimizer."""
        with self._context():
            return self._state()

    def load(self, state: State) -> None:
        """Go on from a state, bit for bit where `state` gave it. Raises HarnessError for a name or shape."""
        with self._context():
            _write(self._names.variables, state.values)
            if self._slots:
                self._slots.load(state)

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        """As `fit` takes it: forward; with a loss also backward; with an optimizer also the update."""
        with self._context():
            self._set_rate(batch)
            if self._own_step is not None:
                return self._step_of_user(self._own_step, batch, forced or Forced())
            shown = self._shown(batch, None, forced)
            if shown["loss"] is None or self._inference:
                return _record(shown, self._gradients([]), None)
            gathered = self._pile(shown["gradients"], batch.step)
            if self._slots is None or (batch.step + 1) % self._recipe.accumulate:
                return _record(shown, self._gradients(gathered), None)
            updates = self._slots.begin(batch.step)
            gathered = piled(self._optimizer, gathered, self._trained)
            record = _record(shown, self._gradients(gathered), None)
            self._apply_now(self._replaced(gathered, forced))
            return replace(record, after=self._state()) if updates else record

    def pull_back(self, batch: Batch, cotangents: _Arrays, forced: Forced | None = None) -> Record:
        """Forward, and the product of the outputs' Jacobian with their cotangents; the state stays as it is."""
        with self._context():
            buffers = {p.name: seen(self._names.variables[p.name]) for p in self.parameters if p.buffer}
            shown = self._shown(batch, cotangents, forced)
            _write(self._names.variables, buffers)
            return _record({**shown, "loss": None}, self._gradients(shown["gradients"]), None)

    def calls(self, batch: Batch, names: Sequence[str], forced: Forced | None = None) -> dict[str, Call]:
        """The blocks that show these activations, in the mode of `pull_back`; the state stays as it is."""
        given = {} if forced is None else forced.activations

        def predict(observe: Callable[[Any, Any, Any, Any], None]) -> Recorder:
            force = lambda name, own: _forced(own, None if name not in given else tf.constant(given[name]), None)  # noqa: E731
            recorder = self._recorder = Recorder(self._names, self._model, force, observe)
            _ = self._predicted(recorder, [tf.constant(value) for value in batch.inputs])
            return recorder

        with self._context():
            inside = lambda: self._recorder and self._recorder.inside()  # noqa: E731
            return calls_of(self._names, self._model, predict, inside, names)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        try:
            with self._copy.in_place():
                yield
        except HarnessError:
            raise
        except Exception as error:
            failed = self._recorder.failed if self._recorder else ""
            where = f" in layer {failed}" if failed else ""
            reason = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
            raise HarnessError(
                f"the Keras model {self._model.name} fails{where}: {type(error).__name__}: {reason}"
            ) from (error)

    def _compiled(self) -> Any:
        """Compile our side of the model where the recipe overrides it; its optimizer, built, with the rate as typed."""
        model, loss = self._model, self._recipe.loss
        optimizer = self._recipe.optimizer if self._recipe.optimizer is not None else getattr(model, "optimizer", None)
        optimizer = keras.optimizers.get(optimizer) if optimizer is not None else None
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # the loss scale of mixed precision: not needed
        if loss is not None or (optimizer is not None and not model.compiled):
            weights = getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
            compiled: Any = keras.Model.compile
            compiled(model, optimizer=optimizer, loss=loss, loss_weights=weights)
        model.optimizer = optimizer
        if optimizer is not None:
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            typed_rate(optimizer)
            if optimizer.gradient_accumulation_steps and (self._recipe.accumulate > 1 or not self._recipe.zero_grad):
                raise HarnessError(
                    f"gradients add up twice, in the side (accumulate, zero_grad) and in Keras's {optimizer.name} "
                    "(gradient_accumulation_steps); choose one"
                )
        return optimizer

    def _state(self) -> State:
        values = {name: seen(variable) for name, variable in self._names.variables.items()}
        return State(values=values, **(self._slots.state() if self._slots else {}))

    # --- forward and backward ------------------------------------------------------------------------------------

    def _shown(self, batch: Batch, cotangents: _Arrays | None, forced: Forced | None) -> dict[str, Any]:
        """Names, own activations, cotangents, gradients, loss: from a graph where the model can be traced."""
        bare = cotangents is not None or self._inference
        arguments = (
            [tf.constant(value) for value in batch.inputs],
            [] if bare else [tf.constant(value) for value in batch.targets],
            None if bare else self._weights(batch),
            None if cotangents is None else {name: tf.constant(value) for name, value in cotangents.items()},
        )
        values = {} if forced is None else {name: tf.constant(value) for name, value in forced.activations.items()}
        flowing = {} if forced is None else {name: tf.constant(value) for name, value in forced.cotangents.items()}
        while not self._eager:
            with contextlib.suppress(Exception):  # what fails eagerly too is an error of the model's, or the request's
                return self._run_graph(arguments, values, flowing)
            if self._xla:
                break
            self._xla = True  # as fit does: some kernels (a grouped convolution's gradient on CPU) are XLA's alone
            self._graphs.clear()
        shown = self._forward_backward(
            *arguments, force=lambda name, own: _forced(own, values.get(name), flowing.get(name))
        )
        self._eager = True
        return shown

    def _run_graph(self, arguments: Any, values: Any, flowing: Any) -> dict[str, Any]:
        """The plain graph; or the one where every activation can be forced, so that other names need no new trace."""
        plain, shapes = self._graph(arguments, [])
        if not values and not flowing:
            return {**shapes, **plain(arguments, [])}
        forcing = [
            (
                tf.constant(name in given),
                tf.cast(given[name], dtype) if name in given else tf.zeros(shape, dtype),
            )
            for name, (shape, dtype) in shapes["shapes"].items()
            for given in (values, flowing)
        ]
        function, named = self._graph(arguments, forcing)
        return {**named, **function(arguments, forcing)}

    def _graph(self, arguments: Any, forcing: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
        flat = keras.tree.flatten(arguments)
        names = None if arguments[3] is None else tuple(arguments[3])
        key = (not forcing, names, *((None if t is None else (t.dtype, *t.shape)) for t in flat))
        if key in self._graphs:
            return self._graphs[key]
        named: dict[str, Any] = {}

        def show(arguments: Any, forcing: Any) -> dict[str, Any]:
            force = None
            if forcing:
                order = list(self._graphs[(True, *key[1:])][1]["shapes"])
                pairs = {name: forcing[2 * i : 2 * i + 2] for i, name in enumerate(order)}
                force = lambda name, own: _switched(own, pairs[name][0], pairs[name][1], lambda: name in self._shared)  # noqa: E731
            shown = self._forward_backward(*arguments, force=force)
            named.update({part: shown.pop(part) for part in ("names", "outputs", "shapes")})
            return shown

        self._graphs[key] = (
            tf.function(show, autograph=False, jit_compile=self._xla).get_concrete_function(arguments, forcing),
            named,
        )
        return self._graphs[key]

    def _forward_backward(
        self, inputs: Any, targets: Any, weights: Any, pulled: Any, force: Callable[[str, Tensor], Tensor] | None
    ) -> dict[str, Any]:
        recorder = self._recorder = Recorder(self._names, self._model, force)
        floats = [value for value in inputs if value.dtype.is_floating]
        tape: Any = tf.GradientTape()
        with tape:
            tape.watch(floats)  # layers before any weight have gradients too
            predicted = self._predicted(recorder, inputs)
            loss = None if pulled is not None or self._inference else self._loss(inputs, targets, predicted, weights)
        self._shared = {name for name, own in recorder.shown.items() if _is_shared(own)}
        read = [recorder.shown[name] if name in self._shared else tensor for name, tensor in recorder.read.items()]
        found = [None] * (len(read) + len(self._trained))
        if pulled or loss is not None:
            outputs = recorder.outputs
            unknown = [name for name in pulled or () if name not in outputs]
            if unknown:
                raise HarnessError(f"{unknown[0]} is no output of {self._model.name}; it has {', '.join(outputs)}")
            variables = [variable.value for variable in self._trained]
            heads = [outputs[name] for name in pulled] if pulled else loss
            flowing = [tf.cast(value, outputs[name].dtype) for name, value in pulled.items()] if pulled else None
            found = tape.gradient(heads, [*read, *variables], output_gradients=flowing)
        return {
            "names": list(recorder.shown),
            "outputs": recorder.returned,
            "integers": recorder.integers,
            "shapes": {name: (tuple(own.shape), own.dtype) for name, own in recorder.shown.items()},
            "activations": list(recorder.shown.values()),
            "cotangents": found[: len(read)],
            "gradients": found[len(read) :],
            "loss": loss,
        }

    def _predicted(self, recorder: Recorder, inputs: Sequence[Tensor]) -> Any:
        recorder.ignore(inputs)
        training = self._recipe.training if self._recipe.training is not None else self._trains
        mode = {"training": training} if self._model._call_has_training_arg else {}
        with recorder.calls():
            return self._model(*_structured(self._model, inputs), **mode)

    def _loss(self, inputs: Any, targets: Any, predicted: Any, weights: Any) -> Tensor | None:
        """What `fit` minimises, and the penalty; None where there is nothing to minimise."""
        model, penalty = self._model, self._recipe.penalty
        total = None
        own = type(model).compute_loss is not keras.Model.compute_loss
        if own or (model.compiled and (model._compile_loss is not None or model.losses)):
            x, y = inputs[0] if len(inputs) == 1 else list(inputs), _targets(predicted, targets)
            total = model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=True)
        if penalty is not None:
            extra = tf.convert_to_tensor(penalty(model))
            total = extra if total is None else total + tf.cast(extra, total.dtype)
        return total

    def _weights(self, batch: Batch) -> Tensor | None:
        weights, by_class = batch.weights, self._recipe.class_weight
        if by_class and batch.targets:
            factors = np.asarray(class_weight_to_sample_weights(batch.targets[0], dict(by_class)))
            weights = factors if weights is None else weights * factors
        return None if weights is None or self._inference else tf.constant(weights, keras.config.floatx())

    # --- gradients and updates -----------------------------------------------------------------------------------

    def _gradients(self, found: Sequence[Tensor | None]) -> dict[str, np.ndarray | None]:
        names = {id(variable): name for name, variable in self._names.variables.items()}
        given = {names[id(v)]: g for v, g in zip(self._trained, found, strict=False)}
        wanted = [parameter.name for parameter in self.parameters if not parameter.buffer] if found else []
        return {name: None if (gradient := given.get(name)) is None else seen(gradient) for name in wanted}

    def _pile(self, gradients: list[Tensor], step: int) -> list[Tensor]:
        """The gradients with those of earlier steps that no update has used; a step taken again starts as before."""
        fresh = step % self._recipe.accumulate == 0 and self._recipe.zero_grad
        before = None if fresh else self._piled.get(step - 1)
        if before is not None:
            gradients = [_sum(*pair) for pair in zip(gradients, before, strict=True)]
        self._piled = {step - 1: before, step: gradients} if before is not None else {step: gradients}
        return gradients

    def _replaced(self, gradients: list[Tensor], forced: Forced | None) -> list[Tensor]:
        names = {id(variable): name for name, variable in self._names.variables.items()}
        given = {} if forced is None else forced.gradients
        pairs = [(v, names[id(v)], g) for v, g in zip(self._trained, gradients, strict=True)]
        return [tf.cast(given[name], v.dtype) if name in given else gradient for v, name, gradient in pairs]

    def _apply_now(self, gradients: list[Tensor]) -> None:
        if not gradients:  # all is frozen: `fit` goes on without an update (keras 3.15, tensorflow/trainer.py)
            return
        factor = self._optimizer.loss_scale_factor  # `fit` scales the loss by it
        scaled = gradients if factor is None else [None if g is None else g * factor for g in gradients]
        if self._eager:
            return self._apply(scaled)
        self._update.get_concrete_function(scaled)(scaled)

    def _apply(self, gradients: list[Tensor]) -> None:
        self._optimizer.apply_gradients(zip(gradients, self._trained, strict=True))

    def _set_rate(self, batch: Batch) -> None:
        if self._recipe.schedule is not None and self._optimizer is not None:
            count = batch.step if self._recipe.schedule_every == "batch" else batch.epoch
            self._optimizer.learning_rate = float(self._recipe.schedule(count))

    # --- the user's own loop body --------------------------------------------------------------------------------

    def _fit_step(self, x: Any, y: Any, weights: Any = None) -> Any:
        self._model.reset_metrics()
        return self._model.train_step(keras.utils.pack_x_y_sample_weight(x, y, weights)).get("loss")

    def _step_of_user(self, body: Callable[..., Any], batch: Batch, forced: Forced) -> Record:
        """One call of a user's own step, eagerly: gradients are what its optimizers are given, but for clipping, which
        belongs to the update: then what its tape computed."""
        incoming: dict[str, Tensor] = {}
        gradients: dict[str, Any] = {}
        taped: dict[str, list[Any]] = {}
        bounded = self._bounded.get(batch.step, False)
        names = {id(variable): name for name, variable in self._names.variables.items()}
        owners = {id(of): name for name, variable in self._names.variables.items() for of in (variable, variable.value)}

        def force(name: str, own: Tensor) -> Tensor:
            value, cotangent = forced.activations.get(name), forced.cotangents.get(name)
            return _forced(own, value, cotangent, lambda flowing: incoming.update({name: flowing}))

        def watched(apply: Callable[..., Any]) -> Callable[..., Any]:
            def apply_shown(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
                variables = list(trainable_variables or optimizer._trainable_variables)
                nonlocal bounded
                own = [names.get(id(variable), "") for variable in variables]
                grads = piled(optimizer, grads, variables)
                if all(len(taped.get(name, ())) == 1 for name in own):
                    computed = {name: taped[name][0] for name in own}
                    if not forced.gradients:
                        bounded = self._bounded[batch.step] = only_bounded(
                            {name: None if g is None else seen(g) for name, g in computed.items()},
                            {name: None if g is None else seen(g) for name, g in zip(own, grads, strict=True)},
                        )
                    if bounded:
                        gradients.update(computed)
                        return apply(optimizer, grads, trainable_variables)
                gradients.update(zip(own, grads, strict=True))
                pairs = zip(variables, own, grads, strict=True)
                given = [tf.cast(forced.gradients[n], v.dtype) if n in forced.gradients else g for v, n, g in pairs]
                return apply(optimizer, given, trainable_variables)

            return apply_shown

        def taping(gradient: Callable[..., Any]) -> Callable[..., Any]:
            def gradient_shown(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
                found = gradient(tape, target, sources, *args, **kwargs)
                flat = tf.nest.flatten(found)
                for i, source in enumerate(tf.nest.flatten(sources)):
                    name = owners.get(id(source))
                    if name is not None:
                        taped.setdefault(name, []).append(flat[i])
                        if bounded and name in forced.gradients:
                            flat[i] = tf.cast(forced.gradients[name], source.dtype)
                return tf.nest.pack_sequence_as(found, flat)

            return gradient_shown

        recorder = self._recorder = Recorder(self._names, self._model, force)
        x, y = [tf.constant(value) for value in batch.inputs], [tf.constant(value) for value in batch.targets]
        recorder.ignore(x)
        weights = self._weights(batch)
        extra = () if weights is None or body != self._fit_step else (weights,)
        (arranged,) = _structured(self._model, x)[:1]
        if self._slots is not None:
            _ = self._slots.begin(batch.step)
        optimizers: Any = next(kind for kind in keras.optimizers.Optimizer.__mro__ if "apply" in vars(kind))
        with recorder.calls(), _instead(optimizers, "apply", watched), _instead(tf.GradientTape, "gradient", taping):
            loss = body(arranged, y[0] if len(y) == 1 else y or None, *extra)
        shown = {
            "names": list(recorder.shown),
            "outputs": recorder.returned,
            "integers": recorder.integers,
            "activations": list(recorder.shown.values()),
            "cotangents": [incoming.get(name) for name in recorder.shown],
            "loss": None if loss is None else tf.convert_to_tensor(loss),
        }
        found = [gradients.get(names[id(variable)]) for variable in self._trained]
        return _record(shown, self._gradients(found), self._state())


def _checked(recipe: Recipe) -> Names:
    model = recipe.model
    if keras.config.backend() != "tensorflow":
        raise HarnessError(
            f"Keras runs on {keras.config.backend()} here, its models are watched on TensorFlow; "
            "start again with KERAS_BACKEND=tensorflow"
        )
    if not isinstance(model, keras.Model):
        raise HarnessError(f"{type(model).__name__} is no keras.Model; wrap it in one")
    if not model.built:
        raise HarnessError(f"the Keras model {model.name} has no weights yet; call it once on data: model(x[:1])")
    if recipe.after_backward is not None:
        raise HarnessError("after_backward is torch's; with Keras clip in the optimizer, or give your own train_step")
    names = Names(model)
    for name, variable in names.variables.items():
        value = plain(variable.numpy())
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise HarnessError(f"weight {name} of {model.name} holds NaN or infinity; start from finite weights")
    return names


def _write(variables: Mapping[str, Any], values: _Arrays) -> None:
    for name, value in values.items():
        if name not in variables:
            raise HarnessError(f"the model has no weight {name}; it has {', '.join(variables)}")
        if tuple(variables[name].shape) != np.shape(value):
            raise HarnessError(f"weight {name} has shape {tuple(variables[name].shape)}, not {np.shape(value)}")
    for name, value in values.items():
        variables[name].assign(value)


def _structured(model: keras.Model, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
    """The positional arguments of the model's call: as its Input layers, or its first call, had them."""
    struct = getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None)
    shapes = list((model._build_shapes_dict or {}).values())
    if struct is None and len(shapes) == len(inputs) > 1:
        return tuple(inputs)
    if struct is None and len(shapes) == 1 and isinstance(shapes[0], Mapping):
        struct = shapes[0]
    if isinstance(struct, Mapping):
        return (dict(zip(struct, inputs, strict=True)),)
    return (inputs[0] if len(inputs) == 1 and not isinstance(struct, list | tuple) else list(inputs),)


def _targets(predicted: Any, targets: Sequence[Tensor]) -> Any:
    if isinstance(predicted, Mapping) and len(predicted) == len(targets):
        return dict(zip(predicted, targets, strict=True))
    return targets[0] if len(targets) == 1 else list(targets) or None


def _sum(first: Any, second: Any) -> Any:
    found: Any = [tf.convert_to_tensor(gradient) for gradient in (first, second) if gradient is not None]
    return tf.add_n(found) if found else None


def _forced(own: Tensor, value: Any, cotangent: Any, show: Callable[[Tensor], None] | None = None) -> Tensor:
    if value is None and cotangent is None and show is None:
        return own
    for given in (value, cotangent):
        if given is not None and tuple(given.shape) != tuple(own.shape):
            raise HarnessError(f"an activation of shape {tuple(own.shape)} cannot be forced to {tuple(given.shape)}")

    @tf.custom_gradient
    def put(own: Tensor) -> Any:
        def back(incoming: Tensor) -> Tensor:
            if show is not None:
                show(incoming)
            return incoming if cotangent is None else tf.cast(cotangent, own.dtype)

        return tf.identity(own) if value is None else tf.cast(value, own.dtype), back

    return put(own)


def _switched(
    own: Tensor, value: tuple[Tensor, Tensor], cotangent: tuple[Tensor, Tensor], is_shared: Callable[[], bool]
) -> Tensor:
    """is_shared: asked once the whole forward pass is there. What others read too has a cotangent that only comes
    together at the tensor itself, so that none can be put in its place here."""

    @tf.custom_gradient
    def put(own: Tensor) -> Any:
        def back(incoming: Tensor) -> Tensor:
            return incoming if is_shared() else tf.where(cotangent[0], cotangent[1], incoming)

        return tf.where(value[0], value[1], own), back

    with tf.name_scope(_PUT):
        return put(own)


def _is_shared(own: Tensor) -> bool:
    """Whether anything but the one put in its place reads a tensor of a graph: a residual, an activity penalty."""
    consumers = [] if tf.executing_eagerly() else own.consumers()
    is_put = [f"/{_PUT}" in f"/{consumer.name}" for consumer in consumers]
    return any(is_put) and not all(is_put)


def _record(shown: Mapping[str, Any], gradients: Mapping[str, np.ndarray | None], after: State | None) -> Record:
    found = zip(shown["names"], shown["cotangents"], strict=True)
    return Record(
        activations=dict(zip(shown["names"], map(seen, shown["activations"]), strict=True)),
        outputs=tuple(name for name, _ in shown["outputs"]),
        keys=tuple(path for _, path in shown["outputs"]),
        integers=tuple(map(seen, shown["integers"])),
        loss=None if shown["loss"] is None else seen(shown["loss"]),
        cotangents={name: seen(value) for name, value in found if value is not None},
        gradients=gradients,
        after=after,
    )


@contextlib.contextmanager
def _instead(owner: Any, name: str, watched: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within, a class has another method, made of its own."""
    method = getattr(owner, name)
    setattr(owner, name, watched(method))
    try:
        yield
    finally:
        setattr(owner, name, method)
