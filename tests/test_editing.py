"""Edits that make one side's parts compute what the other's do: found where there are some, and only there."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.case import Sigmoid, Tanh
from harness.editing import Edit, Parts, Puzzle, apart, differing, edited, searched, smallest
from harness.ops import GELU, LayerNorm, Rectifier, Scale
from harness.solving import Question, joined, solved
from reference.kinds import apply

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 8))
SCALE, OFFSET = RNG.uniform(0.5, 1.5, 8), RNG.standard_normal(8)
NORM = LayerNorm(axes=(1,), center=True, ddof=0, epsilon=1e-5, epsilon_placement="inside", scale=True, offset=True)
RELU = Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)


def compute(parts: Parts) -> list[np.ndarray]:
    """A norm with scale and offset, then an activation if there is one."""
    y = apply(parts[0], (X,), (SCALE, OFFSET))
    return [y if parts[1] is None else apply(parts[1], (y,), ())]


def question(reference: Parts, candidate: Parts, known: tuple[bool, bool] = (True, True), **more: Any) -> Question:
    return Question(
        parts=(reference if known[0] else (), candidate if known[1] else ()),
        values=(compute(reference), compute(candidate)),
        compute=compute,
        enough=[1e-14],
        **more,
    )


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("field", "value"), [("epsilon", 1e-3), ("epsilon", 3.7e-4), ("ddof", 1), ("epsilon_placement", "outside")]
)
def test_a_field_that_differs_is_found(known: tuple[bool, bool], field: str, value: Any) -> None:
    other = (replace(NORM, **{field: value}), RELU)
    found = solved(question((NORM, RELU), other, known))
    assert found is not None
    assert [(edit.position, edit.field, edit.after) for edit in found.edits] == [(0, field, value)]
    assert found.before > 1e-6
    assert found.after < 1e-14


def test_two_fields_at_once() -> None:
    other = (replace(NORM, epsilon=1e-3), replace(RELU, negative_slope=0.2))
    found = solved(question((NORM, RELU), other))
    assert found is not None
    assert {edit.field for edit in found.edits} == {"epsilon", "negative_slope"}


def test_fields_that_make_no_difference_are_not_named() -> None:
    other = (replace(NORM, epsilon=1e-3), replace(RELU, slope_at_threshold=1.0))
    found = solved(question((NORM, RELU), other))
    assert found is not None
    assert [edit.field for edit in found.edits] == ["epsilon"]


def test_a_part_that_only_one_side_has() -> None:
    found = solved(question((NORM, RELU), (NORM, None)))
    assert found is not None
    assert found.edits == (Edit(position=1, field="", before=RELU, after=None),)


def test_another_part_is_recognised_by_what_it_computes() -> None:
    asked = question((NORM, RELU), (NORM, Tanh()), (True, False), alternatives={1: (Sigmoid(), Tanh())})
    found = solved(asked)
    assert found is not None
    assert found.edits[0].after == Tanh()


@pytest.mark.parametrize(("factor", "fitted"), [(2.0, False), (1.37, True)])
def test_a_part_put_in_with_a_number_that_was_solved_for_says_so(factor: float, fitted: bool) -> None:
    asked = question((NORM, None), (NORM, Scale(factor=factor, offset=0.0)), (True, False))
    found = solved(replace(asked, alternatives={1: (Scale(factor=2.0, offset=0.0),)}))
    assert found is not None
    assert (found.edits[0].after.factor, found.fitted) == (factor, fitted)


def test_sides_that_agree_have_no_cause() -> None:
    assert solved(question((NORM, RELU), (NORM, replace(RELU, slope_at_threshold=1.0)))) is None


def test_parts_that_are_read_wrongly_are_not_believed() -> None:
    asked = question((NORM, RELU), (replace(NORM, epsilon=1e-3), RELU))
    wrong = (replace(NORM, epsilon=1e-2), RELU)
    assert solved(replace(asked, parts=(wrong, wrong))) is None


def test_what_no_edit_explains_stays_unexplained() -> None:
    asked = question((NORM, RELU), (NORM, RELU))
    other = [np.sin(37 * compute((NORM, RELU))[0])]
    for known in ((asked.parts[0], ()), asked.parts):
        assert solved(replace(asked, parts=known, values=(asked.values[0], other))) is None


def test_an_edit_must_hold_at_every_point() -> None:
    """A factor that fits one point by luck is refuted by the next."""
    first = question((NORM, RELU), (replace(NORM, epsilon=1e-3), RELU), (True, False))
    lucky = replace(first, values=(first.values[0], [first.values[1][0] * 1.001]))
    assert solved(first) is not None
    assert solved(joined([first, lucky])) is None


def test_gelu_by_its_three_numbers() -> None:
    erf = GELU(form="erf", scale=math.sqrt(0.5), cubic=0.0)
    tanh = GELU(form="tanh", scale=math.sqrt(2 / math.pi), cubic=0.044715)
    found = solved(question((NORM, erf), (NORM, tanh)))
    assert found is not None
    assert {edit.field for edit in found.edits} == {"form", "scale", "cubic"}


def test_differing_and_edited_undo_each_other() -> None:
    one, other = (NORM, RELU), (replace(NORM, epsilon=1e-3, ddof=1), None)
    assert edited(one, differing(one, other)) == other


def test_numbers_come_as_the_shortest_decimal_that_fits() -> None:
    puzzle = Puzzle(compute=compute, wanted=compute((replace(NORM, epsilon=0.00123), None)), enough=[1e-13])
    fits = searched(puzzle, (NORM, None), {})
    assert [edit.after for (edit,) in fits if edit.field == "epsilon"] == [0.00123]


def test_parts_that_do_not_fit_are_infinitely_far() -> None:
    puzzle = Puzzle(compute=compute, wanted=compute((NORM, None)), enough=[1e-14])
    assert apart(puzzle, (replace(NORM, axes=(5,)), None)) == math.inf
    assert smallest(puzzle, (replace(NORM, axes=(5,)), None), []) == []


def test_two_numbers_of_a_side_that_is_not_known() -> None:
    other = (replace(NORM, epsilon=3e-3), replace(RELU, negative_slope=0.2))
    for known in ((True, False), (False, True)):
        found = solved(question((NORM, RELU), other, known))
        assert found is not None
        assert {(edit.field, edit.after) for edit in found.edits} == {("epsilon", 3e-3), ("negative_slope", 0.2)}


def test_a_part_that_is_put_in_has_its_number_solved_for() -> None:
    other = (NORM, replace(RELU, negative_slope=0.37))
    found = solved(question((NORM, None), other, (True, False), alternatives={1: (RELU,)}))
    assert found is not None
    assert [(edit.position, edit.field, edit.after) for edit in found.edits] == [(1, "", other[1])]


def test_an_alternative_that_differs_in_a_field_is_an_edit_of_that_field() -> None:
    puzzle = Puzzle(compute=compute, wanted=compute((replace(NORM, axes=(0,)), None)), enough=[1e-14])
    fits = searched(puzzle, (NORM, None), {0: (replace(NORM, axes=(0,)),)})
    assert [[(edit.field, edit.after) for edit in edits] for edits in fits] == [[("axes", (0,))]]


def test_nan_on_both_sides_is_no_difference() -> None:
    wanted = np.array([np.nan, 1.0, np.inf])
    for made, agree in (([np.nan, 1.0, np.inf], True), ([0.0, 1.0, np.inf], False), ([np.nan, 1.0, -np.inf], False)):
        puzzle = Puzzle(compute=lambda parts, made=made: [np.array(made)], wanted=[wanted], enough=[1e-14])
        assert (apart(puzzle, ()) <= 1) is agree


def test_roundings_of_constants_alone_are_told_as_such() -> None:
    slope = float(np.float32(0.1))
    found = solved(question((NORM, replace(RELU, negative_slope=0.1)), (NORM, replace(RELU, negative_slope=slope))))
    assert found is not None
    assert [(edit.before, edit.after) for edit in found.edits] == [(0.1, slope)]


def test_of_many_edits_only_those_that_matter_are_kept() -> None:
    """Four that matter among seven: none of them can be left out, none of the others is told."""
    seen = [RNG.standard_normal(3) for _ in range(4)]

    def first_four(parts: Parts) -> list[np.ndarray]:
        return [values * part.negative_slope for values, part in zip(seen, parts, strict=False)]

    one, other = ((replace(RELU, negative_slope=slope),) * 7 for slope in (0.1, 0.2))
    puzzle = Puzzle(compute=first_four, wanted=first_four(other), enough=[1e-14] * 4)
    (found,) = smallest(puzzle, one, differing(one, other))
    assert [edit.position for edit in found] == [0, 1, 2, 3]


def test_a_search_whose_time_is_up_finds_nothing() -> None:
    asked = question((NORM, RELU), (replace(NORM, epsilon=1e-3), RELU), (True, False))
    assert solved(asked) is not None
    assert solved(asked, end=time.process_time()) is None
