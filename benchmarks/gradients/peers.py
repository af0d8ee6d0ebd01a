"""The frameworks' own gradient checkers on the same items, at their default tolerances and in float64."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gradients import Item
from benchmarks.gradients.looking import FAIL, RAISED, Found, tensors

TF_ERROR = 1e-4
"""tf.test.compute_gradient returns two Jacobians and no verdict: TensorFlow's own tests ask for this or more."""


def by_gradcheck(item: Item, fast: bool) -> bool:
    import torch

    subject = item.build()
    inputs = tuple(_leaf(tensor) for tensor in tensors(subject, "torch"))
    if not torch.autograd.gradcheck(subject.function, inputs, fast_mode=fast, raise_exception=False):
        return False
    if subject.options.get("order", 1) == 1:
        return True
    return torch.autograd.gradgradcheck(subject.function, inputs, fast_mode=fast, raise_exception=False)


def _leaf(tensor: Any) -> Any:
    import torch

    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).requires_grad_()


def by_compute_gradient(item: Item) -> bool:
    """Outputs one by one and inputs of numbers only, for it takes no others; it knows no second order."""
    import tensorflow as tf

    subject = item.build()
    given = tensors(subject, "tensorflow")
    floats = [i for i, value in enumerate(given) if value.dtype.is_floating]

    def output(k: int) -> Callable[..., Any]:
        def f(*values: Any) -> Any:
            whole = dict(zip(floats, values, strict=True))
            out = subject.function(*[whole.get(i, value) for i, value in enumerate(given)])
            return out[k] if isinstance(out, tuple | list) else out

        return f

    first = subject.function(*given)
    for k in range(len(first) if isinstance(first, tuple | list) else 1):
        points = [tf.cast(given[i], tf.float64) for i in floats]
        theory, numeric = tf.test.compute_gradient(output(k), points)
        if not all(np.max(np.abs(a - b), initial=0) <= TF_ERROR for a, b in zip(theory, numeric, strict=True)):
            return False
    return True


def by_check_grads(item: Item) -> bool:
    """In reverse mode: a custom_vjp has no other."""
    import jax.numpy as jnp
    from jax.test_util import check_grads

    subject = item.build()
    given = tensors(subject, "jax")
    floats = [i for i, value in enumerate(given) if jnp.issubdtype(value.dtype, jnp.floating)]

    def f(*values: Any) -> Any:
        whole = dict(zip(floats, values, strict=True))
        return subject.function(*[whole.get(i, value) for i, value in enumerate(given)])

    points = [given[i].astype(jnp.float64) for i in floats]
    try:
        check_grads(f, points, order=subject.options.get("order", 1), modes=["rev"])
    except AssertionError:
        return False
    return True


PEERS: dict[str, tuple[str, Callable[[Item], bool]]] = {
    "torch gradcheck": ("torch", lambda item: by_gradcheck(item, fast=False)),
    "torch gradcheck, fast": ("torch", lambda item: by_gradcheck(item, fast=True)),
    "tf.test.compute_gradient": ("tensorflow", by_compute_gradient),
    "jax check_grads": ("jax", by_check_grads),
}
"""Name -> framework and check."""

TOO_LARGE = 2_000
"""Jacobians of more inputs than this are not asked for: n by n, and gradcheck's fast mode falls back on them."""


def fits(item: Item, peer: str) -> bool:
    framework, _ = PEERS[peer]
    if item.framework != framework or "vjp" in item.build().options:
        return False
    return peer.endswith("check_grads") or sum(int(np.prod(a.shape)) for a in item.build().inputs) < TOO_LARGE


def judged_by(peer: str, item: Item) -> Found:
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            verdict = "pass" if PEERS[peer][1](item) else FAIL
    except Exception as error:
        return Found(verdict=RAISED, seconds=time.perf_counter() - began, reason=f"{type(error).__name__}: {error}")
    return Found(verdict=verdict, seconds=time.perf_counter() - began)
