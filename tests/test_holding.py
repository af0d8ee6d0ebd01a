"""What holders hold is put back to the object, in order, behind the back of subclasses."""

from __future__ import annotations

from collections import OrderedDict, deque
from types import CellType
from typing import Any

import numpy as np
import pytest

from frameworks.holding import Global, Holders


class Loud(list[Any]):
    """A list that does not want to be read or written."""

    def __iter__(self) -> Any:
        raise AssertionError("read")

    def extend(self, *_: Any) -> None:
        raise AssertionError("written")

    clear = extend


def of(holder: Any) -> Any:
    match holder:
        case CellType():
            try:
                return [holder.cell_contents]
            except ValueError:
                return []
        case Global():
            return [holder.scope[holder.name]] if holder.name in holder.scope else []
        case dict():
            return list(holder.items())
    return (
        sorted(map(id, holder))
        if isinstance(holder, set)
        else list(list.__iter__(holder) if type(holder) is Loud else holder)
    )


ARRAY = np.zeros(3)
CHANGES: list[tuple[Any, Any]] = [
    ({"a": 1, "b": ARRAY}, lambda held: held.update(b=ARRAY.copy(), c=2)),
    ({"a": 1, "b": 2}, lambda held: held.update(a=held.pop("a"))),
    (OrderedDict(a=1, b=2), lambda held: held.move_to_end("a")),
    ([1, ARRAY], lambda held: held.append(3)),
    ([0.0], lambda held: held.__setitem__(0, -0.0)),
    (Loud([1, 2]), lambda held: list.append(held, 3)),
    ({ARRAY.tobytes(), 1}, lambda held: held.discard(1)),
    (deque([1, 2]), lambda held: held.rotate()),
    (CellType(1), lambda held: setattr(held, "cell_contents", 2)),
    (CellType(), lambda held: setattr(held, "cell_contents", 2)),
    (Global({"x": 1, "y": 2}, "x"), lambda held: held.scope.update(x=3)),
    (Global({"x": 1}, "x"), lambda held: held.scope.clear()),
]


@pytest.mark.parametrize(("holder", "change"), CHANGES)
def test_a_change_is_undone_and_done_again(holder: Any, change: Any) -> None:
    holders = Holders([{"untouched": 1}, holder])
    before, shown = holders.read(), of(holder)
    change(holder)
    after, changed = holders.read(), of(holder)
    holders.write(before, after)
    assert [repr(one) for one in of(holder)] == [repr(one) for one in shown]
    assert all(one is other for one, other in zip(holders.read().values[1], before.values[1], strict=True))
    holders.write(after, holders.read())
    assert repr(of(holder)) == repr(changed)


def test_what_is_the_same_is_not_written() -> None:
    class Watched(dict[str, Any]):
        pass

    holder = Watched(a=ARRAY)
    iterator = iter(holder)
    holders = Holders([holder])
    holders.write(holders.read(), holders.read())
    assert next(iterator) == "a"  # a dict that was cleared and filled would raise
