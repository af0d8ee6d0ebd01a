"""Users' own JAX models: a pure function of a pytree, watched while it trains with optax.

Every floating result inside the function passes a `tap`, which gives its cotangent and can put another value in its
place. What is computed, and by which derivative rules, stays the function's own (`frameworks.jaxpr_recording`).
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frameworks.jax_calls import calls_of
from frameworks.jax_calls import written as written
from frameworks.jax_trees import is_float, parameters_of, plain, tree_of, write
from frameworks.jaxpr_recording import Program, evaluate, program_of, tap, wide_casts
from frameworks.optax_state import Updater
from harness.calls import Call
from harness.case import HarnessError, Precision
from harness.recipe import PILED, Batch, Forced, Recipe, Record, State
from harness.widening import Widen, typed

Arrays = Mapping[str, Any]

"""The slot of gradients that add up over several steps: they are part of what a step starts from."""


def watch(recipe: Recipe, precision: Precision, inference: bool, widen: Widen = typed) -> JaxModel:
    """A copy of the parameters at this precision (float32: what is lower stays), with a fresh state of the optimizer.

    model: a pure apply(params, *inputs) -> an output, or a pytree of them; one that also returns new statistics is not
    supported. A keyword `training` of it is told the mode. loss(output, target) -> scalar; with example weights
    loss(output, target, weights=...). penalty(params) -> scalar. after_backward(gradients) -> gradients.
    Floating arrays among params are trained, integer ones are buffers, Python numbers stay as they are.
    Raises HarnessError where one of them cannot be used.
    """
    _check(recipe, inference)
    return JaxModel(recipe, precision, inference, widen)


def assign(recipe: Recipe, values: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name into the user's own dicts and lists. Raises HarnessError for params that are neither."""
    if not isinstance(recipe.params, dict | list):
        kind = type(recipe.params).__name__
        raise HarnessError(f"JAX params in a {kind} cannot be changed in place; hand over a dict or a list of them")
    tree = tree_of(recipe.params)
    new = {}
    for name, value in values.items():
        old = _fitting(tree.arrays, name, value)
        with jax.enable_x64(old.dtype.itemsize == 8):
            new[name] = np.array(value, old.dtype) if isinstance(old, np.ndarray) else jnp.array(value, old.dtype)
    write(recipe.params, tree.filled(new))


