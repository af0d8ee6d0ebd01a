"""Which conventions make a framework's run another one: planted ones are named, and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import frameworks as registry
from frameworks.protocol import Framework
from harness.case import CannotExpress, Case
from harness.cases import CASES
from harness.contrasting import Contrast, contrast
from reference import updates

Plant = Callable[..., str]
"""Gives another framework the conventions of the one under test but for some fields; hands back its name."""


@pytest.fixture
def plant(framework: Framework, framework_name: str, monkeypatch: pytest.MonkeyPatch) -> Plant:
    def planted(**fields: dict[str, Any]) -> str:
        others = [name for name in registry.installed() if name != framework_name]
        if not others:
            pytest.skip("needs a second framework")
        own = framework.CONVENTIONS
        changed = {**own, **{kind: {**own[kind], **values} for kind, values in fields.items()}}
        monkeypatch.setattr(registry.adapter(others[0]), "CONVENTIONS", changed)
        return others[0]

    return planted


def other_value(framework: Framework, kind: str, field: str, *values: Any) -> Any:
    return next(value for value in values if value != framework.CONVENTIONS[kind][field])


def ids(found: Contrast) -> list[str]:
    return [cause.id for cause in found.causes]


ALIKE = ("tutorial-minibatch", "tutorial-adam", "toy-animals", "saddle")


@pytest.mark.parametrize("name", ALIKE)
def test_the_same_conventions_make_no_difference(framework_name: str, plant: Plant, name: str) -> None:
    found = contrast(CASES[name], framework_name, plant())
    assert (found.verdict, found.causes, found.idle) == ("rounding", (), ())


PLANTED = {
    "adam-epsilon": ("tutorial-adam", "Adam", "epsilon", (3e-7,)),
    "adam-epsilon-placement": ("tutorial-adam", "Adam", "epsilon_placement", ("before_correction", "after_correction")),
    "adagrad-initial-accumulator": ("tutorial-adagrad", "Adagrad", "initial_accumulator", (0.3,)),
    "adagrad-epsilon": ("tutorial-adagrad", "Adagrad", "epsilon", (1e-4,)),
    "rmsprop-epsilon-placement": ("tutorial-rmsprop", "RMSprop", "epsilon_placement", ("inside_sqrt", "outside_sqrt")),
}


@pytest.mark.parametrize("id_", PLANTED)
def test_a_planted_convention_is_the_one_cause(
    framework: Framework, framework_name: str, plant: Plant, id_: str
) -> None:
    name, kind, field, values = PLANTED[id_]
    value = other_value(framework, kind, field, *values)
    against = plant(**{kind: {field: value}})
    found = contrast(CASES[name], framework_name, against)
    assert (found.verdict, ids(found), found.idle) == ("different", [id_], ())
    (cause,) = found.causes
    assert cause.status == "proven"
    assert (cause.where, cause.step) == ("update:W1", 0)
    assert f"{kind}.{field} {value!r} in {against}" in cause.edit
    assert cause.before64 is not None
    assert cause.after64 is not None
    assert cause.before64 > 1e5 * cause.after64
    assert cause.before32 is not None
    assert cause.after32 is not None
    assert cause.after32 < 1e-4


def test_two_planted_conventions_are_two_causes(framework: Framework, framework_name: str, plant: Plant) -> None:
    placement = other_value(framework, "Adam", "epsilon_placement", "before_correction", "after_correction")
    found = contrast(
        CASES["tutorial-adam"], framework_name, plant(Adam={"epsilon": 1e-5, "epsilon_placement": placement})
    )
    assert sorted(ids(found)) == ["adam-epsilon", "adam-epsilon-placement"]


def test_two_fields_of_one_cause_are_one(framework: Framework, framework_name: str, plant: Plant) -> None:
    placement = other_value(framework, "RMSprop", "epsilon_placement", "inside_sqrt", "outside_sqrt")
    found = contrast(
        CASES["tutorial-rmsprop"], framework_name, plant(RMSprop={"epsilon": 1e-3, "epsilon_placement": placement})
    )
    assert ids(found) == ["rmsprop-epsilon-placement"]
    assert "epsilon 0.001" in found.causes[0].edit
    assert f"epsilon_placement {placement!r}" in found.causes[0].edit


def test_edits_that_fit_as_well_are_both_named(
    framework: Framework, framework_name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another convention undoes the one that is planted, neither is known to be the cause."""
    plain = updates.rmsprop

    def without_epsilon(optimizer: Any, *of: Any) -> None:
        both = optimizer.epsilon == 1e-3 and optimizer.velocity != framework.CONVENTIONS["RMSprop"]["velocity"]
        own = framework.CONVENTIONS["RMSprop"]["epsilon"]
        plain(optimizer if both else replace(optimizer, epsilon=own), *of)

    velocity = other_value(framework, "RMSprop", "velocity", "step", "gradient")
    against = plant(RMSprop={"epsilon": 1e-3, "velocity": velocity})
    monkeypatch.setattr(updates, "rmsprop", without_epsilon)
    found = contrast(CASES["tutorial-rmsprop"], framework_name, against)
    assert ids(found) == ["rmsprop-epsilon-placement"]
    assert found.causes[0].same == ("sgd-momentum-lr-schedule",)
    assert found.idle == ()


