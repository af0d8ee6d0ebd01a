"""Cases that differ only in what they are called, how long they are or what data they see compute the same step."""

from __future__ import annotations

import dataclasses

from harness.case import Batching, Case


def step_of(case: Case) -> Case:
    """The case with all that a compiled step does not depend on left out, so that a compilation can be shared."""
    return dataclasses.replace(
        case,
        name="",
        summary="",
        data="",
        batching=Batching(size=None),
        steps=1,
        seed=0,
        initialization="given",
        initial_scale=1.0,
    )
