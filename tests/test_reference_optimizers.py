import dataclasses
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from itertools import product
from typing import Any

import numpy as np
import pytest
from reference_checks import Array

from harness.case import SGD, Adagrad, Adam, HarnessError, Optimizer, RMSprop, slot_names
from reference.constants import rounded
from reference.optimizers import bias_corrections, initial_slots, update_rule

FLOAT64 = np.dtype(np.float64)
EPS = float(np.finfo(np.float64).eps)
STEPS, PARAMETERS = 5, 7

ADAM = Adam(
    learning_rate=0.1,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-3,
    epsilon_placement="after_correction",
    weight_decay=0.0,
    decay="coupled",
)


def every_optimizer() -> Iterator[Optimizer]:
    """Every combination of conventions; epsilon is large, so that its placement shows."""
    for momentum, nesterov, velocity, weight_decay, decay in product(
        (0.0, 0.9), (False, True), ("gradient", "step"), (0.0, 0.05), ("coupled", "decoupled")
    ):
        yield SGD(
            learning_rate=0.1,
            momentum=momentum,
            nesterov=nesterov,
            velocity=velocity,
            weight_decay=weight_decay,
            decay=decay,
        )
    for first, placement in product((0.0, 0.1), ("inside_sqrt", "outside_sqrt")):
        yield Adagrad(learning_rate=0.1, initial_accumulator=first, epsilon=1e-3, epsilon_placement=placement)
    for momentum, placement, velocity in product((0.0, 0.9), ("inside_sqrt", "outside_sqrt"), ("gradient", "step")):
        yield RMSprop(
            learning_rate=0.1,
            rho=0.9,
            momentum=momentum,
            epsilon=1e-3,
            epsilon_placement=placement,
            velocity=velocity,
        )
    for placement, weight_decay, decay in product(
        ("after_correction", "before_correction"), (0.0, 0.05), ("coupled", "decoupled")
    ):
        yield dataclasses.replace(ADAM, epsilon_placement=placement, weight_decay=weight_decay, decay=decay)


def name_of(optimizer: Optimizer) -> str:
    fields = dataclasses.asdict(optimizer)
    return "-".join([type(optimizer).__name__, *(str(v) for k, v in fields.items() if k != "learning_rate")])


OPTIMIZERS = {name_of(optimizer): optimizer for optimizer in every_optimizer()}


def weighted(decay: Decimal, values: list[Decimal]) -> Decimal:
    """Σ decay^(t-i) value_i, the newest undiminished."""
    return sum((value * decay**age for age, value in enumerate(values[-2::-1], start=1)), values[-1])


def direction(kind: type, of: dict[str, Any], seen: list[Decimal]) -> Decimal:
    """What the last update is, over -lr, from all gradients seen: sums over the steps in place of running averages."""
    squares = [g * g for g in seen]

    def over_root(g: Decimal, s: Decimal) -> Decimal:
        epsilon = of["epsilon"]
        return g / ((s + epsilon).sqrt() if of["epsilon_placement"] == "inside_sqrt" else s.sqrt() + epsilon)

    if kind is SGD:
        v = weighted(of["momentum"], seen)
        return seen[-1] + of["momentum"] * v if of["nesterov"] and of["momentum"] else v
    if kind is Adagrad:
        return over_root(seen[-1], of["initial_accumulator"] + sum(squares))
    if kind is RMSprop:
        means = [(1 - of["rho"]) * weighted(of["rho"], squares[: i + 1]) for i in range(len(seen))]
        return weighted(of["momentum"], [over_root(g, s) for g, s in zip(seen, means, strict=True)])
    # Adam's corrected averages are weighted means: the weights β^(t-i) divided by their own sum
    ones = [Decimal(1)] * len(seen)
    m_hat, v_hat = (
        weighted(beta, values) / weighted(beta, ones)
        for beta, values in ((of["beta_1"], seen), (of["beta_2"], squares))
    )
    corrected = of["epsilon_placement"] == "after_correction"
    # √(v̂ c2) + ε over √c2: "epsilon hat" is ε divided by √c2
    return m_hat / (v_hat.sqrt() + of["epsilon"] / (1 if corrected else (1 - of["beta_2"] ** len(seen)).sqrt()))


def exact_run(optimizer: Optimizer, W: float, gradients: Array) -> Decimal:
    """One parameter after its gradients, in 50 digits."""
    of = {k: Decimal(v) if isinstance(v, float) else v for k, v in dataclasses.asdict(optimizer).items()}
    with localcontext() as context:
        context.prec = 50
        at, lr, decay = Decimal(W), of["learning_rate"], of.get("weight_decay", Decimal(0))
        seen: list[Decimal] = []
        for gradient in gradients:
            coupled = of.get("decay") == "coupled"
            seen.append(Decimal(float(gradient)) + (decay * at if coupled else 0))
            at = at * (1 if coupled else 1 - lr * decay) - lr * direction(type(optimizer), of, seen)
    return at


def worst_error(optimizer: Optimizer, update: Callable[..., None]) -> float:
    """Largest error of W after STEPS steps against 50 digits, in units of eps times |W| and all |updates|."""
    rng = np.random.default_rng(11)
    start, gradients = rng.normal(size=PARAMETERS), rng.normal(size=(STEPS, PARAMETERS))
    W, slots = start.copy(), initial_slots(optimizer, PARAMETERS).reshape(-1, PARAMETERS)
    size = np.abs(W)
    for t, g in enumerate(gradients, start=1):
        before = W.copy()
        update(t, W, g.copy(), *slots)
        size += np.abs(W - before)
    exact = [exact_run(optimizer, start[k], gradients[:, k]) for k in range(PARAMETERS)]
    off = np.array([float(abs(Decimal(float(W[k])) - exact[k])) for k in range(PARAMETERS)])
    return float((off / (EPS * size)).max())


