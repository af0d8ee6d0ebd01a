"""torch's layers read into the reference's ops, with random shapes and options: forward and backward in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)

from tests.torch_calls import assert_reproduces, normal, seen  # noqa: E402

Draw = Callable[[st.SearchStrategy[Any]], Any]

sizes = st.integers(1, 4)
flags = st.booleans()


def images(draw: Draw, channels: int, count: int, least: int = 4) -> np.ndarray:
    return normal(2, channels, *(draw(st.integers(least, least + 3)) for _ in range(count)))


def convolution(draw: Draw) -> Any:
    count, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[count - 1]
    stride = draw(st.integers(1, 2))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    paddings = st.one_of(st.integers(0, 2), st.tuples(*[st.integers(0, 2)] * count), st.just("same"), st.just("valid"))
    padding = draw(paddings)
    block = kind(
        2 * groups,
        groups * draw(sizes),
        draw(st.tuples(*[st.integers(1, 3)] * count)),
        stride=1 if padding == "same" else stride,
        padding=padding,
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(flags),
        padding_mode=mode,
    )
    return block, images(draw, 2 * groups, count, 5)


def transposed(draw: Draw) -> Any:
    count, groups, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[count - 1]
    dilation = draw(st.integers(1, 2))
    block = kind(
        2 * groups,
        3 * groups,
        draw(st.integers(2, 3)),
        stride=stride,
        padding=draw(st.integers(0, 1)),
        output_padding=draw(st.integers(0, max(stride, dilation) - 1)),
        dilation=dilation,
        groups=groups,
        bias=draw(flags),
    )
    return block, images(draw, 2 * groups, count, 3)


def batch_norm(draw: Draw) -> Any:
    count = draw(st.integers(0, 3))
    kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[count]
    options = {
        "affine": draw(flags),
        "track_running_stats": draw(flags),
        "momentum": draw(st.sampled_from([0.1, None])),
    }
    block = kind(3, eps=draw(st.sampled_from([1e-5, 1e-3])), **options)
    if block.running_var is not None:
        block.running_var.uniform_(0.5, 2.0)
    return block, images(draw, 3, count, 2) if count else normal(5, 3), {"training": draw(flags)}


def layer_norm(draw: Draw) -> Any:
    x = normal(3, 4, 5)
    shape = draw(st.sampled_from([(5,), (4, 5)]))
    affine = draw(flags)
    if draw(flags):
        return nn.LayerNorm(shape, eps=1e-3, elementwise_affine=affine, bias=affine and draw(flags)), x
    return nn.RMSNorm(shape, eps=draw(st.sampled_from([None, 1e-3])), elementwise_affine=affine), x


def group_norm(draw: Draw) -> Any:
    count = draw(st.integers(0, 2))
    if count and draw(flags):
        kind = (nn.InstanceNorm1d, nn.InstanceNorm2d)[count - 1]
        return (
            kind(4, affine=draw(flags), track_running_stats=draw(flags)),
            images(draw, 4, count),
            {"training": draw(flags)},
        )
    x = images(draw, 8, count) if count else normal(3, 8)
    return nn.GroupNorm(draw(st.sampled_from([1, 2, 8] if count else [1, 2])), 8, affine=draw(flags)), x


def pooling(draw: Draw) -> Any:
    count = draw(st.integers(1, 3))
    size, stride, padding = draw(st.integers(1, 3)), draw(st.sampled_from([None, 1, 2])), draw(st.integers(0, 1))
    padding, ceil = min(padding, size // 2), draw(flags)
    kinds: dict[str, Any] = {
        "max": lambda: getattr(nn, f"MaxPool{count}d")(size, stride, padding, draw(st.integers(1, 2)), ceil_mode=ceil),
        "average": lambda: getattr(nn, f"AvgPool{count}d")(size, stride, padding, ceil, draw(flags)),
        "lp": lambda: getattr(nn, f"LPPool{count}d")(2, size, stride, ceil),
        "adaptive average": lambda: getattr(nn, f"AdaptiveAvgPool{count}d")(draw(st.integers(1, 4))),
        "adaptive max": lambda: getattr(nn, f"AdaptiveMaxPool{count}d")(draw(st.integers(1, 4))),
    }
    x = images(draw, 2, count, 5)
    kind = draw(st.sampled_from(list(kinds)))
    return kinds[kind](), np.round(x) if kind in ("max", "adaptive max") and draw(flags) else x


def recurrent(draw: Draw) -> Any:
    kind = draw(st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]))
    first, layers = draw(flags), draw(st.integers(1, 2))
    options = {"nonlinearity": draw(st.sampled_from(["tanh", "relu"]))} if kind is nn.RNN else {}
    block = kind(3, 4, num_layers=layers, bias=draw(flags), batch_first=first, **options)
    return block, normal(2, 5, 3), {"layout": None if first else (1, 0, 2)}


class Started(nn.Module):
    """A recurrent layer, or a cell, with initial states of its own."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.h, self.c = layer, nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Any) -> Any:
        return self.layer(x, (self.h, self.c) if isinstance(self.layer, nn.LSTM | nn.LSTMCell) else self.h)


