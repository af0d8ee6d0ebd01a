"""Weights of torch layers in the order and layout of Keras's `set_weights`: correct; the ports make the mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

Arrays = list[np.ndarray]


def array(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().numpy().copy()


def linear(layer: Any) -> Arrays:
    return [array(layer.weight).T, *_bias(layer)]


def conv(layer: nn.Conv1d | nn.Conv2d) -> Arrays:
    """(out, in, *window) to (*window, in, out)."""
    return [np.moveaxis(array(layer.weight), (0, 1), (-1, -2)), *_bias(layer)]


def depthwise(layer: nn.Conv2d) -> Arrays:
    """(channels, 1, h, w) to (h, w, channels, 1)."""
    return [array(layer.weight).transpose(2, 3, 0, 1), *_bias(layer)]


def conv_transpose(layer: nn.ConvTranspose2d) -> Arrays:
    """(in, out, h, w) to (h, w, out, in)."""
    return [array(layer.weight).transpose(2, 3, 1, 0), *_bias(layer)]


def norm(layer: nn.LayerNorm | nn.GroupNorm) -> Arrays:
    return [array(layer.weight), array(layer.bias)]


def batch_norm(layer: Any) -> Arrays:
    return [array(each) for each in (layer.weight, layer.bias, layer.running_mean, layer.running_var)]


def embedding(layer: nn.Embedding) -> Arrays:
    return [array(layer.weight)]


def rnn(layer: nn.RNN | nn.LSTM, depth: int = 0, reverse: bool = False) -> Arrays:
    """One layer and direction; Keras has one bias, the sum of torch's two. LSTM gates are i, f, g, o in both."""
    w_in, w_rec, b_in, b_rec = recurrent(layer, depth, reverse)
    return [w_in.T, w_rec.T, b_in + b_rec]


def gru(layer: nn.GRU, depth: int = 0, reverse: bool = False) -> Arrays:
    """For `reset_after=True`, which has both biases; gates r, z, n become z, r, n."""
    w_in, w_rec, b_in, b_rec = (swap_first_two_of_three(each) for each in recurrent(layer, depth, reverse))
    return [w_in.T, w_rec.T, np.stack([b_in, b_rec])]


def recurrent(layer: nn.RNNBase, depth: int = 0, reverse: bool = False) -> Arrays:
    """torch's own arrays, zeros for missing biases."""
    end = f"_l{depth}" + ("_reverse" if reverse else "")
    weights = [array(getattr(layer, f"weight_{part}{end}")) for part in ("ih", "hh")]
    zeros = np.zeros(len(weights[0]), np.float32)
    return weights + [array(getattr(layer, f"bias_{part}{end}")) if layer.bias else zeros for part in ("ih", "hh")]


def swap_first_two_of_three(gates: np.ndarray) -> np.ndarray:
    r, z, n = np.split(gates, 3)
    return np.concatenate([z, r, n])


def attention(layer: nn.MultiheadAttention) -> Arrays:
    """Query, key, value: kernels (features, heads, size) and biases (heads, size); output (heads, size, features)."""
    heads, size = layer.num_heads, layer.head_dim
    kernels = [w.T.reshape(-1, heads, size) for w in np.split(array(layer.in_proj_weight), 3)]
    biases = [b.reshape(heads, size) for b in np.split(array(layer.in_proj_bias), 3)]
    parts = [each for pair in zip(kernels, biases, strict=True) for each in pair]
    out = layer.out_proj
    return [*parts, array(out.weight).T.reshape(heads, size, -1), array(out.bias)]


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _bias(layer: Any) -> Arrays:
    return [] if layer.bias is None else [array(layer.bias)]