class JaxModel:
    """A function and its pytree at one precision, satisfying `Watched`; float64 is switched on for its own calls only.

    For each shape of batch one function is compiled, and another one if values are forced, whichever they are.
    """

    def __init__(self, recipe: Recipe, precision: Precision, inference: bool, widen: Widen) -> None:
        self.recipe, self.widen = recipe, widen
        self.precision: Precision = precision
        self.loss = None if inference else recipe.loss
        updates = recipe.optimizer is not None and self.loss is not None
        self.piles_up = updates and (recipe.accumulate > 1 or not recipe.zero_grad)
        self.tree = tree_of(recipe.params)
        self.parameters = parameters_of(self.tree)
        self.layers = {parameter.name: parameter.layer for parameter in self.parameters}
        self.trained = tuple(parameter.name for parameter in self.parameters if parameter.trainable)
        stored = {np.dtype(_at(precision, parameter.dtype)) for parameter in self.parameters if parameter.trainable}
        self.dtype = stored.pop() if len(stored) == 1 else np.dtype(precision)
        """Of floating inputs and targets: with bfloat16 weights alone, float32 inputs would promote them all."""
        self.options = _mode(recipe, inference)
        self.compute = jax.jit(self._compute)
        with self._x64():
            kinds = {parameter.name: parameter.dtype for parameter in self.parameters}
            self.values = {name: _copy(value, precision, kinds[name]) for name, value in self.tree.arrays.items()}
            trained = {name: self.values[name] for name in self.trained}
            self.piled = {name: jnp.zeros_like(value) for name, value in trained.items()} if self.piles_up else {}
            with _blaming("the optimizer", precision):
                self.updater = Updater(recipe.optimizer, self.tree, trained, precision) if updates else None
        if self.piles_up and self.updater is not None and self.updater.gathering is not None:
            raise HarnessError("gradients add up twice, in the side (accumulate) and in optax.MultiSteps; choose one")

    def rule(self) -> None:
        """optax's transformations are closures: they do not say what they are."""

    def losses(self, batch: Batch) -> tuple[None, ...]:
        """A function of the user's own."""
        return () if self.loss is None else (None,)

    def penalty(self) -> None:
        """A function of the user's own."""

    def state(self) -> State:
        slots = {PILED: _numpy(self.piled)} if self.piles_up else {}
        if self.updater is None:
            return State(values=_numpy(self.values))
        return State(values=_numpy(self.values), slots=slots | self.updater.slots(), count=self.updater.count)

    def load(self, state: State) -> None:
        with self._x64():
            for name, value in state.values.items():
                self.values[name] = jnp.array(value, _fitting(self.values, name, value).dtype)
            for name, value in state.slots.get(PILED, {}).items():
                if name in self.piled:
                    self.piled[name] = jnp.array(value, self.piled[name].dtype)
            if self.updater is not None:
                self.updater.load(state)

    def step(self, batch: Batch, forced: Forced | None = None) -> Record:
        forced = forced or Forced()
        with self._x64():
            shown, outputs, loss, cotangents, gradients = self._computed(batch, forced, None)
            if self.piles_up:
                gradients = {name: self.piled[name] + gradient for name, gradient in gradients.items()}
            after = None
            if self.updater is not None:
                gradients = dict(self.updater.piled(gradients, batch.step))
                given = forced.gradients.items()
                placed = {name: jnp.asarray(value, _fitting(gradients, name, value).dtype) for name, value in given}
                after = self._stepped(self.updater, gradients | placed, batch.step)
        return self._record(shown, outputs, loss, cotangents, gradients, after)

    def pull_back(self, batch: Batch, cotangents: Arrays, forced: Forced | None = None) -> Record:
        with self._x64():
            shown, outputs, _, reached, gradients = self._computed(batch, forced or Forced(), cotangents)
        return self._record(shown, outputs, None, reached, gradients, None)

    def calls(self, batch: Batch, names: Sequence[str], forced: Forced | None = None) -> dict[str, Call]:
        given = {} if forced is None else forced.activations
        known: dict[Any, Any] = {}
        shown: dict[str, Any] = {}

        def visit(name: str, own: Any) -> Any:
            shown[name] = own
            return jnp.asarray(given[name], own.dtype) if name in given else own

        with self._x64():
            inputs = self._inputs(batch.inputs)
            program = self._program(self.values, inputs)
            arguments = [*(self.values[name] for name in self.tree.arrays), *inputs]
            _ = evaluate(program, arguments, self.precision, visit, known, self.widen)
            return calls_of(program, known, shown, names)

    # --- forward and backward -----------------------------------------------------------------------------------

    def _computed(self, batch: Batch, forced: Forced, pulled: Arrays | None) -> tuple[Any, ...]:
        inputs, targets = self._inputs(batch.inputs), self._inputs(batch.targets)
        weights = None if batch.weights is None or self.loss is None else jnp.asarray(batch.weights, self.precision)
        pulled = None if pulled is None else self._on_device(pulled)
        arguments = (self.values, inputs, targets, weights, pulled)
        given: tuple[Arrays, Arrays] = ({}, {})
        if forced.activations or forced.cotangents:
            shown = self.compute.eval_shape(*arguments, *given)[0]
            given = (self._given(forced.activations, shown), self._given(forced.cotangents, shown))
        return self.compute(*arguments, *given)

    def _inputs(self, arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
        return tuple(jnp.asarray(a, self.dtype if is_float(a.dtype) else None) for a in arrays)

    def _program(self, values: Arrays, inputs: tuple[Any, ...]) -> Program:
        names = list(self.tree.arrays)

        def apply(leaves: list[Any], *x: Any) -> Any:
            return self.recipe.model(self.tree.filled(dict(zip(names, leaves, strict=True))), *x, **self.options)

        with _blaming("the model", self.precision):
            return program_of(apply, {name: values[name] for name in names}, inputs, self.layers)

    def _given(self, forced: Arrays, shown: Arrays) -> dict[str, tuple[Any, Any]]:
        """For every activation whether a value is forced, and the value."""
        shapes = {name: value.shape for name, value in shown.items() if is_float(value.dtype)}
        for name, value in forced.items():
            _require_shape(shapes, name, value)
        return {
            name: (np.bool_(name in forced), jnp.asarray(forced.get(name, np.zeros(shape)), self.precision))
            for name, shape in shapes.items()
        }

    def _compute(
        self,
        values: Arrays,
        inputs: tuple[Any, ...],
        targets: tuple[Any, ...],
        weights: Any,
        pulled: Arrays | None,
        activations: Arrays,
        cotangents: Arrays,
    ) -> tuple[Any, ...]:
        """What a step shows: activations, outputs by name and path (as keys: jit hands them on), loss, cotangents and
        gradients; the objective is the loss, or the outputs times the cotangents to pull back."""
        names = list(self.tree.arrays)
        program = self._program(values, inputs)
        shapes = {name: value.shape for value, name in program.names.items() if is_float(value.dtype)}
        outputs = [program.names[value] for value in program.outputs]
        for name, value in (pulled or {}).items():
            _require_shape({name: shapes[name] for name in outputs if name in shapes}, name, value)
        reached = set()

        def objective(trained: Arrays, probes: Arrays) -> tuple[Any, Any]:
            shown: OrderedDict[str, Any] = OrderedDict()  # jit sorts the keys of a plain dict

            def visit(name: str, own: Any) -> Any:
                if name not in probes:
                    shown[name] = own
                    return own
                shown[name] = own.astype(self.precision)  # what the model itself keeps in bfloat16
                note = partial(reached.add, name)
                return tap(note, own, probes[name], activations.get(name), cotangents.get(name))

            held = {**values, **trained}
            arguments = [*(held[name] for name in names), *inputs]
            output = evaluate(program, arguments, self.precision, visit, widen=self.widen)
            if pulled is not None:
                seen = dict(zip(outputs, jax.tree_util.tree_leaves(output), strict=True))
                products = [jnp.vdot(seen[name], cotangent) for name, cotangent in pulled.items()]
                return sum(products, start=jnp.zeros(())), (shown, None)
            if self.loss is None:
                return jnp.zeros(()), (shown, None)
            loss = self._loss(output, targets, weights, self.tree.filled(held))
            return loss, (shown, loss)

        trained = {name: values[name] for name in self.trained}
        probes = {name: jnp.zeros(shape, self.precision) for name, shape in shapes.items()}
        differentiate = jax.grad(objective, argnums=(0, 1), has_aux=True)
        (gradients, arriving), (shown, loss) = differentiate(trained, probes)
        return (
            shown,
            tuple({name: {path: None}} for name, path in zip(outputs, _paths(program.tree), strict=True)),
            loss,
            {name: g for name, g in arriving.items() if name in reached},
            gradients,
        )

    def _loss(self, output: Any, targets: tuple[Any, ...], weights: Any, params: Any) -> Any:
        target = targets[0] if len(targets) == 1 else targets
        factors = {} if weights is None else {"weights": weights}
        if factors and "weights" not in _keywords(self.recipe.loss):
            raise HarnessError("a JAX loss takes example weights as loss(output, target, weights); this one has none")
        with _blaming("the loss", self.precision, _of_several(output)):
            loss = _scalar("loss", self.recipe.loss(output, target, **factors))
        if self.recipe.penalty is None:
            return loss
        with _blaming("the penalty", self.precision):
            return loss + _scalar("penalty", self.recipe.penalty(params))

    # --- update -------------------------------------------------------------------------------------------------

    def _stepped(self, updater: Updater, gradients: Arrays, step: int) -> State | None:
        due = (step + 1) % self.recipe.accumulate == 0
        if self.piles_up:
            clear = due and self.recipe.zero_grad
            self.piled = {name: jnp.zeros_like(g) if clear else g for name, g in gradients.items()}
        if not due:
            return None
        tree = self.tree.only(gradients)
        if self.recipe.after_backward:
            with _blaming("after_backward", self.precision):
                tree = self.recipe.after_backward(tree)
        with _blaming("the optimizer", self.precision):
            new, updates = updater.update(tree, {name: self.values[name] for name in self.trained}, step)
        self.values |= new
        return self.state() if updates else None

    # --- in and out ---------------------------------------------------------------------------------------------

    @contextmanager
    def _x64(self) -> Iterator[None]:
        wide = self.precision == "float64"
        with jax.enable_x64(wide), wide_casts(self.widen) if wide else nullcontext():
            yield

    def _on_device(self, arrays: Arrays) -> dict[str, Any]:
        return {name: jnp.asarray(value, self.precision) for name, value in arrays.items()}

    def _record(
        self, shown: Arrays, outputs: Any, loss: Any, cotangents: Arrays, gradients: Arrays, after: Any
    ) -> Record:
        differentiated = bool(cotangents) or loss is not None
        arrays, returned = _numpy(shown), [(name, *of) for output in outputs for name, of in output.items()]
        floats = {name: values for name, values in arrays.items() if values.dtype.kind == "f"}
        return Record(
            activations=floats,
            outputs=tuple(name for name, _ in returned if name in floats),
            keys=tuple(path for name, path in returned if name in floats),
            integers=tuple(arrays[name] for name, _ in returned if arrays[name].dtype.kind in "biu"),
            loss=None if loss is None else plain(loss),
            cotangents={name: plain(cotangents[name]) for name in shown if name in cotangents},
            gradients={name: plain(gradients[name]) for name in self.trained} if differentiated else {},
            after=after,
        )


def _paths(tree: Any) -> list[str]:
    """What leads to each leaf: keys, names of attributes, positions."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.tree_util.tree_unflatten(tree, range(tree.num_leaves)))
    return ["".join(f"/{jax.tree_util.keystr((key,), simple=True)}" for key in path) for path, _ in leaves]


# --- what was handed over ---------------------------------------------------------------------------------------


def _check(recipe: Recipe, inference: bool) -> None:
    if not callable(recipe.model):
        kind = type(recipe.model).__name__
        raise HarnessError(
            f"a JAX model is a function apply(params, x); this is a {kind}: hand over its apply function"
        )
    if recipe.params is None:
        raise HarnessError("a JAX model needs its parameters; give the pytree as params=...")
    if inference:
        return
    if recipe.train_step is not None:
        raise HarnessError("train_step is not offered for JAX; give model, params, loss and optimizer instead")
    if recipe.loss is not None and not callable(recipe.loss):
        raise HarnessError(f"a JAX loss is a function loss(output, target) -> scalar, not {recipe.loss!r}")
    if recipe.optimizer is not None and not (hasattr(recipe.optimizer, "init") and hasattr(recipe.optimizer, "update")):
        raise HarnessError(f"a JAX optimizer is an optax transformation, not a {type(recipe.optimizer).__name__}")
    if recipe.schedule is not None:
        raise HarnessError(
            "a schedule beside an optax optimizer is not offered; put it into optax: optax.sgd(schedule)"
        )


def _mode(recipe: Recipe, inference: bool) -> dict[str, bool]:
    if "training" not in _keywords(recipe.model):
        return {}
    training = recipe.loss is not None if recipe.training is None else recipe.training
    return {"training": training and not inference}


def _keywords(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:  # a callable without a signature
        return set()


@contextmanager
def _blaming(part: str, precision: Precision, advice: str = "") -> Iterator[None]:
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        if "float32" in str(error):
            advice += "; where it names float32 itself, let it say x.dtype"
        raise HarnessError(f"in {precision}, {part} raised {type(error).__name__}: {said}{advice}") from error


def _of_several(output: Any) -> str:
    if not isinstance(output, tuple | list):
        return ""
    found = f"apply returned a {type(output).__name__} of {len(output)}"
    return f"; {found}, and the loss gets it as such: let apply return the output alone, or the loss pick it"


def _scalar(part: str, value: Any) -> Any:
    if np.shape(value) != () or not is_float(jnp.result_type(value)):
        raise HarnessError(f"the {part} has shape {np.shape(value)}; it must be one number: reduce it, as by jnp.mean")
    return jnp.asarray(value)


def _fitting(arrays: Arrays, name: str, value: Any) -> Any:
    """The array of this name, where the value fits in."""
    _require_shape({name: np.shape(array) for name, array in arrays.items()}, name, value)
    return arrays[name]


def _require_shape(shapes: Mapping[str, tuple[int, ...]], name: str, value: Any) -> None:
    if name not in shapes:
        raise HarnessError(f"the JAX model has no {name!r}; it has {', '.join(shapes)}")
    if np.shape(value) != shapes[name]:
        raise HarnessError(f"{name} has shape {shapes[name]}, not {np.shape(value)}")


def _copy(value: Any, precision: Precision, dtype: str) -> Any:
    """dtype: what the user's own runs store."""
    if not is_float(value.dtype):
        return jnp.array(value)
    return jnp.asarray(np.asarray(value, "float64" if dtype == "float64" else "float32"), _at(precision, dtype))


def _at(precision: Precision, dtype: str) -> str:
    """What a floating dtype of the user's is at a precision: in float32 itself, unless it is wider."""
    return dtype if precision == "float32" and dtype != "float64" else precision


def _numpy(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: plain(value) for name, value in arrays.items()}
