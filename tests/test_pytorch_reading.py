"""torch's functions read into the reference's ops: forward and backward in float64."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)

from frameworks import pytorch_models as models  # noqa: E402
from tests.torch_calls import assert_close, assert_reproduces, computed, normal, seen  # noqa: E402

ACTIVATIONS = (
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.Hardtanh(-1.5, 0.5), nn.Hardtanh(0, 2)),
    *(nn.ELU(0.7), nn.SELU(), nn.CELU(0.5), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(2, 3)),
    *(nn.Softplus(), nn.Softsign(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Hardsigmoid(), nn.Hardswish()),
    *(nn.Tanhshrink(), nn.Softshrink(0.5), nn.Hardshrink(0.5), nn.Threshold(0.5, -2), nn.PReLU(), nn.PReLU(4)),
    *(nn.Softmax(-1), nn.Softmax(1), nn.LogSoftmax(-1), nn.Softmin(1)),
    *(torch.relu, F.relu6, torch.tanh, torch.sigmoid, F.silu, F.gelu, F.leaky_relu, F.elu, F.logsigmoid, torch.abs),
    *(lambda x: x.clamp(-1, 1), lambda x: torch.clamp(x, min=0.5), lambda x: x.clamp(max=0), lambda x: x.clamp_min(0)),
    *(lambda x: x.softmax(-1), lambda x: F.softmax(x, dim=1), torch.exp, torch.square, torch.sin, lambda x: -x),
    *(lambda x: x**2, lambda x: x**3, lambda x: x.relu_(), F.relu_, lambda x: F.elu(x, 0.5, inplace=True), torch.cos),
    *(lambda x: F.threshold(x, 1, 0), lambda x: F.celu(x, 2), lambda x: F.softplus(x, 3, 5), torch.erf, F.softsign),
)

POSITIVE = (torch.sqrt, torch.rsqrt, torch.log, torch.log1p, torch.reciprocal, torch.expm1, lambda x: x**0.5)
POSITIVE += (lambda x: 2 / x, lambda x: x**-1, lambda x: torch.pow(x, 1.5))

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "flatten": lambda x: torch.flatten(x, 1),
    "flatten some": lambda x: x.flatten(1, 2),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(2, 6, -1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "mT": lambda x: x.mT,
    "unsqueeze": lambda x: x.unsqueeze(1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "channel_shuffle": nn.ChannelShuffle(2),
    "movedim": lambda x: x.movedim((0, 1), (1, -1)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "cat": lambda x: torch.cat([x, x], dim=1),
    "stack": lambda x: torch.stack((x, x), dim=-1),
    "item": lambda x: x[:, -1],
    "items": lambda x: x[:, 1:, ..., 0],
    "new axis": lambda x: x[:, None, ..., 2:],
    "gather": lambda x: x[:, torch.tensor([0, 2, 0])],
    "select": lambda x: x.select(1, -1),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "chunk": lambda x: x.chunk(3, dim=1)[1],
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "flip": lambda x: x.flip(2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=0.5),
    "pad reflect": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "mean": lambda x: x.mean((2, 3)),
    "mean as in NumPy": lambda x: x.mean(axis=(1, 2), keepdims=True),
    "cat as in NumPy": lambda x: torch.concatenate([x, x], axis=1),
    "tile": lambda x: torch.tile(x, (2, 1)),
    "broadcast": lambda x: x.broadcast_to(3, 2, 4, 6, 6),
    "mean kept": lambda x: torch.mean(x, dim=1, keepdim=True),
    "sum": lambda x: x.sum(1),
    "max": lambda x: x.max(1)[0],
    "max all": lambda x: x.max(),
    "amax": lambda x: x.amax((2, 3)),
    "min": lambda x: x.min(dim=1, keepdim=True).values,
    "std": lambda x: x.std(1),
    "var": lambda x: x.var((2, 3), unbiased=False, keepdim=True),
    "var corrected": lambda x: torch.var(x, dim=1, correction=1),
    "norm": lambda x: x.norm(dim=1),
    "norm 3": lambda x: torch.linalg.vector_norm(x, 3, dim=(2, 3)),
    "logsumexp": lambda x: x.logsumexp(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "add": lambda x: x + x,
    "add number": lambda x: x + 2,
    "from number": lambda x: 1 - x,
    "times number": lambda x: 0.3 * x,
    "over": lambda x: x / 3,
    "where": lambda x: torch.where(x > 0, x, 0.5),
    "masked_fill": lambda x: x.masked_fill(x > 0, -1.0),
    "glu": lambda x: F.glu(x, dim=1),
    "local response": nn.LocalResponseNorm(3, 0.5),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest size": lambda x: F.interpolate(x, size=(5, 7)),
    "nearest exact": lambda x: F.interpolate(x, size=(5, 3), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear recomputed": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
    "bilinear aligned": nn.Upsample(size=(7, 3), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "antialias": lambda x: F.interpolate(x, size=(3, 2), mode="bilinear", antialias=True),
    "antialias cubic": lambda x: F.interpolate(x, size=(2, 3), mode="bicubic", antialias=True),
    "area": lambda x: F.interpolate(x, size=(2, 3), mode="area"),
    "dropout": nn.Dropout(0.4),
    "dropout2d": nn.Dropout2d(0.4),
    "zero pad": nn.ZeroPad2d((1, 0, 2, 1)),
    "channels shared": nn.PReLU(4),
    "glu module": nn.GLU(1),
    "flatten module": nn.Flatten(),
}

COMPOUND: dict[str, Callable[[Any], Any]] = {
    "squeeze": lambda x: x[:, :, :1, :1].squeeze(),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "subtract": lambda x: x - x**3,
    "multiply": lambda x: x * x.sigmoid(),
    "divide": lambda x: x / x.exp(),
    "one over": lambda x: 2 / (x.abs() + 1),
    "maximum": lambda x: torch.maximum(x, x.round()),
    "batched product": lambda x: x @ x.transpose(-2, -1),
    "einsum": lambda x: torch.einsum("bchw,bcvw->bchv", x, x.tanh()),
    "detach": lambda x: x.detach() * x,
    "parameter first": lambda x: 2 - x * x,
}
"""The last function reads what another one has computed, so that only its output can be checked here."""


@pytest.mark.parametrize("on_kinks", [False, True])
@pytest.mark.parametrize("block", ACTIVATIONS)
def test_an_activation_read_is_what_torch_computes(block: Any, on_kinks: bool) -> None:
    steps = np.random.default_rng(0).permutation(60).reshape(3, 4, 5) / 2 - 15
    assert_reproduces(*seen(block, steps if on_kinks else normal(3, 4, 5) * 3))


@pytest.mark.parametrize("block", POSITIVE)
def test_a_function_of_positive_numbers_read_is_what_torch_computes(block: Any) -> None:
    assert_reproduces(*seen(block, np.abs(normal(3, 4)) + 0.5))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_read_is_what_torch_computes(name: str, training: bool) -> None:
    call, record, dy = seen(FUNCTIONS[name], normal(2, 4, 6, 6), training)
    if "dropout" in name and training:  # another mask in each pass
        assert_close(computed(call)[-1], call.output)
    else:
        assert_reproduces(call, record, dy)


@pytest.mark.parametrize("name", COMPOUND)
def test_what_reads_other_functions_is_what_torch_computes(name: str) -> None:
    call, _, _ = seen(COMPOUND[name], normal(2, 4, 6, 6))
    assert call.ops
    assert_close(computed(call)[-1], call.output)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_written_is_python(name: str) -> None:
    call, _, _ = seen(FUNCTIONS[name], normal(2, 4, 6, 6), training=False)
    for op in call.ops:
        for line in models.written(op, []).split(" then "):
            assert not line or isinstance(ast.parse(line).body[0], ast.Expr)
