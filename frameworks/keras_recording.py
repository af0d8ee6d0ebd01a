"""Names and kinds of a Keras model's parts, and a recorder of every layer's output while the model is called."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from frameworks.structures import leaves
from harness.case import HarnessError
from harness.recipe import Parameter

Tensor = Any

_OPS: tuple[tuple[type, str], ...] = (
    (keras.layers.Dense, "Dense"),
    (keras.layers.DepthwiseConv1D, "DepthwiseConv"),
    (keras.layers.DepthwiseConv2D, "DepthwiseConv"),
    (keras.layers.SeparableConv1D, "SeparableConv"),
    (keras.layers.SeparableConv2D, "SeparableConv"),
    (keras.layers.Conv1DTranspose, "ConvTranspose"),
    (keras.layers.Conv2DTranspose, "ConvTranspose"),
    (keras.layers.Conv3DTranspose, "ConvTranspose"),
    (keras.layers.Conv1D, "Conv"),
    (keras.layers.Conv2D, "Conv"),
    (keras.layers.Conv3D, "Conv"),
    (keras.layers.BatchNormalization, "BatchNorm"),
    (keras.layers.LayerNormalization, "LayerNorm"),
    (keras.layers.GroupNormalization, "GroupNorm"),
    (keras.layers.RMSNormalization, "RMSNorm"),
    (keras.layers.Embedding, "Embedding"),
    (keras.layers.PReLU, "PReLU"),
    (keras.layers.SimpleRNNCell, "SimpleRNN"),
    (keras.layers.LSTMCell, "LSTM"),
    (keras.layers.GRUCell, "GRU"),
)
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_ROLES = {"pointwise_kernel": "kernel", "scale": "gamma"}
_PROJECTIONS = {"_query_dense": "query", "_key_dense": "key", "_value_dense": "value", "_output_dense": "out"}


class Names:
    """What a model's layers and variables are called: paths relative to the model, each of them unique."""

    def __init__(self, model: keras.Model) -> None:
        self.paths: dict[int, str] = {id(model): ""}
        self.layers: list[keras.Layer] = [model]
        self._parents: dict[int, keras.Layer] = {}
        queue = deque([model])
        while queue:  # breadth first: a shared layer goes by its outermost owner
            layer = queue.popleft()
            for child in layer._layers:
                inner = isinstance(layer, keras.Sequential) and child is getattr(layer, "_functional", None)
                if id(child) in self.paths or isinstance(child, keras.layers.InputLayer) or inner:
                    continue
                self.paths[id(child)] = _unique(below(self.paths[id(layer)], child.name), set(self.paths.values()), "_")
                self._parents[id(child)] = layer
                self.layers.append(child)
                queue.append(child)
        self.variables: dict[str, Any] = {}
        self.parameters = tuple(self._parameters(model))

    def _parameters(self, model: keras.Model) -> Iterator[Parameter]:
        owners: dict[int, keras.Layer] = {}
        for layer in self.layers:
            for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
                owners.setdefault(id(variable), layer)
        trained = {id(variable) for variable in model.trainable_weights}
        for variable in model.weights:
            owner = owners.get(id(variable), model)
            name = _unique(below(self.paths[id(owner)], variable.name), self.variables, "#")
            self.variables[name] = variable
            layer, op, role = self._kind(owner, variable.name)
            yield Parameter(
                name=name,
                shape=tuple(variable.shape),
                layer=layer,
                op=op,
                role=role,
                framework="keras",
                trainable=id(variable) in trained,
                buffer=any(variable is other for other in owner._non_trainable_variables),
                dtype=str(variable.dtype),
            )

    def _kind(self, owner: keras.Layer, variable: str) -> tuple[str, str, str]:
        """The layer that shows the variable's effect, its op, and the variable's role in it."""
        op = next((op for kind, op in _OPS if isinstance(owner, kind)), "")
        role = _ROLES.get(variable, variable) if op else ""
        parent = self._parents.get(id(owner))
        if isinstance(parent, keras.layers.MultiHeadAttention):
            place = next((name for slot, name in _PROJECTIONS.items() if getattr(parent, slot, None) is owner), "")
            owner, op, role = parent, "MultiHeadAttention", f"{place}_{variable}" if place else ""
        elif isinstance(parent, keras.layers.TimeDistributed):  # it calls its layer's `call`: only its own output shows
            owner = parent
        while parent is not None and isinstance(parent, keras.layers.RNN | keras.layers.StackedRNNCells):
            if isinstance(parent, keras.layers.StackedRNNCells):
                op, role = "", ""  # several cells, one output
            owner, parent = parent, self._parents.get(id(parent))
        if isinstance(parent, keras.layers.Bidirectional) and isinstance(owner, keras.layers.RNN):
            role += "_reverse" if role and owner is parent.backward_layer else ""
            owner = parent
        if isinstance(owner, _CELLS):  # a cell called by the user's own loop
            op, role = "", ""
        return self.paths[id(owner)], op, role


