"""Users' JAX models: what a watched step shows against jax.grad and optax by hand, in both precisions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from frameworks.protocol import Models, Watched
from harness.case import PRECISIONS, HarnessError, Precision
from harness.recipe import Batch, Forced, Recipe, Record

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

from frameworks import jax_models  # noqa: E402

models: Models = jax_models


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


X, Y = arrays(0, (8, 3), (8, 2))


def dense(p: Any, x: Any) -> Any:
    return x @ p["w"] + p["b"]


def mlp(p: Any, x: Any) -> Any:
    return dense(p["out"], jax.nn.relu(dense(p["hidden"], x)))


def mlp_params() -> dict[str, dict[str, np.ndarray]]:
    w1, b1, w2, b2 = arrays(1, (3, 5), (5,), (5, 2), (2,))
    return {"hidden": {"w": w1, "b": b1}, "out": {"w": w2, "b": b2}}


def squares(output: Any, target: Any) -> Any:
    return jnp.mean((output - target) ** 2)


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(Recipe(model=mlp, params=mlp_params(), loss=squares), **changes)


def batch(precision: Precision, *inputs: np.ndarray, y: np.ndarray | None = Y, **more: Any) -> Batch:
    """float32 values in this precision; integers as they are."""
    cast = [x.astype(precision) if x.dtype.kind == "f" else x for x in inputs or (X,)]
    return Batch(inputs=tuple(cast), targets=() if y is None else (y.astype(precision),), **more)


def watch(recipe: Recipe, precision: Precision = "float64", inference: bool = False) -> Watched:
    return models.watch(recipe, precision, inference)


def in_float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), tree)


def deviation(found: Any, expected: Any) -> float:
    """In the max norm, relative to the expected tensor's."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def assert_same(found: Any, expected: Any, precision: Precision = "float64") -> None:
    """Equal but for the rounding of sums of at most a hundred terms."""
    assert deviation(found, expected) <= 100 * np.finfo(precision).eps


def assert_all_same(found: Mapping[str, Any], expected: Any, precision: Precision = "float64") -> None:
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(expected)[0]
    }
    assert set(found) == set(named)
    for name, leaf in named.items():
        assert_same(found[name], leaf, precision)


# --- what a step shows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_shows_what_jax_computes(precision: Precision) -> None:
    record = watch(recipe(), precision).step(batch(precision))

    with jax.enable_x64(True):
        p, x, y = in_float64(mlp_params()), in_float64(X), in_float64(Y)

        def probed(p: Any, probes: list[Any]) -> tuple[Any, list[Any]]:
            z1 = x @ p["hidden"]["w"] + probes[0]
            h1 = z1 + p["hidden"]["b"] + probes[1]
            h = jax.nn.relu(h1) + probes[2]
            z2 = h @ p["out"]["w"] + probes[3]
            out = z2 + p["out"]["b"] + probes[4]
            return squares(out, y), [z1, h1, h, z2, out]

        zeros = [jnp.zeros((8, n)) for n in (5, 5, 5, 2, 2)]
        (gradients, cotangents), shown = jax.grad(probed, argnums=(0, 1), has_aux=True)(p, zeros)
        loss = probed(p, zeros)[0]
    names = ["hidden/dot_general", "hidden", "relu", "out/dot_general", "out"]
    assert list(record.activations) == names == list(record.cotangents)
    assert record.outputs == ("out",)
    assert record.after is None
    for name, activation, cotangent in zip(names, shown, cotangents, strict=True):
        assert_same(record.activations[name], activation, precision)
        assert_same(record.cotangents[name], cotangent, precision)
    assert_all_same(record.gradients, gradients, precision)
    assert record.loss is not None
    assert record.loss.shape == ()
    assert_same(record.loss, loss, precision)
    tensors = [*record.activations.values(), *record.cotangents.values(), *record.gradients.values(), record.loss]
    assert {tensor.dtype for tensor in tensors if tensor is not None} == {np.dtype(precision)}


