"""The data sets by name: scikit-learn's bundled real data, a three-feature toy, and none at all.

Inputs are standardised and rounded to float32 once; both precisions use the rounded values.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.case import CannotRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """x (examples, features) and y (examples, outputs), float64 holding float32 values; y (examples,) int64, classes.

    The test part never trains; `task` says which score it gets.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    task: str


def breast_cancer() -> Data:
    """569 tumours, 30 measurements, malignant 0 or benign 1: 512 to train, 57 to test."""
    table = bundled("breast_cancer.csv", delimiter=",", skiprows=1)
    return _split(table[:, :-1], table[:, -1:], train=512, task="binary")


def digits() -> Data:
    """1797 images of 8 x 8 grey values, ten classes: 1536 to train, 261 to test."""
    table = bundled("digits.csv.gz", delimiter=",")
    return _split(table[:, :-1], table[:, -1].astype(np.int64), train=1536, task="classes")


def diabetes() -> Data:
    """442 patients, 10 measurements, disease progression after a year (standardised): 384 to train, 58 to test."""
    x, y = bundled("diabetes_data_raw.csv.gz"), bundled("diabetes_target.csv.gz")
    target = (y - np.mean(y)) / np.std(y)
    return _split(x, target[:, None], train=384, task="regression")


def toy() -> Data:
    """Eight animals by weight, length and ear length on a 0.1 grid, cat 0 or dog 1: small enough to follow by hand."""
    x = [[0.4, 0.5, 0.6], [0.3, 0.4, 0.7], [0.5, 0.5, 0.5], [0.4, 0.3, 0.6]]
    x += [[0.9, 0.8, 0.3], [0.7, 0.9, 0.4], [0.8, 0.7, 0.2], [1.0, 0.9, 0.4]]
    inputs, labels = _float32(np.array(x)), np.repeat([0.0, 1.0], 4)[:, None]
    return Data(x=inputs, y=labels, x_test=inputs, y_test=labels, task="binary")


def none() -> Data:
    """No data: gradient descent on a function of the parameters alone."""
    nothing = np.zeros((1, 1))
    return Data(x=nothing, y=nothing, x_test=nothing, y_test=nothing, task="landscape")


DATASETS: dict[str, Callable[[], Data]] = {
    "breast_cancer": breast_cancer,
    "digits": digits,
    "diabetes": diabetes,
    "toy": toy,
    "none": none,
}


def bundled(file: str, **layout: Any) -> np.ndarray:
    """A table that comes with scikit-learn (sklearn/datasets/data), read without the second that importing it takes.

    layout: how numpy.loadtxt is to read it.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise CannotRun("the data sets come with scikit-learn, which is not installed; run: pip install scikit-learn")
    return np.loadtxt(Path(spec.submodule_search_locations[0], "datasets", "data", file), **layout)


def _split(x: np.ndarray, y: np.ndarray, *, train: int, task: str) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    spread = x[:train].std(axis=0)
    x = (x - x[:train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if y.dtype != np.int64:
        y = _float32(y)
    x = _float32(x)
    return Data(x=x[:train], y=y[:train], x_test=x[train:], y_test=y[train:], task=task)


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)
