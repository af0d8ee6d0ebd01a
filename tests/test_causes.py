"""The table of causes: ids stay, what it names exists, and an edit gets the row that says most."""

from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness import case, causes_forward, causes_training, objectives, ops, rules, schedules, terms
from harness.cause import GROUPS
from harness.causes import TABLE, named, rows_of
from harness.editing import Edit, differing
from harness.questions import merging
from harness.questions.losses import Given
from harness.questions.updates import Leaks

FIRST = (
    *("loss-reduction", "loss-half-factor", "target-shape-broadcast", "double-softmax", "from-logits"),
    *("bce-clipping", "label-smoothing", "kldiv-reduction", "kldiv-log-input", "huber-delta-scale"),
    *("class-weight-normalisation", "masked-loss-normalisation", "loss-constant-offset", "l2-factor-two"),
    *("weight-decay-scope", "weight-layout-transpose", "conv-kernel-axes", "flatten-order"),
    *("conv-same-padding-asymmetry", "convtranspose-padding", "avgpool-count-include-pad", "maxpool-padding-value"),
    *("pool-ceil-mode", "batchnorm-eps", "batchnorm-momentum", "batchnorm-unbiased-variance"),
    *("weight-order-mismatch", "train-eval-mode", "dropout-active", "layernorm-eps", "groupnorm-eps"),
    *("rnn-gate-order", "gru-reset-after", "rnn-recurrent-activation", "rnn-batch-first", "rnn-bidirectional-last"),
    *("sequence-masking", "rnn-double-bias", "leakyrelu-slope", "gelu-approximation", "hard-sigmoid-slope"),
    *("prelu-sharing", "embedding-padding-idx", "attention-mask-convention", "attention-scale"),
    *("attention-fully-masked-row", "resize-align-corners", "std-unbiased", "max-tie-gradient"),
    *("clip-boundary-gradient", "norm-gradient-at-zero", "detached-branch", "sgd-momentum-lr-schedule"),
    *("adam-epsilon", "adam-epsilon-placement", "adagrad-initial-accumulator", "adagrad-epsilon"),
    *("rmsprop-epsilon-placement", "rmsprop-rho", "optimizer-default-lr", "adamw-default-weight-decay"),
    *("weight-decay-coupling", "grad-clip-per-variable", "grad-clip-epsilon", "nadam-momentum-decay"),
    *("grad-accumulation", "lr-schedule-granularity", "init-default", "data-order", "softplus-threshold"),
    *("crossentropy-clipping", "kldiv-clipping", "truncated-constant", "l2-missing", "weights-not-transferred"),
    *("bias-missing", "layer-missing", "activation-different", "loss-different", "label-encoding", "softmax-axis"),
    *("norm-axis", "rmsnorm-eps", "conv-stride-dilation", "conv-groups-order", "convtranspose-kernel-flip"),
    *("padding-value", "resize-antialias", "maxpool-tie-gradient", "dropout-scaling", "rnn-initial-state"),
    *("rnn-return-sequences", "gate-bias", "sample-weight", "learning-rate", "momentum-value", "momentum-dampening"),
    *("nesterov-form", "adam-bias-correction", "amsgrad", "weight-decay-value", "rmsprop-centered", "adadelta-rho"),
    *("lr-schedule-form", "grad-clip-value", "gradient-accumulation-mean", "frozen-parameter", "batch-size"),
    *("gradient-sign", "gradient-factor", "gradient-transposed", "gradient-missing-term", "float32-constant"),
    *("float32-kernel", "tf32-or-reduced-precision", "nondeterminism", "stale-weights"),
)
"""The ids of the first version: reports and users hold them, so that none may be renamed."""

HARNESS = Path(causes_forward.__file__).parent

# --- what exists ------------------------------------------------------------------------------------------------


def _fields_of(*modules: ModuleType) -> dict[str, set[str]]:
    """Fields by kind; kinds of one name, a case's and a user's, are one."""
    found = {kind.__name__: {field.name for field in dataclasses.fields(kind)} for kind in (Given, Leaks)}
    for kind in (value for module in modules for value in vars(module).values()):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            found.setdefault(kind.__name__, set()).update(field.name for field in dataclasses.fields(kind))
    return found


FIELDS = _fields_of(case, merging, objectives, ops, rules, schedules, terms)
FIELDS["RMSNorm"] = FIELDS["LayerNorm"]  # as harness.cause.kind calls a LayerNorm that does not center
FIELDS["LeakyReLU"] |= FIELDS["Rectifier"]  # and a Rectifier with a slope