def test_a_wrong_factor_in_the_models_own_derivative_is_seen() -> None:
    """The planted failure: had the rule been lost, or the comparison above no teeth, nothing would differ."""

    @jax.custom_vjp
    def wrong_relu(x: Any) -> Any:
        return jnp.maximum(x, 0)

    wrong_relu.defvjp(lambda x: (wrong_relu(x), x), lambda x, g: (1.001 * g * (x > 0),))

    def model(p: Any, x: Any) -> Any:
        return dense(p["out"], wrong_relu(dense(p["hidden"], x)))

    right, wrong = (watch(recipe(model=m)).step(batch("float64")) for m in (mlp, model))
    assert "wrong_relu" in wrong.activations
    assert_same(wrong.loss, right.loss)
    assert_same(wrong.cotangents["wrong_relu"], right.cotangents["relu"])
    assert deviation(wrong.cotangents["hidden"], right.cotangents["hidden"]) == pytest.approx(1e-3)
    assert deviation(wrong.gradients["hidden/w"], right.gradients["hidden/w"]) == pytest.approx(1e-3)


def test_relu_keeps_its_derivative_at_zero() -> None:
    """jax.nn.relu has a custom rule; what it is made of, maximum(x, 0), would give 1/2."""

    def model(p: Any, x: Any) -> Any:
        return jax.nn.relu(x * p["scale"])

    zeros = np.zeros((8, 2), np.float32)
    record = watch(recipe(model=model, params={"scale": np.ones(2, np.float32)})).step(batch("float64", zeros))
    assert record.cotangents["relu"].all()
    np.testing.assert_array_equal(record.cotangents["model"], 0)


def test_jit_and_remat_are_opened_and_what_no_gradient_reaches_is_left_out() -> None:
    @jax.jit
    def model(p: Any, x: Any) -> Any:
        h = jax.checkpoint(dense)(p["hidden"], x)
        return dense(p["out"], jax.nn.softmax(jax.nn.gelu(h)) + jax.lax.stop_gradient(jnp.sin(h)))

    record = watch(recipe(model=model)).step(batch("float64"))
    assert {"hidden", "gelu", "softmax", "sin", "out"} <= set(record.activations)
    assert record.outputs == ("out",)
    assert set(record.activations) - set(record.cotangents) == {"sin", "reduce_max", "max"}

    with jax.enable_x64(True):
        expected = jax.grad(lambda p: squares(model(p, in_float64(X)), Y))(in_float64(mlp_params()))
    assert_all_same(record.gradients, expected)


def test_a_scan_is_one_layer_and_its_gradients_are_jaxs() -> None:
    def rnn(p: Any, x: Any) -> Any:
        def cell(h: Any, x_t: Any) -> tuple[Any, Any]:
            h = jnp.tanh(x_t @ p["rnn"]["w"] + h @ p["rnn"]["u"] + p["rnn"]["b"])
            return h, h

        _, h = jax.lax.scan(cell, jnp.zeros((x.shape[0], 4)), x.swapaxes(0, 1))
        return dense(p["out"], h[-1])

    w, u, b, w2, b2 = arrays(2, (3, 4), (4, 4), (4,), (4, 2), (2,))
    params = {"rnn": {"w": w, "u": u, "b": b}, "out": {"w": w2, "b": b2}}
    (sequences,) = arrays(3, (8, 6, 3))
    record = watch(recipe(model=rnn, params=params)).step(batch("float64", sequences))
    assert list(record.activations) == ["rnn", "out/dot_general", "out"]
    assert record.activations["rnn"].shape == (6, 8, 4)
    with jax.enable_x64(True):
        expected = jax.grad(lambda p: squares(rnn(p, in_float64(sequences)), Y))(in_float64(params))
    assert_all_same(record.gradients, expected)


def test_several_inputs_and_outputs_and_calls_of_one_layer() -> None:
    def siamese(p: Any, a: Any, b: Any) -> Any:
        left, right = jnp.tanh(dense(p["tower"], a)), jnp.tanh(dense(p["tower"], b))
        return {"far": jnp.abs(left - right).sum(-1), "both": (left, right)}

    def loss(output: Any, target: Any) -> Any:
        return jnp.mean(output["far"] * target[0] + output["both"][1] @ target[1])

    w, b, other, t0, t1 = arrays(4, (3, 5), (5,), (8, 3), (8,), (5,))
    params = {"tower": {"w": w, "b": b}}
    step = Batch(inputs=(X.astype(float), other.astype(float)), targets=(t0.astype(float), t1.astype(float)))
    record = watch(recipe(model=siamese, params=params, loss=loss)).step(step)
    assert record.outputs == ("tanh", "tanh#2", "reduce_sum")  # as jax.tree flattens: both, far
    assert {"tower", "tower#2"} <= set(record.activations)
    with jax.enable_x64(True):
        expected = jax.grad(lambda p: loss(siamese(p, *step.inputs), step.targets))(in_float64(params))
        assert_same(record.activations["tower#2"], dense(in_float64(params)["tower"], other))
    assert_all_same(record.gradients, expected)


