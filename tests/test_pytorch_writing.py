"""Ops, optimizers and losses of the reference in torch's words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from harness import rules, terms

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 (what comes before may skip the whole file)

from frameworks import pytorch_models as models  # noqa: E402
from frameworks import pytorch_words, pytorch_words_training  # noqa: E402
from tests.torch_calls import normal, seen  # noqa: E402

WORDS: tuple[tuple[Any, tuple[int, ...], list[str], str], ...] = (
    (
        lambda: nn.BatchNorm2d(2, eps=1e-3, momentum=0.1),
        (2, 2, 5, 5),
        ["epsilon", "momentum"],
        "nn.BatchNorm2d(eps=0.001, momentum=0.1)",
    ),
    (lambda: nn.BatchNorm2d(2, momentum=0.01), (2, 2, 5, 5), ["momentum"], "nn.BatchNorm2d(momentum=0.01)"),
    (lambda: nn.BatchNorm2d(2), (2, 2, 5, 5), ["training"], "nn.BatchNorm2d().train()"),
    (
        lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1),
        (2, 2, 5, 5),
        ["stride", "padding"],
        "nn.Conv2d(stride=2, padding=1)",
    ),
    (
        lambda: nn.Conv2d(2, 3, 2, padding="same"),
        (2, 2, 5, 5),
        ["padding"],
        "F.pad(x, (0, 1, 0, 1)) then nn.Conv2d()",
    ),
    (lambda: nn.LeakyReLU(0.3), (2, 3), ["negative_slope"], "nn.LeakyReLU(negative_slope=0.3)"),
    (lambda: nn.ReLU6(), (2, 3), [], "nn.ReLU6()"),
    (lambda: nn.GELU("tanh"), (2, 3), ["form", "scale", "cubic"], 'nn.GELU(approximate="tanh")'),
    (lambda: nn.LayerNorm(3, eps=1e-6), (2, 3), ["epsilon"], "nn.LayerNorm(eps=1e-06)"),
    (lambda: nn.MaxPool2d(3, 2, 1), (2, 2, 5, 5), ["padding"], "nn.MaxPool2d(padding=1)"),
    (lambda: nn.Softmax(-1), (2, 3), ["axes"], "nn.Softmax(dim=1)"),
    (lambda: nn.Flatten(), (2, 3, 4, 5), ["order"], "torch.flatten(x, 1)"),
    (lambda: lambda x: x.std(1), (2, 3), ["ddof"], "torch.std(correction=1)"),
    (
        lambda: nn.Upsample(size=(7, 7), mode="bilinear"),
        (1, 1, 3, 3),
        ["grid"],
        'F.interpolate(mode="bilinear", align_corners=False)',
    ),
    (lambda: nn.GRU(3, 4), (5, 2, 3), ["reset_after"], ""),
)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(("make", "shape", "fields", "text"), WORDS)
def test_an_op_is_written_in_torch_s_words(make: Any, shape: tuple[int, ...], fields: list[str], text: str) -> None:
    call, _, _ = seen(make(), normal(*shape))
    assert models.written(call.ops[0], fields) == text


ADAM = rules.Adam(
    learning_rate=0.1,
    beta_1=0.9,
    beta_2=0.99,
    epsilon=1e-7,
    epsilon_placement="after_correction",
    bias_correction="both",
    amsgrad="no",
    weight_decay=0.0,
    decay="coupled",
)

CLASSES = terms.CrossEntropy(reads="logits", axis=1, renormalize="none", clip=None, log_epsilon=0.0)


@pytest.mark.parametrize(
    ("part", "fields", "text"),
    [
        (ADAM, ["epsilon"], "torch.optim.Adam(eps=1e-07)"),
        (ADAM, ["beta_1", "beta_2"], "torch.optim.Adam(betas=(0.9, 0.99))"),
        (ADAM, ["epsilon_placement"], ""),
        (
            rules.Clipping(by="value", limit=0.5, epsilon=0.0, order=2.0),
            ["by", "limit"],
            "torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)",
        ),
        (
            terms.Huber(delta=2.0, divided_by_delta=True, half=True),
            ["divided_by_delta"],
            "nn.SmoothL1Loss(beta=2.0)",
        ),
        (CLASSES, ["reads"], "nn.CrossEntropyLoss()"),
        (replace(CLASSES, reads="log_probabilities"), ["reads"], "nn.NLLLoss()"),
        (replace(CLASSES, reads="probabilities"), ["reads"], "F.nll_loss(torch.log(output), target)"),
        (
            replace(CLASSES, reads="activated_logits", clip=(1e-7, 0.9), log_epsilon=1e-8),
            ["reads", "clip", "log_epsilon"],
            "F.nll_loss(torch.log(F.softmax(output, 1).clamp(1e-07, 0.9) + 1e-08), target)",
        ),
        ("no op", ["epsilon"], ""),
    ],
)
def test_training_is_written_in_torch_s_words(part: Any, fields: list[str], text: str) -> None:
    assert models.written(part, fields) == text


@pytest.mark.parametrize("table", [pytorch_words.ROWS, pytorch_words_training.ROWS])
def test_each_entry_is_for_a_field(table: Any) -> None:
    """Optimizers of a Case have some fields fewer than those of users' models."""
    for kind, (_, entries) in table.items():
        if kind.__module__ != "harness.case":
            assert set(entries) <= {field.name for field in fields(kind)}
