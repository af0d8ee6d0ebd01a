"""The commands record, diff and baseline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from frameworks import installed
from harness.cli import main
from harness.trace import read_trace
from harness.trace.header import HEADER, written

ROOT = Path(__file__).parent.parent


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    assert run("record", "toy-animals", "--steps", 4, "-o", tmp_path / "trace").exit_code == 0
    return tmp_path / "trace"


def test_record_and_diff(framework_name: str, tmp_path: Path) -> None:
    done = run("record", "toy-animals", "--framework", framework_name, "--steps", 5, "-o", tmp_path / "trace")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{framework_name}, 5 steps, ")
    for other in ("toy-animals", f"toy-animals@{framework_name}", tmp_path / "trace"):
        found = run("diff", other, tmp_path / "trace")
        assert found.exit_code == 0, found.output
        assert found.output.split(" ")[0].rstrip(":") in ("identical", "rounding")


def test_different_is_exit_code_1_and_says_where(tmp_path: Path) -> None:
    for name, conventions in (("one", "torch"), ("other", "keras")):
        arguments = ("record", "zero-gradient-adam", "--conventions", conventions, "--steps", 3, "-o", tmp_path / name)
        assert run(*arguments).exit_code == 0
    found = run("diff", tmp_path / "one", tmp_path / "other")
    assert found.exit_code == 1, found.output
    assert "first divergence: update:" in found.output
    assert f"Adam.epsilon 1e-08 in numpy ({tmp_path / 'one'}), 1e-07 in numpy" in found.output


def test_json_has_the_documented_fields(trace: Path) -> None:
    answer = json.loads(run("diff", "toy-animals", trace, "--json").output)
    assert set(answer) == {
        *("schema", "reference", "candidate", "verdict", "because", "exit_code", "steps", "quantities", "counts"),
        *("worst_ratio", "changes_from_step", "first_divergence", "causes", "versions", "notes"),
    }
    assert (answer["schema"], answer["verdict"], answer["exit_code"]) == ("gradparity-diff-2", "identical", 0)
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in answer)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diff", "nope", "toy-animals"), "unknown case or folder of a trace 'nope'"),
        (("record", "toy-animal", "-o", "x"), "did you mean toy-animals?"),
        (("record", "toy-animals@torch", "-o", "x"), "unknown framework 'torch'"),
        (("record", "toy-animals", "--conventions", "mine", "-o", "x"), "unknown conventions 'mine'"),
        (("record", "no.module:side", "-o", "x"), "no.module"),
        (("record", "toy-animals", "-o", "x", "--env", "ODD"), "write NAME=VALUE"),
        (("baseline", "check", "none"), "holds no traces"),
        (("baseline", "save", "none", "nope"), "unknown case 'nope'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = process(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gradparity: ")
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_trace_is_exit_code_2_and_one_line(trace: Path) -> None:
    _ = next(trace.glob("*.safetensors")).write_bytes(b"")
    done = process("diff", "toy-animals", trace, cwd=trace.parent)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "is damaged" in done.stderr


def test_a_process_of_its_own_records_the_same(tmp_path: Path) -> None:
    arguments = ("record", "toy-animals", "--steps", "4", "-o")
    assert process(*arguments, tmp_path / "here", cwd=tmp_path).returncode == 0
    there = process(*arguments, tmp_path / "there", "--env=OMP_NUM_THREADS=2", "--python", sys.executable, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert run("diff", tmp_path / "here", tmp_path / "there").output.startswith("identical")
    environment: Any = read_trace(tmp_path / "there").header.environment
    assert environment["threads"]["OMP_NUM_THREADS"] == "2"


def test_an_interpreter_that_is_none_is_exit_code_3(tmp_path: Path) -> None:
    done = process("record", "toy-animals", "-o", "x", "--python", "/no/python", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1)
    assert "--python /no/python" in done.stderr


def test_models_of_a_module_are_recorded(tmp_path: Path) -> None:
    if "pytorch" not in installed():
        pytest.skip("needs pytorch; run: pip install gradparity[torch]")
    _ = (tmp_path / "mine.py").write_text(MODULE)
    done = process("record", "mine:side", "--steps", 3, "-o", "trace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert process("diff", "trace", "mine:side", cwd=tmp_path).stdout.startswith("identical")
    found = process("diff", "trace", "mine:faster", cwd=tmp_path)
    assert found.returncode == 1, found.stdout
    assert "first divergence: update:weight at step 0" in found.stdout


MODULE = """
import numpy, torch, harness
rng = numpy.random.default_rng(0)
data = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
def side(rate=0.1):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    return harness.side(net, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(net.parameters(), rate))
def faster():
    return side(0.2)
