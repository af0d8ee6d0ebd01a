"""The data sets are scikit-learn's, read from its files without importing it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from harness.data import DATASETS, bundled


def test_files_hold_what_the_loaders_return_bit_for_bit() -> None:
    cancer, digits = bundled("breast_cancer.csv", delimiter=",", skiprows=1), bundled("digits.csv.gz", delimiter=",")
    x, y = datasets.load_breast_cancer(return_X_y=True)
    np.testing.assert_array_equal(cancer, np.column_stack([x, y]), strict=True)
    x, y = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(digits, np.column_stack([x, y]), strict=True)
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    np.testing.assert_array_equal(bundled("diabetes_data_raw.csv.gz"), x, strict=True)
    np.testing.assert_array_equal(bundled("diabetes_target.csv.gz"), y, strict=True)


@pytest.mark.parametrize("name", ["breast_cancer", "digits", "diabetes"])
def test_inputs_are_standardised_and_hold_float32_values(name: str) -> None:
    data = DATASETS[name]()
    varying = data.x.std(axis=0) > 0
    np.testing.assert_allclose(data.x.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(data.x[:, varying].std(axis=0), 1, rtol=1e-6)
    for values in (data.x, data.x_test, data.y, data.y_test):
        np.testing.assert_array_equal(values, values.astype(np.float32))


def test_no_data_set_imports_scikit_learn() -> None:
    load = "from harness.data import DATASETS; [load() for load in DATASETS.values()]"
    code = f"{load}; import sys; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
