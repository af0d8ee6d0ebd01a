"""Must-fail tests of the verdicts: what is planted is found, at its quantity and step; what is clean is no alarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from frameworks.protocol import Framework
from harness.case import (
    Add,
    Case,
    Dense,
    LeakyReLU,
    Linear,
    Node,
    Objective,
    Op,
    Polynomial,
    Precision,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from harness.comparing import compare
from harness.conventions import resolve
from harness.data import Data
from harness.judging import BECAUSE, VERDICTS, judge
from harness.layout import layout_of
from harness.running import Rows, Start
from reference import training
from tests.cases import LOSSES, OPTIMIZERS, case_of
from tests.planting import Edit, Views, examples, flat, planted, ready, watched, with_ops

Array = np.ndarray

LATER = 5
BATCH = 8


def dense(name: str | int, units: int, *inputs: str) -> Node:
    return Node(name=f"z{name}", op=Dense(units=units), parameters=(f"W{name}", f"b{name}"), inputs=inputs)


def small(optimizer: str = "momentum", first: Op = Tanh(), second: Op = ReLU()) -> Case:  # noqa: B008
    """4 features, 4 and 4 units, 1 probability, so that W1 and W2 are square; every convention native."""
    nodes = (dense(1, 4), Node(name="a1", op=first), dense(2, 4), Node(name="a2", op=second), dense(3, 1))
    return case_of((*nodes, Node(name="yhat", op=Sigmoid())), LOSSES["binary"], OPTIMIZERS[optimizer])


CASE = ready(small(), steps=8, size=BATCH)


def once(step: int) -> range:
    return range(step, step + 1)


def on(name: str, change: Callable[[Array], object]) -> Edit:
    """The edit that gives one quantity a new value."""

    def edit(shown: Views) -> None:
        shown[name][...] = change(shown[name])

    return edit


def with_optimizer(precisions: tuple[Precision, ...] = ("float32", "float64"), **fields: Any) -> Start:
    """The reference, but its optimizer has other numbers."""

    def start(case: Case, precision: Precision) -> training.Training:
        edited = replace(case, optimizer=replace(case.optimizer, **fields))
        return training.start(edited if precision in precisions else case, precision)

    return start


# --- a wrong gradient, update, loss or activation -----------------------------------------------------------------


def one_element(g: Array) -> Array:
    wrong = g.copy()
    wrong.flat[g.size // 3] += 1e-3 * np.abs(g).max()
    return wrong


WRONG_GRADIENTS: Mapping[str, Callable[[Array], object]] = {
    "wrong sign": lambda g: -g,
    "factor 1.001": lambda g: 1.001 * g,
    "factor 1 + 1e-6": lambda g: (1 + 1e-6) * g,
    "factor 1 + 1e-9": lambda g: (1 + 1e-9) * g,
    "transposed": lambda g: g.T.copy(),
    "one element": one_element,
    "zero": lambda g: 0 * g,
    "sum for mean": lambda g: BATCH * g,
    "nan": lambda g: np.where(np.arange(g.size).reshape(g.shape) == 3, np.nan, g),
    "infinite": lambda g: np.where(np.arange(g.size).reshape(g.shape) == 3, np.inf, g),
}


@pytest.mark.parametrize("step", [0, LATER])
@pytest.mark.parametrize("wrong", WRONG_GRADIENTS)
def test_wrong_gradient_is_found(wrong: str, step: int) -> None:
    found = watched(CASE, planted(on("dL/dW2", WRONG_GRADIENTS[wrong]), once(step)))
    assert found.verdict == "different"
    assert found.because == ("nonfinite" if wrong in ("nan", "infinite") else "")
    assert found.first == ("dL/dW2", step)


@pytest.mark.parametrize("step", [0, LATER])
@pytest.mark.parametrize("wrong", ["wrong sign", "factor 1 + 1e-6", "zero", "nan"])
def test_wrong_gradient_of_a_framework_is_found(framework: Framework, wrong: str, step: int) -> None:
    case = resolve(replace(small(), steps=8), framework.CONVENTIONS)
    missing = framework.missing(case)
    candidate = planted(on("dL/dW2", WRONG_GRADIENTS[wrong]), once(step), real=framework.start)
    assert watched(case, candidate, missing=missing).first == ("dL/dW2", step)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_framework_as_it_is_raises_no_alarm(framework: Framework, optimizer: str) -> None:
    case = resolve(replace(small(optimizer), steps=8), framework.CONVENTIONS)
    assert watched(case, framework.start, missing=framework.missing(case)).verdict == "rounding"


@pytest.mark.parametrize("step", [0, 1])
def test_one_wrong_element_in_a_million_is_found(step: int) -> None:
    nodes = (dense(1, 1000), Node(name="a1", op=Tanh()), dense(2, 1000), Node(name="a2", op=Tanh()), dense(3, 1))
    case = ready(case_of(nodes, LOSSES["squared"], OPTIMIZERS["sgd"]), steps=2, size=4)
    assert watched(case, planted(on("dL/dW2", one_element), once(step))).first == ("dL/dW2", step)


@pytest.mark.parametrize("scale", [1e-8, 1e-30, 1e8])
def test_size_of_the_numbers_does_not_matter(scale: float) -> None:
    nodes = (dense(1, 8), Node(name="a1", op=LeakyReLU(negative_slope=0.25, slope_at_zero="native")), dense(2, 1))
    optimizer = replace(OPTIMIZERS["sgd"], learning_rate=0.001 / max(scale, 1.0) ** 2)
    case = ready(case_of(nodes, LOSSES["squared"], optimizer), steps=8, size=BATCH)
    data = examples(case)
    data = replace(data, x=(data.x * scale).astype(np.float32).astype(float))
    assert watched(case, REVERSED, data=data).verdict == "rounding"
    found = watched(case, planted(on("dL/dW1", lambda g: (1 + 1e-6) * g), once(LATER)), data=data)
    assert found.first == ("dL/dW1", LATER)


@pytest.mark.parametrize("step", [0, LATER])
@pytest.mark.parametrize(
    ("quantity", "factor"), [("a1", 1 + 1e-9), ("z3", 1 + 1e-9), ("L", 1 + 1e-9), ("dL/da1", 1 + 1e-9)]
)
def test_quantity_off_is_found(quantity: str, factor: float, step: int) -> None:
    found = watched(CASE, planted(on(quantity, lambda shown: factor * shown), once(step)))
    assert (found.verdict, found.because, found.first) == ("different", "", (quantity, step))


@pytest.mark.parametrize("step", [0, LATER])
def test_wrong_parameters_after_a_right_gradient_are_an_update(step: int) -> None:
    found = watched(CASE, planted(on("W2", lambda W: (1 + 1e-9) * W), once(step)))
    assert (found.verdict, found.first) == ("different", ("update:W2", step))


WRONG_RULES = {
    "learning rate": ("momentum", {"learning_rate": 0.1 * (1 + 1e-7)}, 0),
    "momentum": ("momentum", {"momentum": 0.9 * (1 + 1e-6)}, 1),
    "nesterov": ("momentum", {"nesterov": True}, 0),
    "epsilon": ("adam", {"epsilon": 1e-7}, 0),
    "epsilon placement": ("rmsprop", {"epsilon_placement": "inside_sqrt"}, 0),
    "decay": ("adam", {"weight_decay": 1e-3}, 0),
}


@pytest.mark.parametrize("rule", WRONG_RULES)
def test_wrong_update_rule_is_found_at_the_update(rule: str) -> None:
    optimizer, fields, step = WRONG_RULES[rule]
    found = watched(ready(small(optimizer)), with_optimizer(**fields))
    assert (found.verdict, found.first) == ("different", ("update:W1", step))


def test_slot_off_while_updates_agree_is_a_note() -> None:
    found = watched(CASE, planted(on("velocity:W2", lambda v: -v), once(CASE.steps - 1)))
    assert found.at("velocity:W2", CASE.steps - 1) == ("different", "")
    assert (found.verdict, found.first) == ("identical", None)
    assert found.notes == ["optimizer slots differ while the updates agree"]


# --- low precision ------------------------------------------------------------------------------------------------


def rounded_matmul(bits: int | None) -> Start:
    """float32 runs whose dense layers round inputs and weights to so many bits (None: compute in float16)."""

    def low(values: Array) -> Array:
        if bits is None:
            return values.astype(np.float16)
        mantissa, exponent = np.frexp(values)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(values.dtype)

    def forward(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
        z[...] = low(x) @ low(W).T + b

    return with_ops({Dense: forward}, {}, precisions=("float32",))


@pytest.mark.parametrize("bits", [None, 8, 11], ids=["float16", "bfloat16", "tf32"])
def test_low_precision_in_float32_is_unstable(bits: int | None) -> None:
    found = watched(CASE, rounded_matmul(bits))
    assert (found.verdict, found.because, found.first) == ("different", "unstable", ("z1", 0))


def naive_softmax(op: Softmax, p: Array, z: Array) -> None:
    p[...] = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def test_overflow_of_one_side_in_float32_is_unstable() -> None:
    case = ready(case_of((dense(1, 3), Node(name="p", op=Softmax())), LOSSES["categorical"], OPTIMIZERS["sgd"]))
    large = flat(case)
    large[-3:] = 100.0  # beyond log of the largest float32, 88.7
    found = watched(case, with_ops({Softmax: naive_softmax}, {}), parameters=large)
    assert (found.verdict, found.because, found.first) == ("different", "unstable", ("p", 0))


# --- float32 in the float64 run -----------------------------------------------------------------------------------


def f32(value: float) -> float:
    return float(np.float32(value))


LEAKS = {
    "learning_rate": ("momentum", ("learning_rate",)),
    "momentum": ("momentum", ("momentum",)),
    "both": ("momentum", ("learning_rate", "momentum")),
    "decay": ("momentum_decay", ("weight_decay",)),
    "rho": ("rmsprop", ("rho",)),
    "epsilon": ("adam", ("epsilon",)),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_constant_through_float32_is_a_leak(leak: str) -> None:
    optimizer, names = LEAKS[leak]
    case = ready(small(optimizer))
    if leak == "epsilon":  # a small one is too far below the gradients to be seen
        case = replace(case, optimizer=replace(case.optimizer, epsilon=1e-3))
    leaked = {name: f32(getattr(case.optimizer, name)) for name in names}
    found = watched(case, with_optimizer(("float64",), **leaked))
    assert (found.verdict, found.because) == ("rounding", "leak")
    assert found.notes == [f"planted rounds {name} through float32 in its float64 run (proven)" for name in names]


def test_betas_through_float32_are_a_leak() -> None:
    case = ready(small("adam"))
    found = watched(case, with_optimizer(("float64",), beta_1=f32(0.9), beta_2=f32(0.999)))
    assert (found.verdict, found.because) == ("rounding", "leak")
    assert all(name in found.notes[0] for name in ("beta_1", "beta_2", "bias_correction"))


def test_constant_off_by_as_much_as_a_leak_is_different() -> None:
    """Size proves nothing: only the very float32 number does."""
    found = watched(CASE, with_optimizer(("float64",), momentum=0.9 + 1.1 * (f32(0.9) - 0.9)))
    assert (found.verdict, found.first) == ("different", ("update:W1", 1))


def test_bug_beside_a_leak_is_found() -> None:
    leaking = with_optimizer(("float64",), momentum=f32(0.9))
    found = watched(CASE, planted(on("dL/dW2", lambda g: (1 + 1e-6) * g), once(LATER), real=leaking))
    assert found.first == ("dL/dW2", LATER)
    assert found.at("update:W1", 2) == ("rounding", "leak")


def in_float32(values: Array) -> Array:
    return values.astype(np.float32)


def dense_in_float32(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    z[...] = in_float32(x) @ in_float32(W).T + in_float32(b)


def product_in_float32(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    z[...] = in_float32(x) @ in_float32(W).T
    z += b


FLOAT32_INSIDE = {
    "gradient cast": (planted(on("dL/dW2", in_float32)), "dL/dW2"),
    "matmul": (with_ops({Dense: dense_in_float32}, {}, precisions=("float64",)), "z1"),
}


@pytest.mark.parametrize("place", FLOAT32_INSIDE)
def test_float32_inside_cannot_be_decided(place: str) -> None:
    candidate, first = FLOAT32_INSIDE[place]
    found = watched(CASE, candidate)
    assert (found.verdict, found.because) == ("undecided", "one precision")
    assert found.at(first, 0) == ("undecided", "one precision")


def test_float32_inside_is_seen_off_its_grid() -> None:
    """A float64 bias hides the float32 grid of a product; then only a small move of the inputs shows it."""
    case = ready(small())
    parameters = flat(case)
    parameters[16:20] = 1e-3  # b1
    candidate = with_ops({Dense: product_in_float32}, {}, precisions=("float64",))
    found = watched(case, candidate, parameters=parameters)
    assert (found.verdict, found.because) == ("undecided", "one precision")


@pytest.mark.parametrize("step", [0, LATER])
@pytest.mark.parametrize("place", FLOAT32_INSIDE)
def test_bug_beside_float32_inside_is_found(place: str, step: int) -> None:
    candidate, _ = FLOAT32_INSIDE[place]
    found = watched(CASE, planted(on("dL/dW2", lambda g: in_float32(1.001 * g)), once(step), real=candidate))
    assert (found.verdict, found.first) == ("different", ("dL/dW2", step))


# --- kinks --------------------------------------------------------------------------------------------------------


def near_zero(bias: float) -> tuple[Case, Data, Array]:
    """A net whose first unit reads c - c + bias in every example: 0 or `bias`, by the order of the sum."""
    case = ready(small(first=ReLU(), second=Tanh()))
    data = examples(case)
    data.x[:, :2] = 1.0
    parameters = flat(case)
    parameters[:4] = [0.7, -0.7, 0.0, 0.0]  # the first row of W1
    parameters[16] = bias  # the first of b1
    return case, data, parameters


def bias_first(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    z[...] = b
    for j in range(x.shape[1]):
        z += x[:, j : j + 1] * W[:, j]


def relu_with_slope(slope: float) -> Callable[..., None]:
    """relu', but `slope` within rounding of 0."""

    def backward(op: ReLU, da: Array, a: Array, z: Array, dz: Array | None) -> None:
        if dz is not None:
            dz[...] = np.where(np.abs(z) < 1e-15, slope, z > 0) * da

    return backward


