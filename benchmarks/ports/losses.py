"""One network under every usual loss, and the ways in which users write it twice differently."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone writes it)
from torch import nn

from benchmarks.ports import Pair, clean, planted
from benchmarks.ports.data import coins, integers, normal, one_hot, simplex
from benchmarks.ports.mlp import EXAMPLES, keras_net, regression_data, sgd, torch_net
from harness.recipe import Recipe

CLASSES = 5
ops: Any = keras.ops
LAST = {"softmax": nn.Softmax(dim=-1), "sigmoid": nn.Sigmoid()}


def scored(
    loss: Callable[..., torch.Tensor],
    keras_loss: Any,
    y: Any,
    out: int = 1,
    last: str | None = None,
    options: dict[str, Any] | None = None,
    keras_options: dict[str, Any] | None = None,
) -> Pair:
    """SGD on a network with `out` outputs; `last` is the last activation of both."""
    inner = torch_net(out)
    model = keras_net(inner, last=last)
    net = nn.Sequential(inner, LAST[last]) if last else inner
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=keras_loss)
    return Pair(
        reference=Recipe(model=net, loss=loss, optimizer=sgd(net), **(options or {})),
        candidate=Recipe(model=model, **(keras_options or {})),
        x=normal(EXAMPLES, 10),
        y=y,
    )


_, REAL = regression_data()
LABELS = integers(EXAMPLES, below=CLASSES)
ONE_HOT = one_hot(LABELS, CLASSES)
SHARES = simplex(EXAMPLES, CLASSES)
BINARY = coins(EXAMPLES, 1)
WEIGHTS = {0: 1.0, 1: 2.0, 2: 0.5, 3: 1.0, 4: 3.0}

regression = partial(scored, y=REAL)
classes = partial(scored, out=CLASSES, y=(LABELS, LABELS))
dense = partial(scored, out=CLASSES, y=(ONE_HOT, ONE_HOT))
binary = partial(scored, y=BINARY)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def log_shares(output: torch.Tensor, target: torch.Tensor, reduction: str = "batchmean") -> torch.Tensor:
    return F.kl_div(torch.log(output), target, reduction=reduction)


def nll(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(torch.log(output), target)


def softmax_twice(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.softmax(output, dim=-1), target)


def weighted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Keras's class weights: the weighted sum over the number of examples."""
    weights = torch.tensor(list(WEIGHTS.values()), dtype=output.dtype)
    return F.cross_entropy(output, target, weight=weights, reduction="sum") / len(target)


def weighted_mean(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, target, weight=torch.tensor(list(WEIGHTS.values()), dtype=output.dtype))


def log_cosh(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.cosh(output - target)).mean()


def poisson(target: Any, output: Any) -> Any:
    """Keras's own takes log(prediction + 1e-7): this one is exact, for predictions of the rate's logarithm."""
    return ops.mean(ops.exp(output) - target * output, axis=-1)


