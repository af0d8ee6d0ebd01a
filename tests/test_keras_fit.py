"""The keras adapter trains exactly as `model.fit` does, and leaves Keras and the random generators as they were."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from harness.case import PRECISIONS, Case, Dense, Node, Objective, Precision, Tanh
from harness.conventions import resolve
from harness.layout import layout_of
from tests.cases import FEATURES, OPTIMIZERS, batches, case_of, first_state, network

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
keras_tf = pytest.importorskip("frameworks.keras_tf")

STEPS, SIZE = 20, 8


@pytest.fixture
def dtype_restored() -> Iterator[None]:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def fitted(case: Case, optimizer: str, precision: Precision, steps: int) -> np.ndarray:
    """Parameters, flat and in canonical layout, after `model.fit` on the first steps of the case's batches."""
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(3, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer={"sgd": keras.optimizers.SGD(0.1), "adam": keras.optimizers.Adam(0.01, epsilon=1e-7)}[optimizer],
        loss="binary_crossentropy",
    )
    state, start = first_state(case, precision), 0
    for variable in model.trainable_variables:  # W (in, units) and b, layer by layer
        value = state[start : start + np.prod(variable.shape)]
        variable.assign(value.reshape(variable.shape[::-1]).T)
        start += value.size
    x, y = batches(case, precision, STEPS, SIZE)
    x, y = x[:steps].reshape(-1, FEATURES), y[:steps].reshape(-1, 1)
    _ = model.fit(x, y, batch_size=SIZE, epochs=1, shuffle=False, verbose=0)
    return np.concatenate([np.asarray(variable).T.ravel() for variable in model.trainable_variables])


@pytest.mark.usefixtures("dtype_restored")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit_ends_at_the_same_parameters_bit_for_bit(optimizer: str, precision: Precision) -> None:
    case = resolve(network(optimizer=optimizer), keras_tf.CONVENTIONS)
    layout = layout_of(case, (SIZE, FEATURES))
    rows = np.full((STEPS, layout.recorded), np.nan, precision)
    stepper = keras_tf.start(case, precision)
    stepper.load(first_state(case, precision), 0)
    stepper.run(*batches(case, precision, STEPS, SIZE), rows)
    for steps in (1, STEPS):
        parameters = fitted(case, optimizer, precision, steps)
        assert parameters.dtype == precision
        np.testing.assert_array_equal(parameters, rows[steps - 1, layout.parameters], err_msg=f"after {steps} steps")
    assert (parameters != rows[STEPS - 2, layout.parameters]).any(), "one step less must not pass"


def test_a_loss_that_does_not_read_the_output_back_propagates_through_the_weights_before_the_update() -> None:
    """TensorFlow 2.21's `fit` was seen to use updated weights for such a loss (stale weights)."""
    nodes = (
        Node(name="z1", op=Dense(units=64), parameters=("W1", "b1")),
        Node(name="a1", op=Tanh()),
        Node(name="z2", op=Dense(units=64), parameters=("W2", "b2")),
        Node(name="a2", op=Tanh()),
        Node(name="z3", op=Dense(units=1), parameters=("W3", "b3")),
    )
    case = resolve(case_of(nodes, Objective(), OPTIMIZERS["sgd"]), keras_tf.CONVENTIONS)
    steps, layout = 500, layout_of(case, (SIZE, FEATURES))
    x = np.random.default_rng(0).normal(size=(steps, SIZE, FEATURES))
    rows = np.full((steps, layout.recorded), np.nan)
    stepper = keras_tf.start(case, "float64")
    stepper.load(first_state(case, "float64"), 0)
    stepper.run(x, np.zeros((steps, SIZE, 1)), rows)
    weights = rows[:, layout.find("W3").columns]
    gradients = rows[:, layout.find("dL/da2").columns].reshape(steps, SIZE, 64)  # dL/da2 = 1 W3
    np.testing.assert_array_equal(gradients[1:], np.repeat(weights[:-1, None], SIZE, axis=1))
    assert (gradients != weights[:, None]).any(axis=(1, 2)).all(), "every update moves W3, so stale weights would show"


@pytest.mark.parametrize("fails", [False, True])
def test_keras_and_random_generators_are_left_as_they_were(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.backend.common import global_state

    def drawn() -> tuple[object, ...]:
        tf.random.set_seed(1)
        state = (random.getstate(), repr(np.random.get_state()))
        if fails:
            with pytest.raises(ZeroDivisionError):
                train()
        else:
            train()
        return state == (random.getstate(), repr(np.random.get_state())), *tf.random.uniform([3]).numpy()

    def train() -> None:
        keras_tf._traced.cache_clear()
        case = resolve(network(), keras_tf.CONVENTIONS)
        x, y = batches(case, "float64")
        stepper = keras_tf.start(case, "float64")
        stepper.load(first_state(case, "float64"), 0)
        stepper.run(x, y, np.empty((len(x), layout_of(case, x.shape[1:]).recorded)))

    def division_by_zero(*_: object) -> None:
        raise ZeroDivisionError

    if fails:
        monkeypatch.setattr(keras_tf.tf_rows, "rows_graph", division_by_zero)
    policy = global_state.get_global_attribute("dtype_policy")
    global_state.set_global_attribute("dtype_policy", None)
    try:
        tf.random.set_seed(1)
        untouched = (True, *tf.random.uniform([3]).numpy())
        assert drawn() == untouched
        assert keras.config.floatx() == "float32"
        assert global_state.get_global_attribute("dtype_policy") is None
    finally:
        global_state.set_global_attribute("dtype_policy", policy)


def test_another_backend_is_refused() -> None:
    code = "from frameworks import adapter; adapter('keras')"
    env = {**os.environ, "KERAS_BACKEND": "numpy"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "HarnessError: the keras adapter is Keras on TensorFlow, but Keras runs on numpy here" in ran.stderr
