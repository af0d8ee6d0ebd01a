"""The named cases. A case is data; this table is where to read what the default runs train."""

from __future__ import annotations

from dataclasses import replace

from harness.case import (
    NATIVE,
    SGD,
    Adagrad,
    Adam,
    Add,
    Batching,
    BinaryCrossEntropy,
    Case,
    CategoricalCrossEntropy,
    Dense,
    LeakyReLU,
    Linear,
    MeanSquaredError,
    Node,
    Objective,
    Optimizer,
    Polynomial,
    ReLU,
    RMSprop,
    Sigmoid,
    Softmax,
    Tanh,
)
from reference.landscapes import LANDSCAPES


def dense(name: str, units: int, suffix: str | int, *inputs: str) -> Node:
    """A dense node whose parameters are W<suffix> and b<suffix>."""
    return Node(name=name, op=Dense(units=units), parameters=(f"W{suffix}", f"b{suffix}"), inputs=inputs)


def sgd(learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False, weight_decay: float = 0.0) -> SGD:
    """SGD in each framework's own form."""
    return SGD(
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        velocity=NATIVE,
        weight_decay=weight_decay,
        decay=NATIVE,
    )


def adam(learning_rate: float, weight_decay: float = 0.0) -> Adam:
    """Adam (AdamW with a decay) in each framework's own form and with its own epsilon."""
    return Adam(
        learning_rate=learning_rate,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=NATIVE,
        epsilon_placement=NATIVE,
        weight_decay=weight_decay,
        decay=NATIVE if not weight_decay else "decoupled",
    )


BINARY = BinaryCrossEntropy(
    reads="probabilities",
    logits_form=NATIVE,
    fused=NATIVE,
    clip_probability=NATIVE,
    log_epsilon=NATIVE,
    log_complement=NATIVE,
    log_floor=NATIVE,
    denominator_floor=NATIVE,
    reduction="mean",
)
CLASSES = CategoricalCrossEntropy(
    reads="logits", sparse=True, fused=NATIVE, clip_probability=NATIVE, renormalize=NATIVE, reduction="mean"
)
SQUARES = MeanSquaredError(reduction="mean")

TUTORIAL = Case(
    name="tutorial",
    summary="the article's network 30-16-8-1 on breast_cancer, mini-batches of 32",
    nodes=(
        dense("z1", 16, 1),
        Node(name="a1", op=ReLU()),
        dense("z2", 8, 2),
        Node(name="a2", op=ReLU()),
        dense("z3", 1, 3),
        Node(name="yhat", op=Sigmoid()),
    ),
    loss=BINARY,
    optimizer=sgd(0.05),
    data="breast_cancer",
    batching=Batching(size=32),
    steps=320,
    seed=0,
    initialization="he",
    initial_scale=1.0,
)

OPTIMIZERS: dict[str, tuple[Optimizer, str]] = {
    "momentum": (sgd(0.02, 0.9), "SGD with momentum 0.9"),
    "nesterov": (sgd(0.02, 0.9, nesterov=True), "SGD with Nesterov momentum 0.9"),
    "adagrad": (
        Adagrad(learning_rate=0.05, initial_accumulator=NATIVE, epsilon=NATIVE, epsilon_placement=NATIVE),
        "Adagrad",
    ),
    "rmsprop": (
        RMSprop(learning_rate=0.002, rho=0.9, momentum=0.0, epsilon=NATIVE, epsilon_placement=NATIVE, velocity=NATIVE),
        "RMSprop",
    ),
    "adam": (adam(0.002), "Adam"),
    "adamw": (adam(0.002, weight_decay=0.01), "AdamW with decay 0.01"),
}


def _tutorial_cases() -> list[Case]:
    modes = [
        replace(TUTORIAL, name="tutorial-stochastic", batching=Batching(size=1), steps=1024),
        replace(TUTORIAL, name="tutorial-minibatch"),
        replace(TUTORIAL, name="tutorial-batch", batching=Batching(size=None), steps=200),
    ]
    described = {"stochastic": "one example a step", "mini-batch": "mini-batches of 32", "batch": "all examples a step"}
    base = TUTORIAL.summary.rsplit(",", 1)[0]
    return [
        *(replace(case, summary=f"{base}, {described[case.batching.mode]}") for case in modes),
        replace(
            TUTORIAL,
            name="tutorial-identity",
            summary=f"{base}; an identity behind the sigmoid, so that Keras shows dL/dyhat (and clips)",
            nodes=(*TUTORIAL.nodes, Node(name="output", op=Linear())),
            steps=200,
        ),
        *(
            replace(TUTORIAL, name=f"tutorial-{name}", summary=f"{base}, trained by {words}", optimizer=o, steps=200)
            for name, (o, words) in OPTIMIZERS.items()
        ),
    ]


