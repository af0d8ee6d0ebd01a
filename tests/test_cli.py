"""The command as its users meet it: output, exit codes, one clear line for wrong input, nothing half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import frameworks as registry

TOY = ("run", "toy-animals", "--steps", "3")


def gradparity(*arguments: str, cwd: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `code` runs before it, there."""
    script = f"{code}\nimport sys\nfrom harness.cli import main\nsys.argv[0] = 'gradparity'\nmain()"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def one() -> str:
    """One installed framework, the first."""
    if not registry.installed():
        pytest.skip("no framework is installed")
    return registry.installed()[0]


def test_run_prints_a_table_and_writes_the_reports(one: str, tmp_path: Path) -> None:
    done = gradparity(*TOY, "--frameworks", one, "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "toy-animals" in done.stdout
    assert "rounding" in done.stdout
    names = {path.name for path in (tmp_path / "here").iterdir()}
    wanted = {"frame.parquet", "frame.csv", "convergence.parquet", "convergence.csv", "arrays.npz", "run.json"}
    assert names == wanted | {"summary.md", "report.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_run_writes_under_reports_by_default_and_again_into_the_same_folder(one: str, tmp_path: Path) -> None:
    assert gradparity(*TOY, "--frameworks", one, cwd=tmp_path).returncode == 0
    (folder,) = (tmp_path / "reports" / "runs").iterdir()
    created = json.loads((folder / "run.json").read_text())["summary"][0]["counts"]
    assert gradparity(*TOY, "--frameworks", one, "--steps", "5", "--out", str(folder), cwd=tmp_path).returncode == 0
    assert json.loads((folder / "run.json").read_text())["summary"][0]["counts"] != created
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_answer_fits_a_screen_and_is_plain_when_piped(one: str, tmp_path: Path) -> None:
    from harness.cases import CASES

    done = gradparity("run", *CASES, "--steps", "2", "--frameworks", one, cwd=tmp_path, code=DIFFERENT)
    assert done.returncode == 1, done.stderr
    assert len(done.stdout.splitlines()) <= 25
    assert "\x1b" not in done.stdout
    assert "none worse: the report has all" in done.stdout


def test_tensorboard_gets_the_curves(one: str, tmp_path: Path) -> None:
    done = gradparity(*TOY, "--frameworks", one, "--tensorboard", "curves", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in (tmp_path / "curves").rglob("events.out.tfevents.*")} == {"numpy", one}


def test_report_rebuilds_the_pages_without_a_framework(one: str, tmp_path: Path) -> None:
    assert gradparity(*TOY, "--frameworks", one, "--out", "runs/a", cwd=tmp_path).returncode == 0
    before = (tmp_path / "runs" / "a" / "report.html").read_bytes()
    (tmp_path / "runs" / "a" / "report.html").unlink()
    packages = [package for of in registry.FRAMEWORKS.values() for package in of.packages]
    without = f"import sys\nfor name in {packages!r}: sys.modules[name] = None"
    done = gradparity("report", "runs/a", "--summary", "summary.tex", cwd=tmp_path, code=without)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "a" / "report.html").read_bytes() == before
    assert "toy-animals" in (tmp_path / "summary.tex").read_text()
    assert gradparity("report", "runs", cwd=tmp_path, code=without).stdout.splitlines()[-1] == "runs/index.html"
    assert 'href="a/report.html"' in (tmp_path / "runs" / "index.html").read_text()


def test_json(one: str, tmp_path: Path) -> None:
    done = gradparity(*TOY, "--frameworks", one, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["verdict"] in ("identical", "rounding")
    assert [row["framework"] for row in report["summary"]] == [one]


def test_explain_shows_every_quantity_of_the_tutorial(one: str, tmp_path: Path) -> None:
    done = gradparity("explain", "tutorial-batch", "--frameworks", one, cwd=tmp_path)
    assert done.returncode == 0
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ") and line.strip()]
    backward = ["yhat", "z3", "a2", "W3", "b3", "z2", "a1", "W2", "b2", "z1", "W1", "b1"]
    start = shown.index("dL/dyhat")
    assert shown[start : start + 12] == [f"dL/d{name}" for name in backward]
    assert shown.index("z1") < shown.index("L") < start < shown.index("update:W1") < shown.index("W1")
    assert "[z2 > 0]" in done.stdout
    assert "Backpropagation computes" in done.stdout
    assert "Gradient descent uses" in done.stdout


def test_list_names_cases_versions_and_pip_lines(tmp_path: Path) -> None:
    absent = "import frameworks; frameworks.versions = lambda name: {'torch': None}"
    done = gradparity("list", cwd=tmp_path, code=absent)
    assert done.returncode == 0
    assert "tutorial-stochastic" in done.stdout
    assert all(registry.pip_line(name) in done.stdout for name in registry.FRAMEWORKS)
    for name in registry.installed():
        version = next(iter(registry.versions(name).values()))
        assert str(version) in gradparity("list", cwd=tmp_path).stdout


DIFFERENT = """
import reference.updates as o
plain = o.sgd
def wrong(optimizer, t, W, g, v=None):
    plain(optimizer, t, W, g * (1 + 1e-6), v)
o.sgd = wrong
"""


def test_a_difference_exits_1_and_says_where(one: str, tmp_path: Path) -> None:
    done = gradparity(*TOY, "--frameworks", one, "--out", "here", cwd=tmp_path, code=DIFFERENT)
    assert done.returncode == 1
    assert f"toy-animals in {one}: first differs at update:W" in done.stdout
    assert "Mismatched elements: " in done.stdout
    assert "Greatest absolute difference: " in done.stdout
    assert f"next: gradparity explain toy-animals --frameworks {one}" in done.stdout
    header = json.loads((tmp_path / "here" / "run.json").read_text())
    assert [found["name"] for found in header["maps"]] == [header["summary"][0]["first_divergence"]["name"]]


def test_nothing_decided_exits_3(one: str, tmp_path: Path) -> None:
    code = """
import harness.judging as j, harness.watching as w
j.CHAOS = -1.0
w.inherits_noise = lambda *noise: True
"""
    assert gradparity(*TOY, "--frameworks", one, "--out", "here", cwd=tmp_path, code=code).returncode == 3


WRONG = {
    "unknown case": (("run", "tutorial-minibach"), 2, "did you mean tutorial-minibatch?"),
    "unknown case, nothing near": (("run", "xyz"), 2, "known: tutorial-stochastic"),
    "unknown case to explain": (("explain", "toy-animal"), 2, "did you mean toy-animals?"),
    "unknown framework": ((*TOY, "--frameworks", "pytroch"), 2, "did you mean pytorch?"),
    "no framework": ((*TOY, "--frameworks", ""), 2, "known: "),
    "unknown option": (("run", "--step", "3"), 2, "--steps"),
    "unknown command": (("rnu",), 2, "run"),
    "steps below 1": (("run", "--steps", "0"), 2, "is not in the range x>=1"),
    "out is not empty": ((*TOY, "--out", "full"), 2, "is not empty and holds no earlier run"),
    "out is a file": ((*TOY, "--out", "full/file"), 2, "is a file"),
    "no run to report": (("report", "full"), 2, "is not a run folder and holds none"),
    "nothing to report": (("report", "nowhere"), 2, "it has no run.json"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_gets_a_clear_line(wrong: str, tmp_path: Path, one: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    arguments, code, words = WRONG[wrong]
    chosen = () if "--frameworks" in arguments or arguments[0] != "run" else ("--frameworks", one)
    done = gradparity(*arguments, *chosen, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]
    assert (tmp_path / "full" / "file").read_text() == "precious"


def test_a_missing_framework_names_the_pip_line_and_exits_3(tmp_path: Path) -> None:
    absent = "import frameworks; frameworks.versions = lambda name: {'torch': None}"
    name = next(iter(registry.FRAMEWORKS))
    done = gradparity(*TOY, "--frameworks", name, cwd=tmp_path, code=absent)
    assert done.returncode == 3
    assert registry.pip_line(name) in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_an_unwritable_folder_exits_3(one: str, tmp_path: Path) -> None:
    done = gradparity(*TOY, "--frameworks", one, "--out", "/proc/self/run", cwd=tmp_path)
    assert done.returncode == 3
    assert "cannot write to /proc/self" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_midway_leaves_the_earlier_run(one: str, tmp_path: Path) -> None:
    assert gradparity(*TOY, "--frameworks", one, "--out", "here", cwd=tmp_path).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    failing = """
import harness.investigating as i
from harness.case import HarnessError
def follow(*_, **__):
    raise HarnessError('planted')
i.follow = follow
"""
    done = gradparity(*TOY, "--frameworks", one, "--out", "here", cwd=tmp_path, code=failing)
    assert done.returncode == 2
    assert "planted" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == before
    assert os.listdir(tmp_path) == ["here"]


SIDES = """
import numpy as np, torch, harness

def net(bend=torch.nn.Tanh):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), bend(), torch.nn.Linear(4, 2))

def one():
    model = net()
    return harness.side(model, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), 0.1))

def other():
    model = net(torch.nn.Sigmoid)
    return harness.side(model, loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), 0.1))

def broken():
    raise RuntimeError("no weights here")

data = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
alone = 3.0
"""


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    if "pytorch" not in registry.installed():
        pytest.skip(registry.pip_line("pytorch"))
    _ = (tmp_path / "sides.py").write_text(SIDES)
    return tmp_path


def test_compare_says_where_and_exits_1(sides: Path) -> None:
    done = gradparity("compare", "sides:one", "sides:other", "--html", "page.html", cwd=sides)
    assert done.returncode == 1, done.stderr
    assert "first divergence: forward:1 at step 0" in done.stdout
    assert "forward:1" in (sides / "page.html").read_text()
    again = gradparity("compare", "sides:one", "sides:one", "--json", cwd=sides)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["verdict"] == "identical"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("sides:one nosuch:side", "No module named 'nosuch'"),
        ("sides:one sides:broken", "sides:broken() raised RuntimeError: no weights here"),
        ("sides:one sides:other --data sides:alone", "sides:alone is a float; it must be a pair (x, y)"),
        ("sides:one sides:other --html nowhere/page.html", "there is no directory nowhere"),
    ],
)
def test_compare_refuses_in_one_line(sides: Path, wrong: str, words: str) -> None:
    done = gradparity("compare", *wrong.split(), cwd=sides)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