def test_outputs_that_only_move_data_or_are_handed_through() -> None:
    def model(p: Any, x: Any) -> Any:
        return dense(p["hidden"], x).T, x, jnp.argmax(x, -1)

    record = watch(recipe(model=model), inference=True).step(batch("float64", y=None))
    assert record.outputs == ("transpose", "output")
    np.testing.assert_array_equal(record.activations["transpose"], record.activations["hidden"].T)
    np.testing.assert_array_equal(record.activations["output"], X)
    (chosen,) = record.integers
    np.testing.assert_array_equal(chosen, X.argmax(-1))


def test_inference_shows_the_forward_pass_alone() -> None:
    def model(p: Any, x: Any, training: bool) -> Any:
        return mlp(p, x) * (2 if training else 1)

    both = recipe(model=model, optimizer=optax.sgd(0.1))
    record = watch(both, inference=True).step(batch("float64", y=None))
    assert record.loss is None
    assert record.after is None
    assert not record.gradients
    assert not record.cotangents
    trained = watch(both).step(batch("float64"))
    (output,) = record.outputs
    assert_same(trained.activations[trained.outputs[0]], 2 * record.activations["out"])
    assert record.activations[output].shape == (8, 2)


# --- forced values ------------------------------------------------------------------------------------------------


def test_forced_values_take_the_place_of_the_own_ones_after_these_are_recorded() -> None:
    model = watch(recipe(optimizer=optax.sgd(0.5)))
    start = model.state()
    own = model.step(batch("float64"))
    h, g, update = (array.astype(np.float64) for array in arrays(5, (8, 5), (8, 2), (5, 2)))
    model.load(start)
    forced = Forced(activations={"relu": h}, cotangents={"out": g}, gradients={"out/w": update})
    record = model.step(batch("float64"), forced)

    for name in ("hidden", "relu"):
        np.testing.assert_array_equal(record.activations[name], own.activations[name])
    p = start.values
    assert_same(record.activations["out"], h @ p["out/w"] + p["out/b"])
    residual = record.activations["out"] - Y
    assert_same(record.cotangents["out"], residual / 8)  # its own, of 2 residual / 16
    assert_same(record.gradients["out/b"], g.sum(0))  # of the forced one
    assert_same(record.gradients["out/w"], h.T @ g)
    assert_same(record.cotangents["relu"], g @ p["out/w"].T)
    assert_same(record.cotangents["hidden"], (g @ p["out/w"].T) * (own.activations["hidden"] > 0))
    assert record.after is not None
    assert_same(record.after.values["out/w"], p["out/w"] - 0.5 * update)
    assert_same(record.after.values["out/b"], p["out/b"] - 0.5 * g.sum(0))

    model.load(start)
    again = model.step(batch("float64"))
    np.testing.assert_array_equal(again.gradients["hidden/w"], own.gradients["hidden/w"])


def test_forced_cotangents_reach_only_the_block_that_computed_the_activation() -> None:
    model = watch(recipe())
    own = model.step(batch("float64"))
    g = arrays(6, (8, 5))[0].astype(np.float64)
    record = model.step(batch("float64"), Forced(cotangents={"relu": g}))
    np.testing.assert_array_equal(record.cotangents["relu"], own.cotangents["relu"])
    np.testing.assert_array_equal(record.gradients["out/w"], own.gradients["out/w"])
    assert_same(record.gradients["hidden/b"], (g * (own.activations["hidden"] > 0)).sum(0))


def test_pull_back_is_the_vector_jacobian_product() -> None:
    (g,) = arrays(7, (8, 2))
    record = watch(recipe(), inference=True).pull_back(batch("float64", y=None), {"out": g.astype(np.float64)})
    with jax.enable_x64(True):
        _, pull = jax.vjp(lambda p: mlp(p, in_float64(X)), in_float64(mlp_params()))
        (expected,) = pull(in_float64(g))
    np.testing.assert_array_equal(record.cotangents["out"], g)
    assert_all_same(record.gradients, expected)
    assert record.loss is None
    assert record.after is None


