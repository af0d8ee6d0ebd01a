"""A seeded sample of the ported models: clean ones agree, planted mistakes are found where they start."""

from __future__ import annotations

import numpy as np
import pytest

import frameworks as registry

pytest.importorskip("torch")
SAMPLE = (
    *(("mlp", "rounding"), ("recurrent", "rounding"), ("several", "rounding"), ("hard", "rounding")),
    *((family, "different") for family in ("mlp", "training", "losses", "convolutional", "normalised", "residual")),
    *((family, "different") for family in ("recurrent", "attention", "autoencoder", "near")),
)
SEED = 3


def _absent() -> str:
    return next((name for name in registry.FRAMEWORKS if name not in registry.installed()), "")


@pytest.mark.parametrize(("family", "verdict"), SAMPLE)
def test_a_drawn_port(family: str, verdict: str) -> None:
    if _absent():
        pytest.skip(registry.pip_line(_absent()))
    from benchmarks.ports import ports
    from benchmarks.portsuite import compared, place_right, verdict_right

    candidates = [port for port in ports([family]) if port.verdict == verdict]
    port = candidates[np.random.default_rng((SEED, SAMPLE.index((family, verdict)))).integers(len(candidates))]
    found = compared(port.build())
    assert verdict_right(port, found), f"{port.name}: {found}, expected {port.verdict}"
    assert place_right(port, found), f"{port.name}: {found}, expected {sorted(port.place)} at {sorted(port.step)}"
