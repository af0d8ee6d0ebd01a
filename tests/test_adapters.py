"""What every framework adapter must do, whatever framework it is (`frameworks/protocol.py`)."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

import reference.training
from frameworks.protocol import Framework, Stepper
from harness.case import NATIVE, PRECISIONS, CannotExpress, Case, LeakyReLU, Precision, ReLU, fields_of
from harness.conventions import resolve
from harness.layout import Layout, Step, layout_of
from tests.cases import FEATURES, LOSSES, OPTIMIZERS, batches, first_state, graph, landscape, network

STEPS, SIZE = 6, 8


def train(framework: Framework, case: Case, precision: Precision) -> tuple[Layout, np.ndarray]:
    """The recorded rows of six steps from the first state."""
    stepper = framework.start(case, precision)
    stepper.load(first_state(case, precision), 0)
    return resume(stepper, case, precision, 0, STEPS)


def resume(stepper: Stepper, case: Case, precision: Precision, first: int, last: int) -> tuple[Layout, np.ndarray]:
    x, y = batches(case, precision, STEPS, SIZE)
    layout = layout_of(case, (SIZE, FEATURES))
    wide = np.full((last - first, layout.size), np.nan, precision)  # each row's end stays free, for the updates
    stepper.run(x[first:last], y[first:last], wide[:, : layout.recorded])
    assert np.isnan(wide[:, layout.recorded :]).all(), "wrote beyond the recorded columns"
    return layout, wide[:, : layout.recorded]


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal but for the rounding of sums of at most 8 products, relative to the largest element."""
    bound = 32 * np.finfo(found.dtype).eps * np.abs(expected).max()
    worst = np.abs(found - expected).max()
    assert worst <= bound, f"{what}: differs by {worst:.3g}, rounding explains {bound:.3g}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_interrupted_run_equals_uninterrupted(framework: Framework, optimizer: str, precision: Precision) -> None:
    case = resolve(network(optimizer=optimizer), framework.CONVENTIONS)
    layout, whole = train(framework, case, precision)
    assert np.isfinite(whole).all()

    stepper = framework.start(case, precision)
    stepper.load(whole[1, layout.state], 2)
    _, rest = resume(stepper, case, precision, 2, STEPS)
    np.testing.assert_array_equal(rest, whole[2:], err_msg="a fresh stepper, loaded after 2 steps")

    stepper.load(first_state(case, precision), 0)
    again = [resume(stepper, case, precision, t, t + 1)[1] for t in range(STEPS)]
    np.testing.assert_array_equal(np.concatenate(again), whole, err_msg="the same stepper, one step a call")


def test_steppers_of_one_case_do_not_disturb_each_other(framework: Framework) -> None:
    case = resolve(network(optimizer="adam"), framework.CONVENTIONS)
    _, alone = train(framework, case, "float64")
    one, other = (framework.start(case, "float64") for _ in range(2))
    one.load(first_state(case, "float64"), 0)
    rows = [resume(one, case, "float64", 0, 2)[1]]
    other.load(2 * first_state(case, "float64"), 7)
    _ = resume(other, case, "float64", 0, 3)
    rows.append(resume(one, case, "float64", 2, STEPS)[1])
    np.testing.assert_array_equal(np.concatenate(rows), alone)


