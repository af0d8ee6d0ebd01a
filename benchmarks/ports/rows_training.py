"""Rows of the table of causes that act in the loss, the optimizer and the loop and that no other family plants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted, transfer
from benchmarks.ports.data import integers, normal, one_hot
from benchmarks.ports.mlp import EXAMPLES, keras_net, torch_net
from benchmarks.ports.rows_models import in_jax, in_keras, in_torch, layers, ops, turned
from benchmarks.ports.training import K_SGD, MOMENTUM, SGD, TINY, halved_at_third, trained

CLASSES = 5
optim, rules, StepLR = torch.optim, keras.optimizers, torch.optim.lr_scheduler.StepLR


def probable(loss: Callable[..., torch.Tensor], keras_loss: Any, y: Any, scale: float = 60.0) -> Pair:
    """Probabilities of far apart logits: some lie below 1e-7. Keras takes the logits behind a softmax of its own."""
    net = torch_net(CLASSES)
    with torch.no_grad():
        _ = net.fc3.weight.mul_(scale)
    model = keras_net(net)
    full = nn.Sequential(net, nn.Softmax(dim=-1))
    inputs = keras.Input((10,))
    shares = layers.Lambda(lambda z: ops.exp(z) / ops.sum(ops.exp(z), axis=-1, keepdims=True), name="shares")
    outputs = shares(model(inputs))
    rate = 1e-5
    return Pair(
        reference=in_torch(full, loss, partial(SGD, lr=rate)),
        candidate=in_keras(keras.Model(inputs, outputs), keras_loss, partial(rules.SGD, rate)),
        x=normal(EXAMPLES, 10),
        y=y,
        steps=2,
    )


LABELS = integers(EXAMPLES, below=CLASSES)
ONE_HOT = one_hot(LABELS, CLASSES)


def negative_log(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(torch.log(output), target)


def divergence(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.kl_div(torch.log(output), target, reduction="batchmean")


class PlainAdam(optim.Optimizer):
    """Adam without bias correction, as BERT was trained."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = TINY) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(m=torch.zeros_like(p), v=torch.zeros_like(p))
                for moment, beta, g in zip(("m", "v"), group["betas"], (p.grad, p.grad**2), strict=True):
                    _ = state[moment].mul_(beta).add_(g, alpha=1 - beta)
                p -= group["lr"] * state["m"] / (state["v"].sqrt() + group["eps"])


