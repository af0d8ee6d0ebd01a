"""What a damaged, hostile or interrupted trace can do: be refused in one line, and nothing else."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import xxhash

from harness.case import CannotRun, HarnessError
from harness.cases import CASES
from harness.trace import Trace, diff, read_trace, record
from harness.trace.header import HEADER, HEADER_BYTES, UNSIGNED
from harness.trace.writing import Writer

TOY = CASES["toy-animals"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(TOY, tmp_path_factory.mktemp("sound") / "trace", steps=6).folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "trace"))


def shard_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def refused(folder: Path, kind: type[HarnessError] = HarnessError) -> str:
    """The one line with which a trace is refused; reading it whole."""
    with pytest.raises(kind) as caught:
        read_trace(folder).check()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert str(folder) in line
    return line


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another header, with a right checksum."""
    fields = json.loads((folder / HEADER).read_text())
    change(fields)
    fields["checksum"] = UNSIGNED
    text = json.dumps(fields)
    _ = (folder / HEADER).write_text(text.replace(UNSIGNED, xxhash.xxh3_128_hexdigest(text.encode()), 1))


def replace_shard(folder: Path, data: bytes) -> None:
    """Another content of the shard, with right checksums."""
    path = shard_of(folder)
    _ = path.write_bytes(data)

    def change(fields: dict[str, Any]) -> None:
        fields["shards"][0] |= {"bytes": len(data), "checksum": xxhash.xxh3_128_hexdigest(data)}

    rewrite(folder, change)


# --- damage -----------------------------------------------------------------------------------------------------


def positions(size: int) -> list[int]:
    return sorted({0, 1, 7, 8, 9, size // 3, size // 2, size - 2, size - 1, *random.Random(0).sample(range(size), 25)})


@pytest.mark.parametrize("which", [HEADER, "*.safetensors"])
def test_a_trace_cut_at_any_byte_is_refused(which: str, folder: Path) -> None:
    path = next(folder.glob(which))
    whole = path.read_bytes()
    for size in positions(len(whole)):
        _ = path.write_bytes(whole[:size])
        assert "record" in refused(folder) or "gradparity-trace" in refused(folder)
    _ = path.write_bytes(whole)
    read_trace(folder).check()


@pytest.mark.parametrize("which", [HEADER, "*.safetensors"])
def test_a_flipped_bit_is_refused(which: str, folder: Path) -> None:
    path = next(folder.glob(which))
    whole = path.read_bytes()
    for at in positions(len(whole)):
        _ = path.write_bytes(bytes([*whole[:at], whole[at] ^ 1 << at % 8, *whole[at + 1 :]]))
        assert refused(folder), f"bit {at % 8} of byte {at} flipped"
    _ = path.write_bytes(whole + b"\n")
    assert refused(folder)


def test_a_missing_shard_or_header_is_refused(folder: Path) -> None:
    shard_of(folder).unlink()
    assert "is missing" in refused(folder)
    (folder / HEADER).unlink()
    assert "cannot be read" in refused(folder)
    shutil.rmtree(folder)
    assert "no folder of a trace" in refused(folder)


@pytest.mark.parametrize("version", [1, 3])
def test_another_schema_is_refused(version: int, folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(schema_version=version, invention={"of": "another time"}))
    assert f"schema version {version}, this gradparity reads 2; record it again" in refused(folder)


def test_a_huge_header_is_refused_without_reading_it(folder: Path) -> None:
    os.truncate(folder / HEADER, 2**40)
    began = time.perf_counter()
    assert f"larger than the {HEADER_BYTES} bytes" in refused(folder)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("length", [2**62, 2**31, 10**9, 0])
def test_a_shard_that_claims_a_huge_header_is_refused(length: int, folder: Path) -> None:
    replace_shard(folder, length.to_bytes(8, "little") + b'{"__metadata__":{}}')
    assert "no file of tensors" in refused(folder)


def test_a_deeply_nested_header_is_refused(folder: Path) -> None:
    _ = (folder / HEADER).write_bytes(b'{"format": "gradparity-trace", "a": ' + b"[" * 200_000)
    assert "damaged" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda f: f.update(steps=-1), "steps"),
        (lambda f: f.update(steps="6"), "steps"),
        (lambda f: f.update(steps=5), "beyond step 5"),
        (lambda f: f.pop("environment"), "environment"),
        (lambda f: f.update(format="other"), "gradparity-trace"),
        (lambda f: f["shards"][0].update(first=-1), "shards"),
    ],
)
def test_a_header_with_wrong_fields_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, folder: Path
) -> None:
    rewrite(folder, change)
    assert said in refused(folder)