def test_flipped_mask_is_a_kink_and_the_run_is_judged_on() -> None:
    case, data, parameters = near_zero(1e-17)
    flipping = with_ops({Dense: bias_first}, {})
    found = watched(case, flipping, data=data, parameters=parameters)
    assert (found.verdict, found.because) == ("rounding", "kink")
    assert found.at("dL/dW1", 0) == ("rounding", "kink")

    buggy = planted(on("dL/dW2", lambda g: (1 + 1e-6) * g), once(LATER), real=flipping)
    assert watched(case, buggy, data=data, parameters=parameters).first == ("dL/dW2", LATER)


def test_mask_flipped_in_float32_alone_is_not_unstable() -> None:
    """0.7 + 1e-9 - 0.7 is 0 in float32 and not in float64."""
    case, data, parameters = near_zero(1e-9)
    found = watched(case, with_ops({Dense: bias_first}, {}), data=data, parameters=parameters)
    assert (found.verdict, found.because) == ("rounding", "")


@pytest.mark.parametrize("quantity", ["dL/dW1", "dL/dW2", "update:W1"])
def test_bug_at_the_step_of_a_kink_is_found(quantity: str) -> None:
    case, data, parameters = near_zero(1e-17)
    name = quantity.removeprefix("update:")
    buggy = planted(on(name, lambda g: 1.001 * g), once(0), real=with_ops({Dense: bias_first}, {}))
    found = watched(case, buggy, data=data, parameters=parameters)
    assert found.verdict == "different"
    assert found.at(quantity, 0) == ("different", "")


