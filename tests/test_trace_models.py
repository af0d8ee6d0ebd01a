"""Users' own models recorded and compared from disk."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from frameworks import FRAMEWORKS, installed
from harness.case import HarnessError
from harness.cases import CASES
from harness.comparison import Comparison
from harness.trace import Difference, Thinning, diff, read_trace, record
from tests.test_traces import altered

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = RNG.normal(size=(12, 2)).astype(np.float32)
W = [RNG.normal(size=shape).astype(np.float32) / 2 for shape in ((4, 5), (5,), (5, 2), (2,))]
HOW: dict[str, Any] = {"steps": 4, "batch_size": 6}
MODELS = [name for name in installed() if FRAMEWORKS[name].models]


def torch_side(rate: float = 0.1) -> Any:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), (W[0].T, W[1], W[2].T, W[3]), strict=True):
            _ = parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    return harness.side(net, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), rate, momentum=0.5))


def keras_side(rate: float = 0.1) -> Any:
    import keras

    layers = [keras.layers.Dense(5, activation="tanh", name="a"), keras.layers.Dense(2, name="b")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.set_weights(W)
    model.compile(keras.optimizers.SGD(rate, momentum=0.5), "mse")
    return model


def jax_side(rate: float = 0.1) -> Any:
    import jax.numpy as jnp
    import optax

    def apply(params: Any, x: Any) -> Any:
        return jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"]) @ params["b"]["kernel"] + params["b"]["bias"]

    def loss(output: Any, target: Any) -> Any:
        return ((output - target) ** 2).mean()

    params = {"a": {"kernel": W[0], "bias": W[1]}, "b": {"kernel": W[2], "bias": W[3]}}
    return harness.side(apply, params=params, loss=loss, optimizer=optax.sgd(rate, momentum=0.5))


SIDES = {"pytorch": torch_side, "keras": keras_side, "jax": jax_side}


def torch_named(names: str, rate: float = 0.1) -> Any:
    import torch

    first, activation, last = torch_side().model
    layers = zip(names, (first, activation, last), strict=True)
    net = torch.nn.Sequential(OrderedDict(layers))
    return harness.side(net, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), rate, momentum=0.5))


def keras_named(names: str, rate: float = 0.1) -> Any:
    """With the names that Keras gives: it counts through the session."""
    import keras

    layers = [keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.set_weights(W)
    model.compile(keras.optimizers.SGD(rate, momentum=0.5), "mse")
    return model


NAMED = {"pytorch": torch_named, "keras": keras_named}


@pytest.fixture(params=MODELS)
def side(request: pytest.FixtureRequest) -> Any:
    return SIDES[request.param]


def test_a_model_is_identical_to_its_record(side: Any, tmp_path: Path) -> None:
    trace = record(side(), tmp_path / "trace", X, Y, **HOW)
    found = diff(trace, side(), X, Y)
    assert (found.verdict, found.exit_code, found.first) == ("identical", 0, None), str(found)
    kinds = {"activation", "loss", "activation_gradient", "gradient", "update", "slot", "parameter"}
    assert set(found.frame["kind"]) == kinds
    assert set(found.frame["step"]) == {0, 1, 2, 3}


def test_any_two_frameworks_agree_from_disk_as_they_do_live(tmp_path: Path) -> None:
    traces = {name: record(SIDES[name](), tmp_path / name, X, Y, **HOW) for name in MODELS}
    for one in MODELS:
        for other in MODELS:
            found = diff(traces[one], traces[other])
            assert found.verdict == ("identical" if one == other else "rounding"), str(found)
    if len(MODELS) > 1:
        mixed = diff(traces[MODELS[0]], SIDES[MODELS[1]](), X, Y)
        assert mixed.verdict == "rounding"
        assert isinstance(diff(SIDES[MODELS[0]](), SIDES[MODELS[1]](), X, Y, **HOW), Comparison)


@pytest.mark.parametrize("thinning", [Thinning(), Thinning(every=2), Thinning(above=9)])
def test_another_rate_is_found_in_the_update(thinning: Thinning, side: Any, tmp_path: Path) -> None:
    trace = record(side(), tmp_path / "trace", X, Y, **HOW, thinning=thinning)
    found = diff(trace, side(rate=0.11), X, Y)
    assert (found.verdict, found.exit_code) == ("different", 1), str(found)
    assert found.first
    step, name = (found.first["step"], found.first["name"]) if isinstance(found.first, dict) else ("", "")
    assert (step, str(name).partition(":")[0]) == (0, "update")
    behind = found.frame[found.frame["step"] > 0]
    assert set(behind["verdict"]) <= {"identical", "rounding", "undecided"}
    assert "follows or not" in set(behind["because"])
    assert any("follow from it" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["activation", "gradient", "update", "slot", "parameter", "loss"])
@pytest.mark.parametrize("factor", [-1.0, 1 + 1e-3, 1 + 1e-9])
def test_one_wrong_element_is_never_called_rounding(kind: str, factor: float, side: Any, tmp_path: Path) -> None:
    sound = record(side(), tmp_path / "sound", X, Y, **HOW, thinning=Thinning(only=("*",), every=1, above=10**6))
    name = next(block.name for block in sound.blocks(2, 1) if block.kind == kind)
    found = diff(sound, altered(sound, tmp_path / "wrong", 2, kind, name, factor))
    apart = found.frame[(found.frame["verdict"] != "identical")]
    assert set(apart["step"]) >= {2}
    if kind != "slot":
        assert found.verdict in ("different", "undecided"), str(found)
    if factor == -1.0 and kind != "slot":
        assert found.verdict == "different", str(found)


def test_inference_alone_is_recorded(side: Any, tmp_path: Path) -> None:
    trace = record(side(), tmp_path / "trace", X, steps=0)
    assert {block.kind for block in trace.blocks(0, 1)} <= {"activation", "before_parameter", "before_slot"}
    assert diff(trace, side(), X).verdict == "identical"


def test_the_models_are_left_as_they_are(side: Any, tmp_path: Path) -> None:
    one = side()
    first = record(one, tmp_path / "first", X, Y, **HOW)
    again = record(one, tmp_path / "again", X, Y, **HOW)
    assert diff(first, again).verdict == "identical"


def test_what_cannot_be_compared_is_refused_in_one_line(side: Any, tmp_path: Path) -> None:
    trace = record(side(), tmp_path / "trace", X, Y, **HOW)
    case = record(CASES["toy-animals"], tmp_path / "case", steps=4)
    longer = record(side(), tmp_path / "longer", X, Y, steps=5, batch_size=6)
    other_data = record(side(), tmp_path / "data", X + 1, Y, **HOW)
    for one, other, said in (
        (trace, case, "of a case, the other of a model"),
        (trace, CASES["toy-animals"], "is of a model; compare it with a model too"),
        (case, side(), "is of a case; compare it with a run of that case"),
        (trace, longer, "record as many of both"),
        (trace, other_data, "other data"),
    ):
        with pytest.raises(HarnessError, match=said) as caught:
            _ = diff(one, other, X, Y)
        assert "\n" not in str(caught.value)
    with pytest.raises(HarnessError, match="x is missing"):
        _ = diff(trace, side())
    with pytest.raises(HarnessError, match="is no model"):
        _ = record("nonsense", tmp_path / "none", X, Y)
    assert read_trace(tmp_path / "trace").header.model


def test_another_start_is_refused(side: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = record(side(), tmp_path / "trace", X, Y, **HOW)
    monkeypatch.setitem(globals(), "W", [1.5 * W[0], *W[1:]])
    with pytest.raises(HarnessError, match="starts from another"):
        _ = diff(trace, side(), X, Y)


@pytest.mark.parametrize("name", [name for name in NAMED if name in MODELS])
def test_names_are_no_identity_in_thinned_runs_either(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thin = Thinning(above=3)
    trace = record(NAMED[name]("abc"), tmp_path / "trace", X, Y, **HOW, thinning=thin)
    again = record(NAMED[name]("xyz"), tmp_path / "again", X, Y, **HOW, thinning=thin)
    assert trace.header.model
    assert again.header.model
    assert trace.header.model.order != again.header.model.order
    for other in (again, NAMED[name]("xyz")):
        found = diff(trace, other, X, Y)
        assert found.verdict == "identical", str(found)
        assert set(found.frame["candidate_name"]) != {""}
    rate = diff(trace, NAMED[name]("xyz", 0.11), X, Y)
    assert isinstance(rate, Difference)
    assert (rate.verdict, rate.first and rate.first["step"]) == ("different", 0)
    assert str(rate.first and rate.first["name"]).startswith("update:")
    wrong = altered(again, tmp_path / "wrong", 1, "loss", "loss", 1.5)
    assert diff(trace, wrong).verdict in ("different", "undecided")
    monkeypatch.setitem(globals(), "W", [1.5 * W[0], *W[1:]])
    with pytest.raises(HarnessError, match="starts from another"):
        _ = diff(trace, NAMED[name]("xyz"), X, Y)
    with pytest.raises(HarnessError, match="only a fingerprint"):
        _ = diff(trace, torch_deeper(), X, Y) if name == "pytorch" else diff(trace, keras_deeper(), X, Y)


def torch_deeper() -> Any:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 2))
    return harness.side(net, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), 0.1))


def keras_deeper() -> Any:
    import keras

    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(n) for n in (5, 5, 2))])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model
