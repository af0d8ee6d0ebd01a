"""Views: see and put are exact inverses, views meet, sums and pieces go both ways."""

from __future__ import annotations

import numpy as np
import pytest

from harness.views import (
    Link,
    Side,
    View,
    describe,
    meeting,
    ordered,
    plain,
    put,
    put_gradient,
    put_value,
    see,
    see_gradient,
    see_value,
    seen_shape,
)

RNG = np.random.default_rng(0)

VIEWS = {
    "as it is": (View(), (3, 4)),
    "transposed": (View(axes=(1, 0)), (3, 4)),
    "axes 3,2,0,1": (View(axes=(3, 2, 0, 1)), (2, 3, 4, 5)),
    "rows 2:4": (View(part=(slice(2, 4),)), (6, 3)),
    "columns 1:3, transposed": (View(part=(slice(None), slice(1, 3)), axes=(1, 0)), (4, 5)),
    "columns 1:3, as 8": (View(part=(slice(None), slice(1, 3)), shape=(8,)), (4, 5)),
    "as 6x4, transposed": (View(shape=(6, 4), axes=(1, 0)), (6, 2, 2)),
    "axes 2,3 reversed": (View(flips=(2, 3)), (2, 3, 4, 5)),
    "transposed, axes 0 reversed": (View(axes=(1, 0), flips=(0,)), (3, 4)),
    "transposed, gate order i,f,o,g": (
        View(axes=(1, 0), order=(0, np.array([0, 1, 3, 2])), said="gate order i,f,o,g"),
        (3, 4),
    ),
    "axis 1 reordered": (View(order=(1, np.array([2, 0, 1, 3]))), (3, 4)),
    "rows 0:4, as 2x2x3, axes 2,0,1, axes 1 reversed, axis 0 reordered, reshaped to 6x2": (
        View(
            part=(slice(0, 4),),
            shape=(2, 2, 3),
            axes=(2, 0, 1),
            flips=(1,),
            order=(0, np.array([1, 2, 0])),
            result=(6, 2),
        ),
        (5, 3),
    ),
    "as a scalar": (View(shape=()), (1, 1)),
}


