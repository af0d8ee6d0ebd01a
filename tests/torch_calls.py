"""A block of torch, what the recorder reads of it, and what NumPy makes of that reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from frameworks import pytorch_models as models
from harness.calls import Call
from harness.recipe import Batch, Recipe
from reference.kinds import apply, pull_back

CLOSE = 1e-12
"""Relative to the largest element: both sides sum the same products in float64, in another order."""


class Block(nn.Module):
    """A block, on an input whose cotangent shows as a parameter's gradient."""

    def __init__(self, block: Callable[..., Any], x: np.ndarray) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(x.shape)) if np.issubdtype(x.dtype, np.floating) else None
        self.block = block

    def forward(self, x: Any) -> Any:
        return self.block(x if self.zero is None else x + self.zero)


def seen(block: Callable[..., Any], x: np.ndarray, training: bool = True, name: str = "") -> tuple[Call, Any, Any]:
    """The call of a block's output, its record under a random cotangent, and that cotangent."""
    with torch.random.fork_rng([]):
        return _seen(block, x, training, name)


def _seen(block: Callable[..., Any], x: np.ndarray, training: bool, name: str) -> tuple[Call, Any, Any]:
    torch.manual_seed(0)
    for parameter in block.parameters() if isinstance(block, nn.Module) else ():
        nn.init.normal_(parameter)
    watched = models.watch(Recipe(model=Block(block, x), training=training), "float64", False)
    batch = Batch(inputs=(x,))
    name = name or watched.step(batch).outputs[0]
    shown = watched.step(batch).activations[name]
    dy = np.random.default_rng(1).normal(size=shown.shape)
    record = watched.pull_back(batch, {name: dy})
    return watched.calls(batch, [name])[name], record, dy


def computed(call: Call) -> list[np.ndarray]:
    """The output of each op, each one reading the one before."""
    values: list[np.ndarray] = []
    for op, parameters in zip(call.ops, call.parameters, strict=True):
        values.append(apply(op, (values[-1],) if values else call.inputs, parameters))
    return values


def assert_close(candidate: np.ndarray, reference: np.ndarray) -> None:
    assert candidate.shape == reference.shape
    np.testing.assert_allclose(candidate, reference, rtol=0, atol=CLOSE * max(np.abs(reference).max(initial=0), 1e-300))


def assert_reproduces(call: Call, record: Any, dy: np.ndarray, layout: tuple[int, ...] | None = None) -> None:
    """layout: axes of the canonical input in torch's own."""
    assert call.ops
    values = computed(call)
    assert_close(values[-1], call.output)
    gradient, found, into = call.canonical(dy), {}, ()
    for i in reversed(range(len(call.ops))):
        inputs = (values[i - 1],) if i else call.inputs
        into, of_parameters = pull_back(call.ops[i], gradient, values[i], inputs, call.parameters[i])
        for name, of in zip(call.names[i], of_parameters, strict=True):
            if name and of is not None:
                found.setdefault(name, []).append(of)
        if into[0] is None:  # indices
            break
        gradient = into[0]
    for name, parts in found.items():
        assert_close(np.concatenate(parts).reshape(record.gradients[name].shape), record.gradients[name])
    if "zero" in record.gradients:
        total = np.sum([of for of in into if of is not None and of.shape == gradient.shape], axis=0)
        own = total.reshape(record.gradients["zero"].shape) if layout is None else total.transpose(layout)
        assert_close(own, record.gradients["zero"])


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)
