"""A trace on disk, read with nothing taken on trust: names, sizes, checksums, shapes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import xxhash

from harness.case import HarnessError
from harness.trace.header import HEADER, HEADER_BYTES, Header, Shard, parsed

DTYPES = {
    **{"F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}


STEP = re.compile("[0-9]{1,15}")


class Block(NamedTuple):
    """A quantity at consecutive steps, counted by axis 0 from `first` on."""

    first: int
    precision: str
    kind: str
    name: str
    values: np.ndarray


@dataclass(slots=True)
class Trace:
    """A recorded run: its header, and its tensors shard by shard; one shard is in memory at a time.

    label: what to call it beside another run of the same name.
    """

    folder: Path
    header: Header
    label: str
    _held: tuple[str, tuple[Block, ...]] = field(default=("", ()), repr=False)

    def blocks(self, first: int, steps: int) -> Iterator[Block]:
        """What was recorded of so many steps from first on; blocks may reach beyond them. Raises HarnessError."""
        for shard in self.header.shards:
            if shard.first < first + steps and first < shard.first + shard.steps:
                if self._held[0] != shard.file:
                    self._held = shard.file, tuple(_loaded(self.folder / shard.file, shard))
                for block in self._held[1]:
                    if block.first < first + steps and first < block.first + len(block.values):
                        yield block

    def check(self) -> None:
        """Read every shard. Raises HarnessError where one is missing or damaged."""
        for shard in self.header.shards:
            _ = [*_loaded(self.folder / shard.file, shard)]


def read_trace(folder: Path | str) -> Trace:
    """The trace in a folder; its header is checked here, its shards as they are read. Raises HarnessError."""
    folder = Path(folder)
    path = folder / HEADER
    if not folder.is_dir():
        raise HarnessError(f"{folder} is no folder of a trace; gradparity record writes one")
    header = parsed(_contents(path, HEADER_BYTES), str(path))
    for shard in header.shards:
        if shard.first + shard.steps > header.steps:
            raise HarnessError(f"{path} is not valid: {shard.file} reaches beyond step {header.steps}; record it again")
        if not (folder / shard.file).is_file():
            raise HarnessError(f"{folder / shard.file} is missing; record the trace again")
    return Trace(folder, header, str(folder))


def _loaded(path: Path, shard: Shard) -> Iterator[Block]:
    data = _contents(path, shard.bytes)
    if len(data) != shard.bytes or xxhash.xxh3_128_hexdigest(data) != shard.checksum:
        raise HarnessError(f"{path} is damaged: its checksum does not fit; record the trace again")
    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise HarnessError(f"{path} is no file of tensors ({error}); record the trace again") from None
    for key, spec in tensors:
        parts = key.split("/", 3)
        if len(parts) != 4 or not STEP.fullmatch(parts[0]) or spec["dtype"] not in DTYPES or not spec["shape"]:
            raise HarnessError(
                f"{path}: {key[:99]!r} ({spec['dtype']}) is no recorded quantity; record the trace again"
            )
        first, values = int(parts[0]), np.frombuffer(spec["data"], DTYPES[spec["dtype"]]).reshape(spec["shape"])
        if first < shard.first or first + len(values) > shard.first + shard.steps:
            raise HarnessError(f"{path}: {key[:99]!r} is not of the shard's steps; record the trace again")
        yield Block(first, *parts[1:], values=values)


def _contents(path: Path, limit: int) -> bytes:
    """A plain file's bytes, not through a link, and no more than they may be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise HarnessError(f"{path} cannot be read: {error.strerror}; record the trace again") from None
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise HarnessError(f"{path} is larger than the {limit} bytes that it may have; record the trace again")
    return data
