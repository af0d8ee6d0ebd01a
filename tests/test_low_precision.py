"""Pairs with a side in bfloat16, float16, a mixed policy or under autocast: seen as the user runs them, judged in
float64; and planted differences, which low precision must not hide."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import frameworks as registry
import harness
from frameworks.protocol import Watched
from harness.case import PRECISIONS
from harness.recipe import Batch, Forced, Recipe, State

needs = {
    name: pytest.mark.skipif(name not in registry.installed(), reason=registry.pip_line(name))
    for name in ("pytorch", "keras", "jax")
}
pytestmark = needs["pytorch"]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 10)).astype(np.float32)
IMAGES = RNG.standard_normal((24, 8, 8, 3)).astype(np.float32)
Y = RNG.integers(0, 3, 24)


# --- models -----------------------------------------------------------------------------------------------------


def mlp(tanh: bool = False) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.GELU("tanh" if tanh else "none"), nn.Linear(16, 3))


def convolutional(eps: float = 1e-3) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(1)
    norm = nn.BatchNorm2d(5, eps=eps, momentum=0.01)
    return nn.Sequential(nn.Conv2d(3, 5, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def trained(model: Any, rule: str = "SGD", reduction: str = "mean", **how: Any) -> Recipe:
    import torch

    settings = {"lr": 0.05, "momentum": 0.9} if rule == "SGD" else {"lr": 0.01, "eps": 1e-4}  # 1e-8 is 0 in float16
    optimizer = getattr(torch.optim, rule)(model.parameters(), **settings)
    return harness.side(model, loss=torch.nn.CrossEntropyLoss(reduction=reduction), optimizer=optimizer, **how)


def torch_bfloat16(tanh: bool = False, rule: str = "SGD") -> Recipe:
    return trained(mlp(tanh).bfloat16(), rule)


def torch_float16(tanh: bool = False, rule: str = "SGD") -> Recipe:
    return trained(mlp(tanh).half(), rule)


def autocast(tanh: bool = False, rule: str = "SGD") -> Recipe:
    import torch

    class Autocast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(tanh)

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x)

    return trained(Autocast(), rule)


def scaled(tanh: bool = False, rule: str = "SGD") -> Recipe:
    """The usual loop of automatic mixed precision, with a scaler that has been used before."""
    import torch

    side = trained(mlp(tanh), rule)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # type: ignore[attr-defined]
    _ = scaler.scale(torch.ones(()))

    def train_step(x: Any, y: Any) -> Any:
        side.optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = side.loss(side.model(x), y)
        scaler.scale(loss).backward()
        scaler.step(side.optimizer)
        scaler.update()
        return loss

    return harness.side(side.model, optimizer=side.optimizer, train_step=train_step)


def keras_mlp(policy: str, tanh: bool = False, rule: str = "SGD") -> Any:
    import keras

    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16, dtype=policy)])
    model.add(keras.layers.Activation(lambda z: keras.ops.gelu(z, approximate=tanh), dtype=policy))
    model.add(keras.layers.Dense(3, dtype=policy))
    model.set_weights([p.detach().numpy().T for p in mlp().parameters()])
    settings = {"learning_rate": 0.05, "momentum": 0.9} if rule == "SGD" else {"learning_rate": 0.01, "epsilon": 1e-4}
    optimizer = getattr(keras.optimizers, rule)(**settings)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def mixed_bfloat16(tanh: bool = False, rule: str = "SGD") -> Any:
    return keras_mlp("mixed_bfloat16", tanh, rule)


def mixed_float16(tanh: bool = False, rule: str = "SGD") -> Any:
    return keras_mlp("mixed_float16", tanh, rule)


def keras_bfloat16(tanh: bool = False, rule: str = "SGD") -> Any:
    return keras_mlp("bfloat16", tanh, rule)


def jax_side(stored: Any, computed: Any, tanh: bool, rule: str) -> Recipe:
    import jax
    import jax.numpy as jnp
    import optax

    def apply(p: Any, x: Any) -> Any:
        h = x.astype(computed) @ p["w1"].T.astype(computed) + p["b1"].astype(computed)
        h = jax.nn.gelu(h, approximate=tanh)
        return h @ p["w2"].T.astype(computed) + p["b2"].astype(computed)

    def loss(output: Any, target: Any) -> Any:
        output = output.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(output, target).mean()

    values = [jnp.asarray(p.detach().numpy(), stored) for p in mlp().parameters()]
    optimizer = optax.sgd(0.05, momentum=0.9) if rule == "SGD" else optax.adam(0.01, eps=1e-4, mu_dtype=computed)
    params = dict(zip(("w1", "b1", "w2", "b2"), values, strict=True))
    return harness.side(apply, params=params, loss=loss, optimizer=optimizer)


def jax_bfloat16(tanh: bool = False, rule: str = "SGD") -> Recipe:
    return jax_side("bfloat16", "bfloat16", tanh, rule)


def jax_casts(tanh: bool = False, rule: str = "SGD") -> Recipe:
    return jax_side("float32", "bfloat16", tanh, rule)


LOW: dict[Callable[..., Any], str] = {
    **dict.fromkeys((torch_bfloat16, torch_float16, autocast, scaled), "pytorch"),
    **dict.fromkeys((mixed_bfloat16, mixed_float16, keras_bfloat16), "keras"),
    **dict.fromkeys((jax_bfloat16, jax_casts), "jax"),
}


def among(*sides: Callable[..., Any]) -> Any:
    return pytest.mark.parametrize("low", [pytest.param(f, id=f.__name__, marks=needs[LOW[f]]) for f in sides])


def compared(reference: Any, candidate: Any, x: Any = X, steps: int = 2, **how: Any) -> harness.Comparison:
    return harness.compare(reference, candidate, x, Y, **{"steps": steps, "batch_size": 8, **how})


# --- verdicts ---------------------------------------------------------------------------------------------------


@among(*(low for low in LOW if low is not jax_casts))
def test_a_low_precision_port_is_rounding_and_shows_the_size_of_it(low: Callable[..., Any]) -> None:
    result = compared(trained(mlp()), low())
    assert (result.verdict, result.first) == ("rounding", None)
    logits = result.frame.query("name == '2'")
    for column in ("d32", "noise_candidate"):
        sizes = logits[column].to_numpy(float)
        assert ((sizes > 1e-4) & (sizes < 3e-2)).all()
    assert (logits["noise_reference"].to_numpy(float) < 1e-6).all()
    assert (logits["d64"].to_numpy(float) < 1e-14).all()


@among(torch_bfloat16, torch_float16, autocast, scaled, mixed_bfloat16, mixed_float16, jax_casts)
def test_another_formula_is_found_behind_low_precision(low: Callable[..., Any]) -> None:
    result = compared(trained(mlp()), low(tanh=True), steps=1)
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place == "forward:1"


@among(torch_bfloat16, mixed_bfloat16, jax_casts)
def test_adam_in_low_precision(low: Callable[..., Any]) -> None:
    """torch's epsilon stands where optax's does; Keras's is moved, which is a difference of the update alone."""
    result = compared(trained(mlp(), "Adam"), low(rule="Adam"), steps=5)
    if low is mixed_bfloat16:
        assert result.verdict == "different"
        assert result.first is not None
        assert result.first.place.startswith("update:")
    else:
        assert (result.verdict, result.first) == ("rounding", None)