@pytest.mark.parametrize(
    ("forced", "message"),
    [
        (Forced(activations={"rlu": np.zeros((8, 5))}), "no 'rlu'; it has hidden/dot_general, hidden, relu"),
        (Forced(cotangents={"relu": np.zeros((8, 4))}), r"relu has shape \(8, 5\), not \(8, 4\)"),
        (Forced(gradients={"relu": np.zeros((8, 5))}), "no 'relu'; it has hidden/b, hidden/w"),
    ],
)
def test_forced_values_that_do_not_fit_are_refused(forced: Forced, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        _ = watch(recipe(optimizer=optax.sgd(0.1))).step(batch("float64"), forced)


# --- precision and process-wide settings --------------------------------------------------------------------------


def test_float64_is_float64_throughout_even_where_the_model_says_float32() -> None:
    tenth, table = np.float32(0.1), arrays(8, (5,))[0]

    def model(p: Any, x: Any) -> Any:
        h = jnp.tanh(dense(p["hidden"], x).astype(jnp.float32)) * tenth
        h = h * jnp.sqrt(jnp.abs(table)) + jnp.linspace(0, 1, 5, dtype=jnp.float32) / 3
        return dense(p["out"], h)

    record = watch(recipe(model=model)).step(batch("float64"))
    for name, values in {**record.activations, **record.cotangents}.items():
        assert (values != values.astype(np.float32)).any(), f"{name} lies on the float32 grid"
    p = {name: {k: v.astype(np.float64) for k, v in layer.items()} for name, layer in mlp_params().items()}
    h = np.tanh(dense(p["hidden"], X.astype(np.float64))) * 0.1
    h = h * np.sqrt(np.abs(table.astype(np.float64))) + np.linspace(0, 1, 5) / 3
    assert_same(record.activations["out"], dense(p["out"], h))


def test_a_model_that_insists_on_float32_is_told_so() -> None:
    def model(p: Any, x: Any) -> Any:
        def cell(h: Any, x_t: Any) -> tuple[Any, None]:
            return jnp.tanh(dense(p["cell"], x_t) + h), None

        return jax.lax.scan(cell, np.zeros((2, 5), np.float32), x)[0]

    w, b, x = arrays(13, (3, 5), (5,), (4, 2, 3))
    mine = recipe(model=model, params={"cell": {"w": w, "b": b}})
    assert watch(mine, "float32", inference=True).step(batch("float32", x, y=None)).outputs == ("cell",)
    with pytest.raises(HarnessError, match=r"in float64, the model raised TypeError: scan .* let it say x.dtype"):
        _ = watch(mine, "float64", inference=True).step(batch("float64", x, y=None))


def test_float32_noise_is_there_in_float32_only() -> None:
    low, high = (watch(recipe(), precision).step(batch(precision)) for precision in PRECISIONS)
    assert 1e-9 < deviation(low.activations["out"], high.activations["out"]) < 1e-5


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_x64_setting_is_left_alone_also_after_an_error(precision: Precision, x64: bool) -> None:
    def broken(p: Any, x: Any) -> Any:
        raise ValueError("no forward")

    with jax.enable_x64(x64):
        model = watch(recipe(optimizer=optax.adam(0.1)), precision)
        model.load(model.step(batch(precision)).after or model.state())
        _ = model.pull_back(batch(precision), {"out": np.ones((8, 2))})
        assert jax.config.jax_enable_x64 is x64
        with pytest.raises(HarnessError, match=f"in {precision}, the model raised ValueError: no forward") as caught:
            _ = watch(recipe(model=broken), precision).step(batch(precision))
        assert isinstance(caught.value.__cause__, ValueError)
        assert jax.config.jax_enable_x64 is x64


def test_the_users_params_stay_as_they_are() -> None:
    mine, untouched = jax.tree.map(jnp.asarray, mlp_params()), mlp_params()
    leaves = jax.tree.leaves(mine)
    model = watch(recipe(params=mine, optimizer=optax.sgd(0.1)))
    _ = [model.step(batch("float64", step=t)) for t in range(2)]
    assert all(now is then for now, then in zip(jax.tree.leaves(mine), leaves, strict=True))
    jax.tree.map(np.testing.assert_array_equal, mine, untouched)


# --- updates and slots --------------------------------------------------------------------------------------------

TRANSFORMATIONS = {
    "sgd": (lambda: optax.sgd(0.1), set()),
    "momentum": (lambda: optax.sgd(0.1, 0.9, nesterov=True), {"velocity"}),
    "adam": (lambda: optax.adam(optax.exponential_decay(0.1, 2, 0.5)), {"m", "v"}),
    "amsgrad": (lambda: optax.amsgrad(0.1), {"m", "v", "v_max"}),
    "adamax": (lambda: optax.chain(optax.clip(1.0), optax.adamax(0.1)), {"m", "u"}),
    "adamax injected": (lambda: optax.inject_hyperparams(optax.adamaxw)(0.1), {"m", "u"}),
    "rmsprop": (lambda: optax.rmsprop(0.1), {"mean_square"}),
    "rmsprop momentum": (lambda: optax.rmsprop(0.1, momentum=0.9), {"mean_square", "trace"}),
    "adagrad": (lambda: optax.adagrad(0.1), {"accumulator"}),
    "clipped": (lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1)), {"m", "v"}),
    "injected": (lambda: optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.1, 0, 4)), {"m", "v"}),
}