@pytest.mark.parametrize(
    ("slope", "verdict"), [(0.0, "rounding"), (0.5, "rounding"), (1.5, "different"), (-1.0, "different")]
)
def test_any_subgradient_explains_a_kink_and_nothing_else_does(slope: float, verdict: str) -> None:
    case, data, parameters = near_zero(1e-17)
    candidate = with_ops({}, {ReLU: relu_with_slope(slope)})
    found = watched(case, candidate, data=data, parameters=parameters)
    assert (found.verdict, found.first) == (verdict, ("dL/dz1", 0) if verdict == "different" else None)


def test_other_subgradient_at_a_tie_is_different() -> None:
    case, data, parameters = near_zero(0.0)
    found = watched(case, with_ops({}, {ReLU: relu_with_slope(0.5)}), data=data, parameters=parameters)
    assert (found.verdict, found.because, found.first) == ("different", "", ("dL/dz1", 0))


# --- chaos --------------------------------------------------------------------------------------------------------

# u := u - lr (u³ - u) with lr = 1.9 maps [-1.42, 1.42] onto itself, chaotically
CHAOTIC_MAP = ready(
    case_of(
        (Node(name="f", op=Polynomial(terms=((0.25, 4, 0), (-0.5, 2, 0), (0.5, 0, 2)), points=2), parameters=("P",)),),
        Objective(),
        replace(OPTIMIZERS["sgd"], learning_rate=1.9),
    ),
    steps=80,
)
CHAOTIC_START = np.array([0.3, 0.1, -0.7, 0.2])


