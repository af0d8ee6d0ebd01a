"""Losses and penalties of users' models: each derivative against finite differences, conventions by their meaning."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_checks import Array, assert_gradient, away_from_zero

from harness.objectives import Loss, Penalty, Targets, listed
from harness.terms import (
    CTC,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    CategoricalHinge,
    CosineSimilarity,
    CrossEntropy,
    Focal,
    Hinge,
    HingeEmbedding,
    Huber,
    KLDivergence,
    LogCosh,
    Output,
    Overlap,
    PercentageError,
    Poisson,
    SoftMargin,
    SquaredError,
    SquaredLogError,
    Term,
    Triplet,
)
from reference.objectives import penalty_and_gradients, value_and_gradient
from reference.row_terms import BY_ROW, row_axes
from reference.terms import BY_ELEMENT

VALUES = Targets(form="values", alignment="same", smoothing=0.0, spread="all", ignore_index=None, labels=())
INDICES = dataclasses.replace(VALUES, form="indices")
PLAIN: dict[str, Any] = {
    **{"targets": VALUES, "inner": "none", "reduction": "mean", "class_weights": (), "class_weighting": "rows"},
    **{"factor": 1.0, "offset": 0.0},
}
BCE = BinaryCrossEntropy(
    reads="logits", clip=None, log_epsilon=0.0, log_floor=-math.inf, denominator_floor=0.0, positive_weight=()
)
CE = CrossEntropy(reads="logits", axis=-1, renormalize="none", clip=None, log_epsilon=0.0)


ALIGNED = CTC(
    reads="logits", through_softmax=False, time_axis=1, blank=0, padding=0, by_length=False, zero_infinity=False
)


def loss_of(term: Term, **changes: Any) -> Loss:
    return Loss(term=term, **{**PLAIN, **changes})


def binary_terms() -> Iterator[BinaryCrossEntropy]:
    for reads, clip, epsilon, weight in product(
        ("logits", "activated_logits", "probabilities"), (None, (0.3, 0.7)), (0.0, 1e-2), ((), (0.5, 2.0, 3.0))
    ):
        if reads != "logits" or (clip is None and not epsilon):
            yield dataclasses.replace(BCE, reads=reads, clip=clip, log_epsilon=epsilon, positive_weight=weight)


def entropy_terms() -> Iterator[CrossEntropy]:
    for reads, axis in product(("logits", "log_probabilities"), (-1, 1)):
        yield dataclasses.replace(CE, reads=reads, axis=axis)
    for reads, renormalize, clip, epsilon in product(
        ("activated_logits", "probabilities"), ("none", "sum", "softmax"), (None, (0.3, 0.7)), (0.0, 1e-2)
    ):
        yield CrossEntropy(reads=reads, axis=-1, renormalize=renormalize, clip=clip, log_epsilon=epsilon)


def terms() -> Iterator[Term]:
    yield from (SquaredError(half=half) for half in (False, True))
    yield AbsoluteError(slope_at_zero=0.0)
    yield from (Huber(delta=0.8, divided_by_delta=d, half=h) for d, h in product((False, True), (False, True)))
    yield LogCosh(log_2=math.log(2))
    yield PercentageError(factor=100.0, floor=0.5)
    yield SquaredLogError(floor=0.2)
    yield from (Poisson(reads=r, epsilon=1e-2, stirling=s) for r, s in product(("rate", "log_rate"), (False, True)))
    yield from (Output(weighted=weighted) for weighted in (False, True))
    yield from binary_terms()
    yield from (
        BinaryFocal(entropy=e, gamma=g, alpha=a) for e, (g, a) in product(binary_terms(), ((2.0, 0.3), (0.0, None)))
    )
    yield from (
        Hinge(margin=1.0, power=p, labels=x, slope_at_margin=1.0) for p, x in product((1, 2), ("signs", "bits"))
    )
    yield HingeEmbedding(margin=1.0)
    yield SoftMargin(labels="signs")
    yield from entropy_terms()
    yield from (
        Focal(entropy=entropy, gamma=gamma, alpha=0.3) for entropy, gamma in product(entropy_terms(), (2.0, 0.0))
    )
    for reads, log_target, clip in product(("probabilities", "log_probabilities"), (False, True), (None, (0.3, 1.0))):
        yield KLDivergence(reads=reads, log_target=log_target, clip=clip, target_clip=clip)
    for power, over, zero, ties in product((1, 2), ("worst", "sum", "mean"), (False, True), ("first", "split")):
        yield CategoricalHinge(margin=1.0, power=power, over=over, zero_at_target=zero, ties=ties, slope_at_margin=0.0)
    for from_one, epsilon, placement in product((False, True), (1e-3, 3.0), ("floor", "added")):
        yield CosineSimilarity(from_one=from_one, epsilon=epsilon, epsilon_placement=placement)
    for axes, alpha in product(((), (1,), (-1,), (1, 2)), (0.5, 0.3)):
        yield Overlap(alpha=alpha, beta=0.7, epsilon=0.1, added=0.2, axes=axes)
    for (reads, time), by_length in product((("logits", 0), ("log_probabilities", 1)), (False, True)):
        yield dataclasses.replace(ALIGNED, reads=reads, time_axis=time, by_length=by_length)
    for norm, placement, swap in product((1.5, 2.0, 3.0), ("difference", "sum"), (False, True)):
        yield Triplet(margin=1.0, norm=norm, epsilon=1e-2, epsilon_placement=placement, swap=swap)


def name_of(term: Term) -> str:
    return repr(term).replace(" ", "")


TERMS = {name_of(term): term for term in terms()}


def point_for(term: Term, rng: np.random.Generator, rows: int) -> tuple[Array, Array | None]:
    """An output and targets where the loss is smooth."""
    match term:
        case Triplet():
            return rng.normal(size=(3, rows, 4)), None
        case CTC(time_axis=time):
            q = np.moveaxis(rng.normal(size=(rows, 7, 4)), 1, time)
            return (-np.abs(q) - 0.1 if term.reads == "log_probabilities" else q), rng.integers(4, size=(rows, 3))
        case Overlap():
            return rng.uniform(size=(rows, 3, 2)), rng.uniform(size=(rows, 3, 2))
        case CrossEntropy(axis=1, reads=reads) | Focal(entropy=CrossEntropy(axis=1, reads=reads)):
            q, y = rng.normal(size=(rows, 3, 2)), rng.dirichlet(np.ones(3), (rows, 2)).swapaxes(1, 2)
            return (-np.abs(q) - 0.1 if reads == "log_probabilities" else q), y
        case CrossEntropy(reads=reads) | Focal(entropy=CrossEntropy(reads=reads)):
            q = rng.uniform(0.05, 0.95, (rows, 3)) if reads == "probabilities" else rng.normal(size=(rows, 3))
            return (-np.abs(q) - 0.1 if reads == "log_probabilities" else q), rng.dirichlet(np.ones(3), rows)
        case BinaryCrossEntropy(reads="probabilities") | BinaryFocal(entropy=BinaryCrossEntropy(reads="probabilities")):
            return rng.uniform(0.05, 0.95, (rows, 3)), rng.uniform(0.1, 0.9, (rows, 3))
        case BinaryCrossEntropy() | BinaryFocal():
            return rng.normal(size=(rows, 3)), rng.uniform(0.1, 0.9, (rows, 3))
        case CategoricalHinge():
            return rng.normal(size=(rows, 3)), np.eye(3)[rng.integers(3, size=rows)]
        case Hinge() | SoftMargin() | HingeEmbedding():
            signs = rng.choice([-1.0, 1.0], (rows, 3))
            return rng.normal(size=(rows, 3)), (signs + 1) / 2 if getattr(term, "labels", "") == "bits" else signs
        case KLDivergence() | Poisson() | SquaredLogError():
            return rng.uniform(0.05, 1.5, (rows, 3)), rng.uniform(0.05, 3, (rows, 3))
    y = rng.normal(size=(rows, 3))
    return y + away_from_zero(rng, y.shape), y


LIFT = 4.0


def objective(loss: Loss, q: Array, *rest: Any) -> Callable[[Array], float]:
    """Raised by LIFT: differences take eps |f| for the rounding of f, too little where its terms cancel."""
    return lambda flat: LIFT + float(value_and_gradient(loss, flat.reshape(q.shape), *rest)[0].sum())


def assert_derivative(loss: Loss, q: Array, *rest: Any) -> None:
    assert_gradient(objective(loss, q, *rest), q.ravel(), value_and_gradient(loss, q, *rest)[1].ravel(), step=1e-3)


def test_every_term_is_tried() -> None:
    assert {type(term) for term in TERMS.values()} == {*BY_ELEMENT, *BY_ROW}


@pytest.mark.parametrize("name", TERMS)
def test_derivatives_agree_with_differences(name: str) -> None:
    term = TERMS[name]
    for seed in range(3):
        q, y = point_for(term, np.random.default_rng(seed), 4)
        assert_derivative(loss_of(term), q, y)


@pytest.mark.parametrize("name", TERMS)
def test_a_wrong_derivative_is_found(name: str) -> None:
    loss = loss_of(TERMS[name])
    q, y = point_for(loss.term, np.random.default_rng(0), 4)
    right = value_and_gradient(loss, q, y)[1]
    one = right.copy()
    one[np.unravel_index(np.argmax(np.abs(right)), right.shape)] *= 1 + 1e-6
    across = np.ascontiguousarray(right.swapaxes(0, -1)).reshape(right.shape)
    for wrong in (one, across):
        if not np.array_equal(wrong, right):
            with pytest.raises(AssertionError, match="differences"):
                assert_gradient(objective(loss, q, y), q.ravel(), wrong.ravel(), step=1e-3)


REDUCTIONS = ("none", "sum", "mean", "batchmean", "valid_mean", "weighted_mean")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_reductions_weights_and_targets_agree_with_differences(data: Any, seed: int) -> None:
    """Any term with any reduction, weights, mask, class weights, smoothing, labels and inner step."""
    term = TERMS[data.draw(st.sampled_from(sorted(TERMS)))]
    rng = np.random.default_rng(seed)
    rows = data.draw(st.integers(1, 5))
    q, y = point_for(term, rng, rows)
    axes = row_axes(term, q.ndim)
    shape = q.shape[:-1] if not axes else tuple(np.delete(q.shape, axes))
    inner = data.draw(st.sampled_from(("none", "mean", "sum"))) if not axes else "none"
    reductions = REDUCTIONS if shape else ("none", "sum", "mean")
    options: dict[str, Any] = {"inner": inner, "reduction": data.draw(st.sampled_from(reductions))}
    options |= {"factor": data.draw(st.sampled_from((1.0, 0.3))), "offset": data.draw(st.sampled_from((0.0, 2.0)))}
    if type(term) in (CrossEntropy, Focal, BinaryCrossEntropy) and data.draw(st.booleans()):
        options["class_weights"] = (0.5, 2.0, 3.0)
        options["class_weighting"] = data.draw(st.sampled_from(("rows", "classes")))
    if type(term) in (CrossEntropy, Focal):
        targets = dataclasses.replace(
            data.draw(st.sampled_from((VALUES, INDICES))),
            smoothing=data.draw(st.sampled_from((0.0, 0.1))),
            spread=data.draw(st.sampled_from(("all", "others"))),
            labels=data.draw(st.sampled_from(((), (2, 0, 1)))),
        )
        if targets.form == "indices":
            assert y is not None
            y = y.argmax(axis=axes[0])
            if data.draw(st.booleans()):
                targets = dataclasses.replace(targets, ignore_index=1)
        options["targets"] = targets
    weights = rng.uniform(0.5, 2, shape[: data.draw(st.integers(0, len(shape)))]) if data.draw(st.booleans()) else None
    mask = rng.random(shape) < 0.7 if data.draw(st.booleans()) else None
    if mask is not None:
        mask = np.asarray(mask)
        mask.flat[0] = True
    loss = loss_of(term, **options)
    L, dq = value_and_gradient(loss, q, y, weights, mask)
    if np.isnan(L).any():  # no term counts
        assert options["reduction"] in ("valid_mean", "weighted_mean")
        return
    assert L.shape == (
        tuple(shape) + (q.shape[-1:] if not axes and inner == "none" else ()) if options["reduction"] == "none" else ()
    )
    assert dq.shape == q.shape
    numeric = objective(loss, q, y, weights, mask)
    assert_gradient(numeric, q.ravel(), dq.ravel(), step=1e-3)


# --- what the fields mean ---------------------------------------------------------------------------------------


def other_values(part: Any, name: str) -> Iterator[Any]:
    """What else a field may hold: the other choices, a number slightly off, the other truth."""
    value, hint = getattr(part, name), typing.get_type_hints(type(part))[name]
    if typing.get_origin(hint) is typing.Literal:
        yield from (choice for choice in typing.get_args(hint) if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, float):
        yield value * (1 + 1e-6) if value else 1e-3
    elif name in ("clip", "target_clip"):
        yield (0.3, 0.7)


SMALL = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
ONE_HOT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
COUNTING: dict[str, tuple[Term, Array, Array | None]] = {
    "SquaredError": (SquaredError(half=False), SMALL, ONE_HOT),
    "AbsoluteError": (AbsoluteError(slope_at_zero=0.0), SMALL, SMALL),
    "Huber": (Huber(delta=0.5, divided_by_delta=False, half=True), SMALL, ONE_HOT),
    "LogCosh": (LogCosh(log_2=math.log(2)), SMALL, ONE_HOT),
    "PercentageError": (PercentageError(factor=100.0, floor=0.5), SMALL, ONE_HOT),
    "SquaredLogError": (SquaredLogError(floor=0.2), SMALL, ONE_HOT),
    "Poisson": (Poisson(reads="rate", epsilon=1e-2, stirling=False), SMALL, 3 * ONE_HOT),
    "BinaryCrossEntropy": (
        BinaryCrossEntropy(
            reads="probabilities",
            clip=None,
            log_epsilon=0.0,
            log_floor=-1.0,
            denominator_floor=0.2,
            positive_weight=(),
        ),
        SMALL,
        ONE_HOT,
    ),
    "BinaryFocal": (BinaryFocal(entropy=BCE, gamma=2.0, alpha=0.3), SMALL, ONE_HOT),
    "Hinge": (Hinge(margin=0.6, power=1, labels="signs", slope_at_margin=1.0), SMALL, ONE_HOT),
    "HingeEmbedding": (HingeEmbedding(margin=0.7), SMALL, 2 * ONE_HOT - 1),
    "SoftMargin": (SoftMargin(labels="signs"), SMALL, ONE_HOT),
    "CrossEntropy": (
        CrossEntropy(reads="probabilities", axis=-1, renormalize="none", clip=None, log_epsilon=0.0),
        2 * SMALL,
        ONE_HOT,
    ),
    "Focal": (Focal(entropy=CE, gamma=2.0, alpha=0.3), SMALL, ONE_HOT),
    "KLDivergence": (
        KLDivergence(reads="probabilities", log_target=False, clip=None, target_clip=None),
        SMALL,
        SMALL[::-1].copy(),
    ),
    "CategoricalHinge": (
        CategoricalHinge(margin=1.0, power=1, over="worst", zero_at_target=False, ties="first", slope_at_margin=1.0),
        np.array([[-1.0, -0.5, -1.0], [1.0, 0.0, 0.0]]),
        ONE_HOT,
    ),
    "CosineSimilarity": (CosineSimilarity(from_one=False, epsilon=2.0, epsilon_placement="floor"), SMALL, ONE_HOT),
    "Triplet": (
        Triplet(margin=1.0, norm=2.0, epsilon=1e-2, epsilon_placement="difference", swap=False),
        np.stack([SMALL, 1 - SMALL, 1.2 - SMALL]),
        None,
    ),
    "CTC": (
        dataclasses.replace(ALIGNED, reads="log_probabilities", zero_infinity=True),
        np.log(np.stack([np.vstack([SMALL, SMALL[::-1]])] * 4)),
        np.array([[1, 2, 0], [2, 2, 0], [0, 0, 0], [2, 2, 2]]),  # the last does not fit into four steps
    ),
    "Overlap": (Overlap(alpha=0.3, beta=0.7, epsilon=0.1, added=0.2, axes=()), SMALL, ONE_HOT),
    "Output": (Output(weighted=False), SMALL, ONE_HOT),
}
TERM_FIELDS = [
    (name, field.name, other)
    for name, (term, _, _) in COUNTING.items()
    for field in dataclasses.fields(term)
    for other in other_values(term, field.name)
]


def test_every_term_counts() -> None:
    assert {type(term) for term, _, _ in COUNTING.values()} == {*BY_ELEMENT, *BY_ROW}


@pytest.mark.parametrize(("name", "field", "other"), TERM_FIELDS)
def test_every_field_counts(name: str, field: str, other: Any) -> None:
    term, q, y = COUNTING[name]
    before = value_and_gradient(loss_of(term), q, y)
    after = value_and_gradient(loss_of(dataclasses.replace(term, **{field: other})), q, y)
    assert any(np.abs(one - two).max() > 1e-12 for one, two in zip(before, after, strict=True))


TWO = np.array([[1.0, 2.0], [4.0, 0.0], [3.0, 5.0]])
ZERO = np.zeros_like(TWO)
SQUARED = loss_of(SquaredError(half=False))
MASK = np.array([True, False, True])


@pytest.mark.parametrize(
    ("changes", "weights", "mask", "wanted"),
    [
        ({}, None, None, 55 / 6),
        ({"reduction": "sum"}, None, None, 55.0),
        ({"reduction": "batchmean"}, None, None, 55 / 3),
        ({"reduction": "none"}, None, None, TWO**2),
        ({"reduction": "none", "inner": "mean"}, None, None, np.array([2.5, 8.0, 17.0])),
        ({"reduction": "sum", "inner": "mean"}, None, None, 27.5),
        ({"reduction": "mean", "inner": "sum"}, None, None, 55 / 3),
        ({"factor": 0.5, "offset": 3.0}, None, None, 55 / 12 + 3),
        ({}, [1, 2, 3], None, (5 + 32 + 102) / 6),
        ({"reduction": "weighted_mean"}, [1, 2, 3], None, (5 + 32 + 102) / 12),
        ({"reduction": "weighted_mean", "inner": "mean"}, [1, 2, 3], None, (2.5 + 16 + 51) / 6),
        ({}, None, MASK, 39 / 6),
        ({"reduction": "valid_mean"}, None, MASK, 39 / 4),
        ({"reduction": "valid_mean", "inner": "mean"}, [1, 2, 3], MASK, (2.5 + 51) / 2),
        ({"reduction": "weighted_mean", "inner": "mean"}, [1, 2, 3], MASK, (2.5 + 51) / 4),
        ({"class_weights": (10.0, 1.0), "class_weighting": "classes"}, None, None, (260 + 29) / 6),
    ],
)
def test_reductions(changes: dict[str, Any], weights: Any, mask: Any, wanted: Any) -> None:
    L, _ = value_and_gradient(dataclasses.replace(SQUARED, **changes), TWO, ZERO, weights, mask)
    np.testing.assert_allclose(L, wanted, rtol=1e-15)


def test_where_nothing_counts_the_mean_is_nan() -> None:
    L, dq = value_and_gradient(dataclasses.replace(SQUARED, reduction="valid_mean"), TWO, ZERO, None, MASK & False)
    assert np.isnan(L)
    assert np.isnan(dq).all()


@pytest.mark.parametrize(
    ("q", "y", "same", "broadcast"),
    [((3, 1), (3,), (3, 1), (3, 3)), ((3,), (3, 1), (3, 1), (3, 3)), ((2, 3, 1), (2, 3), (2, 3), None)],
)
def test_alignment(q: Any, y: Any, same: Any, broadcast: Any) -> None:
    for alignment, shape in (("same", same), ("broadcast", broadcast)):
        if shape:
            targets = dataclasses.replace(VALUES, alignment=alignment)
            loss = dataclasses.replace(SQUARED, targets=targets, reduction="none")
            L, dq = value_and_gradient(loss, np.ones(q), np.zeros(y))
            assert L.shape == shape
            assert dq.shape == q
            assert dq.sum() == 2 * L.size


PICKED = np.log(SMALL)  # log p of SMALL, as SMALL's rows sum to 1
LOG = loss_of(dataclasses.replace(CE, reads="log_probabilities"), targets=INDICES, reduction="sum")


@pytest.mark.parametrize(
    ("targets", "y", "rows"),
    [
        ({}, [1, 0], [[0, 1, 0], [1, 0, 0]]),
        ({}, [[1], [0]], [[0, 1, 0], [1, 0, 0]]),
        ({"ignore_index": 0}, [1, 0], [[0, 1, 0], [0, 0, 0]]),
        ({"ignore_index": -100}, [1, -100], [[0, 1, 0], [0, 0, 0]]),
        ({"labels": (2, 0, 1)}, [1, 0], [[1, 0, 0], [0, 0, 1]]),
        ({"form": "values", "labels": (2, 0, 1)}, [[0, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 1]]),
        ({"smoothing": 0.3}, [1, 0], [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]]),
        ({"smoothing": 0.3, "spread": "others"}, [1, 0], [[0.15, 0.7, 0.15], [0.7, 0.15, 0.15]]),
    ],
)
def test_targets_of_rows(targets: dict[str, Any], y: Any, rows: Any) -> None:
    loss = dataclasses.replace(LOG, targets=dataclasses.replace(INDICES, **targets))
    L, dq = value_and_gradient(loss, PICKED, np.asarray(y))
    np.testing.assert_allclose(dq, -np.asarray(rows, float), atol=1e-16)
    assert pytest.approx(-(np.asarray(rows) * PICKED).sum(), rel=1e-15) == L


@pytest.mark.parametrize(
    ("targets", "wanted"),
    [
        ({}, [0.0, 1.0]),
        ({"labels": (-1.0, 1.0)}, [-1.0, 1.0]),
        ({"smoothing": 0.2}, [0.1, 0.9]),
        ({"smoothing": 0.2, "spread": "others"}, [0.2, 0.8]),
    ],
)
def test_targets_by_element(targets: dict[str, Any], wanted: list[float]) -> None:
    loss = loss_of(Output(weighted=True), targets=dataclasses.replace(VALUES, **targets), reduction="sum")
    np.testing.assert_allclose(value_and_gradient(loss, np.ones(2), np.array([0.0, 1.0]))[1], wanted, rtol=1e-15)


@pytest.mark.parametrize(
    ("changes", "slopes"),
    [
        ({"class_weights": (2.0, 3.0, 5.0)}, [[0, 3, 0], [2, 0, 0]]),
        ({"class_weights": (2.0, 3.0, 5.0), "reduction": "mean"}, [[0, 1.5, 0], [1, 0, 0]]),
        ({"class_weights": (2.0, 3.0, 5.0), "reduction": "weighted_mean"}, [[0, 0.6, 0], [0.4, 0, 0]]),
        (
            {"class_weights": (2.0, 3.0, 5.0), "class_weighting": "classes", "smoothing": 0.3},
            [[0.2, 2.4, 0.5], [1.6, 0.3, 0.5]],
        ),
        ({"class_weights": (2.0, 3.0, 5.0), "smoothing": 0.3}, [[0.3, 2.4, 0.3], [1.6, 0.2, 0.2]]),
    ],
)
def test_class_weights(changes: dict[str, Any], slopes: Any) -> None:
    targets = dataclasses.replace(INDICES, smoothing=changes.pop("smoothing", 0.0))
    loss = dataclasses.replace(LOG, targets=targets, **changes)
    np.testing.assert_allclose(value_and_gradient(loss, PICKED, np.array([1, 0]))[1], -np.asarray(slopes), rtol=1e-14)


def test_class_weights_of_bits_go_by_the_rounded_target() -> None:
    loss = dataclasses.replace(SQUARED, class_weights=(2.0, 3.0), reduction="sum", inner="mean")
    L, _ = value_and_gradient(loss, np.zeros((3, 1)), np.array([[1.0], [0.0], [1.0]]))
    assert L == 6
    assert listed({0: 2.0, 3: 0.5}, 1) == (2.0, 1.0, 1.0, 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_is_that_of_the_output(dtype: type) -> None:
    for term, q, y in COUNTING.values():
        given = None if y is None else y.astype(np.float64)
        L, dq = value_and_gradient(loss_of(term, class_weighting="rows"), q.astype(dtype), given, np.ones(1))
        assert (L.dtype, dq.dtype) == (dtype, dtype)


PARAMETERS = {"W": np.array([[3.0, 0.0], [0.0, -4.0]]), "b": np.array([12.0])}


@pytest.mark.parametrize(
    ("changes", "value", "W", "b"),
    [
        ({}, 169.0, 2 * PARAMETERS["W"], 2 * PARAMETERS["b"]),
        ({"half": True}, 84.5, PARAMETERS["W"], PARAMETERS["b"]),
        ({"rooted": True}, 17.0, PARAMETERS["W"] / 5, [1.0]),
        ({"scope": "kernels"}, 25.0, 2 * PARAMETERS["W"], None),
        ({"scope": ("b",)}, 144.0, None, 2 * PARAMETERS["b"]),
        ({"l1": 2.0, "l2": 0.0}, 38.0, 2 * np.sign(PARAMETERS["W"]), [2.0]),
    ],
)
def test_penalties(changes: dict[str, Any], value: float, W: Any, b: Any) -> None:
    penalty = dataclasses.replace(Penalty(l1=0.0, l2=1.0, half=False, rooted=False, scope="all"), **changes)
    total, gradients = penalty_and_gradients(penalty, PARAMETERS)
    assert total == pytest.approx(value, rel=1e-15)
    assert gradients.keys() == {name for name, g in (("W", W), ("b", b)) if g is not None}
    for name, wanted in (("W", W), ("b", b)):
        if wanted is not None:
            np.testing.assert_allclose(gradients[name], wanted, rtol=1e-15)
