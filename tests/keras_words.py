"""What a text in Keras's words makes, and the part that Keras's own readers see in it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import losses, optimizers, regularizers

from frameworks.keras_objectives import read_loss
from frameworks.keras_penalties import read_penalty
from frameworks.keras_rules import read_clipping, read_optimizer
from harness import objectives, rules, terms
from harness.objectives_standard import standard_losses

RNG = np.random.default_rng(3)
EXAMPLES, CLASSES = 6, 4
OUTPUT, TARGETS = RNG.normal(size=(EXAMPLES, CLASSES)), RNG.normal(size=(EXAMPLES, CLASSES))
CLASS_OF = RNG.integers(CLASSES, size=EXAMPLES)
RATE = 0.3


def made(text: str, **names: Any) -> list[Any]:
    """What each alternative and each step of a text makes."""
    own = {"keras": keras, "loss": losses.CategoricalCrossentropy, "optimizer": functools.partial(optimizers.SGD, 0.1)}
    scope = {**own, "learning_rate": RATE, "y": CLASS_OF, "classes": CLASSES, **names}
    return [eval(step, scope) for one in text.split(" or ") for step in one.split(" then ")]


def read(thing: Any, like: Any) -> Any:
    """The part of a Keras object that is of a kind."""
    if isinstance(thing, losses.Loss):
        loss = read_loss(thing)
        return loss and (loss.targets if isinstance(like, objectives.Targets) else loss.term)
    if isinstance(thing, regularizers.Regularizer):
        return read_penalty({"kernel": thing})
    return read_clipping(thing) if isinstance(like, rules.Clipping) else read_optimizer(thing)


def loss_of(term: Any, **changes: Any) -> objectives.Loss:
    """As Keras reduces one."""
    found = next(loss for loss in standard_losses() if type(loss.term) is terms.SquaredError and loss.inner == "mean")
    return replace(found, term=term, **changes)