def factored_backward(op: Polynomial, df: Array, f: Array, W: Array, dW: Array) -> None:
    u, v = W[:, 0], W[:, 1]
    dW[:, 0] = df * u * (u * u - 1)
    dW[:, 1] = df * v


FACTORED = with_ops({}, {Polynomial: factored_backward})


def test_chaos_is_undecided_from_its_horizon_on() -> None:
    found = watched(CHAOTIC_MAP, FACTORED, parameters=CHAOTIC_START)
    assert (found.verdict, found.because, found.first) == ("undecided", "chaotic", None)
    horizon = found.row["chaotic_from"]
    assert 10 <= horizon <= 40  # 1e-7 doubles at most every step, and grows by e in about three
    assert set(np.unique(found.verdicts[:horizon])) <= {VERDICTS.index("identical"), VERDICTS.index("rounding")}


@pytest.mark.parametrize("step", [0, LATER])
def test_bug_before_the_horizon_is_found(step: int) -> None:
    buggy = planted(on("dL/dP", lambda g: (1 + 1e-6) * g), once(step), real=FACTORED)
    found = watched(CHAOTIC_MAP, buggy, parameters=CHAOTIC_START)
    assert (found.verdict, found.first) == ("different", ("dL/dP", step))


def test_bug_beyond_the_horizon_is_not_claimed() -> None:
    buggy = planted(on("dL/dP", lambda g: 1.001 * g), once(70), real=FACTORED)
    assert watched(CHAOTIC_MAP, buggy, parameters=CHAOTIC_START).verdict == "undecided"