def train(model: Watched, first: int, last: int, precision: Precision = "float64") -> list[Record]:
    return [model.step(batch(precision, step=t)) for t in range(first, last)]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_updates_are_optaxs_and_a_state_goes_there_and_back(name: str) -> None:
    make, slots = TRANSFORMATIONS[name]
    model = watch(recipe(optimizer=make()))
    records = train(model, 0, 4)

    with jax.enable_x64(True):
        optimizer, p = make(), in_float64(mlp_params())
        state = jax.tree.map(lambda leaf: leaf.astype(int) if leaf.dtype == "int32" else leaf, optimizer.init(p))
        for record in records:
            gradients = jax.grad(lambda p: squares(mlp(p, in_float64(X)), Y))(p)
            updates, state = optimizer.update(gradients, state, p)
            p = optax.apply_updates(p, updates)
            assert record.after is not None
            assert_all_same(record.after.values, p)
    middle = records[1].after
    assert middle is not None
    assert middle.count == 2
    assert set(middle.slots) == slots
    assert all(set(of) == set(middle.values) for of in middle.slots.values())

    model.load(middle)
    for again, before in zip(train(model, 2, 4), records[2:], strict=True):
        assert again.after is not None
        assert before.after is not None
        for tensor, values in before.after.values.items():
            np.testing.assert_array_equal(again.after.values[tensor], values)


@pytest.mark.parametrize("name", ["momentum", "adam", "adagrad"])
def test_a_state_can_go_to_a_fresh_copy(name: str) -> None:
    """Counts among optax's numbers become the state's: Adam's bias correction and the schedule go on."""
    make, _ = TRANSFORMATIONS[name]
    records = train(watch(recipe(optimizer=make())), 0, 4)
    fresh = watch(recipe(optimizer=make()))
    middle = records[1].after
    assert middle is not None
    fresh.load(middle)
    last = train(fresh, 2, 4)[-1].after
    assert last is not None
    assert records[-1].after is not None
    assert last.count == 4
    np.testing.assert_array_equal(last.values["hidden/w"], records[-1].after.values["hidden/w"])

    fresh.load(dataclasses.replace(middle, slots={}, count=0))  # the planted failure: what a lost count would do
    lost = train(fresh, 2, 4)[-1].after
    assert lost is not None
    assert deviation(lost.values["hidden/w"], last.values["hidden/w"]) > 1e-4


RATES = {
    "exponential": (lambda: optax.exponential_decay(0.1, 1, 0.9), lambda t: 0.1 * 0.9**t),
    "cosine": (lambda: optax.cosine_decay_schedule(0.1, 7), lambda t: 0.1 * (1 + np.cos(np.pi * t / 7)) / 2),
    "user's own": (lambda: lambda count: 0.1 / (1 + count / 3), lambda t: 0.1 / (1 + t / 3)),
}


