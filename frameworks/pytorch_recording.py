"""What a torch model computes, recorded by name as it runs: module outputs by hooks, functions by a function mode."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from frameworks.pytorch_tensors import array, integers_in, key, like, mapped, shown, tensors_in
from frameworks.structures import leaves
from harness.recipe import Forced, Record, State

_BACKWARD = (Tensor.backward, torch.autograd.backward)
_UNRECORDED = ("data", "grad")
_OPERATOR = re.compile(r"^[ir](?=(?:add|sub|mul|div|truediv|matmul|pow|floordiv|mod)$)")

Observe = Callable[[str, Any, Any, Any], Any]
"""Called with the path of the module being run, the function that it is about to call, args and kwargs."""
Looks = list[tuple[Any, Any]]
"""What an observer returned for each function in order, with the function's result."""


@dataclass(slots=True)
class Frame:
    """A module being run; `opaque`: torch's own, without parts, so that its output says all."""

    path: str
    module: nn.Module
    opaque: bool
    looks: Looks = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """A recorded tensor: its value, and the tensor that later code reads (another one where it is forced).

    sources: the function or module (or a function and the module that returned its result) that it is the output of.
    """

    name: str
    value: np.ndarray
    own: Tensor
    read: Tensor
    frame: Frame | None
    hooked: bool = False
    cotangent: np.ndarray | None = None
    sources: list[tuple[Any, Looks]] = field(default_factory=list)