def test_bug_in_an_ill_conditioned_step_is_no_chaos() -> None:
    """A saturated example has a loss that is noise in float32; that says nothing of the steps after it."""
    nodes = (dense(1, 4), Node(name="a1", op=Tanh()), dense(2, 1), Node(name="yhat", op=Sigmoid()))
    case = ready(case_of(nodes, LOSSES["binary"], OPTIMIZERS["sgd"]), size=1)
    data = examples(case)
    data.y[...] = 1.0
    parameters = flat(case)
    parameters[-1] = 17.0  # 1 - yhat is about 4e-8
    assert watched(case, REVERSED, data=data, parameters=parameters).verdict == "rounding"
    buggy = planted(on("dL/dW1", lambda g: 1.001 * g), once(LATER), real=REVERSED)
    found = watched(case, buggy, data=data, parameters=parameters)
    assert (found.verdict, found.first) == ("different", ("dL/dW1", LATER))


# --- luck ---------------------------------------------------------------------------------------------------------


def summed(order: tuple[int, ...]) -> Start:
    def forward(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
        z[...] = b
        for j in order:
            z += x[:, j : j + 1] * W[:, j]

    return with_ops({Dense: forward}, {})


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 0, 3)])
def test_lucky_sum_raises_no_alarm(order: tuple[int, ...]) -> None:
    """1 + 2**-53 + 2**-53 - 1 is 0 in float32 in any order, and 0 or 2**-52 in float64: noise by luck shows nothing."""
    case = ready(case_of((dense(1, 1),), LOSSES["squared"], OPTIMIZERS["sgd"]), steps=1)
    data = examples(case)
    data.x[...] = [1.0, 2**-53, 2**-53, -1.0]
    assert watched(case, summed(order), data=data, parameters=np.array([1.0, 1, 1, 1, 0])).verdict != "different"