def started(draw: Draw) -> Any:
    if draw(flags):
        layer = draw(st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]))(3, 4, batch_first=True)
        return Started(layer, (1, 2, 4)), normal(2, 5, 3)
    cell = draw(st.sampled_from([nn.RNNCell, nn.LSTMCell, nn.GRUCell]))(3, 4, bias=draw(flags))
    return Started(cell, (2, 4)), normal(2, 3)


class SelfAttention(nn.Module):
    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.first, self.weights = draw(flags), draw(flags)
        self.attention = nn.MultiheadAttention(
            4, draw(st.sampled_from([1, 2, 4])), bias=draw(flags), batch_first=self.first
        )
        masks = draw(st.sampled_from(["none", "boolean", "additive", "padding", "both", "heads"]))
        self.mask = self.padding = None
        if masks in ("boolean", "both"):
            self.mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)
        if masks == "additive":
            self.mask = torch.tensor(normal(5, 5))
        if masks == "heads":
            self.mask = torch.tensor(normal(2 * self.attention.num_heads, 5, 5))
        if masks in ("padding", "both"):
            self.padding = torch.tensor([[False] * 4 + [True], [False] * 3 + [True] * 2])

    def forward(self, x: Any) -> Any:
        x = x if self.first else x.transpose(0, 1)
        return self.attention(x, x, x, key_padding_mask=self.padding, attn_mask=self.mask, need_weights=self.weights)[0]


def attention(draw: Draw) -> Any:
    return SelfAttention(draw), normal(2, 5, 4)


def dot_product(draw: Draw) -> Any:
    mask = draw(st.sampled_from([None, torch.rand(5, 5) > 0.5, torch.rand(5, 5).double()]))
    options = {"attn_mask": mask, "scale": draw(st.sampled_from([None, 0.3]))}
    causal = mask is None and draw(flags)
    return lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=causal, **options), normal(2, 3, 5, 4)


LAYERS: dict[str, Callable[[Draw], Any]] = {
    "dense": lambda draw: (nn.Linear(3, draw(sizes), bias=draw(flags)), normal(*[2] * draw(st.integers(1, 3)), 3)),
    "convolution": convolution,
    "transposed convolution": transposed,
    "batch norm": batch_norm,
    "layer norm": layer_norm,
    "group norm": group_norm,
    "pooling": pooling,
    "embedding": lambda draw: (
        nn.Embedding(5, 3, padding_idx=draw(st.sampled_from([None, 0, -1]))),
        np.array([[0, 1, 1], [4, 0, 2]]),
    ),
    "recurrent": recurrent,
    "started": started,
    "attention": attention,
    "dot product": dot_product,
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(data=st.data())
def test_a_layer_read_is_what_torch_computes(kind: str, data: st.DataObject) -> None:
    block, x, *options = LAYERS[kind](data.draw)
    chosen = options[0] if options else {}
    call, record, dy = seen(block, x, chosen.get("training", True))
    assert_reproduces(call, record, dy, chosen.get("layout"))
