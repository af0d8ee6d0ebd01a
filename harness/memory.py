"""How much memory the process holds."""

from __future__ import annotations

import os
from pathlib import Path

STATM = Path("/proc/self/statm")


def resident() -> int | None:
    """Bytes in physical memory; None where the system does not tell (it is not Linux)."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def growth(before: int | None, largest: int | None) -> int | None:
    """What was added since; None where it is not known."""
    return None if before is None or largest is None else max(largest - before, 0)
