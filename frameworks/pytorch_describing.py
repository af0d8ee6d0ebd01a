"""What a torch model's parameters are, and its optimizer's slots and update rule, in the harness's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim.lr_scheduler import LRScheduler

from harness.case import SGD, Adagrad, Adam, Optimizer, RMSprop
from harness.conventions import TORCH
from harness.recipe import Parameter, Recipe

_MOMENTS = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max"}
_SLOTS: dict[type[optim.Optimizer], Mapping[str, str]] = {
    optim.SGD: {"momentum_buffer": "velocity"},
    optim.Adagrad: {"sum": "accumulator"},
    optim.RMSprop: {"square_avg": "mean_square", "momentum_buffer": "velocity"},
    **{kind: _MOMENTS for kind in (optim.Adam, optim.NAdam, optim.RAdam, optim.Adamax)},
}

_OPS: tuple[tuple[type[nn.Module], str, Mapping[str, str]], ...] = (
    (nn.Linear, "Dense", {"weight": "kernel", "bias": "bias"}),
    (_ConvTransposeNd, "ConvTranspose", {"weight": "kernel", "bias": "bias"}),
    (_ConvNd, "Conv", {"weight": "kernel", "bias": "bias"}),
    (
        _NormBase,
        "BatchNorm",
        {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
    ),
    (nn.LayerNorm, "LayerNorm", {"weight": "gamma", "bias": "beta"}),
    (nn.GroupNorm, "GroupNorm", {"weight": "gamma", "bias": "beta"}),
    (nn.RMSNorm, "RMSNorm", {"weight": "gamma"}),
    (nn.Embedding, "Embedding", {"weight": "embeddings"}),
    (nn.EmbeddingBag, "Embedding", {"weight": "embeddings"}),
    (nn.PReLU, "PReLU", {"weight": "alpha"}),
)
_CELLS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.LSTM, nn.LSTMCell), "LSTM"),
    ((nn.GRU, nn.GRUCell), "GRU"),
    ((nn.RNN, nn.RNNCell), "SimpleRNN"),
)
_GATES = {"weight_ih": "kernel", "weight_hh": "recurrent_kernel", "bias_ih": "bias", "bias_hh": "recurrent_bias"}
_ATTENTION = {"in_proj_weight": "in_kernel", "in_proj_bias": "in_bias", "bias_k": "", "bias_v": ""} | {
    f"{letter}_proj_weight": f"{word}_kernel" for letter, word in {"q": "query", "k": "key", "v": "value"}.items()
}


class Named(NamedTuple):
    """A parameter or buffer, with the module that holds it and that module's path."""

    tensor: Tensor
    path: str
    module: nn.Module
    attribute: str
    buffer: bool


def named(model: nn.Module) -> dict[str, Named]:
    """Parameters and buffers by torch's own names, in order of definition; a shared one under its first name."""
    found: dict[str, Named] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for buffer, held in ((False, module._parameters), (True, module._buffers)):
            for attribute, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + attribute] = Named(tensor, path, module, attribute, buffer)
    return found


def describe(model: nn.Module, optimizer: optim.Optimizer | None) -> tuple[Parameter, ...]:
    """The parameters of a model; trainable are those that the optimizer moves."""
    modules = dict(model.named_modules())
    groups = optimizer.param_groups if optimizer else [{"params": list(model.parameters())}]
    moved = {id(parameter) for group in groups for parameter in group["params"]}
    return tuple(
        Parameter(
            name=name,
            shape=tuple(of.tensor.shape),
            framework="pytorch",
            trainable=not of.buffer and of.tensor.requires_grad and id(of.tensor) in moved,
            buffer=of.buffer,
            **_meaning(model, modules, of),
        )
        for name, of in named(model).items()
    )