def below(path: str, name: str) -> str:
    """A part's path."""
    return f"{path}/{name}" if path else name


def _unique(name: str, taken: Any, separator: str) -> str:
    count, wanted = 1, name
    while name in taken:
        count += 1
        name = f"{wanted}{separator}{count}"
    return name


class Recorder:
    """Floating tensors that layers put out while the model is called, in the order of the calls; and those that they
    are given which no layer put out (`path/input`): what a call of the user's own computed in between.

    shown: each as its layer computed it. read: what the later layers read in its place, by the same names; the same
    tensor but where `force(name, own)` answers with another one. outputs: the model's own among `read`, at its first
    call. failed: the innermost layer that raised. observe(layer, operation or function, args,
    kwargs, own result) is told of every call, inner ones first; of a layer with an activation also what that is given.
    """

    def __init__(
        self,
        names: Names,
        model: keras.Model,
        force: Callable[[str, Tensor], Tensor] | None,
        observe: Callable[[Any, Any, Any, Any], None] | None = None,
    ) -> None:
        self.shown: dict[str, Tensor] = {}
        self.read: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.returned: list[tuple[str, str]] = []
        self.integers: list[Tensor] = []
        self.failed = ""
        self._names, self._model, self._force, self._observe = names, model, force, observe
        self._given: dict[int, tuple[Any, Any]] = {}
        self._known: dict[int, tuple[Tensor, str]] = {}
        self._stack: list[Any] = []
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Every layer's and functional operation's call is watched; the classes are as they were in the end."""
        layers: Any = keras.layers.Layer
        operations: Any = keras.Operation
        policies: Any = keras.DTypePolicy
        layer_call, perform, convert = layers.__call__, operations.__call__, policies.convert_input

        def operation_call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if self._observe is None or any(isinstance(outer, keras.layers.RNN) for outer, _ in self._stack[:-1]):
                return perform(operation, *args, **kwargs)
            self._given[id(operation)] = args, kwargs
            result = perform(operation, *args, **kwargs)
            self._observe(operation, args, kwargs, result)
            return result

        def call_operation(operation: Any, *args: Any, **kwargs: Any) -> Any:
            owner = self._stack[-1][0] if self._stack else self._model
            nodes = () if isinstance(operation, keras.layers.Layer) else getattr(owner, "_operations", ())
            if not any(operation is node for node in nodes):  # inside a layer's own call
                return operation_call(operation, *args, **kwargs)
            return self._called(operation, operation_call, args, kwargs)

        def call_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return self._called(layer, layer_call, args, kwargs)

        def convert_input(policy: Any, x: Any, *args: Any) -> Any:
            converted = convert(policy, x, *args)
            if id(x) in self._known and converted is not x:  # in mixed precision: not a value of its own
                self._known[id(converted)] = (converted, self._known[id(x)][1])
            return converted

        wrapped = [layer for layer in self._names.layers if _bends(layer)]
        functions = [vars(layer)["activation"] for layer in wrapped]
        layers.__call__, operations.__call__, policies.convert_input = call_layer, call_operation, convert_input
        for layer, function in zip(wrapped, functions, strict=True):
            layer.__dict__["activation"] = self._before(layer, function)
        try:
            yield
        finally:
            layers.__call__, operations.__call__, policies.convert_input = layer_call, perform, convert
            for layer, function in zip(wrapped, functions, strict=True):
                layer.__dict__["activation"] = function

    def inside(self) -> Any:
        """The innermost layer that is being called."""
        return self._stack[-1][0] if self._stack else self._model

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor is shown, or an input of the model."""
        return id(tensor) in self._known

    def ignore(self, tensors: Any) -> None:
        """The model's inputs are no layer's output."""
        self._known.update({id(tensor): (tensor, "") for tensor in keras.tree.flatten(tensors)})

    def _put_out(self, predicted: Any) -> Any:
        """The model's outputs, those recorded too that no layer put out; `outputs` names them in the model's order."""
        if isinstance(predicted, Mapping):
            kind: Any = type(predicted)
            shown = kind({key: self._all(value, "output") for key, value in predicted.items()})
        else:
            shown = self._all(predicted, "output")
        flat = [(path, leaf) for path, leaf in leaves(shown) if isinstance(leaf, tf.Tensor)]
        if not self.outputs:
            self.integers = [tensor for _, tensor in flat if tensor.dtype.is_integer or tensor.dtype.is_bool]
            named = [(self._known.get(id(tensor), (None, ""))[1], path) for path, tensor in flat]
            self.returned = [(name, path) for name, path in named if name]
            self.outputs = {name: self.read[name] for name, _ in self.returned}
        return shown

    def _called(self, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if layer is self._model and not self._stack:
            return self._put_out(call(layer, *args, **kwargs))
        if isinstance(layer, keras.layers.Layer) and not layer.built:
            raise HarnessError(
                f"layer {layer.name} has no weights yet; call the model once on data, model(x[:1]), before comparing"
            )
        above = self._stack[-1][1] if self._stack else ""
        path = self._names.paths.get(id(layer)) or below(above, layer.name)
        step_by_step = any(isinstance(outer, keras.layers.RNN) for outer, _ in self._stack)  # a cell
        if not step_by_step:
            args, kwargs = self._all((args, kwargs), self._input(path))
        self._stack.append((layer, path))
        try:
            outputs = call(layer, *args, **kwargs)
        except Exception:
            self.failed = self.failed or path
            raise
        finally:
            _ = self._stack.pop()
        owner = self._stack[-1][0] if self._stack else None
        if step_by_step:
            return outputs
        if isinstance(owner, keras.layers.MultiHeadAttention) and layer is owner._output_dense:
            return outputs  # the attention's own, under its name
        return self._all(outputs, path)

    def _input(self, path: str) -> str:
        """What a call's own input goes by; a layer of that name keeps it."""
        name = below(_unique(path, self.shown, "#"), "input")
        return f"{name}()" if name in self._names.paths.values() else name

    def _before(self, layer: keras.Layer, function: Callable[..., Any]) -> Callable[..., Any]:
        def activation(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self._stack or self._stack[-1][0] is not layer:
                return function(x, *args, **kwargs)
            own, x = x, self._show(below(self._stack[-1][1], "linear"), x)
            result = function(x, *args, **kwargs)
            if self._observe is not None:
                self._observe(layer, *self._given[id(layer)], own)
                self._observe(function, (x, *args), kwargs, result)
            return result

        return activation

    def _all(self, outputs: Any, path: str) -> Any:
        flat = keras.tree.flatten(outputs)
        free = [tensor for tensor in flat if self._records(tensor)]
        if not free:
            return outputs
        base = _unique(path, self.shown, "#")
        replaced = {}
        for i, tensor in enumerate(flat):
            if self._records(tensor):
                replaced[id(tensor)] = self._record(f"{base}.{i}" if i else base, tensor)
        if all(replaced[id(tensor)] is tensor for tensor in free):
            return outputs
        return keras.tree.map_structure(lambda tensor: replaced.get(id(tensor), tensor), outputs)

    def _show(self, name: str, tensor: Tensor) -> Tensor:
        return self._record(_unique(name, self.shown, "#"), tensor) if self._records(tensor) else tensor

    def _records(self, tensor: Any) -> bool:
        if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating or id(tensor) in self._known:
            return False
        return tf.executing_eagerly() if self._graph is None else getattr(tensor, "graph", None) is self._graph

    def _record(self, name: str, own: Tensor) -> Tensor:
        read = own if self._force is None else _carried(own, self._force(name, own))
        self.shown[name], self.read[name] = own, read
        self._known[id(own)], self._known[id(read)] = (own, name), (read, name)
        return read


def _bends(layer: keras.Layer) -> bool:
    """Whether a layer applies an activation function to something of its own; a cell does so step by step."""
    function = vars(layer).get("activation")
    return callable(function) and function is not keras.activations.linear and not hasattr(layer, "state_size")


def _carried(own: Tensor, read: Tensor) -> Tensor:
    """A tensor in another's place: with its mask, and with the logits from which Keras computes the loss.

    keras 3.15, backend/tensorflow/nn.py, _get_logits: a mark on the tensor, in a graph also the operation behind it.
    """
    logits = getattr(own, "_keras_logits", None)
    if logits is None and not tf.executing_eagerly() and own.op.type in ("Softmax", "Sigmoid"):
        logits = own.op.inputs[0]
    for name, mark in (("_keras_logits", logits), ("_keras_mask", getattr(own, "_keras_mask", None))):
        if mark is not None:
            setattr(read, name, mark)
    return read