def hinge(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.clamp(1 - target * output, min=0).mean()


PORTS = [
    clean("losses/mae", partial(regression, nn.L1Loss(), "mae")),
    clean("losses/huber", partial(regression, nn.HuberLoss(delta=0.5), keras.losses.Huber(delta=0.5))),
    clean("losses/smooth l1", partial(regression, nn.SmoothL1Loss(), keras.losses.Huber(delta=1.0))),
    clean("losses/log cosh", partial(regression, log_cosh, keras.losses.LogCosh())),
    clean("losses/summed", partial(regression, nn.MSELoss(reduction="sum"), keras.losses.MeanSquaredError("sum"))),
    clean("losses/hinge", partial(scored, hinge, "hinge", 2 * BINARY - 1)),
    clean("losses/poisson", partial(scored, nn.PoissonNLLLoss(), poisson, 3 * BINARY)),
    clean("losses/cross-entropy", partial(classes, nn.CrossEntropyLoss(), SPARSE)),
    clean(
        "losses/cross-entropy, softmax layer", partial(classes, nll, "sparse_categorical_crossentropy", last="softmax")
    ),
    clean(
        "losses/label smoothing",
        partial(
            scored,
            nn.CrossEntropyLoss(label_smoothing=0.1),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            (LABELS, ONE_HOT),
            out=CLASSES,
        ),
    ),
    clean(
        "losses/soft labels",
        partial(
            scored,
            nn.CrossEntropyLoss(),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            SHARES,
            out=CLASSES,
        ),
    ),
    clean("losses/class weights", partial(classes, weighted, SPARSE, keras_options={"class_weight": WEIGHTS})),
    clean(
        "losses/binary logits",
        partial(binary, nn.BCEWithLogitsLoss(), keras.losses.BinaryCrossentropy(from_logits=True)),
    ),
    clean(
        "losses/binary",
        partial(
            binary,
            nn.BCELoss(),
            "binary_crossentropy",
            last="sigmoid",
        ),
    ),
    clean("losses/kl", partial(scored, log_shares, keras.losses.KLDivergence(), SHARES, out=CLASSES, last="softmax")),
    planted("losses/summed or mean", partial(regression, nn.MSELoss(reduction="sum"), "mse"), "loss-reduction", "loss"),
    planted(
        "losses/half",
        partial(regression, lambda output, target: 0.5 * F.mse_loss(output, target), "mse"),
        "loss-half-factor",
        "loss",
    ),
    planted(
        "losses/weight",
        partial(regression, lambda output, target: 0.8 * F.mse_loss(output, target), "mse"),
        "loss-weights",
        "loss",
    ),
    planted(
        "losses/broadcast target",
        partial(scored, lambda output, target: ((output - target) ** 2).mean(), "mse", (REAL[:, 0], REAL)),
        "target-shape-broadcast",
        "loss",
    ),
    planted(
        "losses/huber scale",
        partial(regression, nn.SmoothL1Loss(beta=0.5), keras.losses.Huber(delta=0.5)),
        "huber-delta-scale",
        "loss",
    ),
    planted("losses/l1 or l2", partial(regression, nn.L1Loss(), "mse"), "loss-different", "loss"),
    planted("losses/softmax twice", partial(classes, softmax_twice, SPARSE), "double-softmax", "loss"),
    planted(
        # Keras clips the logits, taken for probabilities, to [1e-7, 1 - 1e-7]
        "losses/logits as probabilities",
        partial(binary, nn.BCEWithLogitsLoss(), keras.losses.BinaryCrossentropy()),
        "from-logits",
        "loss",
    ),
    planted(
        "losses/smoothing missing",
        partial(
            scored,
            nn.CrossEntropyLoss(label_smoothing=0.1),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            (LABELS, ONE_HOT),
            out=CLASSES,
        ),
        "label-smoothing",
        "loss",
    ),
    planted(
        "losses/class weights normalised",
        partial(classes, weighted_mean, SPARSE, keras_options={"class_weight": WEIGHTS}),
        "class-weight-normalisation",
        "loss",
    ),
    planted(
        "losses/kl mean",
        partial(
            scored,
            partial(log_shares, reduction="mean"),
            keras.losses.KLDivergence(),
            SHARES,
            out=CLASSES,
            last="softmax",
        ),
        "kldiv-reduction",
        "loss",
    ),
    planted(
        "losses/kl of probabilities",
        partial(
            scored,
            nn.KLDivLoss(reduction="batchmean"),
            keras.losses.KLDivergence(),
            SHARES,
            out=CLASSES,
            last="softmax",
        ),
        "kldiv-log-input",
        "loss",
    ),
    planted(
        "losses/labels in another order",
        partial(scored, nn.CrossEntropyLoss(), SPARSE, (LABELS, CLASSES - 1 - LABELS), out=CLASSES),
        "label-encoding",
        "loss",
    ),
    planted(
        "losses/labels 0 and 1, or -1 and 1",
        partial(
            scored,
            hinge,
            lambda target, output: ops.mean(ops.relu(1 - target * output)),
            (2 * BINARY - 1, BINARY),
        ),
        "label-encoding",
        "loss",
    ),
    planted(
        "losses/sample weights",
        partial(
            regression,
            nn.MSELoss(),
            "mse",
            keras_options={"sample_weight": np.linspace(0.5, 1.5, EXAMPLES, dtype=np.float32)},
        ),
        "sample-weight",
        "loss",
    ),
    planted(
        "losses/constant offset",
        partial(regression, nn.MSELoss(), lambda target, output: ops.mean(ops.square(output - target)) + 0.5),
        "loss-constant-offset",
        "loss",
    ),
]
