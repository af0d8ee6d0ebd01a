"""The one list of frameworks. Nothing else in the project names them all; importing this imports none of them."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from frameworks.protocol import Framework, Functions, Models, Watched
from harness.case import CannotRun, HarnessError, Precision
from harness.recipe import Recipe

Watch = Callable[[Recipe, Precision, bool], Watched]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An adapter module, one for users' own models ("" where there is none), the distributions it needs (the first
    one's version is shown), its extra in pyproject, the package of its models' classes ("" where models are plain
    functions of their parameters), and an adapter for users' own functions ("" where they take another's arrays)."""

    module: str
    models: str
    packages: tuple[str, ...]
    extra: str
    root: str = ""
    functions: str = ""


FRAMEWORKS: dict[str, Registered] = {
    "pytorch": Registered(
        module="frameworks.pytorch",
        models="frameworks.pytorch_models",
        packages=("torch",),
        extra="torch",
        root="torch",
        functions="frameworks.pytorch_functions",
    ),
    "keras": Registered(
        module="frameworks.keras_tf",
        models="frameworks.keras_models",
        packages=("keras", "tensorflow"),
        extra="tensorflow",
        root="keras",
    ),
    "tensorflow": Registered(
        module="frameworks.tensorflow_graph",
        models="",
        packages=("tensorflow",),
        extra="tensorflow",
        functions="frameworks.tensorflow_functions",
    ),
    "jax": Registered(
        module="frameworks.jax_native",
        models="frameworks.jax_models",
        packages=("jax", "jaxlib", "optax"),
        extra="jax",
        functions="frameworks.jax_functions",
    ),
}


def versions(name: str) -> dict[str, str | None]:
    """Installed versions of a framework's distributions, None for a missing one; imports nothing heavy."""
    found: dict[str, str | None] = {}
    for package in FRAMEWORKS[name].packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def installed() -> list[str]:
    """Names of the frameworks whose distributions are all present."""
    return [name for name in FRAMEWORKS if None not in versions(name).values()]


def pip_line(name: str) -> str:
    """The command that installs a framework for gradparity."""
    return f'pip install "gradparity[{FRAMEWORKS[name].extra}]"'


def require(name: str) -> None:
    """Raises CannotRun where a framework is not installed."""
    absent = [package for package, version in versions(name).items() if version is None]
    if absent:
        raise CannotRun(f"framework {name} needs {' and '.join(absent)}, not installed; run: {pip_line(name)}")


def adapter(name: str) -> Framework:
    """Import a framework's adapter (1 to 6 seconds the first time). Raises CannotRun where it is not installed."""
    require(name)
    return cast(Framework, importlib.import_module(FRAMEWORKS[name].module))


def framework_of(recipe: Recipe) -> str:
    """The framework whose model it is, told by the packages of its classes; a function with params has none.

    Raises HarnessError for what is no model.
    """
    of_root = {registered.root: name for name, registered in FRAMEWORKS.items() if registered.models}
    for cls in type(recipe.model).__mro__:  # Keras's own classes come before those of the backend it runs on
        if (root := cls.__module__.partition(".")[0]) in of_root:
            return of_root[root]
    if recipe.params is not None and "" in of_root:
        return of_root[""]
    raise HarnessError(
        f"a {type(recipe.model).__name__} is no model that can be compared; give a torch.nn.Module, a keras.Model, "
        "or a JAX function apply(params, x) as harness.side(apply, params=...)"
    )


def models(name: str) -> Models:
    """Import a framework's adapter for users' own models. Raises CannotRun where it is not installed."""
    require(name)
    return cast(Models, importlib.import_module(FRAMEWORKS[name].models))


def recorder(name: str) -> Watch:
    """How a user's model is watched to be recorded: as `models` does it, but Keras on any backend."""
    if FRAMEWORKS[name].root == "keras" and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return cast(Watch, importlib.import_module("frameworks.keras_backends").watch)
    return models(name).watch


@functools.cache
def functions(name: str) -> Functions:
    """Import a framework's adapter for users' own functions. Raises CannotRun where it is not installed."""
    require(name)
    return cast(Functions, importlib.import_module(FRAMEWORKS[name].functions))
