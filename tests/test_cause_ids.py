"""What a cause is called, and what it is not: planted differences whose edits could pass for others."""

from __future__ import annotations

import copy
import math
from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import harness

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = np.arange(12) % 3
S = RNG.standard_normal((8, 5, 6)).astype(np.float32)


def network() -> nn.Module:
    _ = torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def trained(optimizer: Any = torch.optim.SGD, settings: Any = None, **how: Any) -> Any:
    net = network()
    loss = {} if "train_step" in how else {"loss": nn.CrossEntropyLoss()}
    return harness.side(net, optimizer=optimizer(net.parameters(), lr=0.1, **settings or {}), **loss, **how)


def in_keras(**settings: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, **settings), entropy)
    return model


def compared(reference: Any, candidate: Any, *data: Any, **how: Any) -> Any:
    return harness.compare(reference, candidate, *data, **how)


def said(result: Any) -> list[tuple[str, str]]:
    assert result.verdict == "different"
    return [(cause.id, cause.status) for cause in result.causes]


# --- when an update is made -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("passes", [(2, 3), (1, 2), (2, 4)])
def test_gradients_gathered_over_another_number_of_passes(passes: tuple[int, int], order: tuple[int, int]) -> None:
    both = [trained(accumulate=n) for n in passes]
    assert said(compared(*(both[i] for i in order), X, Y, steps=5)) == [("grad-accumulation", "proven")]


def test_an_optimizer_that_gathers_over_another_number_of_passes() -> None:
    both = [in_keras(gradient_accumulation_steps=n) for n in (2, 3)]
    result = compared(*both, X, Y, steps=5)
    assert said(result) == [("grad-accumulation", "proven")]
    assert "gradient_accumulation_steps=2" in result.causes[0].advice["candidate"]


def test_an_update_that_a_rule_of_the_users_own_does_not_make_yet() -> None:
    optax = pytest.importorskip("optax")

    def side(passes: int) -> Any:
        own = optax.GradientTransformation(lambda params: (), lambda g, state, params: (scaled(g), state))
        entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        params = {"w": X[:6, :3]}
        loss = lambda output, y: entropy(output, y).mean()  # noqa: E731
        return harness.side(lambda p, x: x @ p["w"], params=params, loss=loss, optimizer=own, accumulate=passes)

    def scaled(gradients: Any) -> Any:
        return {name: -0.1 * gradient for name, gradient in gradients.items()}

    result = compared(side(3), side(2), X, Y, steps=2)
    assert said(result) == [("grad-accumulation", "likely")]
    assert "jax (candidate) makes an update at this step, jax (reference) makes none" in result.causes[0].edit