@pytest.mark.parametrize("words", VIEWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_put_undoes_see(words: str, dtype: type) -> None:
    view, shape = VIEWS[words]
    assert describe(view) == words
    array = RNG.normal(size=shape).astype(dtype)
    before = array.copy()
    seen = np.array(see(view, array))
    assert seen.shape == seen_shape(view, shape)
    other = RNG.normal(size=seen.shape).astype(dtype)
    put(view, array, other)
    np.testing.assert_array_equal(see(view, array), other, strict=True)
    untouched = np.ones(shape, bool)
    put(view, untouched, np.zeros(seen.shape, bool))
    np.testing.assert_array_equal(array[untouched], before[untouched])
    assert untouched.sum() == array.size - seen.size
    put(view, array, seen)
    np.testing.assert_array_equal(array, before, strict=True)


def test_put_writes_into_strided_memory() -> None:
    whole = np.zeros((4, 6))
    strided = whole[::2, 1::2].T
    put(View(shape=(6,)), strided, np.arange(6.0))
    np.testing.assert_array_equal(strided.ravel(), np.arange(6.0))


def test_see_copies_nothing_without_an_order() -> None:
    array = RNG.normal(size=(6, 4, 2))
    for view in (View(axes=(2, 0, 1)), View(part=(slice(2, 4),)), View(flips=(1,)), View(shape=(24, 2), axes=(1, 0))):
        assert np.shares_memory(see(view, array), array)


def test_views_meet_in_the_reference_layout() -> None:
    common = RNG.normal(size=(4, 6)).astype(np.float32)
    index = np.array([2, 3, 0, 1])
    one = View(part=(slice(1, 5),), shape=(4, 6), axes=(0, 1))
    other = View(shape=(6, 4), axes=(1, 0), order=(0, index))
    arrays = np.zeros((5, 6), np.float32), np.zeros((6, 2, 2), np.float32)
    put(one, arrays[0], common)
    put(other, arrays[1], common)
    for views, sides in (((one, other), arrays), ((other, one), arrays[::-1])):
        own, theirs = meeting(views[0], sides[0].shape, views[1], sides[1].shape)
        np.testing.assert_array_equal(see(own, sides[0]), see(theirs, sides[1]), strict=True)


def test_two_orders_meet() -> None:
    common = RNG.normal(size=(6, 2))
    views = [View(shape=(6, 2), axes=(0, 1), order=(0, RNG.permutation(6))) for _ in range(2)]
    arrays = [np.zeros((6, 2)) for _ in range(2)]
    for view, array in zip(views, arrays, strict=True):
        put(view, array, common)
    own, theirs = meeting(views[0], (6, 2), views[1], (6, 2))
    np.testing.assert_array_equal(see(own, arrays[0]), see(theirs, arrays[1]))
    own, theirs = meeting(views[0], (6, 2), views[0], (6, 2))
    assert theirs.order is None


def test_plain_drops_what_does_nothing() -> None:
    view = plain(View(shape=(2, 3), axes=(0, 1), result=(2, 3)), (2, 3))
    assert (view.shape, view.axes, view.result) == (None, None, None)
    assert plain(View(axes=(1, 0), result=(3, 2)), (2, 3)).axes == (1, 0)


def test_an_order_on_top_of_a_view() -> None:
    array = RNG.normal(size=(3, 4))
    index = RNG.permutation(3)
    view = View(axes=(1, 0))
    once = ordered(view, (3, 4), 1, index)
    assert once is not None
    np.testing.assert_array_equal(see(once, array), array.T.take(index, 1))
    twice = ordered(once, (3, 4), 1, index)
    assert twice is not None
    np.testing.assert_array_equal(see(twice, array), see(once, array).take(index, 1))
    assert ordered(once, (3, 4), 0, np.arange(4)) is None


def test_an_order_before_a_reshape_that_keeps_its_axis() -> None:
    array = RNG.normal(size=(6, 4))
    view = View(axes=(1, 0), result=(4, 3, 2))
    kept = ordered(view, (6, 4), 0, np.array([3, 1, 0, 2]))
    assert kept is not None
    np.testing.assert_array_equal(see(kept, array), see(view, array).take([3, 1, 0, 2], 0))
    assert ordered(view, (6, 4), 1, np.arange(3)) is None


def test_an_order_among_axes_of_equal_length_takes_the_right_one() -> None:
    array = RNG.normal(size=(2, 2, 2))
    for axis in range(3):
        view = ordered(View(axes=(2, 1, 0), result=(2, 2, 2)), (2, 2, 2), axis, np.array([1, 0]))
        assert view is not None
        np.testing.assert_array_equal(see(view, array), array.transpose(2, 1, 0).take([1, 0], axis))


SUM = Side(parameter="ih", view=View(), added=(Side(parameter="hh", view=View()),))


def test_a_sum_is_seen_and_put() -> None:
    values = {"ih": RNG.normal(size=8), "hh": RNG.normal(size=8)}
    np.testing.assert_array_equal(see_value(SUM, values), values["ih"] + values["hh"])
    kept, wanted = values["hh"].copy(), RNG.normal(size=8)
    put_value(SUM, values, wanted)
    np.testing.assert_allclose(see_value(SUM, values), wanted, rtol=1e-15, atol=1e-15)
    np.testing.assert_array_equal(values["hh"], kept)


def test_each_summand_has_the_gradient_of_the_sum() -> None:
    gradient = RNG.normal(size=8)
    arrays = {"ih": np.zeros(8), "hh": np.zeros(8)}
    put_gradient(SUM, arrays, gradient)
    np.testing.assert_array_equal(arrays["ih"], gradient)
    np.testing.assert_array_equal(arrays["hh"], gradient)
    seen = see_gradient(SUM, {"ih": gradient, "hh": gradient})
    assert seen is not None
    np.testing.assert_array_equal(seen, gradient)
    other = see_gradient(SUM, {"ih": None, "hh": gradient})
    assert other is not None
    assert see_gradient(SUM, {"ih": None}) is None


def test_a_link_needs_no_framework() -> None:
    side = Side(parameter="w", view=View())
    assert Link(name="w", reference=side, candidate=side, how="value", expected=True).name == "w"
