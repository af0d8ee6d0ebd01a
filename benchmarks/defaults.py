"""Where the frameworks' defaults differ: the README's tables, read from the default objects by the adapters' readers.

python -m benchmarks.defaults [--write]. Needs every framework. Layers are read in a training forward pass in float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from harness.calls import Call
from harness.cause import kind
from harness.causes import Named, named, rows_of
from harness.editing import Edit, Parts, differing
from harness.objectives import Loss
from harness.recipe import Batch, Recipe

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- defaults -->\n", "<!-- end of defaults -->\n"

_RNG = np.random.default_rng(0)
FLAT, SEQUENCE, IMAGE = (_RNG.normal(size=shape).astype("float32") for shape in ((3, 8), (2, 5, 8), (2, 4, 6, 6)))
INDICES = _RNG.integers(0, 8, (2, 5))

Layer = tuple[Callable[..., Any], Callable[..., Any], np.ndarray]


def _activation(module: Callable[..., Any], name: str) -> Layer:
    return module, partial(layers.Activation, name), FLAT


LAYERS: Mapping[str, Layer] = {
    "Dense": (partial(nn.Linear, 8, 3), partial(layers.Dense, 3), FLAT),
    "Embedding": (partial(nn.Embedding, 8, 3), partial(layers.Embedding, 8, 3), INDICES),
    "Flatten": (nn.Flatten, layers.Flatten, IMAGE),
    "Conv2D": (partial(nn.Conv2d, 4, 3, 3), partial(layers.Conv2D, 3, 3), IMAGE),
    "Conv2DTranspose": (partial(nn.ConvTranspose2d, 4, 3, 3), partial(layers.Conv2DTranspose, 3, 3), IMAGE),
    "MaxPool2D": (partial(nn.MaxPool2d, 2), partial(layers.MaxPooling2D, 2), IMAGE),
    "padded AveragePool2D": (
        partial(nn.AvgPool2d, 3, 1, padding=1),
        partial(layers.AveragePooling2D, 3, 1, padding="same"),
        IMAGE,
    ),
    "UpSampling2D": (partial(nn.Upsample, scale_factor=2), partial(layers.UpSampling2D, 2), IMAGE),
    "bilinear UpSampling2D": (
        partial(nn.Upsample, scale_factor=2, mode="bilinear"),
        partial(layers.UpSampling2D, 2, interpolation="bilinear"),
        IMAGE,
    ),
    "BatchNorm": (partial(nn.BatchNorm2d, 4), layers.BatchNormalization, IMAGE),
    "LayerNorm": (partial(nn.LayerNorm, 8), layers.LayerNormalization, FLAT),
    "GroupNorm": (partial(nn.GroupNorm, 2, 4), partial(layers.GroupNormalization, 2), IMAGE),
    "RMSNorm": (partial(nn.RMSNorm, 8), layers.RMSNormalization, FLAT),
    "Dropout": (partial(nn.Dropout, 0.5), partial(layers.Dropout, 0.5), FLAT),
    "SimpleRNN": (partial(nn.RNN, 8, 3), partial(layers.SimpleRNN, 3), SEQUENCE),
    "LSTM": (partial(nn.LSTM, 8, 3), partial(layers.LSTM, 3), SEQUENCE),
    "GRU": (partial(nn.GRU, 8, 3), partial(layers.GRU, 3), SEQUENCE),
    "MultiHeadAttention": (
        partial(nn.MultiheadAttention, 8, 2, batch_first=True),
        partial(layers.MultiHeadAttention, 2, 4),
        SEQUENCE,
    ),
    "Attention": (lambda: DotProductAttention(), layers.Attention, SEQUENCE),
    "ReLU": (nn.ReLU, layers.ReLU, FLAT),
    "LeakyReLU": (nn.LeakyReLU, layers.LeakyReLU, FLAT),
    "PReLU": (nn.PReLU, layers.PReLU, IMAGE),
    "ELU": (nn.ELU, layers.ELU, FLAT),
    "Softmax": (partial(nn.Softmax, -1), layers.Softmax, FLAT),
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


SIDES = {"pytorch": "PyTorch", "keras": "Keras", "jax": "JAX"}


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
    """The tables of layers, losses and optimizers; behind them what was read too and has no difference."""
    read = {"layer": layer_parts(), "loss": loss_parts(), "optimizer": optimizer_parts()}
    found = {
        title: {name: list(differences(parts, alone=title != "layer")) for name, parts in of.items()}
        for title, of in read.items()
    }
    same = ", ".join(name for of in found.values() for name, differs in of.items() if not differs)
    tables = "\n\n".join(_table(title, of) for title, of in found.items())
    return f"\n{tables}\n\nRead too, and the same: {same}.\n\n"


def _table(title: str, found: Mapping[str, Sequence[Difference]]) -> str:
    """A row for each difference, with all that have it."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, differs in found.items():
        for of in differs:
            rows.setdefault((of.field, *(of.values.get(side, "") for side in SIDES), of.cause), []).append(name)
    columns = [title, "field", *SIDES.values(), "cause"]
    table = pd.DataFrame([[", ".join(names), *row] for row, names in rows.items()], columns=columns)
    padded = table.loc[:, (table != "").any()].to_markdown(index=False, disable_numparse=True)
    return re.sub(r" {2,}|(?<=:--)-+", lambda match: " " if match[0].startswith(" ") else "", padded)


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


