"""One network trained in many ways: optimizers, schedules, clipping, penalties and what users get wrong in them.

Keras puts Adam's, RMSprop's and Adagrad's epsilon at other places than torch; the clean pairs set it to 1e-30 on both
sides, where its place cannot matter, or write Keras's formula in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, StepLR

from benchmarks.ports import Pair, clean, planted
from benchmarks.ports.mlp import EXAMPLES, Net, keras_net, regression_data, torch_net
from benchmarks.ports.optimizers import HatAdam
from harness.recipe import Recipe

TINY = 1e-30


def trained(
    optimizer: Callable[..., torch.optim.Optimizer],
    keras_optimizer: Callable[[], keras.optimizers.Optimizer],
    schedule: Callable[[Any], LRScheduler] | None = None,
    keras_l2: float = 0.0,
    after_backward: Callable[[Any], Any] | None = None,
    options: dict[str, Any] | None = None,
    keras_options: dict[str, Any] | None = None,
    frozen: str = "",
    steps: int = 5,
) -> Pair:
    net = torch_net()
    model = keras_net(net, l2=keras_l2)
    if frozen:
        model.get_layer(frozen).trainable = False
    model.compile(optimizer=keras_optimizer(), loss="mse")
    rule = optimizer(net.parameters())
    reference = Recipe(
        model=net,
        loss=nn.MSELoss(),
        optimizer=rule,
        schedule=schedule(rule) if schedule else None,
        after_backward=after_backward,
        **(options or {}),
    )
    x, y = regression_data()
    return Pair(reference=reference, candidate=Recipe(model=model, **(keras_options or {})), x=x, y=y, steps=steps)


def kernels_squared(net: Net) -> torch.Tensor:
    return (net.fc1.weight**2).sum() + (net.fc2.weight**2).sum()


def clip_norm(limit: float, net: nn.Module) -> None:
    _ = nn.utils.clip_grad_norm_(net.parameters(), limit)


def clip_each(limit: float, net: nn.Module) -> None:
    """What Keras's clipnorm does."""
    for p in net.parameters():
        if p.grad is not None:
            _ = p.grad.mul_(limit / max(p.grad.norm().item(), limit))


def clip_value(limit: float, net: nn.Module) -> None:
    nn.utils.clip_grad_value_(net.parameters(), limit)


def clip_global(limit: float, net: nn.Module) -> None:
    """By hand and exact: clip_grad_norm_ adds 1e-6 to the norm (torch 2.13, nn/utils/clip_grad.py)."""
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))  # pyright: ignore[reportCallIssue, reportArgumentType]
    for g in gradients:
        _ = g.mul_(torch.clamp(limit / norm, max=1.0))


SGD, K_SGD = partial(torch.optim.SGD, lr=0.05), partial(keras.optimizers.SGD, 0.05)
MOMENTUM, K_MOMENTUM = partial(SGD, momentum=0.9), partial(K_SGD, momentum=0.9)
ADAM, K_ADAM = partial(torch.optim.Adam, lr=0.01, eps=TINY), partial(keras.optimizers.Adam, 0.01, epsilon=TINY)
ADAMW = partial(torch.optim.AdamW, lr=0.01, eps=TINY, weight_decay=0.05)
K_ADAMW = partial(keras.optimizers.AdamW, 0.01, epsilon=TINY)
RMSPROP = partial(torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=TINY)
K_RMSPROP = partial(keras.optimizers.RMSprop, 0.01, rho=0.9, epsilon=TINY)
ADAGRAD = partial(torch.optim.Adagrad, lr=0.05, initial_accumulator_value=0.1, eps=TINY)
K_ADAGRAD = partial(keras.optimizers.Adagrad, 0.05, initial_accumulator_value=0.1, epsilon=TINY)


def decayed(**options: Any) -> keras.optimizers.Optimizer:
    rate: Any = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=options.pop("every"), **options)
    return keras.optimizers.SGD(rate)


def cosine() -> keras.optimizers.Optimizer:
    rate: Any = keras.optimizers.schedules.CosineDecay(0.05, decay_steps=8)
    return keras.optimizers.SGD(rate)


