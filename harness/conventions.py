"""Number-changing conventions by framework, as named presets, and how a case's `native` fields are filled from one.

A preset maps (kind of part, field) to a value. An adapter declares its framework's preset; the reference then speaks
exactly these, so that a `rounding` verdict proves the declaration. Sources are the installed packages' own files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from harness.case import NATIVE, Case, HarnessError, fields_of

Conventions = Mapping[str, Mapping[str, Any]]

# torch 2.13: torch/optim/{sgd,adagrad,rmsprop,adam}.py (_single_tensor_*); nn.BCELoss clamps log at -100 and p(1-p) at
# 1e-12 in its derivative, and BCEWithLogitsLoss forms (1 - y) z - log_sigmoid(z) (aten/src/ATen/native/Loss.cpp).
TORCH: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {
        "logits_form": "log_sigmoid",
        **{"fused": False, "clip_probability": 0.0, "log_epsilon": 0.0, "log_complement": "log1p"},
        **{"log_floor": -100.0, "denominator_floor": 1e-12},
    },
    "CategoricalCrossEntropy": {"fused": False, "clip_probability": 0.0, "renormalize": "none"},
    "SGD": {"velocity": "gradient", "decay": "coupled"},
    "Adagrad": {"initial_accumulator": 0.0, "epsilon": 1e-10, "epsilon_placement": "outside_sqrt"},
    "RMSprop": {"epsilon": 1e-8, "epsilon_placement": "outside_sqrt", "velocity": "gradient"},
    "Adam": {"epsilon": 1e-8, "epsilon_placement": "after_correction", "decay": "decoupled"},
}

# keras 3.15: keras/src/optimizers/{sgd,adagrad,rmsprop,adam,base_optimizer}.py; keras/src/backend/tensorflow/nn.py
# (binary_crossentropy, [sparse_]categorical_crossentropy, _get_logits); epsilon 1e-7 from keras/src/backend/config.py.
KERAS: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {
        "logits_form": "max",
        **{"fused": True, "clip_probability": 1e-7, "log_epsilon": 0.0, "log_complement": "log"},
        **{"log_floor": -math.inf, "denominator_floor": 0.0},
    },
    "CategoricalCrossEntropy": {"fused": True, "clip_probability": 1e-7, "renormalize": "keras"},
    "SGD": {"velocity": "step", "decay": "decoupled"},
    "Adagrad": {"initial_accumulator": 0.1, "epsilon": 1e-7, "epsilon_placement": "inside_sqrt"},
    "RMSprop": {"epsilon": 1e-7, "epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon": 1e-7, "epsilon_placement": "before_correction", "decay": "decoupled"},
}

# The papers' own formulas: Adam, arXiv:1412.6980 algorithm 1; AdamW, arXiv:1711.05101 algorithm 2; Adagrad, Duchi et
# al., JMLR 12 (2011), figure 1 (delta added to the root); RMSprop, Hinton's Coursera lecture 6e; momentum, Sutskever et
# al. 2013, eq. 1 (the rate inside the velocity).
PAPER: Conventions = {
    "LeakyReLU": {"slope_at_zero": "negative_slope"},
    "BinaryCrossEntropy": {
        "logits_form": "max",
        **{"fused": False, "clip_probability": 0.0, "log_epsilon": 0.0, "log_complement": "log1p"},
        **{"log_floor": -math.inf, "denominator_floor": 0.0},
    },
    "CategoricalCrossEntropy": {"fused": False, "clip_probability": 0.0, "renormalize": "none"},
    "SGD": {"velocity": "step", "decay": "coupled"},
    "Adagrad": {"initial_accumulator": 0.0, "epsilon": 1e-8, "epsilon_placement": "outside_sqrt"},
    "RMSprop": {"epsilon": 1e-8, "epsilon_placement": "inside_sqrt", "velocity": "step"},
    "Adam": {"epsilon": 1e-8, "epsilon_placement": "after_correction", "decay": "decoupled"},
}

PRESETS: Mapping[str, Conventions] = {"torch": TORCH, "keras": KERAS, "paper": PAPER}


def resolve(case: Case, conventions: Conventions) -> Case:
    """The case with every `native` field replaced by what `conventions` say.

    Raises HarnessError where they do not say it.
    """
    nodes = tuple(dataclasses.replace(node, op=_filled(node.op, conventions)) for node in case.nodes)
    return dataclasses.replace(
        case, nodes=nodes, loss=_filled(case.loss, conventions), optimizer=_filled(case.optimizer, conventions)
    )


def _filled(part: Any, conventions: Conventions) -> Any:
    kind = type(part).__name__
    native = [name for name, value in fields_of(part).items() if value == NATIVE]
    unknown = [name for name in native if name not in conventions.get(kind, {})]
    if unknown:
        raise HarnessError(f"{kind}.{unknown[0]} is 'native', but no convention is declared for it; write its value")
    chosen: dict[str, Any] = {name: conventions[kind][name] for name in native}
    if (
        chosen.get("renormalize") == "keras"
    ):  # keras 3.15 divides by the sum for one-hot targets, log-softmaxes for indices
        chosen["renormalize"] = "softmax" if part.sparse else "sum"
    return dataclasses.replace(part, **chosen) if chosen else part
