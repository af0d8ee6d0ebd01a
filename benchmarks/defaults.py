"""Where the frameworks' defaults differ: the README's tables, read from the default objects by the adapters' readers.

python -m benchmarks.defaults [--write]. Needs every framework. Layers are read in a training forward pass in float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import jax
import keras
import numpy as np
import pandas as pd
import torch
from keras import layers
from torch import nn

import frameworks as registry
from frameworks.keras_objectives import read_loss as read_keras_loss
from frameworks.keras_rules import read_optimizer as read_keras_optimizer
from frameworks.pytorch_objectives import read_loss as read_torch_loss
from frameworks.pytorch_rules import read_optimizer as read_torch_optimizer
from harness.cause import kind
from harness.causes import named, rows_of
from harness.editing import Edit, Parts, differing
from harness.recipe import Batch, Recipe

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- defaults -->\n", "<!-- end of defaults -->\n"

_RNG = np.random.default_rng(0)
FLAT, SEQUENCE, IMAGE = (_RNG.normal(size=shape).astype("float32") for shape in ((3, 8), (2, 5, 8), (2, 4, 6, 6)))
INDICES = _RNG.integers(0, 8, (2, 5))

Layer = tuple[Callable[[], Any], Callable[[], Any], np.ndarray]


def _activation(module: Callable[[], Any], name: str) -> Layer:
    return module, lambda: layers.Activation(name), FLAT


LAYERS: Mapping[str, Layer] = {
    "Dense": (lambda: nn.Linear(8, 3), lambda: layers.Dense(3), FLAT),
    "Embedding": (lambda: nn.Embedding(8, 3), lambda: layers.Embedding(8, 3), INDICES),
    "Flatten": (nn.Flatten, layers.Flatten, IMAGE),
    "Conv2D": (lambda: nn.Conv2d(4, 3, 3), lambda: layers.Conv2D(3, 3), IMAGE),
    "Conv2DTranspose": (lambda: nn.ConvTranspose2d(4, 3, 3), lambda: layers.Conv2DTranspose(3, 3), IMAGE),
    "MaxPool2D": (lambda: nn.MaxPool2d(2), lambda: layers.MaxPooling2D(2), IMAGE),
    "AveragePool2D, padded": (
        lambda: nn.AvgPool2d(3, 1, padding=1),
        lambda: layers.AveragePooling2D(3, 1, padding="same"),
        IMAGE,
    ),
    "UpSampling2D": (lambda: nn.Upsample(scale_factor=2), lambda: layers.UpSampling2D(2), IMAGE),
    "BatchNorm": (lambda: nn.BatchNorm2d(4), layers.BatchNormalization, IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm(8), layers.LayerNormalization, FLAT),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: layers.GroupNormalization(2), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(8), layers.RMSNormalization, FLAT),
    "Dropout": (lambda: nn.Dropout(0.5), lambda: layers.Dropout(0.5), FLAT),
    "SimpleRNN": (lambda: nn.RNN(8, 3), lambda: layers.SimpleRNN(3), SEQUENCE),
    "LSTM": (lambda: nn.LSTM(8, 3), lambda: layers.LSTM(3), SEQUENCE),
    "GRU": (lambda: nn.GRU(8, 3), lambda: layers.GRU(3), SEQUENCE),
    "MultiHeadAttention": (
        lambda: SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True)),
        lambda: _self_attention(layers.MultiHeadAttention(2, 4)),
        SEQUENCE,
    ),
    "ReLU": (nn.ReLU, layers.ReLU, FLAT),
    "LeakyReLU": (nn.LeakyReLU, layers.LeakyReLU, FLAT),
    "PReLU": (nn.PReLU, layers.PReLU, IMAGE),
    "ELU": (nn.ELU, layers.ELU, FLAT),
    "Softmax": (lambda: nn.Softmax(-1), layers.Softmax, FLAT),
    "ReLU6": _activation(nn.ReLU6, "relu6"),
    "SELU": _activation(nn.SELU, "selu"),
    "CELU": _activation(nn.CELU, "celu"),
    "GELU": _activation(nn.GELU, "gelu"),
    "SiLU": _activation(nn.SiLU, "silu"),
    "Mish": _activation(nn.Mish, "mish"),
    "GLU": _activation(nn.GLU, "glu"),
    "Softplus": _activation(nn.Softplus, "softplus"),
    "Softsign": _activation(nn.Softsign, "softsign"),
    "LogSigmoid": _activation(nn.LogSigmoid, "log_sigmoid"),
    "HardSigmoid": _activation(nn.Hardsigmoid, "hard_sigmoid"),
    "HardSwish": _activation(nn.Hardswish, "hard_silu"),
    "HardTanh": _activation(nn.Hardtanh, "hard_tanh"),
    "TanhShrink": _activation(nn.Tanhshrink, "tanh_shrink"),
    "SoftShrink": _activation(nn.Softshrink, "soft_shrink"),
    "HardShrink": _activation(nn.Hardshrink, "hard_shrink"),
}
"""PyTorch's and Keras's layer, with what both must be told, and the input (images channels first)."""

JAX = {
    **{"ReLU": "relu", "Softmax": "softmax", "GELU": "gelu", "SiLU": "silu", "Softplus": "softplus"},
    **{"Softsign": "soft_sign", "LogSigmoid": "log_sigmoid"},
}
"""Functions of jax.nn that the adapter reads."""

LOSSES = {
    "squared error": (nn.MSELoss, keras.losses.MeanSquaredError),
    "absolute error": (nn.L1Loss, keras.losses.MeanAbsoluteError),
    "Huber": (nn.HuberLoss, keras.losses.Huber),
    "Poisson": (nn.PoissonNLLLoss, keras.losses.Poisson),
    "binary cross-entropy": (nn.BCELoss, keras.losses.BinaryCrossentropy),
    "cross-entropy": (nn.CrossEntropyLoss, keras.losses.SparseCategoricalCrossentropy),
    "KL divergence": (nn.KLDivLoss, keras.losses.KLDivergence),
    "categorical hinge": (nn.MultiMarginLoss, keras.losses.CategoricalHinge),
}

OPTIMIZERS = {
    name: (getattr(torch.optim, name), getattr(keras.optimizers, "Nadam" if name == "NAdam" else name))
    for name in ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam")
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that is not the same in all frameworks: its value in each, as text, and the causes that it is."""

    field: str
    values: Mapping[str, str]
    cause: str


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Write the section into the README.")
def main(write: bool) -> None:
    text = section()
    if write:
        README.write_text(rewritten(README.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        click.echo(text)


def rewritten(readme: str, text: str) -> str:
    """The README with the section between its two marks replaced."""
    return re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: text, readme, flags=re.DOTALL)


def section() -> str:
    """The tables of layers, losses and optimizers."""
    tables = {
        "layer": [(name, found) for name, of in layer_parts().items() for found in differences(of)],
        "loss": [(name, found) for name, of in loss_parts().items() for found in differences(of, alone=True)],
        "optimizer": [(name, found) for name, of in optimizer_parts().items() for found in differences(of, alone=True)],
    }
    return "".join(f"\n{_table(title, rows)}\n" for title, rows in tables.items()) + "\n"


def _table(title: str, rows: Iterable[tuple[str, Difference]]) -> str:
    """A row for each difference, with all that have it."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name, of in rows:
        kinds.setdefault((of.field, *(of.values.get(side, "") for side in SIDES), of.cause), []).append(name)
    columns = [title, "field", *SIDES.values(), "cause"]
    table = pd.DataFrame([[", ".join(names), *row] for row, names in kinds.items()], columns=columns)
    return table.loc[:, (table != "").any()].to_markdown(index=False, disable_numparse=True)


# --- differences ------------------------------------------------------------------------------------------------


def differences(parts: Mapping[str, Parts], alone: bool = False) -> Iterator[Difference]:
    """The fields in which some framework is not as the first. Fields that one cause has beside it (another form's
    constants) go without saying, unless each is named alone."""
    _, first = next(iter(parts.items()))
    met: dict[tuple[int, str], str] = {}
    for of in parts.values():
        edits = [edit for edit in differing(first, of) if _in_words(edit.before) != _in_words(edit.after)]
        for edit in edits if alone else [lead for cause in named(edits, first) for lead in _leads(cause, first)]:
            rows = [row.id for row in rows_of(edit, first) if row.id != "layer-different" or not edit.field]
            _ = met.setdefault((edit.position, edit.field), " or ".join(f"`{row}`" for row in rows))
    for (position, field), cause in met.items():
        values = {
            side: _in_words(getattr(of[position], field)) if field else kind(of[position]) for side, of in parts.items()
        }
        yield Difference(field=field or "kind", values=values, cause=cause)


def _leads(cause: Named, parts: Parts) -> list[Edit]:
    return [edit for edit in cause.edits if cause.id in [row.id for row in rows_of(edit, parts)]]


def _in_words(value: Any) -> str:
    """With the digits that float32 has: a constant that passes through it is the same one."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_in_words, value))})"
    if isinstance(value, float):
        return f"{value:.7g}"
    return "none" if value is None else str(value)


# --- what the readers read --------------------------------------------------------------------------------------


def layer_parts() -> dict[str, dict[str, Parts]]:
    """By layer, then framework, its ops: of one model with all layers beside each other."""
    inputs = [x for _, _, x in LAYERS.values()]
    places = {name: f"layer{i}" for i, name in enumerate(LAYERS)}
    with torch.random.fork_rng([]):
        module = Beside(nn.ModuleDict({places[name]: of() for name, (of, _, _) in LAYERS.items()}))
    heads = {place: keras.Input(_last(x).shape[1:], dtype=str(x.dtype)) for place, x in zip(places.values(), inputs)}
    outputs = [_placed(of(), places[name])(heads[places[name]]) for name, (_, of, _) in LAYERS.items()]
    model = keras.Model(list(heads.values()), outputs)
    read = {
        "pytorch": _calls("pytorch", Recipe(model=module, training=True), inputs),
        "keras": _calls("keras", Recipe(model=model, training=True), [_last(x) for x in inputs]),
    }
    found = {name: {side: _ops(of, place) for side, of in read.items()} for name, place in places.items()}
    functions = Recipe(model=lambda p, x: [getattr(jax.nn, f)(x + p["b"]) for f in JAX.values()], params={"b": FLAT})
    of_jax = _calls("jax", functions, [FLAT])
    for name, function in JAX.items():
        found[name]["jax"] = of_jax[function].ops
    return found
