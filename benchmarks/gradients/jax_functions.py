"""jax.custom_vjp and jax.custom_jvp as their users write them: residuals, nondiff_argnums, jit, primals that differ."""

# The functions stand in closures with their mistakes as switches: a rule's primal, forward and backward are three.
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gradients import Subject, fixed, item
from benchmarks.gradients.data import apart, integers, normal

X, Y = normal(3, 4), normal(3, 4, seed=1)
TABLE, WORDS = normal(5, 3), integers(2, 4, below=5)


def vjp(primal: Callable[..., Any], ahead: Callable[..., Any], back: Callable[..., Any]) -> Callable[..., Any]:
    custom = jax.custom_vjp(primal)
    custom.defvjp(ahead, back)
    return custom


def jvp(primal: Callable[..., Any], rule: Callable[..., Any]) -> Callable[..., Any]:
    custom = jax.custom_jvp(primal)
    custom.defjvp(rule)
    return custom


def log1pexp(factor: float = 1.0) -> Callable[..., Any]:
    """The example of JAX's own documentation, as a jvp."""

    def rule(primals: Any, tangents: Any) -> Any:
        (x,), (x_dot,) = primals, tangents
        return jnp.logaddexp(x, 0.0), factor * (1 - 1 / (1 + jnp.exp(x))) * x_dot

    return jvp(lambda x: jnp.logaddexp(x, 0.0), rule)


def product_rule(both: bool) -> Callable[..., Any]:
    def rule(primals: Any, tangents: Any) -> Any:
        (x, y), (x_dot, y_dot) = primals, tangents
        return x * y, x_dot * y + (x * y_dot if both else 0 * y_dot)

    return jvp(lambda x, y: x * y, rule)


def swish(primal: Callable[..., Any]) -> Callable[..., Any]:
    """forward and backward of x sigmoid(x), whatever the primal is."""

    def back(x: Any, v: Any) -> Any:
        s = jax.nn.sigmoid(x)
        return (v * s * (1 + x * (1 - s)),)

    return vjp(primal, lambda x: (x * jax.nn.sigmoid(x), x), back)


def cube(residual: Callable[[Any], Any]) -> Callable[..., Any]:
    """x^3; the backward's residual is 3 x^2, or something of it."""
    return vjp(lambda x: x**3, lambda x: (x**3, residual(x)), lambda slope, v: (v * slope,))


def scaled_sine(factor: float = 1.0, outer: bool = True) -> Callable[..., Any]:
    """sin(a x) with a number that is not differentiated."""

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def f(a: float, x: Any) -> Any:
        return jnp.sin(a * x)

    f.defvjp(lambda a, x: (jnp.sin(a * x), x), lambda a, x, v: (factor * (a if outer else 1.0) * v * jnp.cos(a * x),))
    return partial(f, 3.0)


def gathered(add: bool) -> Callable[..., Any]:
    def back(residuals: Any, v: Any) -> Any:
        words, table = residuals
        zeros = jnp.zeros_like(table)
        return (zeros.at[words].add(v) if add else zeros.at[words].set(v)), None

    return vjp(lambda table, words: table[words], lambda table, words: (table[words], (words, table)), back)


def rounded() -> Callable[..., Any]:
    return vjp(lambda x: jnp.round(x), lambda x: (jnp.round(x), None), lambda _, v: (v,))


def one_hot_of_the_largest() -> Callable[..., Any]:
    """Straight through a softmax: no derivative of an argmax."""

    def forward(x: Any) -> Any:
        return jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1], dtype=x.dtype)

    def back(x: Any, v: Any) -> Any:
        return jax.vjp(partial(jax.nn.softmax, axis=-1), x)[1](v)

    return vjp(forward, lambda x: (forward(x), x), back)


def fixed_point(sign: float = 1.0) -> Callable[..., Any]:
    """x = cos(x a) by while_loop, differentiated implicitly."""

    def solve(a: Any) -> Any:
        return jax.lax.fori_loop(0, 80, lambda _, x: jnp.cos(x * a), jnp.ones_like(a))

    def back(residuals: Any, v: Any) -> Any:
        a, x = residuals
        s = jnp.sin(x * a)
        return (-v * x * s / (1 + sign * a * s),)

    return vjp(solve, lambda a: (lambda x: (x, (a, x)))(solve(a)), back)


def tupled(second: float) -> Callable[..., Any]:
    def back(x: Any, v: Any) -> Any:
        return (v[0] * jnp.cos(x) + second * v[1] * jnp.exp(x),)

    return vjp(lambda x: (jnp.sin(x), jnp.exp(x)), lambda x: ((jnp.sin(x), jnp.exp(x)), x), back)