@pytest.mark.parametrize("name", RATES)
def test_a_schedules_rate_is_float64(name: str) -> None:
    """optax counts in int32, whose powers and quotients are float32 in JAX, 1e-8 off."""
    make, rate = RATES[name]
    model = watch(recipe(optimizer=optax.sgd(make())))
    w = model.state().values["out/w"]
    for t, record in enumerate(train(model, 0, 4)):
        assert record.after is not None
        assert record.gradients["out/w"] is not None
        w = w - rate(t) * record.gradients["out/w"]
        assert deviation(record.after.values["out/w"], w) < 1e-14


def test_slots_are_in_canonical_units() -> None:
    model = watch(recipe(optimizer=optax.sgd(0.1, 0.9)))
    first, second = train(model, 0, 2)
    assert second.after is not None
    g1, g2 = first.gradients["out/w"], second.gradients["out/w"]
    assert g1 is not None
    assert g2 is not None
    assert_same(second.after.slots["velocity"]["out/w"], 0.9 * g1 + g2)

    adam = watch(recipe(optimizer=optax.adam(0.1))).step(batch("float64")).after
    assert adam is not None
    assert_same(adam.slots["m"]["out/w"], (1 - 0.9) * g1)
    assert_same(adam.slots["v"]["out/w"], (1 - 0.999) * g1**2)


def test_a_masked_optimizer_has_slots_of_its_own_parameters_only() -> None:
    labels = {"hidden": "slow", "out": "fast"}
    optimizer = optax.partition({"slow": optax.sgd(0.1, 0.9), "fast": optax.adam(0.1)}, labels)
    state = watch(recipe(optimizer=optimizer)).state()
    assert set(state.slots["m"]) == {"out/w", "out/b"}
    assert {name for slot, of in state.slots.items() if slot in ("velocity", "trace") for name in of} == {
        "hidden/w",
        "hidden/b",
    }


GATHERED = {
    "averaged": lambda rule: optax.MultiSteps(rule, 3),
    "summed": lambda rule: optax.MultiSteps(rule, 3, use_grad_mean=False),
    "as a transformation": lambda rule: optax.MultiSteps(rule, 3).gradient_transformation(),
}


@pytest.mark.parametrize("name", GATHERED)
def test_what_optax_gathers_is_shown_summed_and_counted_by_updates(name: str) -> None:
    plain = train(watch(recipe(optimizer=optax.sgd(0.0))), 0, 1)[0].gradients["out/w"]
    assert plain is not None
    model = watch(recipe(optimizer=GATHERED[name](optax.sgd(0.1, 0.9))))
    start, records, states = model.state(), [], []
    for t in range(7):
        states.append(model.state())
        records.append(model.step(batch("float64", step=t)))
    assert [record.after is None for record in records] == [True, True, False, True, True, False, True]
    assert [state.count for state in states] == [0, 0, 0, 1, 1, 1, 2]
    for passes, record in enumerate(records[:3], start=1):
        assert_same(record.gradients["out/w"], passes * plain)
    share = 1 if name == "summed" else 3
    assert records[2].after is not None
    assert_same(records[2].after.values["out/w"], start.values["out/w"] - 0.1 * 3 * plain / share)

    for t in (4, 1, 5, 2):  # taken again, out of order
        model.load(states[t])
        again = model.step(batch("float64", step=t))
        assert_all_same(again.gradients, records[t].gradients)
        assert (again.after is None) == (records[t].after is None)
    forced = Forced(gradients={"out/w": 7 * plain})
    model.load(states[2])
    after = model.step(batch("float64", step=2), forced).after
    assert after is not None
    assert_same(after.values["out/w"], start.values["out/w"] - 0.1 * 7 * plain / share)


def test_gradients_do_not_add_up_twice() -> None:
    with pytest.raises(HarnessError, match=r"twice.*optax\.MultiSteps; choose one"):
        _ = watch(recipe(optimizer=optax.MultiSteps(optax.sgd(0.1), 2), accumulate=2))


def test_gradients_add_up_until_the_update() -> None:
    plain = train(watch(recipe(optimizer=optax.sgd(0.0))), 0, 1)[0].gradients["out/w"]
    assert plain is not None
    model = watch(recipe(optimizer=optax.sgd(0.1), accumulate=2))
    start = model.state()
    first, second, third = train(model, 0, 3)
    assert first.after is None
    assert second.after is not None
    assert third.after is None
    assert second.gradients["out/w"] is not None
    assert_same(second.gradients["out/w"], 2 * plain)
    assert_same(second.after.values["out/w"], start.values["out/w"] - 0.1 * 2 * plain)
    assert second.after.count == 1

    model.load(start)
    _ = train(model, 0, 1)
    between = model.state()
    for _ in range(2):  # a step taken again starts from the same pile
        model.load(between)
        again = train(model, 1, 2)[0]
        np.testing.assert_array_equal(again.gradients["out/w"], second.gradients["out/w"])


