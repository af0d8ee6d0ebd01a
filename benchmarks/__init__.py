"""Measurements of gradparity itself, run by hand: calibration of the verdicts, speed against the frameworks' own loops.

One thread per framework, as in the tool's own runs: set here, before any of them (or NumPy) is imported.
"""

from __future__ import annotations

import os

from harness.cli import SETTINGS

os.environ.update({**SETTINGS, **os.environ})