# --- uphill -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_an_optimizer_that_goes_uphill(kind: str, order: tuple[int, int]) -> None:
    both = [trained(getattr(torch.optim, kind), {"maximize": up, "weight_decay": 0.01}) for up in (False, True)]
    result = compared(*(both[i] for i in order), X, Y, steps=3)
    assert said(result) == [("maximize", "proven")]
    assert result.causes[0].advice["candidate"] == f"optimizer(maximize={bool(order[0])})"


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_loop_by_hand_that_goes_uphill_has_no_rate_below_zero(handed_over: bool) -> None:
    """What the other side's rule would have to be is searched for; the loop never calls its optimizer."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train_step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.1 * parameter.grad  # type: ignore[operator]
        return loss

    looped = harness.side(net, train_step=train_step, optimizer=optimizer if handed_over else None)
    assert said(compared(trained(), looped, X, Y, steps=2)) == [("maximize", "proven")]


# --- losses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_number_inside_the_logarithm(order: tuple[int, int]) -> None:
    def by_hand(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -torch.log(F.softmax(output, -1)[torch.arange(len(y)), y] + 1e-8).mean()

    both = [harness.side(network(), loss=loss) for loss in (nn.CrossEntropyLoss(), by_hand)]
    result = compared(*(both[i] for i in order), X, Y)
    assert said(result) == [("crossentropy-clipping", "proven")]
    assert len(set(result.causes[0].advice.values())) == 2
    assert "1e-08" in result.causes[0].advice["candidate" if order[0] else "reference"]


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _ = torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), self.b(x)


def test_losses_of_several_outputs_weighed_otherwise() -> None:
    net, x = TwoHeads(), keras.Input((6,))
    heads = [keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")]
    model = keras.Model(x, [head(x) for head in heads])
    for head, linear in zip(heads, (net.a, net.b), strict=True):
        head.set_weights([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), [entropy, "mse"], loss_weights=[1.0, 0.4])

    def loss(output: Any, y: Any) -> torch.Tensor:
        return F.cross_entropy(output[0], y[0]) + 0.5 * F.mse_loss(output[1], y[1])

    targets = [Y, RNG.standard_normal((12, 2)).astype(np.float32)]
    side = harness.side(net, loss=loss, optimizer=torch.optim.SGD(net.parameters(), 0.1))
    assert said(compared(side, model, X, targets)) == [("loss-weights", "proven")]


def test_a_loss_that_takes_the_logits_of_its_output_is_one_cause() -> None:
    def side(smoothing: float) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(label_smoothing=smoothing))
        return model

    assert said(compared(side(0.1), side(0.11), X, np.eye(3)[Y])) == [("label-smoothing", "proven")]


# --- what lies between gradients and updates ----------------------------------------------------------------------


def clipping(limit: float, order: float = 2.0) -> Any:
    return lambda net: nn.utils.clip_grad_norm_(net.parameters(), limit, norm_type=order)


def by_value(limit: float) -> Any:
    return lambda net: nn.utils.clip_grad_value_(net.parameters(), limit)


def looped(bound: Any = None) -> Any:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train_step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if bound:
            _ = bound(net)
        optimizer.step()
        return loss

    return harness.side(net, train_step=train_step, optimizer=optimizer)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (clipping(0.1), clipping(0.1, 1.0)),
        (clipping(0.1), clipping(0.1, math.inf)),
        (clipping(0.1), clipping(0.2)),
        (clipping(0.1), by_value(0.01)),
        (None, clipping(0.1)),
    ],
)
@pytest.mark.parametrize("in_loop", [False, True])
def test_clipping_by_the_users_own_code(one: Any, other: Any, in_loop: bool, order: tuple[int, int]) -> None:
    made = looped if in_loop else lambda bound: trained(after_backward=bound)
    both = [made(one), made(other)]
    found = said(compared(*(both[i] for i in order), X, Y, steps=3))
    assert ("grad-clip-value", "proven") in found
    assert set(found) <= {("grad-clip-value", "proven"), ("grad-clip-epsilon", "proven")}  # of a norm, not of values


def test_a_hook_that_scales_a_gradient_is_a_factor_alone() -> None:
    class Halved(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            _ = torch.manual_seed(0)
            self.a, self.b, self.factor = nn.Linear(6, 8), nn.Linear(8, 3), factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x))
            if h.requires_grad and self.factor != 1:
                _ = h.register_hook(lambda gradient: gradient * self.factor)
            return self.b(h)

    def side(factor: float) -> Any:
        net = Halved(factor)
        return harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1))

    found = compared(side(1.0), side(0.5), X, Y, steps=2)
    assert {(cause.id, cause.status) for cause in found.causes} == {("gradient-factor", "likely")}
    assert all("0.5 times" in cause.edit for cause in found.causes)


# --- factors ----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """By hand; factors: of the scores, of the weights, and of the output before a softmax of its own; 1: no such op."""

    def __init__(self, scores: float, weights: float = 1.0, output: float = 1.0, masked: bool = False) -> None:
        super().__init__()
        _ = torch.manual_seed(1)
        self.q, self.k, self.v, self.o = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.factors, self.masked = (scores, weights, output), masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, weights, output = self.factors
        z = times(self.q(x) @ self.k(x).transpose(1, 2), scores)
        z = z + torch.full((5, 5), -1e9, dtype=z.dtype).triu(1) if self.masked else z
        h = times(z.softmax(-1), weights) @ self.v(x)
        return times(self.o(h), output).softmax(-1)


def times(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x if factor == 1 else x * factor


ROOT = 1 / math.sqrt(6)


@pytest.mark.parametrize(
    ("one", "other", "ids"),
    [
        ({"scores": 0.5}, {"scores": 0.25}, ["attention-scale"]),
        ({"scores": ROOT}, {"scores": 1.0}, ["attention-scale"]),
        ({"scores": ROOT, "masked": True}, {"scores": 1.0, "masked": True}, ["attention-scale"]),
        ({"scores": ROOT, "masked": True}, {"scores": 1 / 6, "masked": True}, ["attention-scale"]),
        ({"scores": ROOT, "weights": 0.5}, {"scores": ROOT}, ["layer-missing"]),
        ({"scores": ROOT, "output": 0.5}, {"scores": ROOT}, ["layer-missing"]),
        ({"scores": ROOT, "output": 0.5}, {"scores": ROOT, "output": 0.25}, ["truncated-constant"]),
    ],
)
def test_the_scale_of_an_attention_is_that_of_its_scores(one: Any, other: Any, ids: list[str]) -> None:
    result = compared(Attention(**one), Attention(**other), S, steps=0)
    assert said(result) == [(id_, "proven") for id_ in ids]


@pytest.mark.parametrize("activations", [(nn.Softmin(-1), nn.Softmax(-1)), (nn.Softmax(-1), nn.Softmin(-1))])
def test_a_softmax_of_its_input_with_the_other_sign_is_no_attention(activations: tuple[Any, Any]) -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 3))
    both = [copy.deepcopy(net) for _ in activations]
    for one, activation in zip(both, activations, strict=True):
        one[1] = activation
    (cause,) = compared(*both, X, steps=0).causes
    assert {cause.id, *cause.same} == {"layer-missing", "activation-different"}


def test_what_only_stands_at_the_same_place_proves_no_factor() -> None:
    """A recurrence in two spellings, one of which ends in the mean over its steps: no two values are a pair."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    rng = np.random.default_rng(1)
    shapes = {"wi": (4, 5), "wh": (5, 5), "b": (5,), "o": (5, 3)}
    params = {name: jnp.asarray(0.4 * rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}

    def step(p: Any, h: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["wi"] + h @ p["wh"] + p["b"])

    def unrolled(p: Any, x: Any) -> Any:
        h = jnp.zeros((x.shape[0], 5), x.dtype)
        for t in range(x.shape[1]):
            h = step(p, h, x[:, t])
        return h @ p["o"]

    def scanned(p: Any, x: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            h = step(p, h, x)
            return h, h

        _, hidden = jax.lax.scan(body, jnp.zeros((x.shape[0], 5), x.dtype), x.swapaxes(0, 1))
        return hidden.mean(0) @ p["o"]

    x = rng.standard_normal((12, 6, 4)).astype(np.float32)
    both = [harness.side(model, params=dict(params)) for model in (unrolled, scanned)]
    found = said(compared(*both, x, Y))
    assert found
    assert "proven" not in {status for _, status in found}
