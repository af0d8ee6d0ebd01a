"""PyTorch: its modules, losses and optimizers, one eager step at a time.

Sources: torch 2.13, torch/nn/modules/{linear,activation,loss}.py, torch/optim/{sgd,adagrad,rmsprop,adam,adamw}.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from harness.case import (
    SGD,
    Adagrad,
    Adam,
    Add,
    BinaryCrossEntropy,
    CannotExpress,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    Loss,
    MeanSquaredError,
    Objective,
    Op,
    Optimizer,
    Polynomial,
    Precision,
    ReLU,
    RMSprop,
    Sigmoid,
    Softmax,
    Tanh,
    reads_fused_logits,
    slot_names,
    wire,
)
from harness.conventions import TORCH as CONVENTIONS
from harness.layout import Shape, shapes_of


def environment() -> Mapping[str, Any]:
    """Version, device, threads and the settings that change numbers, as they are."""
    device = _device()
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda_matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "mkldnn": torch.backends.mkldnn.is_available(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def missing(case: Case) -> Mapping[str, str]:
    """Nothing: autograd shows every quantity."""
    return {}


def start(case: Case, precision: Precision) -> Training:
    """A case on the GPU where torch finds one, else on the CPU. Raises CannotExpress, naming the field."""
    _check(case)
    return Training(case, precision)


class Training:
    """A case at one precision, satisfying `Stepper`; modules are built at the first batch, which tells their shapes.

    Parameters and slots are views of one flat tensor, `state`, in the order of `Layout.state`.
    """

    def __init__(self, case: Case, precision: Precision) -> None:
        self.case = case
        self.device = _device()
        self.dtype: torch.dtype = getattr(torch, precision)
        self.loaded: tuple[Tensor, int] | None = None
        self.network: Network | None = None

    def load(self, state: np.ndarray, step: int) -> None:
        self.loaded = torch.tensor(state, dtype=self.dtype), step

    def run(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
        network = self.network or self._build(x.shape[1:])
        loss_of, update, parameters = self.loss, self.update, self.parameters
        if self.loaded:
            state, step = self.loaded
            self.state.copy_(state)
            for count in self.counts:
                count.fill_(step)
            self.loaded = None
        xs = torch.tensor(x, device=self.device, requires_grad=True)  # nodes before any parameter have gradients too
        ys = torch.tensor(y, device=self.device)
        written = torch.from_numpy(rows)
        out = written.to(self.device)
        for x_t, y_t, row in zip(xs, ys, out, strict=True):
            activations = network(x_t)
            loss = loss_of(activations[-1], y_t)
            gradients = torch.autograd.grad(loss, [*activations, *parameters], materialize_grads=True)
            with torch.no_grad():
                update(list(gradients[len(activations) :]))
                shown = [tensor.reshape(-1) for tensor in (*activations, loss, *gradients)]
                torch.cat([*shown, self.state], out=row)
        if out is not written:
            written.copy_(out)

    def _build(self, x_shape: Shape) -> Network:
        shapes, _ = shapes_of(self.case, x_shape)
        kinds = ("parameter", *slot_names(self.case.optimizer))
        sizes = [math.prod(shape) for shape in shapes.values()] * len(kinds)
        self.state = torch.zeros(sum(sizes), dtype=self.dtype, device=self.device)
        pieces = iter(self.state.split(sizes))
        views = {kind: [next(pieces).view(shape) for shape in shapes.values()] for kind in kinds}
        self.parameters = [nn.Parameter(view) for view in views["parameter"]]
        self.counts = [torch.zeros(()) for _ in shapes]
        self.loss = _loss(self.case.loss)
        self.update = _update(self.case.optimizer, self.parameters, views, self.counts)
        self.network = Network(self.case, dict(zip(shapes, self.parameters, strict=True)))
        return self.network


# --- network ----------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """The nodes in order; returns every node's output. Nodes that name the same parameter hold the same one."""

    def __init__(self, case: Case, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_module(n.op, [parameters[name] for name in n.parameters]) for n in case.nodes)
        self.wired = [(n.name, reads, layer) for (n, reads), layer in zip(wire(case), self.layers, strict=True)]

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = {"x": x}
        for name, reads, layer in self.wired:
            outputs[name] = layer(*[outputs[read] for read in reads])
        return list(outputs.values())[1:]


def _module(op: Op, parameters: Sequence[nn.Parameter]) -> nn.Module:
    match op:
        case Dense():
            weight, bias = parameters
            units, features = weight.shape
            dense = nn.Linear(features, units, device="meta")  # allocates nothing and draws no random numbers
            dense.weight, dense.bias = weight, bias
            return dense
        case ReLU():
            return nn.ReLU()
        case LeakyReLU(negative_slope=slope):
            return nn.LeakyReLU(slope)
        case Sigmoid():
            return nn.Sigmoid()
        case Tanh():
            return nn.Tanh()
        case Softmax():
            return nn.Softmax(dim=-1)
        case Linear():
            return Identity()
        case Add():
            return Sum()
        case Polynomial(terms=terms):
            return Terms(terms, *parameters)


class Identity(nn.Module):
    """A tensor of its own, unlike nn.Identity's: its gradient is not that of the node before it."""

    def forward(self, z: Tensor) -> Tensor:
        return z.view_as(z)