SAID = {
    path: {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    for path in HARNESS.rglob("*.py")
    if path.stem not in ("causes_forward", "causes_training")
}
"""Words that the code says, by module: of probes and of maps of the weights."""

PROBES = ("map", "gradient", "update", "batches", "links", "loss")
"""What is named by a relation between values, not by an edit of a part."""


def exists(signature: str, id_: str) -> bool:
    """Whether a signature of a row names real kinds and fields, or a probe that the code makes."""
    before, colon, rest = signature.rpartition(":")
    if before in PROBES:
        return _is_said(before, rest, id_)
    if colon:
        return _is_kind(before) and exists(rest, id_)
    if signature in ("+", ">"):
        return True
    if signature.startswith("+"):
        return _is_kind(signature[1:])
    if ">" in signature:
        return all(map(_is_kind, signature.split(">")))
    kind, _, field = signature.partition(".")
    return _is_kind(kind) and (field == "*" or any(field in FIELDS[one] for one in GROUPS.get(kind, (kind,))))


def _is_kind(name: str) -> bool:
    return all(one in FIELDS for one in GROUPS.get(name, (name,)))


def _is_said(probe: str, rest: str, id_: str) -> bool:
    """By some module: the id itself, the signature whole, or put together from its two words."""
    return any(id_ in words or f"{probe}:{rest}" in words or {f"{probe}:", rest} <= words for words in SAID.values())


def test_no_id_is_lost_or_met_twice() -> None:
    ids = [cause.id for cause in (*causes_forward.CAUSES, *causes_training.CAUSES)]
    assert set(FIRST) <= set(ids)
    assert len(set(ids)) == len(ids) == len(TABLE)


def test_every_row_can_be_proven_or_says_why_not() -> None:
    assert [cause.id for cause in TABLE.values() if bool(cause.edits) == bool(cause.unproven)] == []


@pytest.mark.parametrize("id_", TABLE)
def test_what_a_row_names_exists(id_: str) -> None:
    row = TABLE[id_]
    assert [signature for signature in (*row.edits, *row.along) if not exists(signature, id_)] == []


@pytest.mark.parametrize(
    "signature",
    [
        *(
            "BatchNorm.epsilom",
            "BatchNrom.epsilon",
            "optimizer.learning_rat",
            "norm.beta_1",
            "KLDivergense:Loss.factor",
        ),
        *("KLDivergence:Loss.reductoin", "+Dropuot", "ReLU>LeakyRelu", "activations>activation", "gradient:singn"),
        *("update:zeros", "+activations", "Norm", "batches:sizes", ""),
    ],
)
def test_a_typo_in_the_table_is_found(signature: str) -> None:
    assert not exists(signature, "batchnorm-eps")


def test_a_map_that_nobody_tries_is_found() -> None:
    assert not exists("map:flatten", "flatten-ordr")


@pytest.mark.parametrize("group", GROUPS)
def test_what_a_group_names_exists(group: str) -> None:
    assert [kind for kind in GROUPS[group] if kind not in FIELDS] == []


# --- which row --------------------------------------------------------------------------------------------------


def _rows(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[tuple[str, int]]:
    """The causes of all differences between two rows of parts, with how many edits each takes."""
    return [(cause.id, len(cause.edits)) for cause in named(differing(one, other), one)]


NORM = ops.BatchNorm(
    axis=1,
    training=True,
    epsilon=1e-5,
    momentum=0.9,
    moving_variance="unbiased",
    tracks=True,
    scale=True,
    offset=True,
    masked=False,
    mask_epsilon=0.0,
)
LAYER_NORM = ops.LayerNorm(
    axes=(1,), center=True, ddof=0, epsilon=1e-5, epsilon_placement="inside", scale=True, offset=True
)
RELU = ops.Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)
TARGETS = objectives.Targets(form="values", alignment="same", smoothing=0.0, spread="all", ignore_index=None, labels=())
REST = objectives.Loss(
    term=None,  # type: ignore[arg-type] (as the question about losses holds it: term, targets and the rest apart)
    targets=None,  # type: ignore[arg-type]
    inner="none",
    reduction="mean",
    class_weights=(),
    class_weighting="rows",
    factor=1.0,
    offset=0.0,
)
SQUARES = terms.SquaredError(half=False)
KL = terms.KLDivergence(reads="log_probabilities", log_target=False, clip=None, target_clip=None)
CLASSES = terms.CrossEntropy(reads="logits", axis=-1, renormalize="none", clip=None, log_epsilon=0.0)
TANH_GELU = ops.GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715)
SOFTMAX = ops.SoftmaxOver(axes=(1,), log=False)
SGD = rules.SGD(
    learning_rate=0.05,
    momentum=0.9,
    dampening=0.0,
    first_velocity="zero",
    nesterov=False,
    velocity="gradient",
    weight_decay=0.0,
    decay="coupled",
)