class Beside(nn.Module):
    """Layers beside each other, each with an input of its own."""

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, *inputs: torch.Tensor) -> list[Any]:
        return [_called(block, x) for block, x in zip(self.blocks.values(), inputs, strict=True)]


class DotProductAttention(nn.Module):
    """torch has it as a function."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value)


def _called(layer: Any, x: Any) -> Any:
    """On an input, which is attention's query, key and value."""
    if isinstance(layer, nn.MultiheadAttention | DotProductAttention | layers.MultiHeadAttention):
        return layer(x, x, x)
    return layer([x, x, x] if isinstance(layer, layers.Attention) else x)


def layer_parts() -> dict[str, dict[str, Parts]]:
    """By layer, then framework, its ops: of one model with all layers beside each other."""
    places = {name: f"layer{i}" for i, name in enumerate(LAYERS)}
    inputs = [x for _, _, x in LAYERS.values()]
    lasts = [np.moveaxis(x, 1, -1) if x is IMAGE else x for x in inputs]
    module = Beside({places[name]: of() for name, (of, _, _) in LAYERS.items()})
    heads = [keras.Input(x.shape[1:], dtype=str(x.dtype)) for x in lasts]
    made = [of(name=places[name]) for name, (_, of, _) in LAYERS.items()]
    model = keras.Model(heads, [_called(layer, x) for layer, x in zip(made, heads, strict=True)])
    of_torch = _calls("pytorch", Recipe(model=module, training=True), inputs)
    of_keras = _calls("keras", Recipe(model=model, training=True), lasts)
    found: dict[str, dict[str, Parts]] = {
        name: {"pytorch": _ops(of_torch, f"blocks.{place}"), "keras": _ops(of_keras, place)}
        for name, place in places.items()
    }
    functions = Recipe(model=lambda p, x: [getattr(jax.nn, f)(x + p["b"]) for f in JAX.values()], params={"b": FLAT})
    of_jax = _calls("jax", functions, [FLAT])
    for name, function in JAX.items():
        found[name]["jax"] = of_jax[function].ops
    return found


def _calls(framework: str, recipe: Recipe, inputs: Sequence[np.ndarray]) -> Mapping[str, Call]:
    watched = registry.models(framework).watch(recipe, "float32", False)
    batch = Batch(inputs=tuple(inputs))
    return watched.calls(batch, list(watched.step(batch).activations))


def _ops(calls: Mapping[str, Call], place: str) -> Parts:
    """Of the layer's first output."""
    return calls[place].ops


def loss_parts() -> dict[str, dict[str, Parts]]:
    """By loss, then framework: its term, its targets and the rest."""
    read = {
        name: {"pytorch": read_torch_loss(of()), "keras": read_keras_loss(other())}
        for name, (of, other) in LOSSES.items()
    }
    return {name: {side: _loss(of) for side, of in sides.items()} for name, sides in read.items()}


def _loss(loss: Loss | None) -> Parts:
    assert loss is not None
    return loss.term, loss.targets, replace(loss, term=None, targets=None)  # type: ignore[arg-type]


def optimizer_parts() -> dict[str, dict[str, Parts]]:
    """By optimizer, then framework."""
    return {
        name: {
            "pytorch": (read_torch_optimizer(of([nn.Parameter(torch.zeros(1))])),),
            "keras": (read_keras_optimizer(other()),),
        }
        for name, (of, other) in OPTIMIZERS.items()
    }


if __name__ == "__main__":
    main()