def test_gradients_pile_up_without_zero_grad() -> None:
    records = train(watch(recipe(optimizer=optax.sgd(0.0), zero_grad=False)), 0, 3)
    first, last = records[0].gradients["out/w"], records[2].gradients["out/w"]
    assert first is not None
    assert_same(last, 3 * first)


def test_penalty_weights_and_clipping_between_backward_and_update() -> None:
    def loss(output: Any, target: Any, weights: Any) -> Any:
        return jnp.mean(weights * jnp.sum((output - target) ** 2, -1))

    def penalty(params: Any) -> Any:
        return 0.1 * jnp.sum(params["out"]["w"] ** 2)

    def halved(gradients: Any) -> Any:
        return jax.tree.map(lambda g: g / 2, gradients)

    weights = np.arange(8, dtype=np.float64)
    model = watch(recipe(loss=loss, penalty=penalty, after_backward=halved, optimizer=optax.sgd(1.0)))
    start = model.state()
    record = model.step(batch("float64", weights=weights))
    with jax.enable_x64(True):
        expected = jax.grad(lambda p: loss(mlp(p, in_float64(X)), Y, weights) + penalty(p))(in_float64(mlp_params()))
    assert_all_same(record.gradients, expected)
    assert record.after is not None
    assert_same(record.after.values["out/w"], start.values["out/w"] - np.asarray(expected["out"]["w"]) / 2)


# --- parameters ---------------------------------------------------------------------------------------------------


def described(params: Any) -> dict[str, tuple[str, str]]:
    return {p.name: (p.layer, p.role) for p in watch(recipe(params=params, loss=None)).parameters}


def test_names_layers_and_roles() -> None:
    w, b, s = arrays(9, (3, 5), (5,), (5,))
    assert described({"z": {"kernel": w, "bias": b}, "a": [{"scale": s, "bias": b}]}) == {
        "z/kernel": ("z", "kernel"),  # as defined, not sorted
        "z/bias": ("z", "bias"),
        "a/0/scale": ("a/0", "gamma"),
        "a/0/bias": ("a/0", "beta"),
    }
    assert described([(w, b), (w, s)]) == {
        "0/0": ("0", "kernel"),
        "0/1": ("0", "bias"),
        "1/0": ("1", "kernel"),
        "1/1": ("1", "bias"),
    }
    assert described({"w1": w, "b1": b, "fc_w": w, "fc_b": b, "W_hh": w, "pos": w, "embedding": w, "b": b}) == {
        "w1": ("1", "kernel"),
        "b1": ("1", "bias"),
        "fc_w": ("fc", "kernel"),
        "fc_b": ("fc", "bias"),
        "W_hh": ("hh", ""),
        "pos": ("pos", ""),
        "embedding": ("embedding", "embeddings"),
        "b": ("model", "bias"),
    }
    assert described({"norm": {"weight": s, "bias": b}})["norm/weight"] == ("norm", "")
    assert described({"weights": [w, w], "cell": (w, w, b)}) == {
        "weights/0": ("weights/0", ""),
        "weights/1": ("weights/1", ""),
        **{f"cell/{i}": ("cell", "") for i in range(3)},
    }


def test_flat_parameters_have_layers_that_are_shown() -> None:
    w1, b1, w2, b2 = arrays(1, (3, 5), (5,), (5, 2), (2,))

    def model(p: Any, x: Any) -> Any:
        return jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    record = watch(recipe(model=model, params={"w1": w1, "b1": b1, "w2": w2, "b2": b2})).step(batch("float64"))
    assert list(record.activations) == ["1/dot_general", "1", "relu", "2/dot_general", "2"]


