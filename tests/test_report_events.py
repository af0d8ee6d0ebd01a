"""Event files are read back by TensorFlow's own reader, which checks the checksums; a wrong byte is found."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_folder import folder

from harness.report.events import TAGS, write_events

CREATED = "2026-01-31T12:00:00+00:00"


def read(path: Path) -> list[Any]:
    pytest.importorskip("tensorflow", reason="reads the files back: pip install tensorflow")
    from tensorflow.python.summary.summary_iterator import summary_iterator

    return list(summary_iterator(str(path)))


def test_the_curves_come_back(tmp_path: Path) -> None:
    of = folder()
    files = write_events(of.convergence, tmp_path, CREATED)
    assert len(files) == of.convergence.groupby(["case", "framework"]).ngroups
    began = datetime.datetime.fromisoformat(CREATED).timestamp()
    path = next(f for f in files if f.parts[-3:-1] == ("tutorial-batch", "beta"))
    rows = of.convergence[(of.convergence["case"] == "tutorial-batch") & (of.convergence["framework"] == "beta")]
    version, *events = read(path)
    assert version.file_version == "brain.Event:2"
    seen = {(event.summary.value[0].tag, event.step): event for event in events}
    assert len(seen) == len(rows) * len(TAGS)
    for row in rows.to_dict("records"):
        for column, tag in TAGS.items():
            event = seen[tag, row["step"]]
            assert event.summary.value[0].simple_value == np.float32(row[column])
            assert event.wall_time == began + row["seconds"]


def test_missing_and_infinite_values_and_names_that_are_no_folders(tmp_path: Path) -> None:
    of = folder(frameworks=("../..", "a/b"), modes={"batch": 3})
    of.convergence.loc[of.convergence["step"] == 1, ["loss", "accuracy", "seconds"]] = [1e300, np.nan, np.nan]
    files = write_events(of.convergence, tmp_path / "inside", CREATED)
    assert all((tmp_path / "inside").resolve() in f.resolve().parents for f in files)
    _, *events = read(files[1])
    values = {(event.summary.value[0].tag, event.step): event.summary.value[0].simple_value for event in events}
    assert values["loss", 1] == np.inf
    assert ("accuracy", 1) not in values


def test_a_wrong_byte_is_found(tmp_path: Path) -> None:
    path = write_events(folder().convergence, tmp_path, CREATED)[0]
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    _ = path.write_bytes(bytes(data))
    with pytest.raises(Exception, match=r"(?i)corrupt|data ?loss"):
        _ = read(path)