def nchw(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_convolution_and_batch_normalisation_in_bfloat16(eps: float) -> None:
    result = compared(trained(convolutional()), trained(convolutional(eps).bfloat16()), nchw(IMAGES), steps=3)
    if eps == 1e-3:
        assert (result.verdict, result.first) == ("rounding", None)
    else:
        assert result.verdict == "different"
        assert result.first is not None
        assert result.first.place == "forward:1"


@needs["keras"]
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_convolution_and_batch_normalisation_in_a_mixed_policy(eps: float) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3))])
    for layer in (
        keras.layers.Conv2D(5, 3, dtype="mixed_bfloat16"),
        keras.layers.BatchNormalization(epsilon=eps, momentum=0.99, dtype="mixed_bfloat16"),
        keras.layers.ReLU(dtype="mixed_bfloat16"),
        keras.layers.GlobalAveragePooling2D(dtype="mixed_bfloat16"),
        keras.layers.Dense(3, dtype="float32"),
    ):
        model.add(layer)
    reference = trained(convolutional().eval(), training=False)
    _ = harness.transfer(reference, model)
    model.compile(keras.optimizers.SGD(0.05, 0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    candidate = harness.side(model, training=False)  # in training their running variances differ by n / (n - 1)
    result = compared(reference, candidate, (nchw(IMAGES), IMAGES))
    if eps == 1e-3:
        assert (result.verdict, result.first) == ("rounding", None)
    else:
        assert result.verdict == "different"
        assert result.first is not None
        assert result.first.place == "forward:1"


def test_a_sum_for_a_mean_in_bfloat16() -> None:
    result = compared(trained(mlp()), trained(mlp().bfloat16(), reduction="sum"))
    assert result.verdict == "different"
    assert result.first is not None
    assert result.first.place == "loss"


def test_float16_overflows_where_float32_does_not() -> None:
    import torch

    class Large(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Any) -> Any:
            return self.net((x * 300) * 300) / 90000

    result = compared(trained(Large()), trained(Large().half()), steps=1)
    assert (result.verdict, result.because) == ("different", "unstable")


# --- what goes in and out ---------------------------------------------------------------------------------------

STORED = {
    torch_float16: "float16",
    autocast: "float32",
    mixed_float16: "float32",
    keras_bfloat16: "bfloat16",
    jax_bfloat16: "bfloat16",
}


def watched(recipe: Any, precision: Any) -> Watched:
    recipe = recipe if isinstance(recipe, Recipe) else harness.side(recipe)
    return registry.models(registry.framework_of(recipe)).watch(recipe, precision, False)


def batch(precision: str, step: int = 0) -> Batch:
    return Batch(inputs=(X[:8].astype(precision),), targets=(Y[:8],), step=step)


@among(*STORED)
def test_all_that_leaves_is_plain_a_state_goes_there_and_back_and_nothing_of_the_users_changes(
    low: Callable[..., Any],
) -> None:
    mine = low(rule="Adam")
    if LOW[low] == "pytorch":  # so that its optimizer holds something
        for parameter in mine.model.parameters():
            parameter.grad = parameter.detach().clone()
        mine.optimizer.step()
    before = bits(mine)
    for precision in PRECISIONS:
        model = watched(mine, precision)
        assert {p.dtype for p in model.parameters if p.trainable} == {STORED[low]}
        first, second = model.step(batch(precision)), model.step(batch(precision, 1))
        assert first.after is not None
        assert second.after is not None
        assert first.loss is not None
        arrays = [first.loss, *first.activations.values(), *first.cotangents.values(), *first.gradients.values()]
        of_state = [*first.after.values.values(), *(a for of in first.after.slots.values() for a in of.values())]
        assert {a.dtype.name for a in (*arrays, *of_state) if a is not None} == {precision}
        model.load(first.after)
        assert_same_state(model.state(), first.after)
        again = model.step(batch(precision, 1))
        assert again.after is not None
        assert_same_state(again.after, second.after)
        forced = Forced(
            activations=first.activations,
            cotangents=first.cotangents,
            gradients={name: g for name, g in first.gradients.items() if g is not None},
        )
        model.load(first.after)
        assert model.step(batch(precision, 1), forced).after is not None
        outputs = {name: np.ones_like(second.activations[name]) for name in second.outputs}
        assert all(g is not None for g in model.pull_back(batch(precision), outputs).gradients.values())
    assert bits(mine) == before


def assert_same_state(one: State, other: State) -> None:
    assert one.count == other.count
    for left, right in ((one.values, other.values), *((one.slots[s], other.slots[s]) for s in other.slots)):
        assert left.keys() == right.keys()
        for name in right:
            np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(("low", "dtype"), [(torch_bfloat16, "bfloat16"), (torch_float16, "float16")])
def test_the_own_run_is_what_torch_does_without_us(low: Callable[..., Any], dtype: str) -> None:
    import torch

    side = low(rule="Adam")
    model = watched(side, "float32")
    shown = [model.step(batch("float32", step)) for step in range(3)]
    x, y = torch.tensor(X[:8]).to(getattr(torch, dtype)), torch.tensor(Y[:8])
    for record in shown:
        side.optimizer.zero_grad()
        output = side.model(x)
        side.loss(output, y).backward()
        side.optimizer.step()
        np.testing.assert_array_equal(record.activations["2"], output.detach().float().numpy())
    assert shown[-1].after is not None
    for name, parameter in side.model.named_parameters():
        assert parameter.dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(shown[-1].after.values[name], parameter.detach().float().numpy())
        np.testing.assert_array_equal(
            shown[-1].after.slots["v"][name], side.optimizer.state[parameter]["exp_avg_sq"].float().numpy()
        )


@needs["keras"]
def test_the_own_run_is_what_keras_does_without_us() -> None:
    model = keras_bfloat16(rule="Adam")
    shown = watched(model, "float32").step(batch("float32"))
    assert shown.after is not None
    _ = model.train_on_batch(X[:8], Y[:8])
    for name, weight in zip(shown.after.values, model.weights, strict=True):
        assert weight.dtype == "bfloat16"
        np.testing.assert_array_equal(shown.after.values[name], weight.numpy().astype(np.float32))


def bits(recipe: Any) -> list[bytes]:
    """All that the user's own objects hold."""
    if not isinstance(recipe, Recipe):
        return [v.numpy().tobytes() + str(v.dtype).encode() for v in (*recipe.variables, *recipe.optimizer.variables)]
    if recipe.params is not None:
        return [np.asarray(v).tobytes() + str(v.dtype).encode() for v in recipe.params.values()]
    state = copy.deepcopy((recipe.model.state_dict(), recipe.optimizer.state_dict()))
    kept = [*state[0].values(), *(v for entry in state[1]["state"].values() for v in entry.values())]
    return [v.double().numpy().tobytes() + str(v.dtype).encode() for v in kept]


@needs["jax"]
def test_a_users_own_compiled_function_keeps_its_casts() -> None:
    """JAX keeps traces by shapes and types: one made with wide casts must not serve the user, nor the user's us."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def apply(p: Any, x: Any) -> Any:
        return jax.nn.relu(x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16)) * 0.1

    w = RNG.standard_normal((10, 3))
    with jax.enable_x64(True):
        before = apply({"w": jnp.asarray(w)}, jnp.asarray(X, "float64"))
    side = harness.side(apply, params={"w": w})
    model = registry.models("jax").watch(side, "float64", True)
    output = model.step(Batch(inputs=(X.astype("float64"),))).activations
    exact = np.maximum(X.astype("float64") @ w.astype(np.float32).astype("float64"), 0) * 0.1
    assert np.abs(list(output.values())[-1] - exact).max() < 1e-14
    with jax.enable_x64(True):
        after = apply({"w": jnp.asarray(w)}, jnp.asarray(X, "float64"))
    assert before.dtype == after.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