"""


KERAS = """
import numpy, keras
rng = numpy.random.default_rng(0)
data = rng.normal(size=(16, 3)).astype("float32"), rng.normal(size=(16, 2)).astype("float32")
weights = [rng.normal(size=shape).astype("float32") for shape in ((3, 5), (5,), (5,), (5,), (5,), (5,), (5, 2), (2,))]
weights[5] = abs(weights[5])
def side(epsilon=1e-7):
    layers = [keras.layers.Dense(5, "tanh", name="a"), keras.layers.BatchNormalization(name="n")]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, name="b")])
    model.set_weights(weights)
    model.compile(keras.optimizers.Adam(0.01, epsilon=epsilon), "mse")
    return model
def other():
    return side(1e-3)
"""


@pytest.mark.parametrize(("framework", "backend"), [("pytorch", "torch"), ("jax", "jax")])
def test_keras_on_another_backend_is_recorded_in_a_process_of_its_own(
    framework: str, backend: str, tmp_path: Path
) -> None:
    if not {framework, "keras"} <= set(installed()):
        pytest.skip(f"needs keras and {framework}; run: pip install gradparity[all]")
    _ = (tmp_path / "mine.py").write_text(KERAS)
    for out, *rest in (("usual",), ("there", "--env", f"KERAS_BACKEND={backend}")):
        done = process("record", "mine:side", "--steps", 3, "--batch-size", 8, "-o", out, *rest, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    same = process("diff", "usual", "there", cwd=tmp_path)
    assert (same.returncode, same.stdout.split(":")[0]) == (0, "rounding"), same.stdout + same.stderr
    found = process("diff", "there", "mine:other", cwd=tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "first divergence: update:" in found.stdout


# --- baselines --------------------------------------------------------------------------------------------------


def test_a_baseline_is_saved_and_checked(framework_name: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    arguments = ("toy-animals", "saddle", "--frameworks", framework_name, "--steps", 4)
    done = run("baseline", "save", base, *arguments)
    assert done.exit_code == 0, done.output
    assert {path.name for path in base.iterdir()} == {f"toy-animals@{framework_name}", f"saddle@{framework_name}"}
    same = run("baseline", "check", base)
    assert (same.exit_code, same.output.count("identical: ")) == (0, 2), same.output
    folder = base / f"toy-animals@{framework_name}"
    environment = {**read_trace(folder).header.environment, "numpy": "1.0"}
    _ = (folder / HEADER).write_bytes(
        written(read_trace(folder).header.model_copy(update={"environment": environment}))
    )
    other = json.loads(run("baseline", "check", base, "--json").output)
    assert any(version.startswith("numpy: 1.0 ->") for version in other[folder.name]["versions"])
    assert other[f"saddle@{framework_name}"]["versions"] == []


def test_a_changed_framework_is_found_from_its_step_on(
    framework_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework of tomorrow steps a thousandth further from step 2 on."""
    base = tmp_path / "base"
    assert run("baseline", "save", base, "toy-animals", "--frameworks", framework_name, "--steps", 5).exit_code == 0
    from harness.running import Side

    take = Side.advance

    def later(self: Side, chunk: Any) -> Any:
        rows = take(self, chunk)
        for values in rows.values() if self.name == framework_name else ():
            values[2:, chunk.layout.find("dL/db3").columns] *= 1.001
        return rows

    monkeypatch.setattr(Side, "advance", later)
    found = run("baseline", "check", base)
    assert found.exit_code == 1, found.output
    assert "first divergence: dL/db3 at step 2" in found.output
