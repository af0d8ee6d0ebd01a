"""The blocks of a torch model's forward pass, each read into the reference's ops.

What is read is every torch function as it is called, with the arguments that it gets: a module of torch's own is what
its `forward` calls, so that no attribute is taken for what was computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frameworks import pytorch_elementwise, pytorch_layers, pytorch_recurrent, pytorch_reducing, pytorch_shaping
from frameworks.pytorch_describing import named
from frameworks.pytorch_reading import Canonical, Read, Reading
from frameworks.pytorch_recording import Entry, Looks, function_name, of_torch
from frameworks.pytorch_tensors import array, tensors_in
from harness.calls import Call
from harness.ops import GRU, LSTM, Combine, Conv, Dropout, Einsum, Gather, Pad, Permute, SimpleRNN, Stack

_TABLES = (pytorch_layers, pytorch_recurrent, pytorch_elementwise, pytorch_reducing, pytorch_shaping)
_ROWS: Mapping[str, Any] = {name: reader for table in _TABLES for name, reader in table.ROWS.items()}

_ALIASES = {"axis": "dim", "keepdims": "keepdim", "x1": "input", "x2": "other"}
"""NumPy's names, which torch takes too (torch 2.13, torch/csrc/utils/python_arg_parser.cpp)."""

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted:
    """A reading in arrays, taken before the function ran, for it may change its arguments in place."""

    ops: tuple[Any, ...]
    inputs: Arrays
    parameters: tuple[Arrays, ...]
    names: tuple[tuple[str, ...], ...]
    canonical: Canonical | None
    ways: tuple[Lifted, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A function before it ran: its tensors, and what each output is; () where nothing is known, and then values."""

    func: Any
    tensors: list[Tensor]
    values: Arrays
    outputs: tuple[Lifted | None, ...]

    def inputs(self) -> Arrays:
        return next((lifted.inputs for lifted in self.outputs if lifted), self.values)


class Reader:
    """Reads the functions that a model calls on the way to the activations named."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.root, self.names = type(model).__name__, tuple(names)
        self.held: dict[int, list[tuple[str, Tensor]]] = {}
        for name, of in named(model).items():
            if of.tensor.layout == torch.strided:
                self.held.setdefault(of.tensor.untyped_storage().data_ptr(), []).append((name, of.tensor))

    def look(self, path: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Look | None:
        """What a module's function is about to compute; None where it is not asked for."""
        if path != self.root and not any(name.startswith(path) for name in self.names):
            return None
        tensors = tensors_in((args, kwargs))
        if not all(map(_has_values, tensors)):
            return None
        lifted = tuple(None if reading is None else self._lifted(reading) for reading in _read(func, args, kwargs))
        values = () if lifted else tuple(_value(tensor) for tensor in tensors if tensor.is_floating_point())
        return Look(func=func, tensors=tensors, values=values, outputs=lifted)

    def calls(self, name: str, entry: Entry) -> dict[str, Call]:
        """The block of an activation by its name; before it both directions of a recurrence (`lstm@1`, `lstm@2`)."""
        call, lifted = self._call(entry)
        if lifted is None or not lifted.ways:
            return {name: call}
        joined, count = lifted.ops[0], len(lifted.ways)
        parts = np.split(call.output, count, joined.axis)
        parts = [part[0] for part in parts] if isinstance(joined, Stack) else parts
        ways = {
            f"{name}@{k}": Call(
                kind=call.kind,
                ops=way.ops,
                inputs=way.inputs,
                parameters=way.parameters,
                names=way.names,
                output=part,
                canonical=_as_it_is,
            )
            for k, (way, part) in enumerate(zip(lifted.ways, parts, strict=True), 1)
        }
        return {**ways, name: replace(call, inputs=tuple(parts))}

    def call(self, entry: Entry) -> Call:
        """The block that an activation is the output of."""
        return self._call(entry)[0]

    def _call(self, entry: Entry) -> tuple[Call, Lifted | None]:
        """Torch's own module, or the function that a user's calls; and what is known of it."""
        known = [source for source in entry.sources if not isinstance(source[0], nn.Module) or of_torch(source[0])]
        found = [self._of(source, looks, entry) for source, looks in reversed(known or entry.sources)]
        return next((pair for pair in found if pair[0].ops), found[0])

    def _of(self, source: Any, looks: Looks, entry: Entry) -> tuple[Call, Lifted | None]:
        if isinstance(source, nn.Module):
            kind, lifted = type(source).__name__, _module(looks, entry.own) if of_torch(source) else None
        else:
            kind, lifted = function_name(source), _function(source, looks, entry.own)
        output = entry.value.astype(np.float64)
        if lifted is None:
            inputs = looks[0][0].inputs() if looks else ()
            call = Call(kind=kind, ops=(), inputs=inputs, parameters=(), names=(), output=output, canonical=_as_it_is)
            return call, None
        canonical, inputs = lifted.canonical or _as_it_is, lifted.inputs
        if isinstance(lifted.ops[-1], Dropout) and lifted.ops[-1].active:  # what it kept is seen only now
            inputs = (*inputs, (output != 0) | (inputs[0] == 0))
        call = Call(
            kind=kind,
            ops=lifted.ops,
            inputs=inputs,
            parameters=lifted.parameters,
            names=lifted.names,
            output=canonical(output),
            canonical=canonical,
        )
        return call, lifted

    def _lifted(self, reading: Reading) -> Lifted:
        inputs, parameters = self._sorted(reading)
        return Lifted(
            ops=reading.ops,
            inputs=tuple(map(_value, inputs)),
            parameters=tuple(tuple(map(_value, of_op)) for of_op in parameters),
            names=tuple(tuple(map(self._name, of_op)) for of_op in parameters),
            canonical=reading.canonical,
            ways=tuple(map(self._lifted, reading.ways)),
        )

    def _sorted(self, reading: Reading) -> tuple[Sequence[Tensor], Sequence[Sequence[Tensor]]]:
        """Inputs and parameters; what an arithmetic function reads of the model itself is a parameter."""
        parameters = [*reading.parameters, *[()] * (len(reading.ops) - len(reading.parameters))]
        op, inputs = reading.ops[0], list(reading.inputs)
        if not isinstance(op, Combine | Einsum) or parameters[0]:
            return inputs, parameters
        if isinstance(op, Combine) and op.kind in ("add", "multiply", "maximum", "minimum"):
            inputs.sort(key=lambda tensor: bool(self._name(tensor)))
        count = next((i for i, tensor in enumerate(inputs) if self._name(tensor)), len(inputs))
        if count > 0 and all(self._name(tensor) for tensor in inputs[count:]):
            return inputs[:count], [tuple(inputs[count:]), *parameters[1:]]
        return inputs, parameters

    def _name(self, tensor: Tensor) -> str:
        """Of a parameter or buffer, of one seen in another shape, or of rows of one; "" for anything else."""
        for name, whole in self.held.get(tensor.untyped_storage().data_ptr(), []):
            behind = (tensor.data_ptr() - whole.data_ptr()) // whole.element_size()
            is_rows = tensor.shape[1:] == whole.shape[1:] and tensor.stride() == whole.stride()
            is_reshaped = tensor.is_contiguous() and whole.is_contiguous() and behind == 0
            if 0 <= behind <= whole.numel() - tensor.numel() and (
                is_rows or (is_reshaped and tensor.numel() == whole.numel())
            ):
                return name
        return ""


def _read(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Reading | None, ...]:
    reader = _ROWS.get(_row(func))
    if reader is None or not str(getattr(func, "__module__", None) or "torch").startswith("torch"):
        return ()
    try:
        bound = inspect.signature(reader).bind(*args, **{_ALIASES.get(name, name): kwargs[name] for name in kwargs})
    except TypeError:  # another overload than the reader's
        return ()
    read: Read = reader(*bound.args, **bound.kwargs)
    return read if isinstance(read, tuple) else () if read is None else (read,)


def _row(func: Any) -> str:
    """As torch's name without underscores: `rsub` is another function than `sub`."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = func.__self__.__name__
    return name.strip("_")


def _function(func: Any, looks: Looks, own: Tensor) -> Lifted | None:
    if not looks or looks[-1][0].func is not func:
        return None
    look, result = looks[-1]
    return _output(look, result, own)


def _output(look: Look, result: Any, own: Tensor) -> Lifted | None:
    """What is known of the output that a tensor is."""
    floats = [tensor for tensor in tensors_in(result) if tensor.is_floating_point()]
    at = next((i for i, tensor in enumerate(floats) if tensor is own), None)
    return look.outputs[at] if at is not None and at < len(look.outputs) else None


def _module(looks: Looks, own: Tensor) -> Lifted | None:
    """What a module's functions compute together, where each one reads the one before alone.

    Axes moved before or after change the layout, not what is computed: `multi_head_attention_forward` is read in
    canonical layout, wherever nn.MultiheadAttention has the batch.
    """
    chain: list[Lifted] = []
    tensor, end = own, len(looks)
    while True:
        at = next((i for i in reversed(range(end)) if any(t is tensor for t in tensors_in(looks[i][1]))), None)
        if at is None:
            break
        look, result = looks[at]
        lifted = _output(look, result, tensor)
        if lifted is None or any(_is_computed(other, looks[:at]) for other in look.tensors[1:]):
            return None
        chain.insert(0, lifted)
        if not look.tensors:
            break
        tensor, end = look.tensors[0], at
    while len(chain) > 1 and _moves_axes(chain[0]):
        chain.pop(0)
    moved: list[Permute] = []
    while len(chain) > 1 and _moves_axes(chain[-1]):
        moved.append(chain.pop().ops[0])
    if not chain:
        return None
    whole = chain[0]
    for part in chain[1:]:
        reordered = _sorted_back(whole, part)
        if reordered:
            whole = reordered
            continue
        if whole.canonical or part.canonical or len(part.inputs) > 1:
            return None
        whole = _padded_conv(whole, part) or replace(
            whole,
            ops=whole.ops + part.ops,
            parameters=whole.parameters + part.parameters,
            names=whole.names + part.names,
        )
    return _behind(whole, moved)


def _is_computed(tensor: Tensor, looks: Looks) -> bool:
    """By a function that does more than move axes, so that a gradient flows on through it."""
    if not tensor.requires_grad:
        return False
    made = [look for look, result in looks if any(t is tensor for t in tensors_in(result))]
    return not all(look.outputs and _moves_axes(look.outputs[0]) for look in made)


def _moves_axes(lifted: Lifted | None) -> bool:
    return lifted is not None and len(lifted.ops) == 1 and isinstance(lifted.ops[0], Permute)


def _behind(lifted: Lifted, moved: Sequence[Permute]) -> Lifted:
    """With a layout of the output that axes moved afterwards have, the last first."""
    if not moved:
        return lifted
    before = lifted.canonical or _as_it_is

    def canonical(value: np.ndarray) -> np.ndarray:
        for op in moved:
            value = value.transpose(np.argsort(op.axes))
        return before(value)

    return replace(lifted, canonical=canonical)


def _sorted_back(states: Lifted, taken: Lifted) -> Lifted | None:
    """The states of a packed sequence, which was sorted by length, in the order of the batch."""
    match states.ops, taken.ops:
        case [(SimpleRNN() | LSTM() | GRU())], [Gather(axis=1)] if states.ops[0].returns in ("final", "cell"):
            return replace(states, inputs=tuple(array[taken.inputs[1]] for array in states.inputs))
    return None


def _padded_conv(pad: Lifted, conv: Lifted) -> Lifted | None:
    """A convolution with a padding_mode: nn.Conv2d pads, then convolves without padding."""
    match pad.ops, conv.ops:
        case [Pad() as padding], [Conv() as op] if not np.any(op.padding) and not np.any(padding.widths[:2]):
            merged = replace(op, padding=padding.widths[2:], padding_mode=padding.mode, padding_value=padding.value)
            return replace(conv, ops=(merged,), inputs=pad.inputs)
    return None


def _has_values(tensor: Tensor) -> bool:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # type: ignore[attr-defined]
    return tensor.layout == torch.strided and not tensor.is_meta and not wrapped


def _value(tensor: Tensor) -> np.ndarray:
    value = array(tensor)
    return value.astype(np.float64, copy=False) if tensor.is_floating_point() else value


def _as_it_is(value: np.ndarray) -> np.ndarray:
    return value
