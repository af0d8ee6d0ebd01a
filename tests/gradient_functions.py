"""Custom-gradient functions in each framework from one forward and one backward, written for a namespace `xp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Forward = Callable[..., Any]


def of_numpy(forward: Forward, backward: Forward) -> Any:
    return lambda *xs: forward(np, *xs), lambda v, *xs: backward(np, v, *xs)


def of_torch(forward: Forward, backward: Forward) -> Any:
    import torch

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *xs: Any) -> Any:
            ctx.save_for_backward(*xs)
            return forward(torch, *xs)

        @staticmethod
        def backward(ctx: Any, *vs: Any) -> Any:
            return backward(torch, _one(vs), *ctx.saved_tensors)

    return Custom.apply


def of_tensorflow(forward: Forward, backward: Forward) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def custom(*xs: Any) -> Any:
        return forward(tf, *xs), lambda *vs: backward(tf, _one(vs), *xs)

    return custom


def of_jax(forward: Forward, backward: Forward) -> Any:
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def custom(*xs: Any) -> Any:
        return forward(jnp, *xs)

    def back(xs: Any, v: Any) -> Any:
        grads = backward(jnp, v, *xs)
        return grads if isinstance(grads, tuple) else (grads,)

    custom.defvjp(lambda *xs: (forward(jnp, *xs), xs), back)
    return custom


def _one(vs: Any) -> Any:
    return vs if len(vs) > 1 else vs[0]


BUILDERS = {"numpy": of_numpy, "pytorch": of_torch, "tensorflow": of_tensorflow, "jax": of_jax}