def _meaning(model: nn.Module, modules: Mapping[str, nn.Module], of: Named) -> dict[str, str]:
    path, _, inner = of.path.partition(".parametrizations")  # torch.nn.utils.parametrizations: owned by the layer
    layer = path.removesuffix("parametrizations").rstrip(".") if not inner else path
    owner, _, child = layer.rpartition(".")
    attention = modules.get(owner)
    if child == "out_proj" and isinstance(attention, nn.MultiheadAttention):
        op, role, layer = "MultiHeadAttention", {"weight": "out_kernel", "bias": "out_bias"}[of.attribute], owner
    else:
        op, role = _op_role(of.module, of.attribute)
    return {"layer": layer or type(model).__name__, "op": op, "role": role}


def _op_role(module: nn.Module, attribute: str) -> tuple[str, str]:
    if isinstance(module, nn.MultiheadAttention):
        return "MultiHeadAttention", _ATTENTION.get(attribute, "")
    for cells, op in _CELLS:
        if isinstance(module, cells):
            return op, _gate_role(attribute)
    for kind, op, roles in _OPS:
        if isinstance(module, kind):
            depthwise = op == "Conv" and getattr(module, "groups", 1) == getattr(module, "in_channels", 0) > 1
            return "DepthwiseConv" if depthwise else op, roles.get(attribute, "")
    return "", ""


def _gate_role(attribute: str) -> str:
    """`weight_hh_l1_reverse` is `recurrent_kernel_reverse_l1`; a cell's attributes have no layer."""
    gate, _, rest = attribute.partition("_l")
    layer, _, reverse = rest.partition("_")
    role = _GATES.get(gate, "")
    if not role:
        return ""
    return role + (f"_{reverse}" if reverse else "") + (f"_l{layer}" if layer not in ("", "0") else "")


# --- optimizers -------------------------------------------------------------------------------------------------


def slot_names(optimizer: optim.Optimizer) -> Mapping[str, str]:
    """Canonical names by torch's own; what is not named keeps torch's."""
    return next((names for kind, names in _SLOTS.items() if isinstance(optimizer, kind)), {})


def update_rule(recipe: Recipe) -> Optimizer | None:
    """The optimizer as the reference knows it, or None where it, or what comes before it, is none that it knows."""
    optimizer = recipe.optimizer
    if optimizer is None or recipe.schedule or recipe.after_backward or recipe.train_step:
        return None
    settings = [{name: _plain(value) for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
    if any(group != settings[0] for group in settings) or settings[0].get("maximize"):
        return None
    return _rule(type(optimizer), settings[0])


def _plain(value: Any) -> Any:
    match value:
        case Tensor():
            return value.item()
        case tuple() | list():
            return tuple(map(_plain, value))
    return value


def _rule(kind: type[optim.Optimizer], group: Mapping[str, Any]) -> Optimizer | None:
    lr = group["lr"]
    if kind is optim.SGD and not group["dampening"]:
        return SGD(
            learning_rate=lr,
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            velocity=TORCH["SGD"]["velocity"],
            weight_decay=group["weight_decay"],
            decay=TORCH["SGD"]["decay"],
        )
    if kind is optim.Adagrad and not group["lr_decay"] and not group["weight_decay"]:
        return Adagrad(
            learning_rate=lr,
            initial_accumulator=group["initial_accumulator_value"],
            epsilon=group["eps"],
            epsilon_placement=TORCH["Adagrad"]["epsilon_placement"],
        )
    if kind is optim.RMSprop and not group["centered"] and not group["weight_decay"]:
        return RMSprop(
            learning_rate=lr,
            rho=group["alpha"],
            momentum=group["momentum"],
            epsilon=group["eps"],
            epsilon_placement=TORCH["RMSprop"]["epsilon_placement"],
            velocity=TORCH["RMSprop"]["velocity"],
        )
    if kind in (optim.Adam, optim.AdamW) and not group["amsgrad"]:
        return Adam(
            learning_rate=lr,
            beta_1=group["betas"][0],
            beta_2=group["betas"][1],
            epsilon=group["eps"],
            epsilon_placement=TORCH["Adam"]["epsilon_placement"],
            weight_decay=group["weight_decay"],
            decay="decoupled" if kind is optim.AdamW or group.get("decoupled_weight_decay") else "coupled",
        )
    return None
