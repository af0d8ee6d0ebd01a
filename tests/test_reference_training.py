import dataclasses
from typing import Any

import numpy as np
import pytest
from reference_checks import BCE, PLAIN, Array, case_of, tutorial
from test_reference_optimizers import ADAM

from harness.case import (
    Adagrad,
    Adam,
    Case,
    Dense,
    HarnessError,
    LeakyReLU,
    Node,
    Optimizer,
    RMSprop,
    Sigmoid,
)
from harness.layout import layout_of
from reference.constants import FLOAT32_CONSTANTS, constants_of
from reference.optimizers import initial_slots
from reference.training import evaluate, gradient, initial_parameters, start

FUSED = dataclasses.replace(BCE, fused=True)
MOMENTUM = dataclasses.replace(PLAIN, momentum=0.9, nesterov=True)
RMSPROP = RMSprop(
    learning_rate=0.01, rho=0.9, momentum=0.9, epsilon=1e-7, epsilon_placement="inside_sqrt", velocity="step"
)
ADAGRAD = Adagrad(learning_rate=0.05, initial_accumulator=0.1, epsilon=1e-7, epsilon_placement="inside_sqrt")


def data(steps: int, batch: int = 32, features: int = 30) -> tuple[Array, Array]:
    """x (steps, batch, features) and y (steps, batch, 1), exact in float32."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(steps, batch, features)).astype(np.float32)
    return x, (rng.random((steps, batch, 1)) > 0.5).astype(np.float32)


def initial_state(case: Case, features: int = 30) -> Array:
    layout = layout_of(case, (1, features))
    W = np.concatenate([W.ravel() for W in initial_parameters(case, layout.parameter_shapes).values()])
    return np.concatenate([W, initial_slots(case.optimizer, W.size)])


def rows_of(case: Case, precision: Any, steps: int = 6, batch: int = 32, features: int = 30) -> Array:
    x, y = data(steps, batch, features)
    stepper = start(case, precision)
    stepper.load(initial_state(case, features), 0)
    rows = np.full((steps, layout_of(case, (batch, features)).recorded), np.nan, precision)
    stepper.run(x.astype(precision), y.astype(precision), rows)
    return rows


def test_the_tutorial_gradient_of_the_logits_is_the_error_over_the_batch() -> None:
    case = tutorial(loss=FUSED)
    layout, row = layout_of(case, (32, 30)), rows_of(case, "float64", steps=1)[0]
    yhat, dz3, dyhat = (row[layout.find(name).columns] for name in ("yhat", "dL/dz3", "dL/dyhat"))
    np.testing.assert_array_equal(dz3, (yhat - data(1)[1].ravel()) / 32)
    np.testing.assert_array_equal(dyhat, 0)


def test_fused_and_plain_losses_agree() -> None:
    layout = layout_of(tutorial(), (32, 30))
    plain, fused = (rows_of(tutorial(loss=loss), "float64")[:, layout.gradients] for loss in (BCE, FUSED))
    np.testing.assert_allclose(plain, fused, rtol=0, atol=1e-13 * np.abs(plain).max())


def test_a_step_written_out() -> None:
    """Forward, loss, backward and update of the tutorial's first step as plain matrix algebra."""
    case, (x, y) = tutorial(), (part[0].astype(float) for part in data(1))
    layout, row = layout_of(case, (32, 30)), rows_of(case, "float64", steps=1)[0]
    W = {k: v.astype(float) for k, v in initial_parameters(case, layout.parameter_shapes).items()}
    a1 = np.maximum(x @ W["W1"].T, 0)
    a2 = np.maximum(a1 @ W["W2"].T, 0)
    p = 1 / (1 + np.exp(-(a2 @ W["W3"].T)))
    dz3 = (p - y) / 32
    dz2 = (dz3 @ W["W3"]) * (a2 > 0)
    dz1 = (dz2 @ W["W2"]) * (a1 > 0)
    shown = {q.name: row[q.columns].reshape(q.shape) for q in layout.quantities if q.kind != "update"}
    for name, expected in {
        "a1": a1,
        "yhat": p,
        "L": -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
        "dL/dz1": dz1,
        "dL/dW3": dz3.T @ a2,
        "dL/dW2": dz2.T @ a1,
        "dL/dW1": dz1.T @ x,
        "dL/db1": dz1.sum(axis=0),
        "W1": W["W1"] - 0.1 * dz1.T @ x,
        "b3": -0.1 * dz3.sum(axis=0),
    }.items():
        np.testing.assert_allclose(shown[name], expected, rtol=0, atol=1e-14 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("optimizer", [PLAIN, MOMENTUM, ADAM, RMSPROP, ADAGRAD], ids=lambda o: type(o).__name__)
def test_split_runs_agree_bit_for_bit(optimizer: Optimizer) -> None:
    case, (x, y) = tutorial(optimizer), data(6)
    whole = rows_of(case, "float32")
    layout, split = layout_of(case, (32, 30)), np.zeros_like(whole)
    stepper = start(case, "float32")
    stepper.load(initial_state(case), 0)
    stepper.run(x[:2], y[:2], split[:2])
    stepper.run(x[2:4], y[2:4], split[2:4])
    fresh = start(case, "float32")
    fresh.load(split[3, layout.state], 4)
    fresh.run(x[4:], y[4:], split[4:])
    np.testing.assert_array_equal(split, whole)


def test_a_smaller_last_batch_goes_on_from_the_same_state() -> None:
    case, (x, y) = tutorial(ADAM), data(3)
    stepper, small = start(case, "float64"), layout_of(case, (5, 30))
    stepper.load(initial_state(case), 0)
    rows, last = np.zeros((2, layout_of(case, (32, 30)).recorded)), np.zeros((1, small.recorded))
    stepper.run(x[:2], y[:2], rows)
    stepper.run(x[2:, :5], y[2:, :5], last)
    expected = np.zeros_like(last)
    stepper.load(rows[1, layout_of(case, (32, 30)).state], 2)
    stepper.run(x[2:, :5], y[2:, :5], expected)
    np.testing.assert_array_equal(last, expected)


@pytest.mark.parametrize("optimizer", [PLAIN, MOMENTUM, ADAM, RMSPROP, ADAGRAD], ids=lambda o: type(o).__name__)
def test_rounding_shrinks_with_the_precision(optimizer: Optimizer) -> None:
    """Distances to the long double run, in eps of each precision, are alike: within a factor 32 for every quantity,
    as the worst of its elements is a sample of one. Planted: a float64 run that leaks the rate through float32."""
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("long double is float64 on this machine")
    case = tutorial(optimizer)
    exact = rows_of(case, "longdouble")
    leaking = dataclasses.replace(case, float32_constants=("learning_rate",))
    d32, d64, leak = (
        quantity_errors(case, rows_of(of, precision), exact) / np.finfo(precision).eps
        for of, precision in ((case, "float32"), (case, "float64"), (leaking, "float64"))
    )
    assert (d64 < 32 * d32).all()
    assert (d32 < 32 * d64).all()
    assert leak.max() > 1000 * d32.max()


def quantity_errors(case: Case, rows: Array, exact: Array) -> Array:
    """Largest error of each quantity over the run, relative to its largest value."""
    columns = [q.columns for q in layout_of(case, (32, 30)).quantities if q.kind != "update" and q.name != "L"]
    return np.array([np.abs(rows[:, c] - exact[:, c]).max() / np.abs(exact[:, c]).max() for c in columns], float)


LEAKY = case_of(
    (
        Node(name="z", op=Dense(units=1), parameters=("W", "b")),
        Node(name="a", op=LeakyReLU(negative_slope=0.1, slope_at_zero="negative_slope")),
        Node(name="p", op=Sigmoid()),
    ),
    loss=dataclasses.replace(BCE, clip_probability=0.3, denominator_floor=0.0),
)
CASES = {
    "sgd": tutorial(loss=FUSED),
    "momentum": tutorial(dataclasses.replace(MOMENTUM, weight_decay=0.01), loss=FUSED),
    "exact": tutorial(dataclasses.replace(PLAIN, learning_rate=0.125), loss=FUSED),
    "adam": tutorial(ADAM, loss=FUSED),
    "adamw": tutorial(dataclasses.replace(ADAM, weight_decay=0.01, decay="decoupled"), loss=FUSED),
    "rmsprop": tutorial(RMSPROP, loss=FUSED),
    "adagrad": tutorial(ADAGRAD, loss=FUSED),
    "saturated": tutorial(initial_scale=30.0),
    "clip": LEAKY,
    "leaky": dataclasses.replace(LEAKY, loss=FUSED),
}


@pytest.mark.parametrize("name", CASES)
def test_constants_are_exactly_those_whose_rounding_changes_a_run(name: str) -> None:
    def rows(*leaked: str) -> Array:
        return rows_of(dataclasses.replace(CASES[name], float32_constants=leaked), "float64")

    changing = {constant for constant in FLOAT32_CONSTANTS if not np.array_equal(rows(constant), rows())}
    assert changing == set(constants_of(CASES[name]))


def test_the_moving_averages_and_the_correction_leak_apart() -> None:
    assert set(constants_of(tutorial(ADAM))) >= {"beta_1", "beta_2", "bias_correction"}
    ends = {
        leaked: rows_of(dataclasses.replace(tutorial(ADAM), float32_constants=leaked), "float64")[-1]
        for leaked in ((), ("beta_2",), ("bias_correction",), ("beta_2", "bias_correction"))
    }
    slots = slice(layout_of(tutorial(ADAM), (32, 30)).state.stop - 100, None)
    assert not np.array_equal(ends[()][slots], ends["beta_2",][slots])
    assert len({end.tobytes() for end in ends.values()}) == 4


def test_evaluate_and_gradient_agree_with_a_step() -> None:
    case, (x, y) = tutorial(), data(1)
    layout, row = layout_of(case, (32, 30)), rows_of(case, "float64", steps=1)[0]
    W = initial_state(case)
    loss, output = evaluate(case, W, x[0], y[0])
    assert loss == row[layout.find("L").start]
    np.testing.assert_array_equal(output.ravel(), row[layout.find("yhat").columns])
    np.testing.assert_array_equal(gradient(case, W, x[0], y[0]), row[layout.gradients])


def test_initial_parameters_are_float32_and_scaled_by_fan_in() -> None:
    shapes = {"W": (400, 300), "b": (400,)}
    for initialization, variance in (("he", 2 / 300), ("lecun", 1 / 300)):
        case = dataclasses.replace(tutorial(initial_scale=3.0), initialization=initialization)
        drawn = initial_parameters(case, shapes)
        assert drawn["W"].dtype == drawn["b"].dtype == np.float32
        assert not drawn["b"].any()
        # 120,000 samples: the standard deviation is known to 1/sqrt(2 * 120000) = 0.2 %, five of which are allowed
        assert drawn["W"].std() == pytest.approx(3 * variance**0.5, rel=0.01)
        np.testing.assert_array_equal(drawn["W"], initial_parameters(case, shapes)["W"])
    with pytest.raises(HarnessError, match="brings its initial parameters"):
        initial_parameters(dataclasses.replace(case, initialization="given"), shapes)


def test_targets_of_a_wrong_shape_are_refused() -> None:
    stepper = start(tutorial(), "float64")
    with pytest.raises(HarnessError, match=r"needs targets \(32, 1\), not \(32,\)"):
        stepper.run(np.zeros((1, 32, 30)), np.zeros((1, 32)), np.zeros((1, 3000)))


def test_overflow_is_a_result_and_no_warning() -> None:
    case = tutorial(dataclasses.replace(PLAIN, learning_rate=1e30), loss=FUSED)
    with np.errstate(all="raise"):
        assert not np.isfinite(rows_of(case, "float32")).all()


def test_adam_counts_the_steps_it_was_told() -> None:
    case, (x, y) = tutorial(ADAM), data(1)
    ends = []
    for step in (0, 10):
        stepper, row = start(case, "float64"), np.zeros((1, layout_of(case, (32, 30)).recorded))
        stepper.load(initial_state(case), step)
        stepper.run(x, y, row)
        ends.append(row)
    assert isinstance(case.optimizer, Adam)
    assert not np.array_equal(*ends)