ROUNDINGS = 20
"""Each of 5 steps rounds W once and its update some ten times. Adam's 1 - 0.999^t loses up to three digits, on updates
of a tenth of W: half of 0.5 eps / 0.002, times 0.1, is 12.5. Measured: 2 without Adam, 13 with it."""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_agrees_with_scalar_sums(name: str) -> None:
    assert worst_error(OPTIMIZERS[name], update_rule(OPTIMIZERS[name], FLOAT64, ())) < ROUNDINGS


@pytest.mark.parametrize(
    ("name", "field", "planted"),
    [
        *((name, "learning_rate", 0.1 * (1 + 1e-12)) for name in OPTIMIZERS),
        *((name, "epsilon", 1e-3 * (1 + 1e-9)) for name in OPTIMIZERS if not name.startswith("SGD")),
        (name_of(ADAM), "beta_1", 0.9 * (1 + 1e-12)),
        (name_of(ADAM), "beta_2", 0.999 * (1 + 1e-12)),
        (name_of(ADAM), "epsilon_placement", "before_correction"),
        ("SGD-0.9-False-step-0.05-coupled", "nesterov", True),
        ("SGD-0.9-False-step-0.05-coupled", "decay", "decoupled"),
        ("RMSprop-0.9-0.9-0.001-inside_sqrt-step", "epsilon_placement", "outside_sqrt"),
        ("RMSprop-0.9-0.9-0.001-inside_sqrt-step", "momentum", 0.9 * (1 + 1e-12)),
    ],
)
def test_check_finds_planted_mistakes(name: str, field: str, planted: object) -> None:
    wrong = dataclasses.replace(OPTIMIZERS[name], **{field: planted})
    assert worst_error(OPTIMIZERS[name], update_rule(wrong, FLOAT64, ())) > ROUNDINGS


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_forms_differ_when_the_rate_changes(nesterov: bool) -> None:
    """With a constant rate -lr v(gradient) = v(step) and W agree; after the rate changes they do not."""
    ends = {}
    for velocity in ("gradient", "step"):
        W, v, g = np.ones(1), np.zeros(1), np.array([2.0])
        for rate in (0.5, 0.5, 0.25):
            optimizer = SGD(
                learning_rate=rate,
                momentum=0.5,
                nesterov=nesterov,
                velocity=velocity,
                weight_decay=0.0,
                decay="coupled",
            )
            update_rule(optimizer, FLOAT64, ())(1, W, g, v)
        ends[velocity] = W.item(), v.item()
    # v: 2, 3, 3.5; step: -1, -1.5, -1.25
    assert (ends["gradient"][1], ends["step"][1]) == (3.5, -1.25)
    assert ends["gradient"][0] != ends["step"][0]


def test_gradients_are_left_alone() -> None:
    g = np.ones(3)
    for optimizer in OPTIMIZERS.values():
        update_rule(optimizer, FLOAT64, ())(1, np.ones(3), g, *np.ones((len(slot_names(optimizer)), 3)))
    np.testing.assert_array_equal(g, np.ones(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_updates_stay_in_the_precision_of_the_run(dtype: type) -> None:
    for optimizer, leaked in product(OPTIMIZERS.values(), ((), ("bias_correction", "learning_rate"))):
        W, slots = np.ones(3, dtype), np.ones((len(slot_names(optimizer)), 3), dtype)
        update_rule(optimizer, np.dtype(dtype), leaked)(1, W, np.ones(3, dtype), *slots)
        assert W.dtype == dtype
        assert W[0] != 1


def test_bias_corrections_leak_as_keras_does() -> None:
    beta_1, beta_2 = np.float32(0.9), np.float32(0.999)
    assert bias_corrections(ADAM, FLOAT64, False, 3) == (1 - 0.9**3, 1 - 0.999**3)
    assert bias_corrections(ADAM, FLOAT64, True, 3) == (1 - float(beta_1) ** 3, 1 - float(beta_2) ** 3)
    single = bias_corrections(ADAM, np.dtype(np.float32), True, 3)
    assert [type(c) for c in single] == [np.float32, np.float32]
    assert single == (1 - beta_1 ** np.float32(3), 1 - beta_2 ** np.float32(3))


def test_initial_slots() -> None:
    adagrad = Adagrad(learning_rate=0.1, initial_accumulator=0.1, epsilon=1e-3, epsilon_placement="inside_sqrt")
    np.testing.assert_array_equal(initial_slots(adagrad, 2), [0.1, 0.1])
    np.testing.assert_array_equal(initial_slots(ADAM, 2), np.zeros(4))


def test_constants_are_shortest_decimals() -> None:
    assert rounded(ADAM, FLOAT64, ()) == ADAM
    assert rounded(ADAM, FLOAT64, ("beta_2",)).beta_2 == float(np.float32(0.999))
    assert rounded(ADAM, np.dtype(np.longdouble), ()).beta_2 == np.longdouble("0.999")
    with pytest.raises(HarnessError, match=r"Adam\.epsilon is 'native'"):
        rounded(dataclasses.replace(ADAM, epsilon="native"), FLOAT64, ())
