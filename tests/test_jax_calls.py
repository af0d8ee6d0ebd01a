"""What a jaxpr tells for sure of the blocks of a JAX function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402 (what comes before may skip the whole file)

from frameworks import jax_models as models  # noqa: E402
from harness.recipe import Batch, Recipe  # noqa: E402
from reference.kinds import apply  # noqa: E402

RNG = np.random.default_rng(0)
PARAMS = {
    "first": {"kernel": RNG.normal(size=(5, 6)), "bias": RNG.normal(size=6)},
    "last": {"kernel": RNG.normal(size=(6, 4))},
}
KNOWN: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(jax.nn, name) for name in ("relu", "silu", "softplus", "softmax", "log_softmax", "soft_sign")},
    "gelu": partial(jax.nn.gelu, approximate=True),
    "tanh": jnp.tanh,
}


def calls(function: Callable[[Any], Any]) -> Any:
    def model(params: Any, x: Any) -> Any:
        first, last = params["first"], params["last"]
        return function(x @ first["kernel"] + first["bias"]) @ last["kernel"]

    watched = models.watch(Recipe(model=model, params=PARAMS), "float64", False)
    batch = Batch(inputs=(RNG.normal(size=(3, 5)),))
    record = watched.pull_back(batch, {})
    return watched.calls(batch, list(record.activations)), record


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_told_for_sure_is_reproduced(name: str) -> None:
    found, record = calls(KNOWN[name])
    assert [name for name in found if "@" not in name] == list(record.activations)
    for block in ("first", name, "last"):
        call = found[block]
        (op,) = call.ops
        computed = apply(op, call.inputs, call.parameters[0])
        np.testing.assert_allclose(computed, record.activations[block], rtol=0, atol=1e-12 * np.abs(computed).max())
    assert found["first"].names == (("first/kernel", "first/bias"),)
    assert found["last"].names == (("last/kernel",),)


def test_others_are_unknown() -> None:
    found, _ = calls(jnp.sort)
    assert not found["sort"].ops
    assert found["sort"].inputs


def test_advice() -> None:
    found, _ = calls(KNOWN["gelu"])
    assert models.written(found["gelu"].ops[0], ["form"]) == "jax.nn.gelu(approximate=True)"