def test_a_convention_without_effect_is_no_cause(framework: Framework, framework_name: str, plant: Plant) -> None:
    velocity = other_value(framework, "SGD", "velocity", "step", "gradient")
    against = plant(SGD={"velocity": velocity})
    found = contrast(CASES["tutorial-momentum"], framework_name, against)
    assert (found.verdict, found.causes) == ("rounding", ())
    assert [text.split()[0] for text in found.idle] == ["SGD.velocity"]


def test_a_cause_may_show_late(framework_name: str, plant: Plant) -> None:
    """A logarithm's floor acts only once an example is hopeless."""
    case = replace(CASES["tutorial-identity"], initial_scale=30.0)
    against = plant(BinaryCrossEntropy={"log_epsilon": 1e-3})
    found = contrast(case, framework_name, against)
    assert "bce-clipping" in ids(found)
    assert found.causes[0].where == "L"


ALL = (
    *("tutorial-identity", "tutorial-nesterov", "tutorial-adagrad", "tutorial-rmsprop", "tutorial-adamw"),
    *("digits-softmax", "softmax-probabilities", "zero-gradient-adam", "ill-conditioned"),
)
"""A case for each optimizer and loss, and the hard ones."""


@pytest.mark.parametrize("name", ALL)
def test_every_kind_of_case_gets_an_answer(framework_name: str, name: str) -> None:
    """In the other framework's own conventions: what differs is explained, and each cause is needed and enough."""
    for against in registry.installed():
        if against != framework_name:
            found = contrast(CASES[name], framework_name, against, steps=2)
            assert found.verdict == ("different" if found.causes else "rounding"), found
            assert found.reason == ""
            for cause in found.causes:
                assert not cause.before64 <= 1e3 * cause.after64, cause  # type: ignore[operator] (it may be NaN)


def test_a_framework_that_differs_from_its_own_conventions_gets_no_cause(
    framework_name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = updates.sgd

    def wrong(optimizer: Any, t: int, W: Any, g: Any, v: Any = None) -> None:
        plain(optimizer, t, W, g * (1 + 1e-6), v)

    against = plant()
    monkeypatch.setattr(updates, "sgd", wrong)
    found = contrast(CASES["tutorial-minibatch"], framework_name, against)
    assert (found.verdict, found.causes) == ("different", ())
    assert f"gradparity run tutorial-minibatch --frameworks {framework_name}" in found.reason


def test_what_a_framework_cannot_express_is_undecided(
    framework: Framework, framework_name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(case: Case, precision: str) -> Any:
        raise CannotExpress("the case says nothing")

    against = plant()
    monkeypatch.setattr(framework, "start", start)
    found = contrast(CASES["tutorial-minibatch"], framework_name, against)
    assert (found.verdict, found.reason) == ("undecided", "the case says nothing")
