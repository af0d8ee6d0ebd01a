"""A trace on its way to disk: shards under names of their own, then the header in one rename.

Whatever happens before that rename (kill -9, a full disk) an earlier trace in the folder stays as it was.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import mmap
import os
import secrets
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import xxhash

from harness.case import CannotRun, HarnessError
from harness.trace.header import HEADER, SCHEMA, UNSIGNED, Header, Shard, written

Tensors = Mapping[str, np.ndarray]
"""By `first/precision/kind/name`; axis 0 counts steps from `first` on."""

KEPT = "what was there stays as it was"
SHARD_BYTES = 2**23
"""A shard is written when it holds so much; a larger tensor has one of its own."""

WAITING_BYTES = 2**23
"""So much may wait to be written while the run goes on."""


class Writer:
    """Writes a trace into a folder: `add` tensors as they come, `finish` with the header; an error leaves nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise HarnessError(f"{folder} is a file; name a new or an empty folder, or an earlier trace")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / HEADER).exists() and not _only_left(folder):
            raise HarnessError(f"{folder} is not empty and holds no trace; name a new or an empty folder")
        self.made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise CannotRun(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        self.run = secrets.token_hex(8)
        self.pool = ThreadPoolExecutor(1)
        self.waiting = deque[tuple[int, Future[None]]]()
        self.shards: list[Shard] = []
        self.held: dict[str, np.ndarray] = {}
        self.first = self.stop = self.used = 0
        # taken once: fresh memory for each shard costs as much as writing it
        self.room = np.empty(SHARD_BYTES + SHARD_BYTES // 2, np.uint8)
        self.files: list[Path] = []
        self.done = False

    def add(self, first: int, steps: int, tensors: Tensors) -> None:
        """What so many steps from first on showed; the arrays must not change any more. It is written in a thread."""
        size = sum(array.nbytes for array in tensors.values())
        self.waiting.append((size, self.pool.submit(self._take, first, steps, tensors)))
        while len(self.waiting) > 1 and sum(size for size, _ in self.waiting) > WAITING_BYTES:
            self.waiting.popleft()[1].result()

    def _take(self, first: int, steps: int, tensors: Tensors) -> None:
        if not self.held:
            self.first = first
        self.held |= {name: self._dense(array) for name, array in tensors.items()}
        self.stop = first + steps
        if self.used >= SHARD_BYTES:
            self._write()

    def _dense(self, array: np.ndarray) -> np.ndarray:
        """The array in one piece, in the room where it fits: safetensors 0.8.0 (numpy.py, _flatten) writes the memory
        of a strided array as if it were contiguous."""
        dtype, start = array.dtype.newbyteorder("="), -(-self.used // 8) * 8
        self.used = start + array.nbytes
        if self.used > len(self.room):
            return np.ascontiguousarray(array, dtype)
        dense = self.room[start : self.used].view(dtype).reshape(array.shape)
        dense[...] = array
        return dense

    def _write(self) -> None:
        """A shard of what is held."""
        path, dense = self.folder / f"{self.run}-{len(self.files):05}.safetensors", self.held
        self.files.append(path)
        self.held, self.used = {}, 0
        try:
            safetensors.numpy.save_file(dense, path)
        except safetensors.SafetensorError as error:
            raise CannotRun(f"cannot write to {path}: {error}; {KEPT}") from error
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found, wanted, size = xxhash.xxh3_128(data).hexdigest(), _checksum(data, dense), len(data)
        if found != wanted:
            raise CannotRun(f"{path} does not read back as it was written; {KEPT}")
        steps = self.stop - self.first
        self.shards.append(Shard(file=path.name, bytes=size, checksum=found, first=self.first, steps=steps))

    def finish(self, **fields: Any) -> None:
        """Write the header, in one rename; then what it does not name may go. fields: the header's own."""
        try:
            for _, taken in self.waiting:
                taken.result()
            if self.held:
                self._write()
            header = Header(
                format="gradparity-trace",
                schema_version=SCHEMA,
                checksum=UNSIGNED,
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                shards=tuple(self.shards),
                **fields,
            )
            self.files.append(self.folder / f".{self.run}.{HEADER}")
            _store(self.files[-1], written(header))
            os.replace(self.files[-1], self.folder / HEADER)
            os.fsync(self.lock)
        except OSError as error:
            raise self._cannot(error) from error
        self.done = True
        _clear(self.folder, self.lock, {shard.file for shard in self.shards})

    def _cannot(self, error: OSError) -> CannotRun:
        return CannotRun(f"cannot write to {self.folder}: {error.strerror}; {KEPT}")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        if not self.done:
            for path in self.files:
                path.unlink(missing_ok=True)
        os.close(self.lock)
        if not self.done and self.made and not any(self.folder.iterdir()):
            self.folder.rmdir()
        if isinstance(error, OSError):
            raise self._cannot(error) from error


def _checksum(data: mmap.mmap, tensors: Tensors) -> str:
    """Of a file with the header of data and these tensors where that header says."""
    start = 8 + int.from_bytes(data[:8], "little")
    placed: dict[str, Any] = json.loads(data[8:start])
    checksum = xxhash.xxh3_128(data[:start])
    for name in sorted(tensors, key=lambda name: placed[name]["data_offsets"]):
        checksum.update(tensors[name].reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer of its own
    return checksum.hexdigest()


def _store(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        _ = file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _only_left(folder: Path) -> bool:
    """Whether a recording that was killed is all that a folder holds."""
    return all(path.suffix == ".safetensors" or path.name.endswith(f".{HEADER}") for path in folder.iterdir())


def _clear(folder: Path, lock: int, kept: set[str]) -> None:
    """Remove what earlier traces and killed recordings left; not while another process records here or reads."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    for path in folder.iterdir():
        if path.name not in kept and (path.suffix == ".safetensors" or path.name.endswith(f".{HEADER}")):
            path.unlink(missing_ok=True)