EVERYTHING = {
    **{f"loss_{name}": network(name) for name in LOSSES},
    **{f"optimizer_{name}": network(optimizer=name) for name in OPTIMIZERS},
    "graph": graph(),
    "landscape": landscape(),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_quantity_is_the_references(framework: Framework, name: str) -> None:
    """Names, order, units and signs. The bound lets a constant pass that a framework keeps in float32, nothing more."""
    case = resolve(EVERYTHING[name], framework.CONVENTIONS)
    try:
        layout, rows = train(framework, case, "float64")
    except CannotExpress as refusal:
        pytest.skip(str(refusal))
    stepper = reference.training.start(case, "float64")
    stepper.load(first_state(case, "float64"), 0)
    _, expected = resume(stepper, case, "float64", 0, STEPS)
    for quantity in layout.quantities:
        if quantity.kind != "update" and quantity.name not in framework.missing(case):
            found, wanted = rows[:, quantity.columns], expected[:, quantity.columns]
            bound = 100 * np.finfo(np.float32).eps * np.abs(wanted).max()
            assert np.abs(found - wanted).max() <= bound, f"{quantity.kind} {quantity.name}"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_row_is_in_storage_order(framework: Framework, loss: str, precision: Precision) -> None:
    """Each quantity follows from others of the same row, so a swap, a transposition or a stale value shows."""
    case = resolve(network(loss), framework.CONVENTIONS)
    layout, rows = train(framework, case, precision)
    x, _ = batches(case, precision, STEPS, SIZE)
    before, after = (Step(layout, row) for row in rows[:2])

    z1 = x[1] @ before["W1"].T + before["b1"]
    assert_close(after["z1"], z1, "z1 from the parameters that the step before left")
    assert_close(after["a1"], np.maximum(after["z1"], 0), "a1 = relu(z1)")
    assert_close(after["z3"], after["a2"] @ before["W3"].T + before["b3"], "z3")
    assert_close(after["dL/da2"], after["dL/dz3"] @ before["W3"], "dL/da2 = dL/dz3 W3")
    assert_close(after["dL/dz1"], after["dL/da1"] * (after["z1"] > 0), "dL/dz1 = dL/da1 relu'(z1)")
    assert_close(after["dL/dW1"], after["dL/dz1"].T @ x[1], "dL/dW1 = dL/dz1ᵀ x")
    assert_close(after["dL/db1"], after["dL/dz1"].sum(0), "dL/db1 = sum of dL/dz1")
    for name in layout.parameter_shapes:
        expected = before[name] - 0.1 * after[f"dL/d{name}"]
        assert_close(after[name], expected.astype(precision), f"{name} - lr dL/d{name}")
    for name in framework.missing(case):
        assert not after[name].any(), f"{name} is missing, so it must be written as 0"


def test_float64_is_not_float32_inside(framework: Framework) -> None:
    case = resolve(network(), framework.CONVENTIONS)
    layout, rows = train(framework, case, "float64")
    for quantity in layout.quantities:
        values = rows[-1][quantity.columns] if quantity.kind in ("gradient", "parameter") else np.zeros(0)
        assert not values.any() or (values != values.astype(np.float32)).any(), f"{quantity.name} is float32"


@pytest.mark.parametrize(
    ("optimizer", "field", "values"),
    [
        ("momentum", "velocity", ("gradient", "step")),
        ("momentum_decay", "decay", ("coupled", "decoupled")),
        ("rmsprop_momentum", "velocity", ("gradient", "step")),
        ("rmsprop", "epsilon_placement", ("inside_sqrt", "outside_sqrt")),
        ("adagrad", "epsilon_placement", ("inside_sqrt", "outside_sqrt")),
        ("adam", "epsilon_placement", ("after_correction", "before_correction")),
        ("adam_decay", "decay", ("coupled", "decoupled")),
    ],
)
def test_other_convention_is_refused_or_acts(
    framework: Framework, optimizer: str, field: str, values: tuple[str, str]
) -> None:
    """A field is never ignored: `CannotExpress` names it with its value, or the numbers change."""
    native = resolve(network(optimizer=optimizer), framework.CONVENTIONS)
    other = next(value for value in values if value != getattr(native.optimizer, field))
    outcome = rows_or_refusal(framework, with_field(native, field, other))
    if isinstance(outcome, str):
        assert f"{type(native.optimizer).__name__}.{field}" in outcome
        assert repr(other) in outcome
    else:
        assert (outcome != train(framework, native, "float64")[1]).any(), f"{field}={other} changed nothing"


@pytest.mark.parametrize(
    ("optimizer", "field", "values"),
    [
        ("sgd", "velocity", ("gradient", "step")),
        ("sgd", "decay", ("coupled", "decoupled")),
        ("rmsprop", "velocity", ("gradient", "step")),
        ("adam", "decay", ("coupled", "decoupled")),
    ],
)
def test_field_that_does_not_act_is_never_refused(
    framework: Framework, optimizer: str, field: str, values: tuple[str, str]
) -> None:
    case = resolve(network(optimizer=optimizer), framework.CONVENTIONS)
    rows = [train(framework, with_field(case, field, value), "float64")[1] for value in values]
    assert (rows[0] == rows[1]).all()


def with_field(case: Case, field: str, value: object) -> Case:
    """The case with one field of its optimizer replaced."""
    optimizer = dataclasses.replace(case.optimizer, **{field: value})  # type: ignore[arg-type]
    return dataclasses.replace(case, optimizer=optimizer)


def rows_or_refusal(framework: Framework, case: Case) -> np.ndarray | str:
    try:
        return train(framework, case, "float64")[1]
    except CannotExpress as refusal:
        return str(refusal)


@pytest.mark.parametrize("op", [ReLU(), LeakyReLU(negative_slope=0.25, slope_at_zero=NATIVE)])
def test_slope_at_zero_is_as_declared(framework: Framework, op: ReLU | LeakyReLU) -> None:
    nodes = tuple(dataclasses.replace(node, op=op) if node.name == "a2" else node for node in network().nodes)
    case = resolve(dataclasses.replace(network(), nodes=nodes), framework.CONVENTIONS)
    declared = {"negative_slope": 0.25, "one": 1.0}[framework.CONVENTIONS["LeakyReLU"]["slope_at_zero"]]
    layout = layout_of(case, (SIZE, FEATURES))
    state = first_state(case, "float64")
    W2 = layout.find("W2").columns  # 0, as b2 is: every z2 is exactly 0
    state[W2.start - layout.state.start : W2.stop - layout.state.start] = 0
    stepper = framework.start(case, "float64")
    stepper.load(state, 0)
    _, rows = resume(stepper, case, "float64", 0, 1)
    step = Step(layout, rows[0])
    assert not step["z2"].any()
    np.testing.assert_array_equal(step["dL/dz2"], (0 if isinstance(op, ReLU) else declared) * step["dL/da2"])


def test_conventions_fill_every_native_field(framework: Framework) -> None:
    cases = [network(loss) for loss in LOSSES] + [network(optimizer=name) for name in OPTIMIZERS]
    for case in (resolve(case, framework.CONVENTIONS) for case in cases):
        assert NATIVE not in fields_of(case.loss).values()
        assert NATIVE not in fields_of(case.optimizer).values()


def test_environment_is_plain_data(framework: Framework) -> None:
    environment = dict(framework.environment())
    assert json.loads(json.dumps(environment)) == environment


def test_process_is_left_as_it_was(framework: Framework) -> None:
    case = resolve(network(optimizer="adam"), framework.CONVENTIONS)

    def settings() -> tuple[object, ...]:
        return framework.environment(), repr(np.random.get_state()), np.geterr(), dict(os.environ)

    before = settings()
    for precision in PRECISIONS:
        assert train(framework, case, precision)[1].dtype == precision
    assert settings() == before