def test_integers_are_buffers_and_python_numbers_stay() -> None:
    (table,) = arrays(10, (7, 2))

    def model(p: Any, tokens: Any) -> Any:
        assert p["factor"] == 0.1
        assert p["name"] == "bag"
        assert isinstance(p["factor"], float)
        return p["factor"] * p["embed"]["table"][p["order"][tokens]].sum(1)

    order = np.arange(7)[::-1].copy()
    params = {"embed": {"table": table}, "order": order, "factor": 0.1, "name": "bag"}
    tokens = np.random.default_rng(0).integers(0, 7, (8, 4))
    model_ = watch(recipe(model=model, params=params, optimizer=optax.adam(0.1)))
    record = model_.step(batch("float64", tokens))
    by_name = {parameter.name: parameter for parameter in model_.parameters}
    assert by_name["order"].buffer
    assert not by_name["order"].trainable
    assert set(record.gradients) == {"embed/table"}
    assert record.after is not None
    np.testing.assert_array_equal(record.after.values["order"], order)
    assert_same(record.activations[record.outputs[0]], 0.1 * table.astype(np.float64)[order[tokens]].sum(1))
    assert_same(record.activations["embed"], table[order[tokens]])


def test_a_dataclass_is_a_pytree_like_any_other() -> None:
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Line:
        w: Any
        b: Any

    w, b = arrays(11, (3, 2), (2,))

    def model(p: Any, x: Any) -> Any:
        return x @ p["line"].w + p["line"].b

    record = watch(recipe(model=model, params={"line": Line(w, b)}, optimizer=optax.adam(0.1))).step(batch("float64"))
    assert record.outputs == ("line",)
    assert record.after is not None
    assert set(record.after.slots["m"]) == {"line/w", "line/b"}


def test_assign_writes_into_the_users_own_containers() -> None:
    (w,) = arrays(12, (3, 5))
    inner = {"w": jnp.zeros((3, 5)), "b": np.zeros(5)}
    mine = recipe(params={"hidden": inner, "rest": [(jnp.ones(2),)]})
    models.assign(mine, {"hidden/w": w.astype(np.float64), "rest/0/0": np.array([3.0, 4.0])})
    np.testing.assert_array_equal(inner["w"], w)
    assert inner["w"].dtype == jnp.float32
    assert inner["b"].dtype == np.float64
    np.testing.assert_array_equal(mine.params["rest"][0][0], [3, 4])
    with pytest.raises(HarnessError, match=r"hidden/w has shape \(3, 5\), not \(5, 3\)"):
        models.assign(mine, {"hidden/w": w.T})
    with pytest.raises(HarnessError, match="params in a tuple cannot be changed in place"):
        models.assign(recipe(params=(w,)), {"0": w})


# --- errors -------------------------------------------------------------------------------------------------------


def nan_params() -> Any:
    params = mlp_params()
    params["out"]["b"][1] = np.nan
    return params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mlp"}, r"a JAX model is a function apply\(params, x\); this is a str"),
        ({"params": None}, "needs its parameters; give the pytree as params="),
        ({"params": {"n": 3}}, "floating arrays; give it as params="),
        ({"params": nan_params()}, "parameter out/b holds NaN"),
        ({"params": {"w": np.ones(3, np.complex64)}}, "parameter w is complex"),
        ({"loss": "mse"}, "a JAX loss is a function"),
        (
            {"loss": lambda output, target: (output - target) ** 2},
            r"the loss has shape \(8, 2\); it must be one number",
        ),
        ({"loss": lambda output, target: output @ target}, "in float64, the loss raised TypeError: dot_general"),
        (
            {"model": lambda params, x: (mlp(params, x), x.mean())},
            "the loss raised TypeError: .*; apply returned a tuple of 2, and the loss gets it as such: let apply",
        ),
        ({"penalty": lambda params: params["in"]}, "the penalty raised KeyError: 'in'"),
        ({"optimizer": "adam"}, "an optax transformation, not a str"),
        ({"optimizer": optax.sgd(0.1), "schedule": lambda count: 0.1}, "put it into optax"),
        ({"train_step": lambda x, y: 0}, "train_step is not offered for JAX"),
        ({"optimizer": optax.sgd(0.1), "after_backward": lambda gradients: None}, "the optimizer raised"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        _ = watch(recipe(**changes)).step(batch("float64"))
    assert "\n" not in str(caught.value)


def test_weights_need_a_loss_that_takes_them() -> None:
    with pytest.raises(HarnessError, match=r"loss\(output, target, weights\)"):
        _ = watch(recipe()).step(batch("float64", weights=np.ones(8)))