def halved_at_third(momentum: float = 0.9) -> keras.optimizers.Optimizer:
    rate: Any = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.05, 0.025])  # boundaries are inclusive
    return keras.optimizers.SGD(rate, momentum=momentum)


PER_EPOCH = EXAMPLES // 16
OTHER_ORDER = [np.random.default_rng(7).permutation(EXAMPLES)[:16] for _ in range(5)]

PORTS = [
    clean("training/momentum", partial(trained, MOMENTUM, K_MOMENTUM)),
    clean("training/nesterov", partial(trained, partial(MOMENTUM, nesterov=True), partial(K_MOMENTUM, nesterov=True))),
    clean("training/adam", partial(trained, ADAM, K_ADAM)),
    clean("training/adam by hand", partial(trained, partial(HatAdam, lr=0.01), partial(keras.optimizers.Adam, 0.01))),
    clean("training/amsgrad", partial(trained, partial(ADAM, amsgrad=True), partial(K_ADAM, amsgrad=True))),
    clean("training/adamw", partial(trained, ADAMW, partial(K_ADAMW, weight_decay=0.05))),
    clean("training/rmsprop", partial(trained, RMSPROP, K_RMSPROP)),
    clean("training/adagrad", partial(trained, ADAGRAD, K_ADAGRAD)),
    clean(
        "training/exponential decay",
        partial(trained, SGD, partial(decayed, every=1, decay_rate=0.8), partial(ExponentialLR, gamma=0.8)),
    ),
    clean("training/cosine decay", partial(trained, SGD, cosine, partial(CosineAnnealingLR, T_max=8))),
    clean(
        "training/decay per epoch",
        partial(
            trained,
            SGD,
            partial(decayed, every=PER_EPOCH, decay_rate=0.5, staircase=True),
            partial(StepLR, step_size=1, gamma=0.5),
            options={"schedule_every": "epoch"},
            steps=7,
        ),
    ),
    clean(
        "training/clipped by value",
        partial(trained, SGD, partial(K_SGD, clipvalue=0.02), after_backward=partial(clip_value, 0.02)),
    ),
    clean(
        "training/each clipped by norm",
        partial(trained, SGD, partial(K_SGD, clipnorm=0.1), after_backward=partial(clip_each, 0.1)),
    ),
    clean(  # a limit that is never reached: torch's 1e-6 cannot act
        "training/clipping idle",
        partial(trained, SGD, partial(K_SGD, global_clipnorm=100.0), after_backward=partial(clip_norm, 100.0)),
    ),
    clean(
        "training/penalty",
        partial(trained, SGD, K_SGD, keras_l2=0.01, options={"penalty": lambda net: 0.01 * kernels_squared(net)}),
    ),
    clean(
        "training/given batches",
        partial(trained, SGD, K_SGD, options={"batches": OTHER_ORDER}, keras_options={"batches": OTHER_ORDER}),
    ),
    planted(  # both formulas see epsilon 1e-3, Keras's weighs 1 / sqrt(1 - 0.999) times as much in the first update
        "training/adam epsilon placement",
        partial(trained, partial(ADAM, eps=1e-3), partial(K_ADAM, epsilon=1e-3)),
        "adam-epsilon-placement",
        "update:*",
    ),
    planted(
        "training/adam epsilon",
        partial(trained, partial(HatAdam, lr=0.01, eps=1e-8), partial(K_ADAM, epsilon=1e-3)),
        "adam-epsilon",
        "update:*",
    ),
    planted(
        "training/rmsprop default rate",
        partial(trained, RMSPROP, partial(keras.optimizers.RMSprop, rho=0.9, epsilon=TINY)),
        "optimizer-default-lr",
        "update:*",
    ),
    planted(
        "training/rmsprop rho", partial(trained, partial(RMSPROP, alpha=0.99), K_RMSPROP), "rmsprop-rho", "update:*"
    ),
    planted(
        "training/rmsprop centered",
        # g^2 - mean^2 is (1 - rho) rho g^2 in the first step: the first update differs already
        partial(trained, partial(RMSPROP, centered=True), K_RMSPROP),
        "rmsprop-centered",
        "update:*",
    ),
    planted(
        "training/adagrad accumulator",
        partial(trained, partial(ADAGRAD, initial_accumulator_value=0), K_ADAGRAD),
        "adagrad-initial-accumulator",
        "update:*",
    ),
    planted(
        "training/decay coupled",
        partial(trained, partial(ADAM, weight_decay=0.05), partial(K_ADAMW, weight_decay=0.05)),
        "weight-decay-coupling",
        "update:*",
    ),
    planted(
        "training/adamw default decay",
        partial(trained, partial(torch.optim.AdamW, lr=0.01, eps=TINY), partial(K_ADAMW)),
        "adamw-default-weight-decay",
        "update:*",
    ),
    planted(  # the first velocity is the gradient with any momentum
        "training/momentum value",
        partial(trained, MOMENTUM, partial(K_SGD, momentum=0.95)),
        "momentum-value",
        "update:*",
        1,
    ),
    planted(  # torch does not damp the first gradient
        "training/dampening",
        partial(trained, partial(MOMENTUM, dampening=0.9), K_MOMENTUM),
        "momentum-dampening",
        "update:*",
        1,
    ),
    planted(
        "training/nesterov on one side",
        partial(trained, partial(MOMENTUM, nesterov=True), K_MOMENTUM),
        "nesterov-form",
        "update:*",
    ),
    planted(
        "training/learning rate",
        partial(trained, SGD, partial(keras.optimizers.SGD, 0.005)),
        "learning-rate",
        "update:*",
    ),
    planted(  # torch scales the whole velocity by the new rate, Keras has the old rate in it
        "training/rate inside velocity",
        partial(trained, MOMENTUM, halved_at_third, partial(StepLR, step_size=2, gamma=0.5), steps=4),
        "sgd-momentum-lr-schedule",
        "update:*",
        2,
    ),
    planted(
        "training/schedule per batch",
        partial(
            trained,
            SGD,
            partial(decayed, every=1, decay_rate=0.5),
            partial(ExponentialLR, gamma=0.5),
            options={"schedule_every": "epoch"},
        ),
        "lr-schedule-granularity",
        "update:*",
        1,
    ),
    planted(
        "training/schedule form",
        partial(trained, SGD, cosine, partial(ExponentialLR, gamma=0.9)),
        "lr-schedule-form",
        "update:*",
        1,
    ),
    planted(
        "training/clipped each or all",
        partial(trained, SGD, partial(K_SGD, clipnorm=0.1), after_backward=partial(clip_global, 0.1)),
        "grad-clip-per-variable",
        "update:*",
    ),
    planted(
        "training/clipped by value or norm",
        partial(trained, SGD, partial(K_SGD, global_clipnorm=0.1), after_backward=partial(clip_value, 0.1)),
        "grad-clip-value",
        "update:*",
    ),
    planted(
        "training/no zero_grad",
        partial(trained, SGD, K_SGD, options={"zero_grad": False}),
        "grad-accumulation",
        "gradient:*",
        1,
    ),
    planted(
        "training/penalty missing",
        partial(trained, SGD, K_SGD, keras_l2=0.01),
        "l2-missing",
        "loss",
    ),
    planted(
        "training/half penalty",
        partial(trained, SGD, K_SGD, keras_l2=0.01, options={"penalty": lambda net: 0.005 * kernels_squared(net)}),
        "l2-factor-two",
        "loss",
    ),
    planted(
        "training/other batches",
        partial(trained, SGD, K_SGD, keras_options={"batches": OTHER_ORDER}),
        "data-order",
        "forward:fc1 forward:relu forward:hidden1",
    ),
    planted(  # a frozen parameter's gradient is exactly zero or not there; either way its update differs
        "training/frozen layer",
        partial(trained, SGD, K_SGD, frozen="hidden2"),
        "frozen-parameter",
        "gradient:fc2* gradient:hidden2* update:fc2* update:hidden2*",
    ),
]