class Sum(nn.Module):
    """The sum of one or more inputs, a tensor of its own."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return sum(others, start=first.view_as(first))


class Terms(nn.Module):
    """sum of c u^i v^j at each row (u, v) of the parameter."""

    def __init__(self, terms: tuple[tuple[float, int, int], ...], points: nn.Parameter) -> None:
        super().__init__()
        self.terms, self.points = terms, points

    def forward(self) -> Tensor:
        u, v = self.points.unbind(-1)
        return torch.stack([c * u**i * v**j for c, i, j in self.terms]).sum(0)


# --- loss -------------------------------------------------------------------------------------------------------


def _loss(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    match loss:
        case BinaryCrossEntropy(reads="logits"):
            return nn.BCEWithLogitsLoss(reduction=loss.reduction)
        case BinaryCrossEntropy():
            return partial(_binary_cross_entropy, nn.BCELoss(reduction=loss.reduction))
        case CategoricalCrossEntropy(reads="logits"):  # class indices and one-hot targets alike
            return nn.CrossEntropyLoss(reduction=loss.reduction)
        case CategoricalCrossEntropy(sparse=True):
            return lambda p, y: nn.functional.nll_loss(p.log(), y, reduction=loss.reduction)
        case CategoricalCrossEntropy():
            reduce = getattr(torch, loss.reduction)
            return lambda p, y: reduce(-(y * p.log()).sum(-1))
        case MeanSquaredError():
            return nn.MSELoss(reduction=loss.reduction)
        case Objective():
            return lambda output, y: output.sum()


def _binary_cross_entropy(loss: nn.BCELoss, p: Tensor, y: Tensor) -> Tensor:
    try:
        return loss(p, y)
    except RuntimeError:  # torch refuses p outside [0, 1], so a run that has gone to NaN could not show where
        return p.sum() * math.nan


# --- optimizer --------------------------------------------------------------------------------------------------


def _update(
    optimizer: Optimizer, parameters: list[Any], slots: Mapping[str, list[Any]], counts: list[Tensor]
) -> Callable[[list[Tensor]], None]:
    """The function that torch's `Optimizer.step` calls, on these parameters and slots; takes the gradients.

    The class is left out because constructing one imports torch._dynamo (1 s; torch/_compile.py, `_disable_dynamo`).
    """
    settings: dict[str, Any] = {"lr": optimizer.learning_rate, "maximize": False}
    if not isinstance(optimizer, SGD):
        settings |= {"state_steps": counts, "eps": optimizer.epsilon, "weight_decay": 0.0}
    match optimizer:
        case SGD():
            settings |= {"momentum": optimizer.momentum, "dampening": 0.0, "nesterov": optimizer.nesterov}
            settings |= {"weight_decay": optimizer.weight_decay}
            buffers = slots.get("velocity", [None] * len(parameters))
            return partial(sgd, parameters, momentum_buffer_list=buffers, **settings)
        case Adagrad():
            return partial(adagrad, parameters, state_sums=slots["accumulator"], lr_decay=0.0, **settings)
        case RMSprop():
            settings |= {"alpha": optimizer.rho, "momentum": optimizer.momentum, "centered": False, "grad_avgs": []}
            settings |= {"square_avgs": slots["mean_square"], "momentum_buffer_list": slots.get("velocity", [])}
            return partial(rmsprop, parameters, **settings)
        case Adam():
            settings |= {"beta1": optimizer.beta_1, "beta2": optimizer.beta_2, "amsgrad": False, "max_exp_avg_sqs": []}
            settings |= {"weight_decay": optimizer.weight_decay}
            step = adamw if optimizer.decay == "decoupled" else adam
            return partial(step, parameters, exp_avgs=slots["m"], exp_avg_sqs=slots["v"], **settings)


# --- what torch's own parts can say -----------------------------------------------------------------------------


def _check(case: Case) -> None:
    for node in case.nodes:
        if isinstance(node.op, LeakyReLU):
            _require(node.op, "slope_at_zero")
    loss, optimizer = case.loss, case.optimizer
    if reads_fused_logits(case):
        _require(loss, "fused")
    match loss:
        case BinaryCrossEntropy(reads="logits"):
            _require(loss, "logits_form")
        case BinaryCrossEntropy(reads="probabilities"):
            _require(loss, "clip_probability", "log_epsilon", "log_complement", "log_floor", "denominator_floor")
        case CategoricalCrossEntropy(reads="probabilities"):
            _require(loss, "clip_probability", "renormalize")
    if not isinstance(optimizer, SGD):
        _require(optimizer, "epsilon_placement")
    if isinstance(optimizer, SGD | RMSprop) and optimizer.momentum:
        _require(optimizer, "velocity")
    if isinstance(optimizer, SGD) and optimizer.momentum and optimizer.weight_decay:  # without momentum both are one
        _require(optimizer, "decay")


def _require(part: object, *fields: str) -> None:
    """Only what `CONVENTIONS` declare for these fields can be had."""
    kind = type(part).__name__
    for field in fields:
        offered, wanted = CONVENTIONS[kind][field], getattr(part, field)
        if wanted != offered:
            raise CannotExpress(f"torch computes {kind}.{field} as {offered!r}, the case says {wanted!r}")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
