"""What comparing two models adds to their own training: python -m benchmarks.portcost.

The floor is each side's own loop as its user writes it (torch's zero_grad, backward, step; Keras' train_on_batch) in
float32 and in float64. A step costs what the longer of two runs has more than the shorter; start is what a run has
beside its steps (pairing, tracing, aligning). Peak memory is a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from benchmarks.loops import keras_dtype
from benchmarks.tables import Row, median, show

RATE = 0.01
WIDTHS = {"wide": (1600, 4, 8), "perceptron": (64, 3, 64), "large": (5000, 4, 8)}
"""Units, hidden layers, examples a batch."""

PAIRS = (
    "perceptron torch torch",
    "perceptron torch keras",
    "convolutional torch keras",
    "wide torch torch",
    "wide torch keras",
)

Loop = Callable[[int], Any]


@click.command(help=__doc__)
@click.option("--steps", default=20, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--only", default="", help="Pairs whose name contains this.")
@click.option("--large", is_flag=True, help="100 million parameters, two steps, instead.")
@click.option("--pair", help="One comparison in this process: prints seconds and peak memory.")
@click.option("--save", is_flag=True, help="Write reports/benchmarks/DATE-portcost.md too.")
def main(steps: int, rounds: int, only: str, large: bool, pair: str | None, save: bool) -> None:
    if pair:
        began = time.perf_counter()
        result = comparing(pair)(steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        click.echo(f"{result.verdict} {time.perf_counter() - began} {peak}")
        return
    pairs = ("large torch torch", "large torch keras") if large else PAIRS
    rows = [_row(name, 2 if large else steps, rounds, large) for name in pairs if only in name]
    target = "Targets: comparing adds at most 3 times the sides' own time; 100 million parameters within 16 GB."
    show("What comparing two models costs", rows, [f"Medians of {rounds} rounds. {target}"], save_as=_name(save, large))


def _name(save: bool, large: bool) -> str | None:
    return ("portcost-large" if large else "portcost") if save else None


def _row(pair: str, steps: int, rounds: int, large: bool) -> Row:
    _, *sides = pair.split()
    row: Row = {"pair": pair, "parameters": _size(pair)}
    if not large:
        owns = [own(pair, side, precision) for side in sides for precision in ("float32", "float64")]
        floor = sum(_per_step(loop, steps, rounds)[0] for loop in owns)
        cost, start = _per_step(comparing(pair), steps, rounds)
        row |= {"own step, ms": floor * 1e3, "compared step, ms": cost * 1e3, "adds, times": cost / floor - 1}
        row |= {"start, s": start}
    command = [sys.executable, "-m", "benchmarks.portcost", "--pair", pair, "--steps", str(steps)]
    verdict, seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-3:]
    return {**row, "verdict": verdict, "seconds": float(seconds), "peak, GiB": float(peak)}


def _per_step(loop: Loop, steps: int, rounds: int) -> tuple[float, float]:
    """Seconds a step, and seconds beside the steps."""
    _ = loop(1)
    times: dict[int, list[float]] = {steps: [], 2 * steps: []}
    for _ in range(rounds):
        for count, taken in times.items():
            began = time.perf_counter()
            _ = loop(count)
            taken.append(time.perf_counter() - began)
    short, long = (median(taken) for taken in times.values())
    return (long - short) / steps, max(2 * short - long, 0.0)


def comparing(pair: str) -> Loop:
    import harness

    name, *sides = pair.split()
    x, y = data(name)
    made = [_torch_side(name) if side == "torch" else _keras_model(name) for side in sides]
    if "keras" in sides:
        harness.transfer(made[0], made[1])
        x = (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1))) if x.ndim == 4 else x
    return lambda count: harness.compare(made[0], made[1], x, y, steps=count, batch_size=_batch(name))


def own(pair: str, side: str, precision: str) -> Loop:
    """A loop of so many steps, as the user of the framework writes it."""
    name = pair.split()[0]
    x, y = data(name)
    return _torch_loop(name, x, y, precision) if side == "torch" else _keras_loop(name, x, y, precision)


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (1, 28, 28) if name == "convolutional" else (WIDTHS[name][0],)
    examples = 2 * _batch(name)
    return rng.standard_normal((examples, *shape)).astype(np.float32), rng.integers(0, 10, examples)


def _batch(name: str) -> int:
    return 64 if name == "convolutional" else WIDTHS[name][2]


def _size(pair: str) -> str:
    return f"{sum(p.numel() for p in _torch_model(pair.split()[0]).parameters()):,}"


# --- the models -------------------------------------------------------------------------------------------------


def _torch_model(name: str) -> Any:
    import torch
    from torch import nn

    _ = torch.manual_seed(0)
    if name == "convolutional":
        blocks = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU()]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    units, hidden, _ = WIDTHS[name]
    layers = [layer for _ in range(hidden) for layer in (nn.Linear(units, units), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(units, 10))


def _torch_side(name: str) -> Any:
    import torch

    import harness

    model = _torch_model(name)
    return harness.side(model, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), RATE))


def _torch_loop(name: str, x: np.ndarray, y: np.ndarray, precision: str) -> Loop:
    import torch

    model = _torch_model(name).to(getattr(torch, precision))
    optimizer, loss = torch.optim.SGD(model.parameters(), RATE), torch.nn.CrossEntropyLoss()
    batch = _batch(name)
    inputs, targets = torch.tensor(x[:batch], dtype=getattr(torch, precision)), torch.tensor(y[:batch])

    def loop(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            loss(model(inputs), targets).backward()
            _ = optimizer.step()

    return loop


def _keras_model(name: str, precision: str = "float32") -> Any:
    import keras

    layers: Any = keras.layers
    with keras_dtype(precision):
        if name == "convolutional":
            shape, parts = (28, 28, 1), [layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()]
            parts += [layers.Conv2D(32, 3, activation="relu"), layers.GlobalAveragePooling2D()]
        else:
            units, hidden, _ = WIDTHS[name]
            shape, parts = (units,), [layers.Dense(units, "relu") for _ in range(hidden)]
        model = keras.Sequential([keras.Input(shape), *parts, layers.Dense(10)])
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _keras_loop(name: str, x: np.ndarray, y: np.ndarray, precision: str) -> Loop:
    model, batch = _keras_model(name, precision), _batch(name)
    inputs = (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)[:batch].astype(precision)

    def loop(count: int) -> None:
        with keras_dtype(precision):
            for _ in range(count):
                _ = model.train_on_batch(inputs, y[:batch])

    return loop


if __name__ == "__main__":
    main()
