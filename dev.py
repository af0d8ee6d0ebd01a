#!/usr/bin/env python3
"""Set up and use gradparity from a fresh checkout, with Python 3.11 or newer and nothing else.

    python3 dev.py run [arguments of `gradparity run`]    the main job
    python3 dev.py test [arguments of pytest]             the tests

The first call creates .venv and installs what constraints.txt pins; later calls reuse it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PINS = ("pyproject.toml", "constraints.txt")
WORKERS = ("-n", "2", "--dist", "loadfile")
"""Each imports every framework: 2 GB and some seconds."""
AXE = "axe-core@4.14.1"
"""Checks the reports' accessibility in the tests; it comes from npm and is no part of what is installed for users."""


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("run", "test"):
        print(__doc__, file=sys.stderr)
        return 2
    install()
    command = [BIN / "gradparity", "run"] if sys.argv[1] == "run" else [BIN / "python", "-m", "pytest", *WORKERS]
    return subprocess.call([*command, *sys.argv[2:]])


def install() -> None:
    """Create .venv and install the project in it, unless that was done for these very pins."""
    if sys.version_info < (3, 11):
        sys.exit(f"gradparity needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(AXE.encode() + b"".join((ROOT / name).read_bytes() for name in PINS)).hexdigest()
    stamp = ENVIRONMENT / "gradparity-pins"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("dev.py: installing into .venv (about 2 GB; several minutes the first time)", file=sys.stderr)
    if not BIN.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    pip = [BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.check_call([*pip, "--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[all,dev]"])
    if npm := shutil.which("npm"):
        options = ["--prefix", ENVIRONMENT, "--no-save", "--no-package-lock", "--ignore-scripts", "--silent"]
        _ = subprocess.call([npm, "install", *options, AXE])  # without it the tests that need it say so and are skipped
    _ = stamp.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main())