class Replaced(torch.autograd.Function):
    """Another value in a tensor's place; the cotangent flows on to the tensor as it is."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return cotangents[0], None


class Recording(TorchFunctionMode):
    """One step's recording: what runs in the model within `forward`, and what flows back within `backward`.

    is_whole: the model is compiled or scripted, in whole or in part, and only its outputs can be seen. after_backward:
    called behind each backward pass that the user's own code begins.
    """

    def __init__(
        self, model: nn.Module, forced: Forced, loss_scale: float = 1.0, observe: Observe | None = None
    ) -> None:
        super().__init__()
        self.model, self.forced, self.loss_scale, self.observe = model, forced, loss_scale, observe
        self.losses: list[Tensor] = []
        self.after_backward: Callable[[], None] = lambda: None
        self._outputs: list[Entry] = []
        self._integers: list[np.ndarray] = []
        self._keys: list[str] = []
        self._returned: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._entries: list[Entry] = []
        self._stack: list[Frame] = []
        self._known: dict[tuple[Any, ...], Entry | None] = {}
        self._given: dict[int, Tensor] = {}
        self._calls: Counter[str] = Counter()
        self._modules = dict(model.named_modules())
        self.is_whole = any(map(_runs_whole, self._modules.values()))
        self._taken: set[str] = set()
        self._recording = self._in_backward = False

    # --- for the watcher ----------------------------------------------------------------------------------------

    @contextmanager
    def forward(self, inputs: tuple[Tensor, ...]) -> Iterator[None]:
        """Record what runs within. Inputs, and views of what the model holds, are no activations."""
        held = [tensor for tensor in (*self.model.parameters(), *self.model.buffers()) if not tensor.is_sparse]
        self._known |= {key(tensor): None for tensor in (*inputs, *held)}
        self._given = {tensor.untyped_storage().data_ptr(): tensor for tensor in held}
        modules = {} if self.is_whole else self._modules
        frames = [_frame(self.model, path, module) for path, module in modules.items()]
        handles = [
            handle
            for frame in frames
            for handle in (
                frame.module.register_forward_pre_hook(partial(self._enter, frame), prepend=True),
                frame.module.register_forward_hook(partial(self._leave, frame)),
            )
        ]
        self._recording = True
        try:
            if self.is_whole:  # a compiler would trace the mode
                yield
            else:
                with self:
                    yield
        finally:
            self._recording = False
            for handle in handles:
                handle.remove()

    def whole(self, output: Any) -> Any:
        """Record the outputs of a model that runs whole; returns them, those forced in their place."""
        name = type(self.model).__name__
        self._note_structure(output)
        return self._results(output, partial(self._output, Frame(name, self.model, True), name, True))

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Record cotangents within, and force them; a penalty's own gradients, taken outside, are not the step's."""
        for entry in self._entries:  # what a custom autograd function computes has no history until it is done
            if self._known.get(key(entry.own)) is entry:
                self._hook(entry)
        before = self._recording
        self._recording, self._in_backward = False, True
        try:
            yield
        finally:
            self._recording, self._in_backward = before, False

    def finish(
        self,
        loss: Tensor | None = None,
        gradients: Mapping[str, np.ndarray | None] | None = None,
        after: State | None = None,
    ) -> Record:
        """The step's record. The hooks go: through them the graph would hold this recording, and be held by it."""
        for handle in self._handles:
            handle.remove()
        entries, self._entries, self._known = self._entries, [], {}
        return Record(
            activations={entry.name: entry.value for entry in entries},
            outputs=tuple(entry.name for entry in self._outputs),
            keys=tuple(self._keys),
            integers=tuple(self._integers),
            loss=None if loss is None else array(loss.reshape(())),
            cotangents={entry.name: entry.cotangent for entry in entries if entry.cotangent is not None},
            gradients=gradients or {},
            after=after,
        )

    def tensors(self) -> dict[str, Tensor]:
        """By name, as later code reads them; outputs as they are returned."""
        return {entry.name: entry.read for entry in self._entries} | self._returned

    def entries(self) -> Mapping[str, Entry]:
        return {entry.name: entry for entry in self._entries}

    @property
    def in_model(self) -> bool:
        return bool(self._stack)

    def place(self) -> str:
        """The innermost module being run, for a message."""
        frame = self._stack[-1] if self._stack else Frame(type(self.model).__name__, self.model, False)
        return f"{frame.path} ({type(frame.module).__name__})"

    # --- modules ------------------------------------------------------------------------------------------------

    def _enter(self, frame: Frame, module: nn.Module, inputs: Any) -> None:
        if self._recording:
            # a frame of its own for each call: what this call's functions computed is told from an earlier call's
            self._stack.append(Frame(frame.path, frame.module, frame.opaque))

    def _leave(self, _: Frame, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not self._recording:
            return None
        frame = self._stack.pop()
        while frame.module is not module:  # left by an error that the model caught
            frame = self._stack.pop()
        self._calls[frame.path] += 1
        calls, is_root = self._calls[frame.path], module is self.model
        base = frame.path if calls == 1 else f"{frame.path}#{calls}"
        with self._paused():
            if is_root:
                self._note_structure(output)
            return self._results(output, partial(self._output, frame, base, is_root))

    def _note_structure(self, output: Any) -> None:
        self._integers += integers_in(output)
        self._keys += [path for path, leaf in leaves(output) if isinstance(leaf, Tensor) and shown(leaf)]

    def _output(self, frame: Frame, base: str, is_root: bool, position: int, tensor: Tensor) -> Tensor:
        """A module's own name for its output, unless a part of it or an earlier module has named it."""
        name = f"{base}.{position}" if position else base
        entry = self._known.get(key(tensor))
        if entry is None and (is_root or key(tensor) not in self._known):
            entry = self._record(name, tensor, None)
            entry.sources.append((frame.module, frame.looks))
        elif entry is not None and entry.frame is frame and (not is_root or _holds(frame.module)):
            entry.name, entry.frame = self._unique(name), None
            entry.sources.append((frame.module, frame.looks))
            self._force(entry)
        if entry is None:
            return tensor
        if entry.read is not entry.own:  # forced; a detached alias of it stays detached
            tensor = entry.read if tensor.requires_grad else entry.read.detach()
        if is_root:
            self._outputs.append(entry)
            self._returned[entry.name] = tensor
        return tensor

    # --- functions ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _BACKWARD:
            roots = args[0] if args else kwargs["tensors"]
            self.losses += [roots] if isinstance(roots, Tensor) else roots
            with self.backward():
                result = func(*args, **kwargs)
            self.after_backward()
            return result
        frame = self._stack[-1] if self._recording and self._stack else None
        look = self.observe(frame.path, func, args, kwargs) if self.observe and frame else None
        result = func(*args, **kwargs)
        looks = [] if look is None else [(look, result)]
        if frame:
            frame.looks += looks
        base = function_name(func)
        if frame is None or frame.opaque or base in _UNRECORDED or not tensors_in((args, kwargs)):
            return result
        if frame.module is not self.model:
            base = f"{frame.path}/{base}"
        elif base in self._modules:  # the name belongs to that module's output
            base += "()"
        with self._paused():
            if func is Tensor.__setitem__:
                return self._assigned(frame, base, args[0], (func, looks))
            return self._results(result, partial(self._result, frame, self._number(base, result), (func, looks)))

    def _number(self, base: str, result: Any) -> str:
        """`base`, or `base#2`, ...: counted only where there is something to record."""
        if not any(self._is_new(tensor) for tensor in tensors_in(result)):
            return base
        self._calls[base] += 1
        return base if self._calls[base] == 1 else f"{base}#{self._calls[base]}"

    def _result(self, frame: Frame, name: str, source: tuple[Any, Looks], position: int, tensor: Tensor) -> Tensor:
        if not self._is_new(tensor):
            return tensor
        entry = self._record(f"{name}.{position}" if position else name, tensor, frame)
        entry.sources.append(source)
        return entry.read

    def _assigned(self, frame: Frame, base: str, target: Tensor, source: tuple[Any, Looks]) -> None:
        """`target[index] = value` returns nothing, so a forced value goes into the target itself."""
        name = self._number(base, target)
        if self._is_new(target):
            entry = self._record(name, target, frame)
            entry.sources.append(source)
            if entry.read is not target:
                target.copy_(entry.read)
                self._known[key(target)] = entry
                entry.read = target

    def _is_new(self, tensor: Tensor) -> bool:
        return shown(tensor) and key(tensor) not in self._known and not self._is_given(tensor)

    def _is_given(self, tensor: Tensor) -> bool:
        return tensor.layout == torch.strided and tensor.untyped_storage().data_ptr() in self._given

    # --- entries ------------------------------------------------------------------------------------------------

    def _record(self, name: str, tensor: Tensor, frame: Frame | None) -> Entry:
        entry = Entry(self._unique(name), array(tensor), tensor, tensor, frame)
        self._entries.append(entry)
        self._known[key(tensor)] = entry
        self._hook(entry)
        self._force(entry)
        return entry

    def _unique(self, name: str) -> str:
        """A second output `0.1` of module `0` is not its part `0.1`."""
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name

    def _force(self, entry: Entry) -> None:
        if entry.name in self.forced.activations and entry.read is entry.own:
            value = like(self.forced.activations[entry.name], entry.own)
            entry.read = Replaced.apply(entry.own, value)  # type: ignore[assignment]
            self._known[key(entry.read)] = entry

    def _hook(self, entry: Entry) -> None:
        # a hook sees the gradient of the tensor as it is now, also where it is changed in place later on
        # (torch 2.13, docs/source/notes/autograd.rst, "Behavior of Tensor hooks when Tensor is modified in-place")
        if not entry.hooked and entry.own.requires_grad:
            self._handles.append(entry.own.register_hook(partial(self._cotangent, entry)))
            entry.hooked = True

    def _cotangent(self, entry: Entry, cotangent: Tensor | None) -> Tensor | None:
        if not self._in_backward or cotangent is None:  # of an unused part of several outputs torch says None
            return None
        value = array(cotangent) / np.float32(self.loss_scale)
        entry.cotangent = value if entry.cotangent is None else entry.cotangent + value
        forced = self.forced.cotangents.get(entry.name)
        return None if forced is None else like(forced * np.float32(self.loss_scale), cotangent)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """What the recorder itself computes is not the model's, and does not come by this mode."""
        self._recording = False
        try:
            with torch._C.DisableTorchFunction():
                yield
        finally:
            self._recording = True

    def _results(self, value: Any, change: Callable[[int, Tensor], Tensor]) -> Any:
        """A module's or function's result with every floating-point tensor changed, counted in order."""
        count = -1

        def changed(tensor: Tensor) -> Tensor:
            nonlocal count
            if not shown(tensor):
                return tensor
            count += 1
            return change(count, tensor)

        return mapped(value, changed)


def _runs_whole(module: nn.Module) -> bool:
    """Compiled or scripted."""
    return (
        isinstance(module, torch.jit.ScriptModule)
        or type(module).__name__ == "OptimizedModule"  # importing torch._dynamo to ask costs a second
        or getattr(module, "_compiled_call_impl", None) is not None
    )


def _frame(model: nn.Module, path: str, module: nn.Module) -> Frame:
    is_opaque = of_torch(module) and not any(True for _ in module.children())
    return Frame(path or type(model).__name__, module, is_opaque)


def of_torch(module: nn.Module) -> bool:
    """torch's own, or computing as torch's own does."""
    return str(getattr(module.forward, "__module__", "")).startswith("torch.")


def _holds(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def function_name(func: Any) -> str:
    """`relu` for relu, relu_ and F.relu; `add` for +, +=; `T` for the property."""
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__"):
        name = func.__self__.__name__
    return _OPERATOR.sub("", name.strip("_"))
