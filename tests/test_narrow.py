"""A constant that one side keeps in float32 and the other writes in code, or computes, is rounding in either order;
another constant is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import frameworks as registry
import harness

needs = {
    name: pytest.mark.skipif(name not in registry.installed(), reason=registry.pip_line(name))
    for name in ("pytorch", "keras", "jax")
}
pytestmark = needs["pytorch"]

RNG = np.random.default_rng(0)
X = RNG.random((12, 5, 3)).astype(np.float32)
WEIGHTS = RNG.standard_normal((3, 4)).astype(np.float32)

TYPED = [0.485, 0.456, 0.406]
COMPUTED = [float(value) for value in np.sqrt([0.0524, 0.0502, 0.0506])]
TABLE = np.sin(np.arange(15).reshape(5, 3) * [1.0, 0.1, 0.01] + 1)
"""float64: as many digits as it has."""

Constant = Any
"""Python floats, nested lists of them, or an array of float64."""


# --- models: x minus a constant, and a dense layer -----------------------------------------------------------------


def in_torch(minus: Callable[[Any, Any], Any], **buffers: Any) -> Any:
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(3, 4, bias=False)
            self.dense.weight.data = torch.tensor(WEIGHTS.T.copy())
            for name, value in buffers.items():
                self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

        def forward(self, x: Any) -> Any:
            return self.dense(minus(self, x))

    return Model()


def torch_code(constant: Constant) -> Any:
    """Written in the code: exact in either precision."""
    import torch

    return in_torch(lambda self, x: x - torch.tensor(np.asarray(constant).tolist(), dtype=x.dtype))


def torch_buffer(constant: Constant) -> Any:
    return in_torch(lambda self, x: x - self.shift, shift=np.asarray(constant))


def torch_closure(constant: Constant) -> Any:
    import torch

    held = torch.tensor(np.asarray(constant), dtype=torch.float32)
    return in_torch(lambda self, x: x - held)


def keras_model(*before: Any) -> Any:
    import keras

    dense = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((5, 3)), *before, dense])
    dense.set_weights([WEIGHTS])
    return model


def keras_rescaling(constant: Constant) -> Any:
    import keras

    offset: Any = [-value for value in np.asarray(constant).tolist()]
    return keras_model(keras.layers.Rescaling([1.0] * 3, offset))


def keras_normalization(constant: Constant) -> Any:
    import keras

    return keras_model(keras.layers.Normalization(mean=constant, variance=[1.0] * 3))


def keras_array(constant: Constant) -> Any:
    import keras

    class Shift(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.shift = np.asarray(constant, np.float32)

        def call(self, x: Any) -> Any:
            return x - self.shift

    return keras_model(Shift())


def keras_tensor(constant: Constant) -> Any:
    import keras

    class Shift(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.shift = keras.ops.convert_to_tensor(np.asarray(constant, np.float32))

        def call(self, x: Any) -> Any:
            return x - self.shift

    return keras_model(Shift())


def jax_array(constant: Constant) -> Any:
    import jax.numpy as jnp

    held = jnp.asarray(np.asarray(constant, np.float32))
    return harness.side(lambda p, x: (x - held) @ p["w"], params={"w": jnp.asarray(WEIGHTS)})


def jax_code(constant: Constant) -> Any:
    import jax.numpy as jnp

    written = np.asarray(constant).tolist()
    return harness.side(lambda p, x: (x - jnp.array(written)) @ p["w"], params={"w": jnp.asarray(WEIGHTS)})


KEEPERS = (
    *(pytest.param(keeper, id=keeper.__name__) for keeper in (torch_buffer, torch_closure)),
    *(
        pytest.param(keeper, id=keeper.__name__, marks=needs["keras"])
        for keeper in (keras_rescaling, keras_normalization, keras_array, keras_tensor)
    ),
    *(pytest.param(keeper, id=keeper.__name__, marks=needs["jax"]) for keeper in (jax_array, jax_code)),
)
TABLES = [keeper for keeper in KEEPERS if "rescaling" not in str(keeper.id) and "normal" not in str(keeper.id)]


def compared(reference: Any, candidate: Any, swapped: bool) -> harness.Comparison:
    sides = (candidate, reference) if swapped else (reference, candidate)
    return harness.compare(*sides, X, steps=0)


orders = pytest.mark.parametrize("swapped", [False, True], ids=["kept-second", "kept-first"])
off = pytest.mark.parametrize("off", [1e-6, 1e-5, 1e-3])


# --- the same constant --------------------------------------------------------------------------------------------


@orders
@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_typed_constant_is_the_decimal_that_was_typed(keeper: Callable[[Constant], Any], swapped: bool) -> None:
    result = compared(torch_code(TYPED), keeper(TYPED), swapped)
    assert result.verdict in ("identical", "rounding")
    assert result.because == ""


@orders
@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_constant_that_was_computed_is_rounding(keeper: Callable[[Constant], Any], swapped: bool) -> None:
    assert compared(torch_code(COMPUTED), keeper(COMPUTED), swapped).verdict in ("identical", "rounding")


@orders
@pytest.mark.parametrize("keeper", TABLES)
def test_a_table_is_rounding(keeper: Callable[[Constant], Any], swapped: bool) -> None:
    assert compared(torch_code(TABLE), keeper(TABLE), swapped).verdict in ("identical", "rounding")


def test_two_keepers_hold_the_same() -> None:
    assert compared(torch_buffer(COMPUTED), torch_closure(COMPUTED), False).verdict in ("identical", "rounding")
    assert compared(torch_buffer(TYPED), torch_closure(TYPED), True).verdict in ("identical", "rounding")


# --- another one ----------------------------------------------------------------------------------------------------


def other(constant: Constant, off: float, at: Sequence[int]) -> Constant:
    """The constant with one number off."""
    values = np.array(constant, np.float64)
    values[tuple(at)] *= 1 + off
    return values.tolist()


@orders
@off
@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("constant", [TYPED, COMPUTED], ids=["typed", "computed"])
def test_another_constant_is_different(
    keeper: Callable[[Constant], Any], constant: Constant, off: float, swapped: bool
) -> None:
    result = compared(torch_code(constant), keeper(other(constant, off, [1])), swapped)
    assert result.verdict == "different"


@orders
@off
@pytest.mark.parametrize("keeper", TABLES)
def test_another_table_is_different(keeper: Callable[[Constant], Any], off: float, swapped: bool) -> None:
    result = compared(torch_code(TABLE), keeper(other(TABLE, off, [2, 1])), swapped)
    assert result.verdict == "different"


# --- behind such a constant, in training, and where float32 loses more -----------------------------------------------


def trained(model: Any) -> Any:
    import torch

    return harness.side(model, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(model.parameters(), 0.01))


def normed(kept: bool, epsilon: float = 1e-5) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    first = torch_buffer(COMPUTED) if kept else torch_code(COMPUTED)
    return nn.Sequential(first, nn.Flatten(), nn.LayerNorm(20, eps=epsilon), nn.Tanh(), nn.Linear(20, 3))


@orders
def test_behind_a_rounded_constant_another_difference_is_found_and_explained(swapped: bool) -> None:
    y = np.arange(12) % 3
    sides = [trained(normed(False)), trained(normed(True))]
    result = harness.compare(sides[swapped], sides[not swapped], X, y, steps=4)
    assert (result.verdict, result.because) == ("rounding", "one precision")
    sides = [trained(normed(False)), trained(normed(True, 1.001e-5))]
    result = harness.compare(sides[swapped], sides[not swapped], X, y, steps=4)
    assert result.verdict == "different"
    assert [cause.id for cause in result.causes] == ["layernorm-eps"]


def positions(kept: bool, base: float = 1e4) -> Any:
    """Sines of large arguments, of which float32 has few digits."""
    import torch
    from torch import nn

    def table(dtype: Any) -> Any:
        rates = base ** (-torch.arange(8, dtype=dtype) / 8)
        return torch.sin(torch.arange(512, dtype=dtype)[:, None] * rates)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.dense = nn.Linear(4, 8)
            if kept:
                self.register_buffer("table", table(torch.float32))

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.dense(x) + (self.table if kept else table(x.dtype)))

    return Model()


@orders
@pytest.mark.parametrize("off", [0.0, 1e-5, 1e-3])
def test_a_table_that_is_the_same_in_float32_is_rounding(off: float, swapped: bool) -> None:
    x = np.random.default_rng(0).standard_normal((3, 512, 4)).astype(np.float32)
    sides = [positions(False), positions(True, 1e4 * (1 + off))]
    result = harness.compare(sides[swapped], sides[not swapped], x, steps=0)
    assert result.verdict == ("different" if off else "rounding")
