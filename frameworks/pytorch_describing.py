"""What a torch model's parameters and buffers are, in the harness's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from harness.recipe import Parameter

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
            dtype=str(of.tensor.dtype).removeprefix("torch."),
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
