"""Layers of both frameworks as lists of parameters with values, for the tests of pairing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.recipe import Parameter


@dataclass(frozen=True, kw_only=True)
class Built:
    """A model's parameters and their values."""

    parameters: list[Parameter]
    values: dict[str, np.ndarray]


def built(framework: str, *layers: tuple[str, str, Mapping[str, np.ndarray]]) -> Built:
    """Layers as (path, op, {role: array}); unknown roles are written `?name`."""
    parameters, values = [], {}
    for layer, op, arrays in layers:
        for role, array in arrays.items():
            name = f"{layer}.{role.lstrip('?')}"
            parameters.append(
                Parameter(
                    name=name,
                    shape=array.shape,
                    layer=layer,
                    op=op,
                    role="" if role.startswith("?") else role,
                    framework=framework,
                    buffer=role.startswith("moving"),
                )
            )
            values[name] = array
    return Built(parameters=parameters, values=values)


TORCH_ROLES: dict[str, dict[str, str]] = {
    "": {"weight": "kernel", "bias": "bias"},
    "RNN": {"weight_ih": "kernel", "weight_hh": "recurrent_kernel", "bias_ih": "bias", "bias_hh": "recurrent_bias"},
    "MultiHeadAttention": {
        "in_proj_weight": "in_kernel",
        "in_proj_bias": "in_bias",
        "out_proj.weight": "out_kernel",
        "out_proj.bias": "out_bias",
    },
    "BatchNorm": {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
    "PReLU": {"weight": "alpha"},
}


def torch_layer(layer: str, op: str, module, roles: str = "") -> Built:
    """A torch module's parameters; RNN levels are one after another, as torch defines them."""
    names = TORCH_ROLES[roles]
    parameters, values = [], {}
    arrays = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in arrays.items():
        if name == "num_batches_tracked":
            continue
        way = "_reverse" if name.endswith("_reverse") else ""
        stem = name.removesuffix("_reverse")
        role = names[stem.rsplit("_l", 1)[0] if roles == "RNN" else stem] + way
        array = tensor.detach().numpy()
        parameters.append(
            Parameter(name=f"{layer}.{name}", shape=array.shape, layer=layer, op=op, role=role, framework="pytorch")
        )
        values[f"{layer}.{name}"] = array
    return Built(parameters=parameters, values=values)


def keras_layer(layer: str, op: str, module, roles: Sequence[str]) -> Built:
    """A Keras layer's weights, with their roles in order."""
    parameters, values = [], {}
    for role, variable in zip(roles, module.weights, strict=True):
        name = f"{layer}/{role}"
        array = np.array(variable.numpy())
        parameters.append(Parameter(name=name, shape=array.shape, layer=layer, op=op, role=role, framework="keras"))
        values[name] = array
    return Built(parameters=parameters, values=values)
