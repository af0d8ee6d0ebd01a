import dataclasses
from functools import partial
from typing import cast

import numpy as np
import pytest
from reference_checks import BCE, Array, assert_gradient, case_of, tutorial

from harness.case import (
    Add,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    MeanSquaredError,
    Node,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    reads_fused_logits,
)
from harness.layout import layout_of
from reference.training import Pass, initial_parameters, pass_of

MSE = MeanSquaredError(reduction="sum")
CCE = CategoricalCrossEntropy(
    reads="probabilities", sparse=True, fused=True, clip_probability=0.0, renormalize="none", reduction="mean"
)


def dense(name: str, units: int, *inputs: str, parameters: tuple[str, ...] = ()) -> Node:
    return Node(name=name, op=Dense(units=units), inputs=inputs, parameters=parameters or (f"W_{name}", f"b_{name}"))


NETWORKS: dict[str, tuple[Case, int]] = {  # name: (case, features)
    "tutorial": (tutorial(), 30),
    "tutorial-fused": (tutorial(loss=dataclasses.replace(BCE, fused=True)), 30),
    "residual": (
        case_of(
            (
                dense("z1", 3),
                Node(name="a1", op=Tanh()),
                dense("z2", 3),
                Node(name="sum", op=Add(), inputs=("z2", "a1", "x")),
                Node(name="twice", op=Add(), inputs=("sum", "sum")),
            ),
            loss=MSE,
        ),
        3,
    ),
    "tied": (  # one square W three times, and one bias for two layers
        case_of(
            (
                dense("z1", 3, parameters=("W", "b")),
                Node(name="a1", op=LeakyReLU(negative_slope=0.1, slope_at_zero="one")),
                dense("z2", 3, parameters=("W", "b")),
                dense("z3", 3, parameters=("W", "c")),
            ),
            loss=MSE,
        ),
        3,
    ),
    "dead-end": (
        case_of((dense("z1", 2), dense("unread", 4), Node(name="a1", op=Tanh(), inputs=("z1",))), loss=MSE),
        3,
    ),
    "offset": (  # one offset for all classes; the logits behind the fused softmax are read twice
        case_of(
            (
                dense("z1", 3),
                dense("shift", 1, "x"),
                Node(name="logits", op=Add(), inputs=("z1", "shift")),
                Node(name="copy", op=Linear()),
                Node(name="both", op=Add(), inputs=("copy", "logits")),
                Node(name="p", op=Softmax()),
            ),
            loss=CCE,
        ),
        4,
    ),
    "no-parameters": (case_of((Node(name="yhat", op=Sigmoid()),), loss=dataclasses.replace(BCE, fused=True)), 1),
}


def compiled(name: str, batch: int = 4) -> Pass:
    """A pass with everything filled in and run once, in float64."""
    case, features = NETWORKS[name]
    rng = np.random.default_rng(2)
    layout = layout_of(case, (batch, features))
    output = layout.activation_shapes[case.nodes[-1].name]
    y = rng.integers(0, output[-1], batch) if case.loss == CCE else rng.random(output)
    made = pass_of(case, (batch, features), y.shape, np.dtype(np.float64))
    made.tensors.x[...], made.tensors.y[...] = rng.normal(size=(batch, features)), y
    for parameter, W in initial_parameters(case, layout.parameter_shapes).items():
        made.tensors.parameters[parameter][...] = W if W.any() else rng.normal(size=W.shape)
    run(made)
    return made


def run(made: Pass) -> None:
    for call in [*made.forward, *made.backward]:
        call()


def loss_from(made: Pass, first: int) -> float:
    """The loss, computed on from node `first`."""
    for call in made.forward[first:]:
        call()
    return float(made.tensors.loss)


def check_parameter_gradients(made: Pass) -> None:
    W, g = (made.tensors.row[columns] for columns in (made.layout.parameters, made.layout.gradients))
    at, analytic = W.copy(), g.copy()

    def loss(moved: Array) -> float:
        W[...] = moved
        return loss_from(made, 0)

    assert_gradient(loss, at, analytic, step=1e-3)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "no-parameters"])
def test_parameter_gradients(name: str) -> None:
    check_parameter_gradients(compiled(name))


@pytest.mark.parametrize("name", ["tied", "residual", "offset"])
def test_check_finds_contributions_that_are_not_added(name: str) -> None:
    made = compiled(name)
    kept = [call for call in made.backward if cast(partial[None], call).func is not np.add]
    assert len(kept) < len(made.backward)
    made.backward[:] = kept
    run(made)
    with pytest.raises(AssertionError, match="analytic"):
        check_parameter_gradients(made)


@pytest.mark.parametrize("name", NETWORKS)
def test_activation_gradients(name: str) -> None:
    """Each activation is moved and the network computed on from there."""
    made, (case, _) = compiled(name), NETWORKS[name]
    for i, node in enumerate(case.nodes):
        activation = made.tensors.activations[node.name]
        at, analytic = activation.copy(), made.tensors.activation_gradients[node.name].copy()
        if node is case.nodes[-1] and reads_fused_logits(case):
            np.testing.assert_array_equal(analytic, 0)
            continue

        def loss(moved: Array, activation: Array = activation, i: int = i) -> float:
            activation[...] = moved.reshape(activation.shape)
            return loss_from(made, i + 1)

        assert_gradient(loss, at.ravel(), analytic.ravel(), step=1e-3)
        run(made)


def test_shared_parameters_are_summed_afresh_every_time() -> None:
    made = compiled("tied")
    first = made.tensors.row.copy()
    run(made)
    np.testing.assert_array_equal(made.tensors.row, first)


def test_unread_node_has_gradient_zero() -> None:
    made = compiled("dead-end")
    for gradient in (made.tensors.activation_gradients["unread"], made.tensors.gradients["W_unread"]):
        np.testing.assert_array_equal(gradient, 0)


def test_slopes_replace_the_derivative_at_a_kink() -> None:
    case = case_of((dense("z", 2), Node(name="a", op=ReLU())), loss=MSE)
    gradients = {}
    for slope in (np.nan, 0.5, 1.0):
        slopes = {"a": np.array([[slope, np.nan]])}
        made = pass_of(case, (1, 1), (1, 2), np.dtype(np.float64), slopes)
        made.tensors.x[...], made.tensors.y[...] = 1, -1
        made.tensors.parameters["W_z"][...] = [[0], [3]]
        run(made)
        gradients[slope] = made.tensors.activation_gradients["z"].ravel().tolist()
    # dL/da = 2 (a + 1) = 2, 8
    assert list(gradients.values()) == [[0, 8], [1, 8], [2, 8]]
