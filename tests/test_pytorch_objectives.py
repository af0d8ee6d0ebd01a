"""torch's losses as they are read: the reference's value and gradient are torch's own, in float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reference.objectives import value_and_gradient

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)
from torch.nn import functional as F  # noqa: E402, N812 (the name that users give it)

from frameworks.pytorch_losses import evaluate  # noqa: E402
from frameworks.pytorch_objectives import read_loss, read_recipe_loss  # noqa: E402
from harness.recipe import Recipe  # noqa: E402
from harness.terms import CTC  # noqa: E402

RNG = np.random.default_rng(5)
ROWS, CLASSES, PLACES = 6, 4, 3
LOGITS = RNG.normal(size=(ROWS, CLASSES)) * 3
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), ROWS)
SURE = np.array([[0.0, 1.0, 1e-300, 1 - 1e-15]] * ROWS)
INDICES = RNG.integers(CLASSES, size=ROWS)
IGNORING = np.where(np.arange(ROWS) % 3 == 0, -100, INDICES)
IMAGES, IMAGE_INDICES = RNG.normal(size=(ROWS, CLASSES, PLACES)), RNG.integers(CLASSES, size=(ROWS, PLACES))
BITS = RNG.integers(2, size=(ROWS, CLASSES)).astype(float)
SIGNS = 2 * BITS - 1
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
TRIPLETS = RNG.normal(size=(3, ROWS, CLASSES))

REGRESSION: dict[str, Callable[..., Any]] = {
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "smooth l1": functools.partial(nn.SmoothL1Loss, beta=0.7),
    "smooth l1 of 0": functools.partial(nn.SmoothL1Loss, beta=0.0),
    "huber": functools.partial(nn.HuberLoss, delta=0.7),
}
CLASSIFYING: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray]] = {
    "entropy": (nn.CrossEntropyLoss, LOGITS, INDICES),
    "entropy of images": (nn.CrossEntropyLoss, IMAGES, IMAGE_INDICES),
    "entropy of probabilities": (nn.CrossEntropyLoss, LOGITS, PROBABILITIES),
    "weighted": (functools.partial(nn.CrossEntropyLoss, weight=WEIGHT), LOGITS, INDICES),
    "weighted images": (functools.partial(nn.CrossEntropyLoss, weight=WEIGHT), IMAGES, IMAGE_INDICES),
    "weighted probabilities": (functools.partial(nn.CrossEntropyLoss, weight=WEIGHT), LOGITS, PROBABILITIES),
    "ignoring": (nn.CrossEntropyLoss, LOGITS, IGNORING),
    "ignoring 2, weighted": (functools.partial(nn.CrossEntropyLoss, weight=WEIGHT, ignore_index=2), LOGITS, INDICES),
    "smoothed": (functools.partial(nn.CrossEntropyLoss, label_smoothing=0.1), LOGITS, INDICES),
    "smoothed probabilities": (functools.partial(nn.CrossEntropyLoss, label_smoothing=0.1), LOGITS, PROBABILITIES),
    "smoothed, weighted, ignoring": (
        functools.partial(nn.CrossEntropyLoss, label_smoothing=0.1, weight=WEIGHT),
        LOGITS,
        IGNORING,
    ),
    "nll": (nn.NLLLoss, np.log(PROBABILITIES), INDICES),
    "nll weighted, ignoring": (functools.partial(nn.NLLLoss, weight=WEIGHT), np.log(PROBABILITIES), IGNORING),
    "bce": (nn.BCELoss, PROBABILITIES, BITS),
    "bce, soft": (nn.BCELoss, PROBABILITIES, PROBABILITIES[::-1].copy()),
    "bce, sure": (nn.BCELoss, SURE, BITS),
    "bce, weighted": (functools.partial(nn.BCELoss, weight=WEIGHT), PROBABILITIES, BITS),
    "bce logits": (nn.BCEWithLogitsLoss, LOGITS * 10, BITS),
    "bce logits, positive": (functools.partial(nn.BCEWithLogitsLoss, pos_weight=WEIGHT), LOGITS, BITS),
    "bce logits, one weight": (
        functools.partial(nn.BCEWithLogitsLoss, pos_weight=torch.tensor(2.5), weight=torch.tensor(0.3)),
        LOGITS,
        BITS,
    ),
    "bce logits, both": (
        functools.partial(nn.BCEWithLogitsLoss, weight=WEIGHT, pos_weight=WEIGHT.flip(0)),
        LOGITS,
        PROBABILITIES,
    ),
    "kl": (nn.KLDivLoss, np.log(PROBABILITIES), PROBABILITIES[::-1].copy()),
    "kl of 0": (nn.KLDivLoss, np.log(PROBABILITIES), BITS),
    "kl, log target": (
        functools.partial(nn.KLDivLoss, log_target=True),
        np.log(PROBABILITIES),
        np.log(PROBABILITIES[::-1]),
    ),
    "poisson": (nn.PoissonNLLLoss, LOGITS, BITS * 3),
    "poisson, full": (functools.partial(nn.PoissonNLLLoss, full=True), LOGITS, BITS * 3),
    "poisson of a rate": (functools.partial(nn.PoissonNLLLoss, log_input=False, eps=1e-3), PROBABILITIES, BITS * 3),
    "hinge embedding": (functools.partial(nn.HingeEmbeddingLoss, margin=0.8), LOGITS, SIGNS),
    "soft margin": (nn.SoftMarginLoss, LOGITS, SIGNS),
    "multi margin": (functools.partial(nn.MultiMarginLoss, margin=0.8), LOGITS, INDICES),
    "multi margin, squared": (functools.partial(nn.MultiMarginLoss, p=2, weight=WEIGHT), LOGITS, INDICES),
    "multilabel": (functools.partial(nn.MultiLabelSoftMarginLoss, weight=WEIGHT), LOGITS, BITS),
}
CASES = {
    **{name: (kind, LOGITS, RNG.normal(size=LOGITS.shape)) for name, kind in REGRESSION.items()},
    **{f"{name}, broadcast": (kind, LOGITS[:, :1], LOGITS[:, 1]) for name, kind in REGRESSION.items()},
    **CLASSIFYING,
}


def own(loss: Any, q: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    leaf, target = torch.tensor(q, requires_grad=True), torch.tensor(y)
    value = loss(leaf, target)
    value.sum().backward()
    return value.detach().numpy(), leaf.grad.numpy()


def assert_same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-14 * np.abs(other).max()


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning", "ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("name", CASES)
def test_a_module_as_read_gives_torchs_value_and_gradient(name: str, reduction: str) -> None:
    kind, q, y = CASES[name]
    if reduction == "batchmean" and not name.startswith("kl"):
        reduction = "mean"
    loss = kind(reduction=reduction)
    read = read_loss(loss, torch.tensor(y))
    assert read is not None
    assert_same(value_and_gradient(read, q, y), own(loss, q, y))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.5, 2.0])
def test_triplets(swap: bool, p: float) -> None:
    loss = nn.TripletMarginLoss(margin=2.0, p=p, swap=swap)
    read = read_loss(loss)
    assert read is not None
    assert_same(value_and_gradient(read, TRIPLETS, None), own(lambda q, _: loss(*q), TRIPLETS, INDICES))


def test_functions_and_partials_are_read_as_the_modules() -> None:
    assert read_loss(F.mse_loss) == read_loss(nn.MSELoss())
    assert read_loss(F.cross_entropy) == read_loss(nn.CrossEntropyLoss())
    smoothed = functools.partial(F.cross_entropy, label_smoothing=0.1, reduction="sum")
    assert read_loss(smoothed) == read_loss(nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum"))
    assert read_loss(functools.partial(F.smooth_l1_loss, beta=0.5)) == read_loss(nn.SmoothL1Loss(beta=0.5))


class Doubled(nn.MSELoss):
    def forward(self, input: Any, target: Any) -> Any:
        return 2 * super().forward(input, target)


@pytest.mark.parametrize(
    "loss",
    [
        lambda q, y: ((q - y) ** 2).mean(),
        Doubled(),
        nn.GaussianNLLLoss(),
        nn.BCELoss(weight=torch.ones(2, 2)),
        functools.partial(F.huber_loss, weight=torch.ones(4)),  # pyright: ignore[reportCallIssue]
        functools.partial(F.mse_loss, size_average=False),
        functools.partial(F.mse_loss, torch.ones(4)),
        None,
        "mse",
    ],
)
def test_what_is_not_known_is_not_guessed(loss: Any) -> None:
    assert read_loss(loss) is None


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("by_class", [None, {0: 0.5, 2: 3.0}])
@pytest.mark.parametrize("weights", [None, RNG.uniform(0.5, 2, ROWS)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["mse", "entropy", "entropy of images", "ignoring", "weighted", "bce logits", "kl"])
def test_a_recipes_loss_has_its_weights(name: str, reduction: str, weights: Any, by_class: Any) -> None:
    kind, q, y = CASES[name]
    recipe = Recipe(model=None, loss=kind(reduction=reduction), class_weight=by_class)
    target = torch.tensor(y)
    read = read_recipe_loss(recipe, target, weights is not None)
    if by_class and name == "weighted":
        assert read is None
        return
    assert read is not None
    given = None if weights is None else torch.tensor(weights)
    found = value_and_gradient(read, q, y, weights)
    assert_same(found, own(lambda leaf, _: evaluate(recipe, leaf, (target,), given), q, y))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_alignments(reduction: str, zero_infinity: bool) -> None:
    """CTCLoss takes lengths besides, so that no reader knows it; the last labels do not fit into the steps."""
    steps, labels = 5, np.array([[1, 2, 3], [2, 2, 0], [1, 0, 0], [0, 0, 0], [3, 3, 3], [1, 2, 1]])
    labels = labels if zero_infinity else np.delete(labels, 0, 0)
    labels = np.vstack([labels, [[2, 2, 2]]]) if zero_infinity else labels
    steps = 4 if zero_infinity else steps
    q = torch.log_softmax(torch.tensor(RNG.normal(size=(steps, len(labels), 4))), -1).numpy()
    lengths = torch.tensor((labels != 0).sum(1))
    loss = nn.CTCLoss(reduction=reduction, zero_infinity=zero_infinity)
    term = CTC(
        reads="log_probabilities",
        through_softmax=True,
        time_axis=0,
        blank=0,
        padding=0,
        by_length=reduction == "mean",
        zero_infinity=zero_infinity,
    )
    plain = read_loss(nn.MSELoss(reduction=reduction))
    assert plain is not None
    read = dataclasses.replace(plain, term=term)
    expected = own(lambda leaf, y: loss(leaf, y, torch.full((len(labels),), steps), lengths), q, labels)
    assert_same(value_and_gradient(read, q, labels), expected)
