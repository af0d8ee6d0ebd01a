"""One rule of differentiation, built as users build it in every framework: forward and backward on an array namespace.

forward(xp, inputs...) and backward(xp, inputs..., cotangents...), where xp is numpy, torch, jax.numpy or
tensorflow.experimental.numpy: what they share is enough for most mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.gradients import Item, Kind, Subject, item

Backward = Callable[..., Any]
Place = tuple[int, tuple[int, ...]]

NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A backward that is wrong; `inputs` where it shows elsewhere than the rule's own, `options` for the checker."""

    name: str
    patterns: str
    backward: Backward
    inputs: tuple[Any, ...] | None = None
    at: Place | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def wrong(
    name: str,
    patterns: str,
    backward: Backward,
    inputs: Sequence[Any] | None = None,
    at: Place | None = None,
    options: Mapping[str, Any] = NONE,
) -> Mistake:
    return Mistake(
        name=name,
        patterns=patterns,
        backward=backward,
        inputs=None if inputs is None else tuple(inputs),
        at=at,
        options=options,
    )


def rule(
    name: str,
    inputs: Sequence[Any],
    forward: Callable[..., Any],
    backward: Backward | None,
    *mistakes: Mistake,
    kind: Kind = "ordinary",
    options: Mapping[str, Any] = NONE,
    frameworks: Sequence[str] = ("torch", "tensorflow", "jax", "numpy"),
) -> list[Item]:
    """The rule (unless its right backward stands elsewhere: None) and its mistakes, in every framework named."""
    built: list[Item] = []
    for framework in frameworks:
        if backward is not None:
            built.append(
                item(name, framework, kind, partial(subject, framework, forward, backward, tuple(inputs), options))
            )
        for mistake in mistakes:
            at = tuple(inputs) if mistake.inputs is None else mistake.inputs
            build = partial(subject, framework, forward, mistake.backward, at, mistake.options)
            built.append(item(f"{name}, {mistake.name}", framework, "wrong", build, mistake.patterns, mistake.at))
    return built


def subject(
    framework: str, forward: Callable[..., Any], backward: Backward, inputs: tuple[Any, ...], options: Mapping[str, Any]
) -> Subject:
    if framework == "numpy":
        return Subject(function=numpy_pair(forward, backward), inputs=inputs, options=options)
    return Subject(function=BUILDERS[framework](forward, backward), inputs=inputs, options=options)


def numpy_pair(forward: Callable[..., Any], backward: Backward) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def vjp(cotangent: Any, *inputs: Any) -> Any:
        v = cotangent if isinstance(cotangent, tuple) else (cotangent,)
        return backward(np, *inputs, *v)

    return partial(forward, np), vjp


def like(xp: Any, constant: np.ndarray, x: Any) -> Any:
    """A constant as an array of x's kind and precision."""
    return xp.asarray(constant, dtype=x.dtype)


def flipped(xp: Any, x: Any, axis: int = 0) -> Any:
    return xp.flip(x, (axis,) if xp.__name__ == "torch" else axis)


def torch_function(forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    import torch

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> Any:
            ctx.save_for_backward(*inputs)
            return forward(torch, *inputs)

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
            return backward(torch, *ctx.saved_tensors, *cotangents)

    return Custom.apply


def tensorflow_function(forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    import tensorflow as tf
    import tensorflow.experimental.numpy as tnp  # pyright: ignore[reportMissingImports] (TF loads it lazily)

    @tf.custom_gradient
    def custom(*inputs: Any) -> Any:
        def gradient(*cotangents: Any) -> Any:
            return backward(tnp, *inputs, *cotangents)

        return forward(tnp, *inputs), gradient

    return custom


def jax_function(forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def custom(*inputs: Any) -> Any:
        return forward(jnp, *inputs)

    def ahead(*inputs: Any) -> Any:
        return forward(jnp, *inputs), inputs

    def back(inputs: Any, cotangents: Any) -> tuple[Any, ...]:
        v = cotangents if isinstance(cotangents, tuple) else (cotangents,)
        gradients = backward(jnp, *inputs, *v)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    custom.defvjp(ahead, back)
    return custom


BUILDERS: dict[str, Callable[[Callable[..., Any], Backward], Callable[..., Any]]] = {
    "torch": torch_function,
    "tensorflow": tensorflow_function,
    "jax": jax_function,
}
