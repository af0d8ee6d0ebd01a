"""Torch tensors one by one and in the structures that models take and return."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def array(tensor: Tensor) -> np.ndarray:
    """In memory of its own; what is stored in less than float32 as float32, for NumPy has no bfloat16."""
    own = tensor.detach().to_dense().cpu()
    return (own.float() if own.is_floating_point() and own.itemsize < 4 else own).numpy().copy()


def shown(tensor: Tensor) -> bool:
    # inside torch.func.vmap and its kin a tensor has no value
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # type: ignore[attr-defined]
    return tensor.is_floating_point() and not wrapped


def key(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that show the same values: one storage, seen alike, unchanged in between."""
    if tensor.layout != torch.strided:
        return (id(tensor), tensor._version)
    place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor._version)
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def like(value: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.tensor(np.ascontiguousarray(value), dtype=tensor.dtype, device=tensor.device).reshape(tensor.shape)


def tensors_in(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(value, lambda tensor: found.append(tensor) or tensor)
    return found


def integers_in(value: Any) -> list[np.ndarray]:
    """Of integers and booleans."""
    found = tensors_in(value)
    return [array(tensor) for tensor in found if not (tensor.is_floating_point() or tensor.is_complex())]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A structure of tensors with each one changed in order; the same object where none is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {key: mapped(item, change) for key, item in value.items()}
        if all(items[key] is value[key] for key in items):
            return value
        changed: Any = copy.copy(value)  # a class of its own keeps its attributes
        changed.update(items)
        return changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        changed_fields = mapped(fields, change)
        return value if changed_fields is fields else dataclasses.replace(value, **changed_fields)
    if isinstance(value, tuple | list):
        parts = [mapped(item, change) for item in value]
        if all(part is item for part, item in zip(parts, value, strict=True)):
            return value
        make: Callable[[Any], Any] = getattr(type(value), "_make", type(value))
        return make(parts)
    return value
