"""What the families rows* share: sides, their exchange, and torch's weights in a Keras model of the same order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import optax
import torch
from torch import nn

from benchmarks.ports import Pair, transfer
from harness.recipe import Recipe

EXAMPLES = 48
layers: Any = keras.layers
ops: Any = keras.ops

ARRAYS: dict[type, Callable[[Any], transfer.Arrays]] = {
    nn.Linear: transfer.linear,
    nn.Conv1d: transfer.conv,
    nn.Conv2d: transfer.conv,
    nn.ConvTranspose2d: transfer.conv_transpose,
    nn.BatchNorm1d: transfer.batch_norm,
    nn.BatchNorm2d: transfer.batch_norm,
    nn.LayerNorm: transfer.norm,
    nn.GroupNorm: transfer.norm,
    nn.Embedding: transfer.embedding,
    nn.MultiheadAttention: transfer.attention,
    nn.RNN: transfer.rnn,
    nn.LSTM: transfer.rnn,
    nn.GRU: transfer.gru,
}
SGD, K_SGD = partial(torch.optim.SGD, lr=0.05), partial(keras.optimizers.SGD, 0.05)


def arrays(net: nn.Module) -> list[transfer.Arrays]:
    """The weights of each layer in Keras's layout, in the order in which the module holds its layers."""
    return [ARRAYS[type(layer)](layer) for layer in net.modules() if type(layer) in ARRAYS]


def ported(net: nn.Module, model: keras.Model) -> keras.Model:
    """The Keras model with the weights of a torch module, layer by layer in order."""
    for layer, held in zip((layer for layer in model.layers if layer.weights), arrays(net), strict=True):
        layer.set_weights(held)
    return model


def in_torch(net: nn.Module, loss: Any = None, rule: Callable[..., Any] = SGD, **options: Any) -> Recipe:
    return Recipe(model=net, loss=loss or nn.MSELoss(), optimizer=rule(net.parameters()), **options)


def in_keras(model: keras.Model, loss: Any = "mse", rule: Callable[[], Any] = K_SGD, **options: Any) -> Recipe:
    model.compile(optimizer=rule(), loss=loss)
    return Recipe(model=model, **options)


def in_jax(apply: Callable[..., Any], params: Any, loss: Any, rule: Any = None, **options: Any) -> Recipe:
    return Recipe(model=apply, params=params, loss=loss, optimizer=rule or optax.sgd(0.05), **options)


def turned(build: Callable[[], Pair]) -> Pair:
    """The candidate as the reference."""
    pair = build()
    x, y = (each[::-1] if isinstance(each, tuple) else each for each in (pair.x, pair.y))
    return replace(pair, reference=pair.candidate, candidate=pair.reference, x=x, y=y)