def _other_cases() -> list[Case]:
    depth = 8
    deep = [node for i in range(1, depth) for node in (dense(f"z{i}", 16, i), Node(name=f"a{i}", op=Tanh()))]
    return [
        replace(
            TUTORIAL,
            name="digits-softmax",
            summary="a softmax classifier 64-32-10 on digits, momentum",
            nodes=(
                dense("z1", 32, 1),
                Node(name="a1", op=LeakyReLU(negative_slope=0.01, slope_at_zero=NATIVE)),
                dense("logits", 10, 2),
            ),
            loss=CLASSES,
            optimizer=sgd(0.05, 0.9),
            data="digits",
            batching=Batching(size=64),
            steps=200,
        ),
        replace(
            TUTORIAL,
            name="diabetes-regression",
            summary="regression 10-16-1 on diabetes, mean squared error",
            nodes=(dense("z1", 16, 1), Node(name="a1", op=Tanh()), dense("yhat", 1, 2)),
            loss=SQUARES,
            data="diabetes",
            steps=200,
            initialization="lecun",
        ),
        replace(
            TUTORIAL,
            name="deep-tanh",
            summary=f"{depth} tanh layers of 16 on breast_cancer",
            nodes=(*deep, dense(f"z{depth}", 1, depth), Node(name="yhat", op=Sigmoid())),
            steps=200,
            initialization="lecun",
        ),
        replace(
            TUTORIAL,
            name="ill-conditioned",
            summary="a net that starts with weights of size 30: saturated, with gradients of all sizes",
            nodes=(
                dense("z1", 16, 1),
                Node(name="a1", op=Tanh()),
                dense("z2", 8, 2),
                Node(name="a2", op=Tanh()),
                dense("yhat", 1, 3),
            ),
            loss=SQUARES,
            data="diabetes",
            optimizer=sgd(1e-5),
            steps=200,
            initialization="lecun",
            initial_scale=30.0,
        ),
        replace(
            TUTORIAL,
            name="zero-gradient-adam",
            summary="one offset for all classes before a softmax: its exact gradient is zero, under Adam",
            nodes=(
                dense("hidden", 16, 1),
                Node(name="active", op=Tanh()),
                dense("scores", 10, 2, "active"),
                dense("offset", 1, 3, "active"),
                Node(name="logits", op=Add(), inputs=("scores", "offset")),
            ),
            loss=CLASSES,
            optimizer=adam(0.002),
            data="digits",
            batching=Batching(size=64),
            steps=200,
            initialization="lecun",
        ),
        replace(
            TUTORIAL,
            name="softmax-probabilities",
            summary="a softmax layer and a cross-entropy of probabilities on digits (Keras reads the logits behind it)",
            nodes=(dense("z1", 16, 1), Node(name="a1", op=Tanh()), dense("z2", 10, 2), Node(name="p", op=Softmax())),
            loss=replace(CLASSES, reads="probabilities"),
            data="digits",
            batching=Batching(size=64),
            steps=200,
        ),
        replace(
            TUTORIAL,
            name="toy-animals",
            summary="the article's kind of toy: eight animals, three features on a 0.1 grid, one at a time",
            nodes=(
                dense("z1", 4, 1),
                Node(name="a1", op=ReLU()),
                dense("z2", 3, 2),
                Node(name="a2", op=ReLU()),
                dense("z3", 1, 3),
                Node(name="yhat", op=Sigmoid()),
            ),
            data="toy",
            batching=Batching(size=1),
            steps=200,
            optimizer=sgd(0.1),
        ),
    ]


def _landscape_cases() -> list[Case]:
    return [
        Case(
            name=name,
            summary=landscape.summary,
            nodes=(
                Node(
                    name="f",
                    op=Polynomial(terms=landscape.terms, points=len(landscape.starts)),
                    parameters=("points",),
                ),
            ),
            loss=Objective(),
            optimizer=sgd(landscape.learning_rate),
            data="none",
            batching=Batching(size=None),
            steps=200,
            seed=0,
            initialization="given",
            initial_scale=1.0,
        )
        for name, landscape in LANDSCAPES.items()
    ]


CASES: dict[str, Case] = {case.name: case for case in (*_tutorial_cases(), *_other_cases(), *_landscape_cases())}

DEFAULT_CASES = ("tutorial-stochastic", "tutorial-minibatch", "tutorial-batch")

WELL_CONDITIONED = (
    *(DEFAULT_CASES),
    *("tutorial-identity", "tutorial-momentum", "tutorial-nesterov", "digits-softmax", "diabetes-regression"),
    *("softmax-probabilities", "toy-animals", "double_well", "himmelblau", "saddle", "monkey_saddle"),
)
"""Cases that also agree in float64 to 1e-12 of each tensor's largest value, except where a framework leaks float32."""
