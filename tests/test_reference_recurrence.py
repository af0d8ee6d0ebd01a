from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, check_op, few

from harness import ops
from harness.case import Linear, Sigmoid, Tanh
from reference import recurrence
from reference.kinds import apply
from reference.layers import logistic

BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 2
common: dict[str, Any] = {
    "biases": 2,
    "time_axis": 1,
    "reverse": False,
    "masked": False,
    "masked_output": "carry",
    "initial": False,
    "returns": "all",
}
SIMPLE = ops.SimpleRNN(activation=Tanh(), **common)
LSTM = ops.LSTM(
    activation=Tanh(),
    recurrent_activation=Sigmoid(),
    output_activation=Tanh(),
    gates="ifgo",
    forget_offset=0.0,
    **common,
)
GRU = ops.GRU(
    activation=Tanh(), recurrent_activation=Sigmoid(), gates="rzn", reset_after=True, update="keeps", **common
)
HARD = ops.ClippedLinear(
    slope=0.05, offset=0.5, minimum=0.0, maximum=1.0, derivative=0.05, slope_at_minimum=0.0, slope_at_maximum=0.0
)


def arrays(op: Any, seed: int) -> tuple[list[Array], list[Array]]:
    rng = np.random.default_rng(seed)
    blocks = {ops.SimpleRNN: 1, ops.LSTM: 4, ops.GRU: 3}[type(op)]
    states = [rng.normal(size=(BATCH, UNITS)) for _ in range(2 if isinstance(op, ops.LSTM) else 1)]
    mask = rng.random((BATCH, TIME)) < 0.6
    x = rng.normal(size=(BATCH, TIME, FEATURES))
    if op.time_axis == 0:
        x, mask = x.swapaxes(0, 1), mask.swapaxes(0, 1)
    inputs = [x, *[mask] * op.masked, *(states if op.initial else [])]
    W, U = (rng.normal(size=(blocks * UNITS, n)) * 0.7 for n in (FEATURES, UNITS))
    return inputs, [W, U, *(rng.normal(size=(2, blocks * UNITS)) * 0.5)[: op.biases]]


options: dict[str, Any] = {
    "seed": st.integers(0, 10**6),
    "biases": st.sampled_from([0, 1, 2]),
    "time_axis": st.sampled_from([1, 1, 0]),
    "reverse": st.booleans(),
    "masked": st.booleans(),
    "masked_output": st.sampled_from(["carry", "zero"]),
    "initial": st.booleans(),
}
returns = st.sampled_from(["all", "last", "final", "state"])


@few
@given(returns=returns, activation=st.sampled_from([Tanh(), Linear(), ops.Softsign()]), **options)
def test_simple(seed: int, **changes: Any) -> None:
    op = replace(SIMPLE, **changes)
    check_op(op, *arrays(op, seed))


@few
@given(
    returns=st.sampled_from(["all", "last", "final", "state", "cell"]),
    recurrent_activation=st.sampled_from([Sigmoid(), HARD]),
    output_activation=st.sampled_from([Tanh(), Linear()]),
    gates=st.sampled_from(["ifgo", "ofgi"]),
    forget_offset=st.sampled_from([0.0, 1.0]),
    **options,
)
def test_lstm(seed: int, **changes: Any) -> None:
    op = replace(LSTM, **changes)
    check_op(op, *arrays(op, seed))


@few
@given(
    returns=returns,
    recurrent_activation=st.sampled_from([Sigmoid(), HARD]),
    gates=st.sampled_from(["rzn", "zrn", "nzr"]),
    reset_after=st.booleans(),
    update=st.sampled_from(["keeps", "replaces"]),
    **options,
)
def test_gru(seed: int, **changes: Any) -> None:
    op = replace(GRU, **changes)
    check_op(op, *arrays(op, seed))


# --- by hand ----------------------------------------------------------------------------------------------------