# --- hostility --------------------------------------------------------------------------------------------------

OPENED: list[str] = []


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What is opened within, by name."""
    if not OPENED:
        sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" and OPENED else None)
    OPENED[:] = ["watching"]
    yield OPENED
    OPENED.clear()


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors", "..\\outside.safetensors", "outside"),
        *("", "\u2025.safetensors", "a\0.safetensors", ".safetensors", "outside.safetensors\n"),
        "x" * 200 + ".safetensors",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(name: str, folder: Path, opened: list[str]) -> None:
    _ = shutil.copy(shard_of(folder), folder.parent / "outside.safetensors")
    rewrite(folder, lambda fields: fields["shards"][0].update(file=name))
    del opened[1:]
    assert "shards.0.file" in refused(folder)
    assert {path for path in opened[1:] if "outside" in path or "passwd" in path} == set()


def test_a_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    outside = shard_of(folder).rename(folder.parent / "outside")
    name = json.loads((folder / HEADER).read_text())["shards"][0]["file"]
    (folder / name).symlink_to(outside)
    assert "cannot be read" in refused(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "is missing" in refused(folder)
    (folder / HEADER).rename(folder.parent / "header")
    (folder / HEADER).symlink_to(folder.parent / "header")
    assert "cannot be read" in refused(folder)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_pickled_content_is_refused_and_not_executed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replace_shard(folder, pickle.dumps(Bomb()))
    assert "no file of tensors" in refused(folder)
    _ = (folder / HEADER).write_bytes(pickle.dumps(Bomb()))
    assert "damaged" in refused(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "tensors",
    [
        {"no key": np.zeros(1)},
        {"-1/float64/loss/L": np.zeros(1)},
        {"0/float64/loss/L": np.zeros(99)},
        {"7/float64/loss/L": np.zeros(1)},
        {"0/float64/loss/L": np.array(1.0)},
        {f"{'9' * 5000}/float64/loss/L": np.zeros(1)},
        {"٣/float64/loss/L": np.zeros(1)},
    ],
)
def test_tensors_that_are_no_quantity_of_a_step_are_refused(tensors: dict[str, np.ndarray], folder: Path) -> None:
    replace_shard(folder, safetensors.numpy.save(tensors))
    assert "record the trace again" in refused(folder)


@pytest.mark.parametrize("wrong", ["shape", "dtype", "lacking", "twice"])
def test_a_quantity_of_another_shape_or_none_is_refused(wrong: str, folder: Path) -> None:
    tensors = safetensors.numpy.load(shard_of(folder).read_bytes())
    key = "0/float64/gradient/dL/dW1"
    if wrong == "shape":
        tensors[key] = tensors[key].reshape(6, -1)
    elif wrong == "dtype":
        tensors[key] = tensors[key].astype(np.float16)
    elif wrong == "twice":
        tensors["2/float64/gradient/dL/dW1"] = tensors[key][:2]
    else:
        del tensors[key]
    replace_shard(folder, safetensors.numpy.save(tensors))
    with pytest.raises(HarnessError, match="dL/dW1") as caught:
        _ = diff(TOY, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelt", [{"kind": "Case"}, {"kind": "os.system"}, [1, 2], {"kind": "HarnessError"}, None])
def test_a_case_that_is_none_is_refused(spelt: Any, folder: Path) -> None:
    rewrite(folder, lambda fields: fields.update(case=spelt))
    with pytest.raises(HarnessError) as caught:
        _ = diff(folder, folder)
    assert "\n" not in str(caught.value)


# --- writing ----------------------------------------------------------------------------------------------------


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_strided_arrays_are_written_as_they_are_seen(tmp_path: Path) -> None:
    """safetensors 0.8.0 by itself writes their memory: other values, silently."""
    square = np.arange(12.0).reshape(3, 4)
    trap = {"0/float64/parameter/a": np.asfortranarray(square)[None]}
    assert not np.array_equal(safetensors.numpy.load(safetensors.numpy.save(trap))[next(iter(trap))][0], square)
    arrays = {"transposed": square.T, "fortran": np.asfortranarray(square), "strided": square[::2, ::-1]}
    arrays |= {"big-endian": square.astype(">f8"), "broadcast": np.broadcast_to(square[0], (3, 4))}
    found = written(tmp_path, arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array), name


def test_bfloat16_and_odd_shapes_survive(tmp_path: Path) -> None:
    halves = np.array([1.0, 1 / 3, -0.0, np.inf, np.nan, 1e-40], ml_dtypes.bfloat16)
    arrays = {
        "bfloat16": halves,
        "scalar": np.array(0.1),
        "empty": np.zeros((3, 0)),
        "float16": np.array([1 / 3], np.float16),
    }
    arrays |= {"index": np.array([-(2**63), 2**63 - 1]), "bool": np.array([True, False])}
    found = written(tmp_path, arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def written(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with Writer(folder / "trace") as writer:
        writer.add(0, 1, {f"0/x/parameter/{name}": array[None] for name, array in arrays.items()})
        fields = {"name": "x", "framework": "", "data": "0" * 32, "seed": None, "steps": 1, "environment": {}}
        writer.finish(**fields)
    return {block.name: block.values[0] for block in read_trace(folder / "trace").blocks(0, 1)}


def test_what_does_not_read_back_is_not_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, save = held(folder), safetensors.numpy.save_file

    def wrong(tensors: dict[str, np.ndarray], path: Path) -> None:
        save(tensors, path)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        _ = path.write_bytes(data)

    monkeypatch.setattr(safetensors.numpy, "save_file", wrong)
    with pytest.raises(CannotRun, match="does not read back"):
        _ = record(TOY, folder, steps=6)
    assert held(folder) == before


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    _ = (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HarnessError, match="not empty and holds no trace"):
        _ = record(TOY, tmp_path, steps=2)
    with pytest.raises(HarnessError, match="is a file"):
        _ = record(TOY, tmp_path / "thesis.tex", steps=2)
    with pytest.raises(CannotRun, match="cannot write"):
        _ = record(TOY, Path("/proc/none/trace"), steps=2)
    assert held(tmp_path) == {"thesis.tex": b"mine"}


RECORD = """
import sys, resource
from dataclasses import replace
from harness.cases import CASES
from harness.trace import record
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
print("ready", flush=True)
for seed in range(int(sys.argv[4])):
    record(replace(CASES["toy-animals"], seed=int(sys.argv[2])), sys.argv[1], steps=500)