def pooled(shift: int) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        return jnp.max(x.reshape(3, 2, 2), -1)

    def back(x: Any, v: Any) -> Any:
        index = (jnp.argmax(x.reshape(3, 2, 2), -1) + shift) % 2
        return ((v[..., None] * jax.nn.one_hot(index, 2, dtype=v.dtype)).reshape(3, 4),)

    return vjp(forward, lambda x: (forward(x), x), back)


def first_calls() -> Callable[..., Any]:
    kept: list[Any] = []

    def back(_: Any, v: Any) -> Any:
        return (v * jnp.cos(kept[0]).astype(v.dtype),)

    def ahead(x: Any) -> Any:
        if not kept:
            kept.append(jnp.array(x))
        return jnp.sin(x), None

    return vjp(jnp.sin, ahead, back)


def wrong_shape() -> Callable[..., Any]:
    return vjp(lambda x: x.sum(0), lambda x: (x.sum(0), x), lambda x, v: (v,))


def too_few() -> Callable[..., Any]:
    return vjp(lambda x, y: x * y, lambda x, y: (x * y, (x, y)), lambda r, v: (v * r[1],))


def safe_norm() -> Callable[..., Any]:
    def norm(x: Any) -> Any:
        return jnp.sqrt(jnp.sum(x**2))

    return vjp(norm, lambda x: (norm(x), x), lambda x, v: (v * x / jnp.maximum(norm(x), 1e-30),))


_jax = partial(fixed, "jax_functions", "jax")
ITEMS = [
    _jax("log(1 + exp) by a jvp", "ordinary", log1pexp(), (X,)),
    _jax("log(1 + exp) by a jvp, sign", "wrong", log1pexp(-1), (X,), "sign jvp"),
    _jax("log(1 + exp) by a jvp, half", "wrong", log1pexp(0.5), (X,), "factor jvp"),
    _jax("product by a jvp", "ordinary", product_rule(True), (X, Y)),
    _jax("product by a jvp, second forgotten", "wrong", product_rule(False), (X, Y), "zero jvp"),
    _jax("swish", "ordinary", swish(jax.nn.swish), (X,)),
    _jax("swish, another primal", "wrong", swish(lambda x: x * jax.nn.sigmoid(1.702 * x)), (X,), "primal"),
    _jax("swish, primal without its gate", "wrong", swish(lambda x: x), (X,), "primal"),
    _jax("cube, second order", "ordinary", cube(lambda x: 3 * x**2), (X,), order=2),
    _jax("cube, frozen", "wrong", cube(lambda x: jax.lax.stop_gradient(3 * x**2)), (X,), "second-order", order=2),
    _jax("nondiff_argnums", "ordinary", scaled_sine(), (X,)),
    _jax("nondiff_argnums, number forgotten", "wrong", scaled_sine(outer=False), (X,), "factor"),
    _jax("nondiff_argnums, jit, sign", "wrong", jax.jit(scaled_sine(-1.0)), (X,), "sign"),
    _jax("jit", "ordinary", jax.jit(scaled_sine()), (X,)),
    _jax("gathered rows", "ordinary", gathered(True), (TABLE, WORDS)),
    _jax("gathered rows, overwritten", "wrong", gathered(False), (TABLE, WORDS), "element missing-term unknown"),
    _jax("rounding", "wrong", rounded(), (3 * X,), "surrogate"),
    _jax("rounding, announced", "awkward", rounded(), (3 * X,), vjp=lambda v, x: v),
    _jax("one-hot of the largest, through a softmax", "wrong", one_hot_of_the_largest(), (X,), "surrogate unknown"),
    _jax("fixed point", "awkward", fixed_point(), (0.2 + abs(Y) / 3,)),
    _jax("fixed point, sign", "wrong", fixed_point(-1), (0.2 + abs(Y) / 3,), "unknown"),
    _jax("two outputs", "ordinary", tupled(1.0), (X,)),
    _jax("two outputs, second's half", "wrong", tupled(0.5), (X,), "factor"),
    _jax("two outputs, second lost", "wrong", tupled(0.0), (X,), "zero missing-term"),
    _jax("pooling", "ordinary", pooled(0), (apart(3, 4),)),
    _jax("pooling, the other one", "wrong", pooled(1), (apart(3, 4),), "unknown"),
    item("jax_functions/first call's", "jax", "wrong", lambda: Subject(function=first_calls(), inputs=(X,)), "stale"),
    _jax("wrong shape", "wrong", wrong_shape(), (X,), "shape raises broadcast"),
    _jax("too few gradients", "wrong", too_few(), (X, Y), "shape raises"),
    _jax("length of 0", "awkward", safe_norm(), (0 * X,)),
]
