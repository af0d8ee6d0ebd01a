"""Clipping in a user's own step belongs to the update, wherever it stands; gradients are as they were computed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import harness
from frameworks.clipping import only_bounded

RNG = np.random.default_rng(0)
X = RNG.standard_normal((18, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 18)
OWN = {"W": np.array([3.0, -4.0]), "b": np.array([0.5]), "frozen": None}


@pytest.mark.parametrize(
    ("changes", "bounded"),
    [
        ({"W": OWN["W"] / 5, "b": OWN["b"] / 5}, True),
        ({"W": np.clip(OWN["W"], -0.7, 0.7)}, True),
        ({"W": OWN["W"] / 2}, True),
        ({}, False),
        ({"W": -OWN["W"] / 5}, False),
        ({"W": OWN["W"] * 2}, False),
        ({"W": OWN["W"] + 0.01}, False),
        ({"W": OWN["W"] / 5 + [0.0, 0.01]}, False),
        ({"frozen": np.zeros(2)}, False),
        ({"W": np.array([3.0])}, False),
    ],
)
def test_clipping_is_told_from_other_changes(changes: dict[str, Any], bounded: bool) -> None:
    assert only_bounded(OWN, {**OWN, **changes}) is bounded


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def behind_backward(limit: float) -> Any:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    clip = torch.nn.utils.clip_grad_norm_
    return harness.side(
        net, loss=nn.CrossEntropyLoss(), optimizer=optimizer, after_backward=lambda m: clip(m.parameters(), limit)
    )


def in_torch(limit: float, decay: float = 0.0) -> Any:
    net, loss_of = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        for parameter in net.parameters() if decay else ():
            parameter.grad += decay * parameter.detach()
        if limit:
            _ = torch.nn.utils.clip_grad_norm_(net.parameters(), limit)
        optimizer.step()
        return loss

    return harness.side(net, optimizer=optimizer, train_step=step)


def keras_net() -> Any:
    net = network()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])
    for layer, linear in zip(model.layers, (net[0], net[2]), strict=True):
        layer.set_weights([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    return model


def compiled(limit: float) -> Any:
    model = keras_net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=limit), loss)
    return model


def in_keras(limit: float) -> Any:
    model, optimizer = keras_net(), keras.optimizers.SGD(0.1)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss: Any = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        gradients = tf.clip_by_global_norm(gradients, limit)[0] if limit else gradients
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return harness.side(model, optimizer=optimizer, train_step=step)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [(lambda: behind_backward(0.1), in_torch), (lambda: compiled(0.1), in_keras)],
    ids=["torch", "keras"],
)
def test_clipping_of_the_users_own_is_an_update(reference: Any, candidate: Any) -> None:
    assert harness.compare(reference(), candidate(0.1), X, Y, steps=3, batch_size=6).verdict in (
        "identical",
        "rounding",
    )
    for limit in (0.0, 0.2):
        planted = harness.compare(reference(), candidate(limit), X, Y, steps=3, batch_size=6)
        assert planted.first is not None
        assert planted.first.place.startswith("update:")
        assert all(own.place.startswith("update:") for own in planted.own)


def test_what_is_added_to_a_gradient_belongs_to_it() -> None:
    planted = harness.compare(in_torch(0.0, 0.1), in_torch(0.0), X, Y, steps=2, batch_size=6)
    assert planted.first is not None
    assert planted.first.place.startswith("gradient:")
    assert harness.compare(in_torch(0.1, 0.1), in_torch(0.1, 0.1), X, Y, steps=2, batch_size=6).verdict == "identical"