"""


def recording(folder: Path, seed: int, limit: int = 0, times: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECORD, str(folder), str(seed), str(limit), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_leaves_the_earlier_trace(folder: Path) -> None:
    before = held(folder)
    _, said = recording(folder, 1, limit=30_000).communicate()
    assert "what was there stays as it was" in said
    assert held(folder) == before
    assert read_trace(folder).header.seed == 0


def test_kill_9_at_any_time_leaves_a_whole_trace(folder: Path) -> None:
    seen = set()
    for delay in np.linspace(0.0, 0.5, 12):
        process = recording(folder, 1, times=50)
        assert process.stdout
        _ = process.stdout.readline()
        time.sleep(float(delay))
        process.kill()
        _ = process.communicate()
        trace = read_trace(folder)
        trace.check()
        seen.add(trace.header.seed)
    assert seen == {0, 1}, "the delays should span recordings cut short and recordings done"
    _ = record(TOY, folder, steps=3)
    assert len(held(folder)) == 2, "what killed recordings left is cleared"


def test_two_processes_recording_into_one_folder_do_not_mix(folder: Path) -> None:
    processes = [recording(folder, seed, times=8) for seed in (1, 2)]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    trace = read_trace(folder)
    trace.check()
    seed = trace.header.seed
    assert seed in (1, 2)
    assert diff(trace, replace(TOY, seed=seed)).verdict == "identical"


def test_the_limits_of_this_process_are_as_they_were() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_sound_trace_is_read(sound: Path) -> None:
    trace = read_trace(sound)
    trace.check()
    assert isinstance(trace, Trace)
    assert diff(TOY, trace).verdict == "identical"
