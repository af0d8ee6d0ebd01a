"""What Python objects hold (dicts, lists, sets, closure cells, globals): read, and put back where it is another object.

Told apart by identity, and behind the back of subclasses: a list that a framework tracks is told nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from types import CellType
from typing import Any, NamedTuple

_KINDS = (OrderedDict, dict, list, set, deque)


class Global(NamedTuple):
    """A global variable."""

    scope: dict[str, Any]
    name: str


class Contents(NamedTuple):
    """Of each holder in order the keys (none but a dict's) and the values."""

    keys: list[tuple[Any, ...]]
    values: list[tuple[Any, ...]]


class Holders:
    """Containers, closure cells and globals, of which most hold the same whoever reads them."""

    def __init__(self, holders: Sequence[Any]) -> None:
        self._holders = holders
        self._keys, self._values = [_keys(holder) for holder in holders], [_values(holder) for holder in holders]

    def read(self) -> Contents:
        return Contents([*map(tuple, self._keys)], [*map(tuple, self._values)])

    def write(self, wanted: Contents, present: Contents) -> None:
        """Put the wanted contents where others are; present: as just read."""
        for holder, keys, values, had, held in zip(self._holders, *wanted, *present, strict=True):
            if not (_same(values, held) and _same(keys, had)):
                _fill(holder, keys, values)


def container_kind(holder: Any) -> Any:
    """The built-in kind of a container; None for what is none."""
    return next((kind for kind in _KINDS if issubclass(type(holder), kind)), None)


def contents_of(holder: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The keys and the values of one holder."""
    return tuple(_keys(holder)), tuple(_values(holder))


def _keys(holder: Any) -> Iterable[Any]:
    kind = container_kind(holder)
    return kind.keys(holder) if kind and issubclass(kind, dict) else ()


def _values(holder: Any) -> Iterable[Any]:
    """A view that follows what the holder holds."""
    kind = container_kind(holder)
    if kind and issubclass(kind, dict):
        return kind.values(holder)
    return holder if type(holder) is kind else _Behind(holder, kind)


class _Behind:
    """What a subclass of a container, a cell or a global holds."""

    def __init__(self, holder: Any, kind: Any) -> None:
        self._holder, self._kind = holder, kind

    def __iter__(self) -> Iterator[Any]:
        if self._kind:
            return self._kind.__iter__(self._holder)
        if isinstance(self._holder, Global):
            scope, name = self._holder
            return iter([scope[name]] if name in scope else [])
        try:
            return iter([self._holder.cell_contents])
        except ValueError:  # a name not yet bound
            return iter([])


def _same(wanted: tuple[Any, ...], present: tuple[Any, ...]) -> bool:
    return wanted is present or (len(wanted) == len(present) and all(map(is_, wanted, present)))


def _fill(holder: Any, keys: tuple[Any, ...], values: tuple[Any, ...]) -> None:
    kind = container_kind(holder)
    if isinstance(holder, Global):
        if values:
            holder.scope[holder.name] = values[0]
        else:
            del holder.scope[holder.name]
    elif isinstance(holder, CellType):
        if values:
            holder.cell_contents = values[0]
        else:
            del holder.cell_contents
    elif issubclass(kind, dict):
        kind.clear(holder)
        for key, value in zip(keys, values, strict=True):
            kind.__setitem__(holder, key, value)
    else:
        kind.clear(holder)
        (kind.update if kind is set else kind.extend)(holder, values)
