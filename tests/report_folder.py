"""A made-up run folder, as harness.recording lays it out, for the tests of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FRAMEWORKS = ("alpha", "beta", "gamma", "delta")
MODES = {"stochastic": 1024, "mini-batch": 320, "batch": 200}
ACTIVATIONS = {"z1": "32x16", "a1": "32x16", "z2": "32x8", "a2": "32x8", "z3": "32x1", "yhat": "32x1"}
WEIGHTS = {"W1": "16x30", "b1": "16", "W2": "8x16", "b2": "8", "W3": "1x8", "b3": "1"}
BACKWARD = ("yhat", "z3", "a2", "W3", "b3", "z2", "a1", "W2", "b2", "z1", "W1", "b1")
TEXT = ["case", "framework", "mode", "kind", "tensor", "name", "shape", "worst_index", "verdict", "because", "detail"]


@dataclass(slots=True)
class Folder:
    """What a run folder will hold; tests edit it, then save it."""

    frame: Any  # pandas frames: their own annotations are of no use to a checker
    convergence: Any
    header: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Write frame.parquet, convergence.parquet, arrays.npz and run.json into `path`."""
        self.frame.astype(dict.fromkeys(TEXT, "category")).to_parquet(path / "frame.parquet", index=False)
        self.convergence.to_parquet(path / "convergence.parquet", index=False)
        np.savez(path / "arrays.npz", **self.arrays)  # pyright: ignore[reportArgumentType]
        _ = (path / "run.json").write_text(json.dumps(self.header), encoding="utf-8")
        return path

    def entry(self, case: str, framework: str) -> dict[str, Any]:
        """The summary of one case in one framework."""
        return next(e for e in self.header["summary"] if (e["case"], e["framework"]) == (case, framework))

    def rows(self, case: str, framework: str, name: str, step: int) -> Any:
        """True at the frame's row of one quantity."""
        of = self.frame
        return (of.case == case) & (of.framework == framework) & (of["name"] == name) & (of.step == step)


def folder(*, modes: dict[str, int] | None = None, frameworks: tuple[str, ...] = FRAMEWORKS, seed: int = 0) -> Folder:
    """Clean runs of one small network: every verdict `identical` or `rounding`."""
    rng = np.random.default_rng(seed)
    modes = {"mini-batch": 8, "batch": 5} if modes is None else modes
    pairs = [(mode, steps, framework) for mode, steps in modes.items() for framework in frameworks]
    frames = [_frame(rng, *pair) for pair in pairs]
    convergence = [
        convergence_of(rng, mode, steps, framework)
        for mode, steps in modes.items()
        for framework in ("numpy", *frameworks)
    ]
    return Folder(
        frame=pd.concat(frames, ignore_index=True),
        convergence=pd.concat(convergence, ignore_index=True),
        header=_header(modes, pairs),
    )


def _quantities() -> list[tuple[str, str, str, str]]:
    """(kind, tensor, name, shape) in the order in which a step shows them."""
    shapes = ACTIVATIONS | WEIGHTS
    backward = [("gradient" if t in WEIGHTS else "activation_gradient", t, f"dL/d{t}", shapes[t]) for t in BACKWARD]
    return [
        *(("activation", t, t, shape) for t, shape in ACTIVATIONS.items()),
        ("loss", "L", "L", ""),
        *backward,
        *(("update", t, f"update:{t}", shape) for t, shape in WEIGHTS.items()),
        *(("parameter", t, t, shape) for t, shape in WEIGHTS.items()),
    ]


def _frame(rng: np.random.Generator, mode: str, steps: int, framework: str) -> pd.DataFrame:
    quantities = _quantities()
    rows = steps * len(quantities)
    value = rng.lognormal(-2, 1, rows)
    noise = value * 1e-7
    budget = 2 * noise * 2**-29 + value * 2**-52
    ratio = np.where(rng.random(rows) < 0.2, 0.0, rng.lognormal(-0.5, 0.7, rows))
    step = np.repeat(np.arange(steps, dtype=np.int32), len(quantities))
    kind, tensor, name, shape = (np.tile(np.array(column, object), steps) for column in zip(*quantities, strict=True))
    return pd.DataFrame(
        {
            "case": f"tutorial-{mode}",
            "framework": framework,
            "mode": mode,
            "step": step,
            "epoch": step // 8,
            "kind": kind,
            "tensor": tensor,
            "name": name,
            "shape": shape,
            "reference": value,
            "candidate": value,
            "d32": noise,
            "d64": ratio * budget,
            "noise_reference": noise,
            "noise_candidate": noise,
            "budget": budget,
            "ratio": ratio,
            "ulp": ratio,
            "digits": 7.0,
            "worst_index": "",
            "verdict": np.where(ratio == 0, "identical", "rounding"),
            "because": "",
            "detail": "",
        }
    )


def convergence_of(rng: np.random.Generator, mode: str, steps: int, framework: str) -> pd.DataFrame:
    step = np.arange(steps + 1, dtype=np.int32)
    loss = 0.08 + 0.6 * np.exp(-3 * step / steps)
    walk = np.abs(rng.normal(1, 0.1, steps + 1)) * np.sqrt(step)
    apart = 0.0 if framework == "numpy" else 1.0
    return pd.DataFrame(
        {
            "case": f"tutorial-{mode}",
            "framework": framework,
            "mode": mode,
            "epoch": step // 8,
            "step": step,
            "loss": loss,
            "accuracy": 1 - loss / 2,
            "gradient_norm": loss / 10,
            "distance32": apart * walk * 6e-8,
            "distance64": apart * walk * 1e-16,
            "seconds": step * 1e-4,
        }
    )


def _header(modes: dict[str, int], pairs: list[tuple[str, int, str]]) -> dict[str, Any]:
    frameworks = list(dict.fromkeys(framework for *_, framework in pairs))
    return {
        "schema": 1,
        "created": "2026-01-31T12:00:00+00:00",
        "command": "gradparity run tutorial-stochastic tutorial-minibatch tutorial-batch",
        "seconds": 7.25,
        "environment": {
            "python": "3.11.2",
            "machine": "x86_64, 2 cores",
            "frameworks": {f: {"version": "2.1", "device": "cpu", "flags": {"TF32": False}} for f in frameworks},
        },
        "cases": {
            f"tutorial-{mode}": {
                "summary": f"a small classifier, {mode} gradient descent",
                "mode": mode,
                "steps": steps,
                "seed": 0,
                "network": [
                    {"node": "z1", "formula": "z1 = x W1ᵀ + b1", "shape": "32x16", "parameters": ["W1", "b1"]},
                    {"node": "a1", "formula": "a1 = max(z1, 0)", "shape": "32x16", "parameters": []},
                ],
                "loss": "binary cross-entropy, mean",
                "optimizer": "SGD, learning rate 0.05",
                "conventions": {f: {"SGD.velocity": "gradient", "BinaryCrossEntropy.fused": False} for f in frameworks},
                "skipped": {},
            }
            for mode, steps in modes.items()
        },
        "summary": [
            {
                "case": f"tutorial-{mode}",
                "framework": framework,
                "mode": mode,
                "verdict": "rounding",
                "because": "",
                "worst": "dL/dW1",
                "step": steps - 1,
                "ratio": 2.9,
                "digits": 6.8,
                "final_loss": 0.1099,
                "accuracy": 0.945,
                "end_point": "still descending",
                "steps_to_loss": {"0.5": steps // 8, "0.1": None},
                "seconds_per_step": 8.5e-5,
                "first_divergence": None,
                "notes": [],
            }
            for mode, steps, framework in pairs
        ],
    }
