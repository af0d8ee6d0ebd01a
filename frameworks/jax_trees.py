"""A pytree of parameters as named arrays with layers and roles, and optax's state as slots of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import DictKey, SequenceKey, keystr, tree_flatten_with_path, tree_unflatten

from harness.case import HarnessError
from harness.recipe import Parameter

ROLES = {
    **dict.fromkeys(("kernel", "weight", "w"), "kernel"),
    **dict.fromkeys(("bias", "b"), "bias"),
    **dict.fromkeys(("scale", "gamma"), "gamma"),
    **dict.fromkeys(("beta", "offset"), "beta"),
    **dict.fromkeys(("embedding", "embeddings", "table"), "embeddings"),
}

KEY = re.compile(rf"(?:(.+)_)?({'|'.join(ROLES)})(?:_?(\d+)|_(.+))?", re.IGNORECASE)
"""w, fc1_w, w1, W_2, b_hidden: what comes before, the role's word, a number, or what else comes behind."""

ROOT = "model"
"""The layer of parameters that stand at the top and are called by their role alone."""

Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A pytree taken apart: paths, names and leaves in JAX's order, which sorts dicts; names as the dicts define them.

    Arrays of numbers are values; other leaves stay as they are.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    defined: tuple[str, ...]
    structure: Any

    @property
    def arrays(self) -> dict[str, Any]:
        """By name, as defined."""
        leaves = dict(zip(self.names, self.leaves, strict=True))
        return {name: leaves[name] for name in self.defined if _is_array(leaves[name])}

    def filled(self, values: Mapping[str, Any]) -> Any:
        """The pytree with these values in place of its own."""
        pairs = zip(self.names, self.leaves, strict=True)
        return tree_unflatten(self.structure, [values.get(name, leaf) for name, leaf in pairs])

    def only(self, values: Mapping[str, Any]) -> Any:
        """The pytree with these values, and None in place of what has none: what an optimizer sees."""
        return tree_unflatten(self.structure, [values.get(name) for name in self.names])

    def named(self, tree: Any) -> dict[str, Any]:
        """The values of such a pytree."""
        flat, _ = tree_flatten_with_path(tree)
        names = dict(zip(self.paths, self.names, strict=True))
        return {names[path]: leaf for path, leaf in flat}


def tree_of(params: Any) -> Tree:
    """Take parameters apart. Raises HarnessError for none, NaN among them, and for complex ones."""
    flat, structure = tree_flatten_with_path(params)
    paths = tuple(path for path, _ in flat)
    names = {path: keystr(path, simple=True, separator="/") or ROOT for path in paths}
    tree = Tree(
        paths=paths,
        names=tuple(names.values()),
        leaves=tuple(leaf for _, leaf in flat),
        defined=tuple(names[path] for path in _defined(params)),
        structure=structure,
    )
    for name, leaf in tree.arrays.items():
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise HarnessError(f"parameter {name} is complex; only real ones can be compared: split it in two")
        if is_float(leaf.dtype) and np.isnan(np.asarray(leaf, np.float64)).any():
            raise HarnessError(f"parameter {name} holds NaN; hand over finite parameters")
    if not any(is_float(leaf.dtype) for leaf in tree.arrays.values()):
        raise HarnessError("a JAX model has its parameters in a pytree with floating arrays; give it as params=...")
    return tree


def parameters_of(tree: Tree) -> tuple[Parameter, ...]:
    """Each array's layer and role: what its key and its neighbours' shapes say safely, else "" for the role."""
    arrays = tree.arrays
    paths = dict(zip(tree.names, tree.paths, strict=True))
    places = {name: _place(paths[name], leaf) for name, leaf in arrays.items()}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, (layer, _) in places.items():
        groups[layer].append(name)
    for names in groups.values():
        places |= _places_among(names, arrays, places)
    return tuple(
        Parameter(
            name=name,
            shape=tuple(np.shape(leaf)),
            layer=places[name][0],
            op="",
            role=places[name][1],
            framework="jax",
            trainable=is_float(leaf.dtype),
            buffer=not is_float(leaf.dtype),
            dtype=_stored(leaf),
        )
        for name, leaf in arrays.items()
    )


def write(node: Any, new: Any) -> Any:
    """Put a pytree's leaves into another's dicts and lists, at every depth; what has to stand where `node` stood."""
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            node[key] = write(node[key], new[key])
        return node
    return new


def is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def plain(value: Any) -> np.ndarray:
    """In memory of its own; what is stored in less than float32 as float32, for NumPy has no bfloat16."""
    return np.array(value, np.float32) if is_float(value.dtype) and value.dtype.itemsize < 4 else np.array(value)


def _stored(leaf: Any) -> str:
    """NumPy's float64 is float32 to JAX, unless the user has switched float64 on."""
    switched = isinstance(leaf, Array) or jax.config.jax_enable_x64  # type: ignore[attr-defined]
    return str(leaf.dtype) if switched or leaf.dtype != np.float64 else "float32"


def _is_array(leaf: Any) -> bool:
    numeric = isinstance(leaf, np.ndarray | np.generic | Array) and jnp.issubdtype(leaf.dtype, np.number)
    return numeric or (isinstance(leaf, np.ndarray | Array) and leaf.dtype == bool)


def _defined(node: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of a pytree's leaves as dicts hold them."""
    if isinstance(node, dict):
        children = [(value, DictKey(key)) for key, value in node.items()]
    elif isinstance(node, list) or type(node) is tuple:
        children = [(value, SequenceKey(i)) for i, value in enumerate(node)]
    else:
        yield from (path + below for below, _ in tree_flatten_with_path(node)[0])
        return
    for child, key in children:
        yield from _defined(child, (*path, key))


def _place(path: Path, leaf: Any) -> tuple[str, str]:
    """Layer and role by the path. At the top (w1, b1, fc_w) what a key adds to its role tells the layer."""
    last = keystr(path[-1:], simple=True)
    match = KEY.fullmatch(last)
    before, word, number, rest = match.groups() if match else (None, "", None, None)
    role = "" if rest else ROLES.get(word.lower(), "")
    if role == "kernel" and np.ndim(leaf) < 2:
        role = ""  # a norm's scale, or a vector: not safe
    if len(path) > 1:
        return keystr(path[:-1], simple=True, separator="/"), role
    if not match or role == "embeddings":
        return last or ROOT, role
    return "_".join(filter(None, (before, number, rest))) or ROOT, role


def _places_among(
    names: Sequence[str], arrays: Mapping[str, Any], places: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """What neighbours tell: a norm's bias is its beta; a pair without keys is kernel and bias if the shapes fit; a
    list of arrays of one rank is a list of layers."""
    layer, roles = places[names[0]][0], {places[name][1] for name in names}
    if "gamma" in roles and "kernel" not in roles:
        return {name: (layer, "beta") for name in names if places[name][1] == "bias"}
    if len(names) == 1 or not all(name.rpartition("/")[2].isdigit() for name in names):
        return {}
    shapes = [np.shape(arrays[name]) for name in names]
    if len({len(shape) for shape in shapes}) == 1:
        return {name: (name, "") for name in names}
    if len(shapes) == 2 and len(shapes[0]) >= 2 and shapes[1] == shapes[0][-1:]:
        return {names[0]: (layer, "kernel"), names[1]: (layer, "bias")}
    return {}
