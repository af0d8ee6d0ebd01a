"""The frameworks' own training loops on the tutorial network, as their users write them: they train and record nothing.

Each function here takes x (steps, batch, 30) and y (steps, batch, 1) and returns loops by name, each training all the
steps and returning how many it took. The first is the simple one, a call per step; the others, if asked for, are what
the framework offers to be faster.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

RATE = 0.05
WIDTHS = (30, 16, 8, 1)
FIT = 10
"""A call of Keras's fit costs 60 ms besides its steps: it gets that many times as many."""

Loop = Callable[[], int]
Loops = dict[str, Loop]


def pytorch(x: np.ndarray, y: np.ndarray, fast: bool) -> Loops:
    import torch
    from torch import nn

    dtype = getattr(torch, x.dtype.name)
    layers = [layer for sizes in itertools.pairwise(WIDTHS) for layer in (nn.Linear(*sizes), nn.ReLU())]
    model = nn.Sequential(*layers[:-1], nn.Sigmoid()).to(dtype)
    loss_of = nn.BCELoss()
    xs, ys = torch.tensor(x), torch.tensor(y)

    def loop(optimizer: Any, objective: Any, update: Any) -> Loop:
        def run() -> int:
            for x_t, y_t in zip(xs, ys, strict=True):
                optimizer.zero_grad()
                loss = objective(x_t, y_t)
                loss.backward()
                update()
            return len(xs)

        return run

    def objective(x_t: Any, y_t: Any) -> Any:
        return loss_of(model(x_t), y_t)

    plain, fused = (torch.optim.SGD(model.parameters(), RATE, fused=fused) for fused in (False, True))
    loops = {"eager": loop(plain, objective, plain.step)}
    if fast:
        compiled = torch.compile(objective)
        loops["eager, fused optimizer"] = loop(fused, objective, fused.step)
        loops["compiled model"] = loop(plain, compiled, plain.step)
        loops["compiled model, fused optimizer"] = loop(fused, compiled, fused.step)
        loops["compiled model and optimizer"] = loop(plain, compiled, torch.compile(plain.step))
    return loops


def keras(x: np.ndarray, y: np.ndarray, fast: bool) -> Loops:
    import keras

    batch = x.shape[1]
    steps = FIT * len(x)
    xs, ys = np.tile(x, (FIT, 1, 1)).reshape(-1, x.shape[-1]), np.tile(y, (FIT, 1, 1)).reshape(-1, 1)

    def compiled(**settings: Any) -> Any:
        with keras_dtype(x.dtype.name):
            layers = [keras.layers.Dense(units, activation="relu") for units in WIDTHS[1:-1]]
            model = keras.Sequential([keras.Input(WIDTHS[:1]), *layers, keras.layers.Dense(1, activation="sigmoid")])
            model.compile(keras.optimizers.SGD(RATE), "binary_crossentropy", **settings)
        return model

    def by_step(model: Any) -> Loop:
        def run() -> int:
            with keras_dtype(x.dtype.name):
                for x_t, y_t in zip(x, y, strict=True):
                    model.train_on_batch(x_t, y_t)
            return len(x)

        return run

    def by_epoch(model: Any) -> Loop:
        def run() -> int:
            with keras_dtype(x.dtype.name):
                model.fit(xs, ys, batch_size=batch, shuffle=False, verbose=0)
            return steps

        return run

    loops = {"train_on_batch": by_step(compiled(jit_compile=False))}
    if fast:
        loops["train_on_batch, jit"] = by_step(compiled(jit_compile=True))
        for jit in (False, True):
            loops[f"fit{', jit' * jit}"] = by_epoch(compiled(jit_compile=jit))
            loops[f"fit, all steps in one call{', jit' * jit}"] = by_epoch(
                compiled(jit_compile=jit, steps_per_execution=steps)
            )
    return loops