def with_(part: Any, **changes: Any) -> Any:
    return dataclasses.replace(part, **changes)


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        ((NORM,), (with_(NORM, epsilon=1e-3),), [("batchnorm-eps", 1)]),
        ((LAYER_NORM,), (with_(LAYER_NORM, epsilon=1e-3),), [("layernorm-eps", 1)]),
        ((LAYER_NORM,), (with_(LAYER_NORM, center=False),), [("layer-different", 1)]),
        (
            (with_(LAYER_NORM, center=False),),
            (with_(LAYER_NORM, center=False, epsilon=1e-6),),
            [("rmsnorm-eps", 1)],  # a LayerNorm that does not center is a kind of its own
        ),
        (
            (NORM,),
            (with_(NORM, epsilon=1e-3, momentum=0.99),),
            [("batchnorm-eps", 1), ("batchnorm-momentum", 1)],
        ),
        ((ops.GELU(form="erf", scale=0.5, cubic=0.0),), (TANH_GELU,), [("gelu-approximation", 3)]),
        ((TANH_GELU,), (with_(TANH_GELU, cubic=0.0447),), [("truncated-constant", 1)]),
        ((RELU,), (case.Tanh(),), [("activation-different", 1)]),
        ((NORM,), (case.Tanh(),), [("layer-different", 1)]),
        ((RELU,), (None,), [("activation-different", 1)]),
        ((NORM,), (None,), [("layer-missing", 1)]),
        ((SQUARES, TARGETS, REST), (SQUARES, TARGETS, with_(REST, reduction="sum")), [("loss-reduction", 1)]),
        ((KL, TARGETS, REST), (KL, TARGETS, with_(REST, reduction="batchmean")), [("kldiv-reduction", 1)]),
        ((SQUARES, TARGETS, REST), (SQUARES, TARGETS, with_(REST, factor=0.5)), [("loss-half-factor", 1)]),
        ((SQUARES, TARGETS, REST), (SQUARES, TARGETS, with_(REST, factor=0.25)), [("loss-reduction", 1)]),
        ((SOFTMAX, CLASSES), (None, CLASSES), [("double-softmax", 1)]),
        ((SOFTMAX, SQUARES), (None, SQUARES), [("activation-different", 1)]),
        (
            (CLASSES, TARGETS, REST),
            (with_(CLASSES, reads="activated_logits", log_epsilon=1e-8), TARGETS, REST),
            [("crossentropy-clipping", 2)],
        ),
        (
            (CLASSES, TARGETS, REST),
            (with_(CLASSES, reads="probabilities", log_epsilon=1e-8), TARGETS, REST),
            [("from-logits", 2)],
        ),
        ((SQUARES, TARGETS, REST), (SQUARES, TARGETS, with_(REST, factor=0.8)), [("loss-weights", 1)]),
        ((SGD,), (with_(SGD, nesterov=True),), [("nesterov-form", 1)]),
        ((SGD,), (with_(SGD, learning_rate=0.06),), [("learning-rate", 1)]),
        ((SGD,), (with_(SGD, learning_rate=0.01),), [("learning-rate", 1)]),
    ],
)
def test_an_edit_gets_the_row_that_says_most(one: Any, other: Any, rows: list[tuple[str, int]]) -> None:
    assert sorted(_rows(one, other)) == sorted(rows)


def test_rows_that_name_the_same_edit_are_all_given() -> None:
    edit = Edit(position=0, field="learning_rate", before=0.05, after=0.01)
    assert [row.id for row in rows_of(edit, (SGD,))] == ["learning-rate", "optimizer-default-lr"]


def test_an_edit_without_a_row_is_a_difference_of_layers() -> None:
    edit = Edit(position=0, field="no_such_field", before=0, after=1)
    assert [row.id for row in rows_of(edit, (NORM,))] == ["layer-different"]


def test_a_number_and_what_float32_makes_of_it_is_a_rounding() -> None:
    rate = Edit(position=0, field="learning_rate", before=0.01 / 3, after=float(np.float32(0.01 / 3)))
    parts = (rules.Adamax(**ADAMAX),)
    assert [row.id for row in rows_of(rate, parts)] == ["float32-constant", "learning-rate"]
    further = dataclasses.replace(rate, after=0.01 / 3 * (1 + 1e-6))
    assert [row.id for row in rows_of(further, parts)] == ["learning-rate"]


ADAMAX: Any = {
    "learning_rate": 0.01 / 3,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "epsilon_placement": "on_norm",
    "weight_decay": 0.0,
    "decay": "decoupled",
}
