"""The one list of frameworks. Nothing else in the project names them all; importing this imports none of them."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import cast

from frameworks.protocol import Framework, Models
from harness.case import CannotRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An adapter module, one for users' own models ("" where there is none), the distributions it needs (the first
    one's version is shown) and its extra in pyproject."""

    module: str
    models: str
    packages: tuple[str, ...]
    extra: str


FRAMEWORKS: dict[str, Registered] = {
    "pytorch": Registered(
        module="frameworks.pytorch", models="frameworks.pytorch_models", packages=("torch",), extra="torch"
    ),
    "keras": Registered(
        module="frameworks.keras_tf",
        models="frameworks.keras_models",
        packages=("keras", "tensorflow"),
        extra="tensorflow",
    ),
    "tensorflow": Registered(
        module="frameworks.tensorflow_graph", models="", packages=("tensorflow",), extra="tensorflow"
    ),
    "jax": Registered(
        module="frameworks.jax_native", models="frameworks.jax_models", packages=("jax", "jaxlib", "optax"), extra="jax"
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


def models(name: str) -> Models:
    """Import a framework's adapter for users' own models. Raises CannotRun where it is not installed."""
    require(name)
    return cast(Models, importlib.import_module(FRAMEWORKS[name].models))
