"""Torch's kernels in a float64 run: exact where torch rounds, torch's own again behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.recipe import Batch, Recipe

torch = pytest.importorskip("torch")
models = pytest.importorskip("frameworks.pytorch_models")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)

from frameworks.pytorch_exact import exact_kernels  # noqa: E402

X = np.linspace(-5, 5, 101) + 0.013
LONG = X.astype(np.longdouble)
ALPHA = np.longdouble(0.7)
SELU = np.longdouble("1.0507009873554804934"), np.longdouble("1.6732632423543772848")


def trigamma(x: np.ndarray) -> np.ndarray:
    """The sum of 1 / (x + k)^2, its tail by Euler and Maclaurin."""
    k = np.arange(60)[:, None]
    y = x + 60
    tail = 1 / y + 1 / (2 * y**2) + 1 / (6 * y**3) - 1 / (30 * y**5) + 1 / (42 * y**7)
    return (1 / (x + k) ** 2).sum(0) + tail


Case = tuple[Callable[[Any], Any], np.ndarray]
ROUNDED: dict[str, Case] = {
    "hardsigmoid": (F.hardsigmoid, np.where(abs(LONG) < 3, 1 / np.longdouble(6), 0)),
    "celu": (lambda x: F.celu(x, 0.7), np.where(LONG > 0, 1, np.exp(LONG / ALPHA))),
    "celu in place": (lambda x: F.celu(x * 1, 0.7, inplace=True), np.where(LONG > 0, 1, np.exp(LONG / ALPHA))),
    "digamma": (torch.digamma, trigamma(LONG)),
}
EXACT: dict[str, Case] = {
    "elu": (lambda x: F.elu(x, 0.7), np.where(LONG > 0, 1, ALPHA * np.exp(LONG))),
    "elu in place": (lambda x: F.elu(x * 1, 0.7, inplace=True), np.where(LONG > 0, 1, ALPHA * np.exp(LONG))),
    "selu": (F.selu, SELU[0] * np.where(LONG > 0, 1, SELU[1] * np.exp(LONG))),
}


def derivative(function: Callable[[Any], Any]) -> np.ndarray:
    x = torch.tensor(X, requires_grad=True)
    function(x).sum().backward()
    return x.grad.numpy()


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float((abs(found - expected) / (abs(expected) + 1)).max())


@pytest.mark.parametrize("name", [*ROUNDED, *EXACT])
def test_derivatives_are_exact_within_and_torchs_own_behind(name: str) -> None:
    function, expected = {**ROUNDED, **EXACT}[name]
    before = derivative(function)
    with exact_kernels():
        within = derivative(function)
    assert deviation(within, expected) < 1e-14
    assert (deviation(before, expected) > 1e-10) == (name in ROUNDED)
    np.testing.assert_array_equal(derivative(function), before)


def test_they_go_after_an_error_too() -> None:
    before = derivative(F.hardsigmoid)
    with pytest.raises(ZeroDivisionError), exact_kernels():
        _ = 1 / 0
    np.testing.assert_array_equal(derivative(F.hardsigmoid), before)


def watched_gradient(activation: nn.Module, precision: Any, x: np.ndarray) -> np.ndarray:
    first = nn.Linear(1, 1)
    model = nn.Sequential(first, activation)
    nn.init.ones_(first.weight)
    nn.init.zeros_(first.bias)
    watch = models.watch(Recipe(model=model, loss=lambda output: output.sum()), precision, False)
    record = watch.step(Batch(inputs=(x.astype(precision)[:, None],)))
    return record.cotangents["0"][:, 0]


@pytest.mark.parametrize(("activation", "name"), [(nn.Hardsigmoid(), "hardsigmoid"), (nn.CELU(0.7), "celu")])
def test_a_float64_run_is_exact_and_a_float32_run_is_torchs(activation: nn.Module, name: str) -> None:
    function, expected = ROUNDED[name]
    assert deviation(watched_gradient(activation, "float64", X), expected) < 1e-14
    x = torch.tensor(X.astype(np.float32), requires_grad=True)
    function(x).sum().backward()
    np.testing.assert_array_equal(watched_gradient(activation, "float32", X), x.grad.numpy())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_scripts_are_exact_too() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(1, 1), nn.Hardsigmoid()))
    watch = models.watch(Recipe(model=script, loss=lambda output: output.sum()), "float64", False)
    record = watch.step(Batch(inputs=(np.zeros((1, 1)),)))
    assert record.gradients["0.bias"] == pytest.approx(1 / 6, rel=1e-15)


T = torch.tensor(np.random.default_rng(0).uniform(0.1, 0.9, X.shape))
DIFFERENTIABLE: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(F, name) for name in ("hardsigmoid", "hardswish", "relu6", "selu", "gelu", "mish", "silu")},
    **{name: getattr(F, name) for name in ("softplus", "logsigmoid", "tanhshrink", "softsign", "leaky_relu")},
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "celu": lambda x: F.celu(x, 0.7),
    "softmax": lambda x: F.softmax(x, 0),
    "hardtanh": lambda x: F.hardtanh(x, -0.7, 0.9),
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.3),
    "prelu": lambda x: F.prelu(x, T[:1]),
    "huber": lambda x: F.huber_loss(x, T, delta=0.3, reduction="none"),
    "smooth l1": lambda x: F.smooth_l1_loss(x, T, beta=0.3, reduction="none"),
    "bce": lambda x: F.binary_cross_entropy(x.sigmoid(), T, reduction="none"),
    "bce with logits": lambda x: F.binary_cross_entropy_with_logits(x, T, pos_weight=T[:1], reduction="none"),
    "poisson": lambda x: F.poisson_nll_loss(x, 3 * T, full=True, reduction="none"),
    "gaussian": lambda x: F.gaussian_nll_loss(x, T, T**2, full=True, reduction="none"),
    "kl": lambda x: F.kl_div(F.log_softmax(x, 0), T, reduction="none"),
    "layer norm": lambda x: F.layer_norm(x, x.shape, eps=1e-3),
    "bilinear": lambda x: F.interpolate(x[None, None, :, None], scale_factor=(1.7, 1.3), mode="bilinear"),
    "average": lambda x: F.avg_pool1d(x[None], 3, 2, 1),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_no_other_derivative_is_rounded(name: str) -> None:
    """Against central differences of order 8, along one direction; X is far from the kinks."""
    function, h, order = DIFFERENTIABLE[name], 1e-3, {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    x = torch.tensor(X)
    draw = np.random.default_rng(1)
    weights, v = torch.tensor(draw.normal(size=function(x).shape)), torch.tensor(draw.uniform(-1, 1, X.shape))

    def objective(t: float) -> Any:
        return (function(x + t * v) * weights).sum()

    with exact_kernels():
        leaf = x.clone().requires_grad_()
        (function(leaf) * weights).sum().backward()
    differences = sum(c * (objective(k * h) - objective(-k * h)) for k, c in order.items()) / h
    assert abs(float((leaf.grad * v).sum() - differences)) < 1e-11 * float((leaf.grad * v).abs().sum())