def test_two_steps_of_each_by_hand() -> None:
    x, W, U, b, c = np.array([[[0.3], [-0.8]]]), 0.7, -0.4, 0.1, 0.2
    h1 = np.tanh(W * 0.3 + b + c)
    h2 = np.tanh(-W * 0.8 + b + U * h1 + c)
    parameters = [np.array([[W]]), np.array([[U]]), np.array([b]), np.array([c])]
    assert apply(replace(SIMPLE, returns="final"), [x], parameters)[0, 0] == pytest.approx(h2, rel=1e-15)

    four = [np.full((4, 1), W), np.full((4, 1), U), np.full(4, b), np.full(4, c)]

    def gates(x: float, h: float) -> tuple[Any, Any]:
        a = W * x + b + U * h + c
        return logistic(np.array(a)), np.tanh(a)

    s, g = gates(0.3, 0.0)
    c1 = s * g
    h1 = s * np.tanh(c1)
    s, g = gates(-0.8, h1)
    c2 = s * c1 + s * g
    assert apply(replace(LSTM, returns="cell"), [x], four)[0, 0] == pytest.approx(c2, rel=1e-14)
    assert apply(replace(LSTM, returns="state"), [x], four)[0, 0] == pytest.approx(s * np.tanh(c2), rel=1e-14)

    three = [p[:3] for p in four]
    h = 0.0
    for value in (0.3, -0.8):
        r = z = logistic(np.array(W * value + b + U * h + c))
        n = np.tanh(W * value + b + r * (U * h + c))
        h = z * h + (1 - z) * n
    assert apply(replace(GRU, returns="state"), [x], three)[0, 0] == pytest.approx(h, rel=1e-14)


@pytest.mark.parametrize("op", [SIMPLE, LSTM, GRU])
def test_reverse_runs_backwards_and_keeps_the_places(op: Any) -> None:
    inputs, parameters = arrays(op, 1)
    flipped = [inputs[0][:, ::-1], *inputs[1:]]
    ahead = apply(op, flipped, parameters)
    back = apply(replace(op, reverse=True), inputs, parameters)
    np.testing.assert_allclose(back, ahead[:, ::-1], rtol=1e-14)
    for returns, place in (("last", -1), ("final", 0), ("state", 0)):
        one = apply(replace(op, reverse=True, returns=returns), inputs, parameters)
        np.testing.assert_array_equal(one, back[:, place])


@pytest.mark.parametrize("op", [SIMPLE, LSTM, GRU])
def test_a_masked_step_is_as_if_it_were_not_there(op: Any) -> None:
    inputs, parameters = arrays(op, 2)
    x = inputs[0]
    mask = np.array([[True, False, True, False]] * BATCH)
    op = replace(op, masked=True)
    short = apply(replace(op, masked=False), [x[:, [0, 2]]], parameters)
    for masked_output, second in (("carry", short[:, 0]), ("zero", 0 * short[:, 0])):
        of = replace(op, masked_output=masked_output)
        y = apply(of, [x, mask], parameters)
        np.testing.assert_allclose(y[:, [0, 2]], short, rtol=1e-14)
        np.testing.assert_allclose(y[:, 1], second, rtol=1e-14)
        np.testing.assert_array_equal(apply(replace(of, returns="final"), [x, mask], parameters), y[:, 3])
        state = apply(replace(of, returns="state"), [x, mask], parameters)
        np.testing.assert_allclose(state, short[:, 1], rtol=1e-14)


def test_gates_in_another_order_are_blocks_in_another_order() -> None:
    inputs, parameters = arrays(LSTM, 3)
    order = np.concatenate([np.arange(UNITS) + UNITS * "ifgo".index(gate) for gate in "gofi"])
    moved = [p[order] for p in parameters]
    np.testing.assert_allclose(
        apply(replace(LSTM, gates="gofi"), inputs, moved), apply(LSTM, inputs, parameters), rtol=1e-14
    )


# --- planted ----------------------------------------------------------------------------------------------------


def wrong(cell: Any, change: Any) -> Any:
    states, step, step_back = recurrence.CELLS[cell]

    def back(*given: Any) -> Any:
        return change(*step_back(*given))

    return {cell: (states, step, back)}


def forgets_the_past(da: Array, before: Any, dU: Array, dc: Array) -> Any:
    return da, tuple(0 * d for d in before), dU, dc


def transposes(da: Array, before: Any, dU: Array, dc: Array) -> Any:
    return da, before, dU[::-1], dc


def scales(da: Array, before: Any, dU: Array, dc: Array) -> Any:
    return da * (1 + 1e-6), before, dU, dc


@pytest.mark.parametrize("change", [forgets_the_past, transposes, scales])
@pytest.mark.parametrize("op", [SIMPLE, LSTM, GRU, replace(GRU, reset_after=False)])
def test_planted_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, op: Any, change: Any) -> None:
    monkeypatch.setattr(recurrence, "CELLS", {**recurrence.CELLS, **wrong(type(op), change)})
    with pytest.raises(AssertionError, match="analytic"):
        check_op(op, *arrays(op, 4))