def test_update_carries_the_parameters_own_rounding() -> None:
    """An ulp of the parameter is a large part of a small update; float32 shows no noise of it, it does not move."""
    case = replace(CASE, optimizer=replace(CASE.optimizer, learning_rate=1e-10))
    ulp_off = planted(on("W2", lambda W: np.nextafter(W, np.inf)), once(LATER), precisions=("float64",))
    assert watched(case, ulp_off).verdict == "rounding"


# --- exact zeros --------------------------------------------------------------------------------------------------

OFFSET = ready(
    case_of(
        (
            *(dense("h", 4), Node(name="a", op=Tanh()), dense("s", 3, "a"), dense("o", 1, "a")),
            Node(name="logits", op=Add(), inputs=("zs", "zo")),
        ),
        LOSSES["categorical_sparse_logits"],
        replace(OPTIMIZERS["adam"], learning_rate=0.002),
    ),
    steps=60,
)
"""One offset for all classes before a softmax: the exact gradient of Wo and bo is 0, and Adam makes steps of it."""


def test_exact_zero_gradient_under_adam_is_null() -> None:
    found = watched(OFFSET, REVERSED)
    assert found.verdict == "rounding"
    assert "null" in str(found.because)
    assert found.at("update:Wo", 3) == ("rounding", "null")


FULL_STEPS = replace(OFFSET, optimizer=replace(OFFSET.optimizer, epsilon=1e-30))
"""The same, but rounding moves Wo and bo by whole steps in float64 too: there an epsilon of 1e-8 dwarfs it."""


def test_full_steps_of_rounding_are_null() -> None:
    found = watched(FULL_STEPS, REVERSED)
    assert (found.verdict, found.because) == ("rounding", "null")
    steps = range(FULL_STEPS.steps)
    assert ("rounding", "null") in [found.at("update:bo", step) for step in steps]
    assert {found.at("update:Ws", step)[1] for step in steps} == {""}


@pytest.mark.parametrize("step", [0, LATER])
@pytest.mark.parametrize("case", [OFFSET, FULL_STEPS], ids=["epsilon-1e-8", "epsilon-1e-30"])
def test_wrong_update_of_a_null_parameter_is_found(case: Case, step: int) -> None:
    found = watched(case, planted(on("Wo", lambda W: 0.9999 * W), once(step), real=REVERSED))
    assert (found.verdict, found.first) == ("different", ("update:Wo", step))


# --- a side that does not reproduce itself ------------------------------------------------------------------------


def noisy(relative: float) -> Edit:
    rng = np.random.default_rng()  # seedless on purpose
    return on("dL/dW2", lambda g: g * (1 + relative * rng.standard_normal(g.shape)))