def no_decay_for_biases(params: Any, **options: Any) -> torch.optim.Optimizer:
    held = list(params)
    groups = [
        {"params": [p for p in held if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in held if p.ndim < 2], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=0.01, eps=TINY, **options)


def faster_head(params: Any) -> torch.optim.Optimizer:
    *body, weight, bias = params
    return optim.SGD([{"params": body}, {"params": [weight, bias], "lr": 0.2}], lr=0.05, momentum=0.9)


def decaying(exclude: bool) -> Any:
    rule = rules.AdamW(0.01, weight_decay=0.05, epsilon=TINY)
    if exclude:
        rule.exclude_from_weight_decay(var_names=["bias"])
    return rule


def all_squared(net: nn.Module) -> Any:
    return 0.01 * sum((p**2).sum() for p in net.parameters())


def in_optax(rule: Callable[..., torch.optim.Optimizer], other: Any) -> Pair:
    """A perceptron trained by torch's optimizer and by one of optax."""
    _ = torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    params = [transfer.linear(net[0]), transfer.linear(net[2])]

    def apply(params: Any, x: Any) -> Any:
        (w, b), (v, c) = params
        return jnp.tanh(x @ w + b) @ v + c

    squared = lambda output, target: jnp.mean((output - target) ** 2)  # noqa: E731
    x, y = normal(EXAMPLES, 6), normal(EXAMPLES, 3, seed=1)
    return Pair(reference=in_torch(net, rule=rule), candidate=in_jax(apply, params, squared, other), x=x, y=y, steps=3)


def fed(inputs: Any = None, targets: Any = None) -> Pair:
    """The candidate has inputs (by example or by column) or targets in another order."""
    pair = trained(SGD, K_SGD)
    return replace(
        pair,
        x=pair.x if inputs is None else (pair.x, pair.x[inputs]),
        y=pair.y if targets is None else (pair.y, pair.y[targets]),
    )


OTHER_ORDER = np.random.default_rng(5).permutation(EXAMPLES)
OTHER_COLUMNS = (slice(None), np.random.default_rng(6).permutation(10))
ADAM, K_ADAM = partial(optim.Adam, lr=0.01, eps=TINY), partial(rules.Adam, 0.01, epsilon=TINY)
FAST, K_FAST = partial(ADAM, betas=(0.9, 0.5)), partial(K_ADAM, beta_2=0.5)
ADAMW, K_ADAMW = partial(optim.AdamW, lr=0.01, eps=TINY), partial(rules.AdamW, 0.01, epsilon=TINY)
ADAGRAD = partial(optim.Adagrad, lr=0.05, initial_accumulator_value=0.1)
K_ADAGRAD = partial(rules.Adagrad, 0.05, initial_accumulator_value=0.1)
RMSPROP, K_RMSPROP = partial(optim.RMSprop, lr=0.01, alpha=0.9), partial(rules.RMSprop, 0.01, rho=0.9)
NADAM, K_NADAM = partial(optim.NAdam, lr=0.01, eps=TINY), partial(rules.Nadam, 0.01, epsilon=TINY)
ADADELTA = partial(optim.Adadelta, lr=1.0, rho=0.95, eps=1e-7)
K_ADADELTA = partial(rules.Adadelta, 1.0)

PORTS = [
    clean("rows_training/adadelta", partial(trained, ADADELTA, K_ADADELTA)),
    clean("rows_training/kernels decayed", partial(trained, no_decay_for_biases, partial(decaying, True))),
    clean("rows_training/fast", partial(trained, FAST, K_FAST)),
    planted(
        "rows_training/cross-entropy clipped",
        partial(probable, negative_log, "sparse_categorical_crossentropy", LABELS),
        "crossentropy-clipping",
        "loss",
    ),
    planted(
        "rows_training/divergence clipped",
        partial(probable, divergence, keras.losses.KLDivergence(), ONE_HOT, scale=1.0),
        "kldiv-clipping",
        "loss",
    ),
    planted(
        "rows_training/bias not corrected",
        partial(trained, partial(PlainAdam, lr=0.01), K_ADAM),
        "adam-bias-correction",
        "update:*",
    ),
    planted(
        "rows_training/bias not corrected, turned",
        partial(turned, partial(trained, partial(PlainAdam, lr=0.01), K_ADAM)),
        "adam-bias-correction",
        "update:*",
    ),
    planted(
        "rows_training/amsgrad in torch",
        partial(trained, partial(FAST, amsgrad=True), K_FAST),
        "amsgrad",
        "update:*",
        range(1, 5),
    ),
    planted(
        "rows_training/amsgrad in Keras",
        partial(trained, FAST, partial(K_FAST, amsgrad=True)),
        "amsgrad",
        "update:*",
        range(1, 5),
    ),
    planted(
        "rows_training/adagrad epsilon",
        partial(trained, partial(ADAGRAD, eps=1e-10), partial(K_ADAGRAD, epsilon=1e-7)),
        "adagrad-epsilon",
        "update:*",
    ),
    planted(
        "rows_training/rmsprop epsilon",
        partial(trained, partial(RMSPROP, eps=1e-7), partial(K_RMSPROP, epsilon=1e-7)),
        "rmsprop-epsilon-placement",
        "update:*",
    ),
    planted(
        "rows_training/adadelta defaults",
        partial(trained, partial(optim.Adadelta, lr=1.0), K_ADADELTA),
        "adadelta-rho",
        "update:*",
    ),
    planted(
        "rows_training/a rate of the head's own",
        partial(trained, faster_head, partial(K_SGD, momentum=0.9)),
        "learning-rate-groups",
        "update:fc3.weight",
    ),
    planted(
        "rows_training/a rate of the head's own, halved",
        partial(trained, faster_head, halved_at_third, partial(StepLR, step_size=2, gamma=0.5), steps=2),
        "learning-rate-groups",
        "update:fc3.weight",
    ),
    planted("rows_training/nadam", partial(trained, NADAM, K_NADAM), "nadam-momentum-decay", "update:*"),
    planted(
        "rows_training/decay value",
        partial(trained, partial(ADAMW, weight_decay=0.05), partial(K_ADAMW, weight_decay=0.005)),
        "weight-decay-value",
        "update:*",
    ),
    planted(
        "rows_training/biases decay in Keras",
        partial(trained, no_decay_for_biases, partial(decaying, False)),
        "weight-decay-scope",
        "update:*",
    ),
    planted(
        "rows_training/biases decay in torch",
        partial(trained, partial(ADAMW, weight_decay=0.05), partial(decaying, True)),
        "weight-decay-scope",
        "update:*",
    ),
    planted(
        "rows_training/penalty of all",
        partial(trained, SGD, K_SGD, keras_l2=0.01, options={"penalty": all_squared}),
        "weight-decay-scope",
        "loss",
    ),
    planted("rows_training/sgd or adam", partial(trained, SGD, K_ADAM), "optimizer-different", "update:*"),
    planted("rows_training/rmsprop or adam", partial(trained, RMSPROP, K_ADAM), "optimizer-different", "update:*"),
    planted(
        "rows_training/adam by hand or sgd",
        partial(turned, partial(trained, partial(PlainAdam, lr=0.01), K_SGD)),
        "optimizer-different",
        "update:*",
    ),
    planted("rows_training/uphill", partial(trained, partial(SGD, maximize=True), K_SGD), "maximize", "update:*"),
    planted(
        "rows_training/passes to an update",
        partial(trained, SGD, partial(K_SGD, gradient_accumulation_steps=3), options={"accumulate": 2}),
        "grad-accumulation",
        "update:*",
        1,
    ),
    planted(
        "rows_training/sums accumulated",
        partial(trained, SGD, partial(K_SGD, gradient_accumulation_steps=2), options={"accumulate": 2}),
        "gradient-accumulation-mean",
        "update:*",
        1,
    ),
    *(
        planted(f"rows_training/{name}", build, cause, "update:*", step)
        for name, build, cause, step in (
            (
                "rate, Keras first",
                partial(turned, partial(trained, MOMENTUM, partial(rules.SGD, 0.02, momentum=0.9))),
                "learning-rate",
                0,
            ),
            (
                "beta, Keras first",
                partial(turned, partial(trained, FAST, partial(K_FAST, beta_1=0.8))),
                "momentum-value",
                1,
            ),
            (
                "rate inside velocity, Keras first",
                partial(
                    turned,
                    partial(trained, MOMENTUM, halved_at_third, partial(StepLR, step_size=2, gamma=0.5), steps=4),
                ),
                "sgd-momentum-lr-schedule",
                2,
            ),
            (
                "epsilon of optax",
                partial(in_optax, partial(optim.Adam, lr=0.01), optax.adam(0.01, eps=1e-6)),
                "adam-epsilon",
                0,
            ),
            (
                "nesterov in optax",
                partial(in_optax, MOMENTUM, optax.sgd(0.05, 0.9, nesterov=True)),
                "nesterov-form",
                0,
            ),
            ("adam of optax", partial(in_optax, SGD, optax.adam(0.01)), "optimizer-different", 0),
            (
                "clipped by optax",
                partial(in_optax, SGD, optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.05))),
                "grad-clip-value",
                0,
            ),
            (
                "schedule of optax",
                partial(in_optax, SGD, optax.sgd(optax.exponential_decay(0.05, 1, 0.5))),
                "lr-schedule-form",
                1,
            ),
            (
                "decay forgotten in optax",
                partial(in_optax, partial(SGD, weight_decay=0.02), optax.sgd(0.05)),
                "weight-decay-value",
                0,
            ),
        )
    ),
    *(
        planted(f"rows_training/{name}", build, "data-order", "forward:* loss")
        for name, build in (
            ("examples in another order", partial(fed, OTHER_ORDER, OTHER_ORDER)),
            ("columns in another order", partial(fed, OTHER_COLUMNS)),
            ("targets in another order", partial(fed, None, OTHER_ORDER)),
        )
    ),
]
