"""Curves as TensorBoard's event files, written byte by byte: neither TensorFlow nor TensorBoard is needed for it.

A file is a sequence of TFRecords (length, its checksum, data, its checksum; tensorflow/core/lib/io/record_writer.cc),
each an Event message (tensorflow/core/util/event.proto): wall_time 1, step 2, file_version 3, summary 5 with value 1:
tag 1, simple_value 2 (tensorflow/core/framework/summary.proto).
"""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

TAGS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "gradient_norm": "gradient norm",
    "distance32": "distance to the reference/float32",
    "distance64": "distance to the reference/float64",
}
"""Columns of the convergence frame and what their curves are called."""


def write_events(convergence: Any, folder: Path, created: str) -> list[Path]:
    """Write one file for each case and framework, in folders that TensorBoard shows as runs; returns the files.

    convergence: the convergence frame. created: when the run began, in ISO form.
    """
    began = datetime.datetime.fromisoformat(created).timestamp()
    written = []
    for (case, framework), rows in convergence.groupby(["case", "framework"], observed=True, sort=False):
        run = folder / _name(case) / _name(framework)
        run.mkdir(parents=True, exist_ok=True)
        path = run / f"events.out.tfevents.{began:.0f}.gradparity"
        _ = path.write_bytes(b"".join(map(_record, _events(rows, began))))
        written.append(path)
    return written


def _name(text: str) -> str:
    """A folder's name; `.` and `..` are names too."""
    return quote(text, safe=" ")[:150].replace(".", "%2E") or "%"


def _events(rows: Any, began: float) -> Iterator[bytes]:
    yield _double(1, began) + _bytes(3, b"brain.Event:2")
    for row in rows.to_dict("records"):
        seconds = row["seconds"] if math.isfinite(row["seconds"]) else 0.0
        for column, tag in TAGS.items():
            if not math.isnan(row[column]):
                value = _bytes(1, tag.encode()) + _float(2, row[column])
                yield _double(1, began + seconds) + _integer(2, int(row["step"])) + _bytes(5, _bytes(1, value))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    """Beyond float32's range it is an infinity, as a cast would make it."""
    if abs(value) > 3.4028234663852886e38:
        value = math.copysign(math.inf, value)
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _masked(data: bytes) -> bytes:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4), rotated and offset as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CASTAGNOLI[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _castagnoli(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CASTAGNOLI = tuple(map(_castagnoli, range(256)))