@pytest.mark.parametrize("relative", [1e-9, 1e-12])
def test_noise_beyond_rounding_is_nondeterministic(relative: float) -> None:
    found = watched(CASE, planted(noisy(relative)))
    assert (found.verdict, found.because) == ("undecided", "nondeterministic")
    assert found.at("dL/dW2", 0) == ("undecided", "nondeterministic")


def shuffling_dense(rng: np.random.Generator) -> Callable[..., None]:
    def forward(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
        order = rng.permutation(x.shape[1])
        np.matmul(x[:, order], W[:, order].T, out=z)
        z += b

    return forward


def test_bug_beside_noise_is_found() -> None:
    buggy = planted(on("dL/dW3", lambda g: -g), once(LATER), real=planted(noisy(1e-6)))
    assert watched(CASE, buggy).first == ("dL/dW3", LATER)
    assert watched(CASE, planted(on("dL/dW3", lambda g: -g), real=planted(noisy(1e-6)))).first == ("dL/dW3", 0)


@pytest.mark.parametrize("relative", [1e-6, 1e-2])
def test_coarse_noise_stays_undecided(relative: float) -> None:
    for _ in range(10):
        assert watched(CASE, planted(noisy(relative))).verdict == "undecided"


def test_varying_summation_order_is_rounding() -> None:
    nodes = (dense(1, 32), Node(name="a1", op=Tanh()), dense(2, 32), Node(name="a2", op=ReLU()), dense(3, 1))
    case = ready(case_of(nodes, LOSSES["squared"], OPTIMIZERS["adam"]), steps=30)
    assert watched(case, with_ops({Dense: shuffling_dense(np.random.default_rng())}, {})).verdict == "rounding"


# --- what cannot be shown, and what is equal ----------------------------------------------------------------------


def test_missing_quantity_is_listed_and_not_counted() -> None:
    hidden = planted(on("dL/dyhat", lambda g: np.nan * g))
    found = watched(CASE, hidden, missing={"dL/dyhat": "fused with the loss"})
    assert (found.verdict, found.because, found.first) == ("identical", "", None)
    assert found.at("dL/dyhat", 0) == ("undecided", "missing")


def test_bug_beside_a_missing_quantity_is_found() -> None:
    buggy = planted(on("dL/dz3", lambda g: 1.001 * g), once(LATER))
    found = watched(CASE, buggy, missing={"dL/dyhat": "fused with the loss"})
    assert found.first == ("dL/dz3", LATER)


def test_same_implementation_is_identical() -> None:
    found = watched(CASE, training.start)
    assert (found.verdict, found.because, found.row["worst"]) == ("identical", "", "")
    assert not found.verdicts.any()


def rows_of(quantity: str, values: Array | float) -> Rows:
    """A step in which everything is 1 but one quantity."""
    layout = layout_of(CASE, (BATCH, 4))
    row = np.ones((1, layout.size))
    row[0, layout.find(quantity).columns] = np.ravel(values)
    return {"float32": row.astype(np.float32), "float64": row}


def judged(quantity: str, reference: Array | float, candidate: Array | float) -> tuple[str, str]:
    layout = layout_of(CASE, (BATCH, 4))
    measures = compare(layout, rows_of(quantity, reference), rows_of(quantity, candidate))
    judgement = judge(measures, np.zeros(len(layout.quantities), bool))
    i = [q.name for q in layout.quantities].index(quantity)
    return VERDICTS[judgement.verdict[0, i]], BECAUSE[judgement.because[0, i]]


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([0.0, 1, 2, 3], [-0.0, 1, 2, 3], ("identical", "")),
        ([-INF, 1, 2, 3], [-INF, 1, 2, 3], ("identical", "")),
        ([-INF, 1, 2, 3], [-INF, 1, 2, 3 + 1e-6], ("different", "")),
        ([-INF, 1, 2, 3], [INF, 1, 2, 3], ("different", "nonfinite")),
        ([INF, 1, 2, 3], [1.0, 1, 2, 3], ("different", "nonfinite")),
        ([NAN, 1, 2, 3], [1.0, 1, 2, 3], ("different", "nonfinite")),
        ([NAN, 1, 2, 3], [NAN, 1, 2, 3], ("undecided", "nonfinite")),
        ([NAN, 1, 2, 3], [INF, 1, 2, 3], ("undecided", "nonfinite")),
        ([INF, 1, 2, 3], [INF, 1, 2, 3], ("undecided", "nonfinite")),
        ([NAN, 1, 2, 3], [NAN, 1, 2, 3.1], ("different", "")),
        ([NAN, NAN, 2, 3], [NAN, 1, 2, 3], ("different", "nonfinite")),
        ([0.0, 0, 0, 0], [0.0, 0, 0, 0], ("identical", "")),
        ([0.0, 0, 0, 0], [1e-30, 0, 0, 0], ("different", "")),
    ],
)
def test_equal_and_not_finite_values(reference: list[float], candidate: list[float], expected: tuple[str, str]) -> None:
    assert judged("b2", np.array(reference), np.array(candidate)) == expected