@contextlib.contextmanager
def keras_dtype(precision: str):
    """Keras's loss and rates follow floatx, its layers the policy that was first read in the process (keras 3.15)."""
    import keras

    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def tensorflow(x: np.ndarray, y: np.ndarray, fast: bool) -> Loops:
    import tensorflow as tf

    dtype = tf.as_dtype(x.dtype)
    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(WIDTHS))
    weights = [tf.Variable(tf.constant(rng.normal(0, fan_in**-0.5, (fan_in, units)), dtype)) for fan_in, units in pairs]
    biases = [tf.Variable(tf.zeros(units, dtype)) for _, units in pairs]
    variables = [*weights, *biases]
    rate = tf.constant(RATE, dtype)

    def train(x_t: Any, y_t: Any) -> None:
        with tf.GradientTape() as tape:
            a = x_t
            for W, b in zip(weights[:-1], biases[:-1], strict=True):  # noqa: N806
                a = tf.nn.relu(a @ W + b)
            p = tf.sigmoid(a @ weights[-1] + biases[-1])
            loss = -tf.reduce_mean(y_t * tf.math.log(p + 1e-7) + (1 - y_t) * tf.math.log(1 - p + 1e-7))
        for variable, g in zip(variables, tape.gradient(loss, variables), strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=g)

    def train_all(xs: Any, ys: Any) -> None:
        for t in tf.range(tf.shape(xs)[0]):
            train(xs[t], ys[t])

    xs, ys = tf.constant(x), tf.constant(y)
    batches = list(zip(tf.unstack(xs), tf.unstack(ys), strict=True))

    def by_step(jit: bool) -> Loop:
        step = tf.function(train, jit_compile=jit)
        return lambda: len([step(*batch) for batch in batches])

    def at_once(jit: bool) -> Loop:
        steps = tf.function(train_all, jit_compile=jit)

        def run() -> int:
            steps(xs, ys)
            return len(batches)

        return run

    loops = {"tf.function": by_step(False)}
    if fast:
        loops |= {"tf.function, jit": by_step(True), "loop in a graph": at_once(False)}
        loops["loop in a graph, jit"] = at_once(True)
    return loops


def jax(x: np.ndarray, y: np.ndarray, fast: bool) -> Loops:
    import jax
    import jax.numpy as jnp
    import optax

    double = x.dtype == np.float64
    rng = np.random.default_rng(0)
    optimizer = optax.sgd(RATE)
    with jax.enable_x64(double):
        parameters = [
            (jnp.asarray(rng.normal(0, fan_in**-0.5, (fan_in, units)).astype(x.dtype)), jnp.zeros(units, x.dtype))
            for fan_in, units in itertools.pairwise(WIDTHS)
        ]
        first = parameters, optimizer.init(parameters)
        xs, ys = jnp.asarray(x), jnp.asarray(y)
        batches = list(zip(xs, ys, strict=True))

    def objective(parameters: Any, x_t: Any, y_t: Any) -> Any:
        a = x_t
        for W, b in parameters[:-1]:  # noqa: N806
            a = jax.nn.relu(a @ W + b)
        W, b = parameters[-1]  # noqa: N806
        p = jax.nn.sigmoid(a @ W + b)
        return -jnp.mean(y_t * jnp.log(p + 1e-7) + (1 - y_t) * jnp.log(1 - p + 1e-7))

    def train(state: Any, batch: Any) -> Any:
        parameters, slots = state
        updates, slots = optimizer.update(jax.grad(objective)(parameters, *batch), slots)
        return optax.apply_updates(parameters, updates), slots

    step = jax.jit(train)
    scan = jax.jit(lambda state, batches: jax.lax.scan(lambda s, b: (train(s, b), None), state, batches)[0])

    def by_step() -> int:
        with jax.enable_x64(double):
            state = first
            for batch in batches:
                state = step(state, batch)
            _ = jax.block_until_ready(state)
        return len(batches)

    def at_once() -> int:
        with jax.enable_x64(double):
            _ = jax.block_until_ready(scan(first, (xs, ys)))
        return len(batches)

    return {"jit": by_step, **({"jit of a scan": at_once} if fast else {})}


LOOPS: Mapping[str, Callable[[np.ndarray, np.ndarray, bool], Loops]] = {
    "pytorch": pytorch,
    "keras": keras,
    "tensorflow": tensorflow,
    "jax": jax,
}