# --- clean candidates ---------------------------------------------------------------------------------------------


def reversed_dense(op: Dense, z: Array, x: Array, W: Array, b: Array) -> None:
    np.matmul(x[:, ::-1], W[:, ::-1].T, out=z)
    z += b


def reversed_dense_backward(
    op: Dense, dz: Array, z: Array, x: Array, W: Array, b: Array, dx: Array | None, dW: Array, db: Array
) -> None:
    np.matmul(dz[::-1].T, x[::-1], out=dW)
    np.add.reduce(dz[::-1], axis=0, out=db)
    if dx is not None:
        np.matmul(dz[:, ::-1], W[::-1], out=dx)


REVERSED = with_ops({Dense: reversed_dense}, {Dense: reversed_dense_backward})
"""The reference, summing in the other order."""

ACTIVATIONS = (ReLU(), LeakyReLU(negative_slope=0.25, slope_at_zero="negative_slope"), Sigmoid(), Tanh(), Linear())


def random_net(seed: int) -> tuple[Case, Data, Array]:
    """Depth 1 to 6, width 1 to 32, every loss, optimizer and activation, weights of any size, a third on a 0.1 grid."""
    rng = np.random.default_rng(seed)
    loss, optimizer = str(rng.choice(list(LOSSES))), OPTIMIZERS[str(rng.choice(list(OPTIMIZERS)))]
    nodes: list[Node] = []
    for i in range(rng.integers(6)):
        op = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
        nodes += [dense(i, int(rng.integers(1, 33))), Node(name=f"a{i}", op=op)]
    nodes.append(dense("out", 3 if loss.startswith("categorical") else 1))
    last = {"binary": Sigmoid(), "categorical": Softmax(), "categorical_sparse": Softmax()}
    nodes += [Node(name="p", op=last[loss])] if loss in last else []
    optimizer = replace(optimizer, learning_rate=float(rng.choice([0.001, 0.01])))
    case = ready(
        case_of(tuple(nodes), LOSSES[loss], optimizer), steps=int(rng.integers(3, 6)), size=int(rng.choice([1, 32]))
    )
    case = replace(case, seed=seed, initial_scale=float(rng.choice([0.1, 0.3, 1.0, 3.0])))
    grid = float(rng.choice([0.0, 0.0, 0.1]))
    parameters = flat(case)
    return case, examples(case, 64, seed, grid), np.round(parameters, 1) if grid else parameters


AMPLIFIED = (515, 608, 1403)
"""Nets in which one step makes large differences of what rounding left in the parameters or gradients before it."""


@pytest.mark.parametrize("seed", [*range(60), *AMPLIFIED])
def test_other_summation_order_is_rounding(seed: int) -> None:
    case, data, parameters = random_net(seed)
    found = watched(case, REVERSED, data=data, parameters=parameters)
    assert found.verdict in ("identical", "rounding"), (found.row, case)
