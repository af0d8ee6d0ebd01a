"""The report says what the run folder says: all of it, escaped, the same bytes each time, and never half a file."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from report_folder import Folder, folder

from frameworks import FRAMEWORKS
from harness.report import tables
from harness.report.drawing import POINTS
from harness.report.marks import ROWS
from harness.report.reading import read_run
from harness.report.writing import write_report

CASE = "tutorial-mini-batch"
HOSTILE = """<script>alert("1")</script> 'quoted' "twice" | $\\frac{1}$ & 🦊 """ + "x" * 300


class Page(HTMLParser):
    """What a browser would see of a page: its tags, ids, addresses and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [v for name, v in attrs if name in ("src", "href", "xlink:href", "action", "data") and v]

    def handle_data(self, data: str) -> None:
        self.text += data


def report(of: Folder, path: Path) -> tuple[str, str]:
    """(page, Markdown) of a folder saved in `path`."""
    markdown, page = write_report(of.save(path))
    return page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


def drawings(page: str) -> dict[str, str]:
    """The page's figures by the name that prefixes their ids."""
    figures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    return {re.findall(r'aria-labelledby="(\S+)-title"', svg)[0]: svg for svg in figures}


def judge(of: Folder, framework: str, verdict: str, because: str, name: str, step: int, **numbers: Any) -> None:
    """Plant a verdict at one row of the frame and in the summary."""
    at = of.rows(CASE, framework, name, step)
    assert at.sum() == 1
    for column, value in {"verdict": verdict, "because": because, **numbers}.items():
        of.frame.loc[at, column] = value
    of.entry(CASE, framework).update(verdict=verdict, because=because, worst=name, step=step)


def test_every_verdict_and_reason_is_shown(tmp_path):
    of = folder()
    judge(of, "alpha", "different", "nonfinite", "dL/dW2", 3)
    judge(of, "beta", "undecided", "chaotic", "L", 5)
    judge(of, "gamma", "identical", "", "z1", 0)
    judge(of, "delta", "rounding", "kink", "dL/da1", 2)
    page, markdown = report(of, tmp_path)
    for verdict in of.frame["verdict"].unique():
        assert f'<td class="verdict {verdict}">' in page
        assert f"| {verdict} " in markdown
    for because in set(of.frame["because"]) - {""}:
        assert because in Page(page).text
    for entry in of.header["summary"]:
        assert re.search(rf"\| {entry['case']} +\| {entry['framework']} +\| {entry['verdict']} +\|", markdown)
    assert "1 of 8 comparisons with the NumPy reference found a difference" in page
    assert "(1 different, 1 undecided, 5 rounding, 1 identical)" in markdown


def test_the_rows_are_counted_by_verdict(tmp_path):
    of = folder(frameworks=("alpha",))
    judge(of, "alpha", "different", "", "dL/dW2", 3)
    counts = {row["verdict"]: row["alpha"] for row in tables.judged(read_run(of.save(tmp_path)))}
    assert counts == {v: f"{n:,}" for v, n in of.frame["verdict"].value_counts().items()}
    assert counts["different"] == "1"


def test_the_first_different_row_is_the_first_divergence(tmp_path):
    of = folder()
    of.frame.loc[of.rows(CASE, "beta", "W1", 2), ["kind", "verdict"]] = ["slot", "different"]  # a note, no divergence
    judge(of, "beta", "different", "", "dL/dW1", 4)
    judge(of, "beta", "different", "", "dL/dW2", 3, reference=0.125, budget=2.5e-17, worst_index="(4, 7)")
    (row,) = tables.divergences(read_run(of.save(tmp_path)))
    assert row["first divergence"] == "dL/dW2 at step 3, index (4, 7)"
    assert (row["case"], row["framework"]) == (CASE, "beta")
    assert (row["reference"], row["rounding explains"]) == ("0.125", "2.5e-17")
    page, markdown = report(of, tmp_path)
    assert "dL/dW2 at step 3, index (4, 7)" in Page(page).text
    assert "dL/dW2 at step 3, index (4, 7)" in markdown


def test_a_stated_first_divergence_keeps_its_words_and_place(tmp_path):
    of = folder()
    judge(of, "beta", "different", "", "dL/dW2", 3, reference=0.125)
    judge(of, "beta", "different", "", "dL/dW1", 4, reference=0.375)
    stated = {"name": "dL/dW1", "step": 4, "text": "12/128 elements differ"}
    of.entry(CASE, "beta")["first_divergence"] = stated
    of.frame.loc[of.rows(CASE, "beta", "dL/dW1", 4), "kind"] = "slot"  # what is stated is shown, whatever it is
    (row,) = tables.divergences(read_run(of.save(tmp_path)))
    assert (row["first divergence"], row["reference"]) == ("dL/dW1 at step 4", "0.375")
    page, markdown = report(of, tmp_path)
    assert "12/128 elements differ" in page
    assert "12/128 elements differ" in markdown


def test_a_clean_run_says_that_nothing_differs(tmp_path):
    page, markdown = report(folder(), tmp_path)
    assert "The same: rounding explains every difference" in page
    assert "Nowhere: no quantity at any step was judged different." in page
    assert "First divergence" not in markdown


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        ([], "Nothing was compared."),
        (["identical"], "The same, bit for bit, in all 1 comparisons with the NumPy reference."),
        (["undecided", "rounding"], "No difference was found, but 1 of 2 comparisons could not be judged"),
        (["different", "undecided"], "Not the same: 1 of 2 comparisons with the NumPy reference found a difference"),
    ],
)
def test_the_answer_is_one_sentence(tmp_path, verdicts, says):
    of = folder(modes={"batch": 2})
    of.header["summary"] = [
        entry | {"verdict": verdict} for entry, verdict in zip(of.header["summary"], verdicts, strict=False)
    ]
    page, markdown = report(of, tmp_path)
    assert says in Page(page).text
    assert says in markdown


@pytest.mark.parametrize(
    ("figures", "table", "column", "value"),
    [
        ({"loss-0", "time-0", "modes-0-2-seconds"}, "convergence", "loss", 0.7),
        ({"distance-0"}, "convergence", "distance32", 1e-5),
        ({"distance-0"}, "convergence", "distance64", 1e-5),
        ({"gradient-0"}, "frame", "ratio", 250.0),
        ({"size-0"}, "frame", "candidate", 1e9),
    ],
)
def test_the_drawings_show_the_frames_own_numbers(tmp_path, figures, table, column, value):
    of = folder()
    before = drawings(report(of, tmp_path)[0])
    rows = getattr(of, table)
    at = (rows.case == CASE) & (rows.framework == "beta")
    at &= (rows["name"] == "dL/dW2") if table == "frame" else True
    rows.loc[at & ((rows.step == 3) | (column == "candidate")), column] = value
    after = drawings(report(of, tmp_path)[0])
    assert {name for name in after if after[name] != before[name]} == figures


def test_ratios_are_the_median_and_the_worst_over_the_steps(tmp_path):
    of = folder()
    of.frame.loc[of.rows(CASE, "beta", "dL/dW2", 3), "ratio"] = 250.0
    of.frame.loc[of.rows(CASE, "beta", "dL/dW2", 5), ["ratio", "because"]] = [7e9, "missing"]
    run = read_run(of.save(tmp_path))
    found = run.quantities.set_index(["case", "framework", "name"]).loc[[(CASE, "beta", "dL/dW2")]]
    (row,) = found.itertuples()
    planted = of.frame[(of.frame.case == CASE) & (of.frame.framework == "beta") & (of.frame["name"] == "dL/dW2")]
    shown = planted[planted.because != "missing"].ratio
    assert (row.worst, row.median, row.different) == (250.0, np.median(shown), False)


def test_gradients_stand_in_backward_order(tmp_path):
    svg = drawings(report(folder(), tmp_path)[0])["gradient-0"]
    seen = [name for name in re.findall(r">([^<]+)</text>", svg) if name.startswith("dL/")]
    assert seen == [f"dL/d{t}" for t in ("yhat", "z3", "a2", "W3", "b3", "z2", "a1", "W2", "b2", "z1", "W1", "b1")]
    assert "K = 30" in svg


def test_a_deep_network_shows_its_worst_gradients(tmp_path):
    of = folder(modes={"batch": 5}, frameworks=("alpha",))
    of.frame["name"] += "." + of.frame["step"].astype(str)
    of.frame["ratio"] /= 100
    of.frame.loc[of.frame["name"] == "dL/dW1.4", "ratio"] = 29.0
    svg = drawings(report(of, tmp_path)[0])["gradient-0"]
    assert "the 40 worst of 60" in svg
    assert svg.count(">dL/d") == ROWS
    assert ">dL/dW1.4<" in svg


def test_distances_of_zero_are_drawn_on_a_floor_and_said(tmp_path):
    of = folder(modes={"batch": 5})
    assert "0, exactly" in drawings(report(of, tmp_path)[0])["distance-0"]  # the start is the same on both sides
    of.convergence.loc[of.convergence.step == 0, ["distance32", "distance64"]] = 1e-16
    assert "0, exactly" not in drawings(report(of, tmp_path)[0])["distance-0"]


def test_a_run_that_is_equal_throughout_has_its_floor_inside_the_drawing(tmp_path):
    of = folder(modes={"batch": 5})
    of.convergence[["distance32", "distance64"]] = 0.0
    svg = drawings(report(of, tmp_path)[0])["distance-0"]
    (height,) = re.findall(r'viewBox="0 0 360 ([\d.]+)"', svg)
    (y,) = re.findall(r'y="([-\d.]+)"[^>]*>0, exactly<', svg)
    assert 0 < float(y) < float(height)


def test_long_curves_are_thinned_and_say_so(tmp_path):
    page = report(folder(modes={"batch": 1024}, frameworks=("alpha",)), tmp_path)[0]
    figures = drawings(page)
    assert "200 of 1,025 points drawn" in figures["loss-0"]
    assert "200 of 1,025 points drawn" in figures["distance-0"]
    assert "points drawn" not in report(folder(), tmp_path)[0]
    longest = max(path.count(" L ") + path.count("\nL ") for path in re.findall(r' d="([^"]*)"', page))
    assert longest <= POINTS


def test_names_are_text_and_nothing_else(tmp_path):
    of = folder(modes={HOSTILE: 4}, frameworks=(HOSTILE, "beta"))
    of.frame["name"] = of.frame["name"].str.replace("dL/dW1", HOSTILE)
    of.frame["detail"] = of.frame["because"] = HOSTILE
    of.frame.loc[of.frame["name"] == HOSTILE, "verdict"] = "different"
    of.entry(f"tutorial-{HOSTILE}", HOSTILE)["notes"] = [HOSTILE]
    of.header["cases"][f"tutorial-{HOSTILE}"]["skipped"] = {HOSTILE: HOSTILE}
    of.header["command"] = of.header["environment"]["machine"] = HOSTILE
    page, markdown = report(of, tmp_path)
    seen, clean = Page(page), Page(report(folder(), tmp_path)[0])
    assert seen.tags - clean.tags <= {"h3", "details", "summary"}  # sections that only a difference has
    assert page.count("<script>") == 1
    assert HOSTILE in seen.text
    tabled = [line for line in markdown.splitlines() if not line.startswith("    ")]
    assert "<script>" not in "\n".join(tabled)
    columns = len(tables.verdicts(read_run(tmp_path).header)[0])
    row = next(line for line in tabled if line.startswith("| tutorial"))
    assert row.replace("\\|", "").count("|") == columns + 1


def test_the_page_stands_alone(tmp_path):
    page, _ = report(folder(), tmp_path)
    allowed = {}
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        allowed[tag] = "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src '{allowed['style']}'; script-src '{allowed['script']}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert not re.search(r"<[^>]* (style|on\w+)=", page)  # what the policy would refuse
    seen = Page(page)
    assert set(re.findall(r"https?://[^\s\"'<>)]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert all(address.startswith("#") for address in seen.addresses)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert not {"link", "iframe", "img", "object"} & seen.tags
    assert len(seen.ids) == len(set(seen.ids))
    targets = {t.removeprefix("#") for t in [*seen.addresses, *re.findall(r"url\(([^)]*)\)", page)]}
    assert targets <= set(seen.ids)
    assert not re.search(r"#0101\w\w", page)  # no placeholder colour is left


def test_the_same_folder_gives_the_same_bytes(tmp_path, monkeypatch):
    first = report(folder(), tmp_path)
    monkeypatch.setitem(matplotlib.rcParams, "lines.markeredgewidth", 9.0)  # a user's own settings are no part of a run
    settings = dict(matplotlib.rcParams)
    assert report(folder(), tmp_path) == first
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize("broken", ["harness.report.writing.as_page", "os.replace"])
def test_a_failure_leaves_the_old_files(tmp_path, monkeypatch, broken):
    before = report(folder(), tmp_path)
    present = sorted(os.listdir(tmp_path))

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(broken, fail)
    of = folder(seed=1)
    of.header["command"] = "gradparity run something else"
    with pytest.raises(RuntimeError, match="the disk is full"):
        _ = report(of, tmp_path)
    assert sorted(os.listdir(tmp_path)) == present
    assert ((tmp_path / "report.html").read_text("utf-8"), (tmp_path / "summary.md").read_text("utf-8")) == before


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_or_not_finite(tmp_path):
    of = folder()
    of.frame.loc[of.frame.framework == "alpha", ["ratio", "d64", "reference"]] = np.nan
    judge(of, "alpha", "different", "nonfinite", "dL/dW2", 3)
    judge(of, "beta", "different", "", "dL/dW2", 3, ratio=np.inf)
    at = of.convergence.framework == "alpha"
    of.convergence.loc[at & (of.convergence.step >= 4), ["loss", "distance32", "distance64"]] = [np.nan, np.inf, np.nan]
    for key in ("ratio", "digits", "final_loss", "accuracy", "seconds_per_step", "worst", "step", "end_point"):
        of.entry(CASE, "alpha")[key] = None
    of.entry(CASE, "beta").update(ratio=np.inf, final_loss=np.nan, steps_to_loss={})
    page, _ = report(of, tmp_path)
    assert "alpha: not finite from step 4" in drawings(page)["loss-0"]
    assert not re.search(r"nan|inf\b", "".join(re.findall(r' d="([^"]*)"', page)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("empty", ["frame", "convergence", "both"])
def test_a_folder_without_rows(tmp_path, empty):
    of = folder()
    if empty != "convergence":
        of.frame = of.frame[:0]
    if empty != "frame":
        of.convergence = of.convergence[:0]
    page, _ = report(of, tmp_path)
    assert ("The frame of this run has no rows." in page) == (empty != "convergence")
    assert ("The run folder has no gradients to draw." in page) == (empty != "convergence")
    assert ("The run folder has no rows to draw." in page) == (empty != "frame")
    assert bool([name for name in drawings(page) if name.startswith("loss")]) == (empty == "frame")


def test_a_skipped_framework_is_listed_with_its_reason(tmp_path):
    of = folder()
    of.header["cases"][CASE]["skipped"] = {"omega": "omega cannot express SGD.velocity = 'step'"}
    page, markdown = report(of, tmp_path)
    assert "omega cannot express SGD.velocity = 'step'" in Page(page).text
    assert "omega cannot express SGD.velocity = 'step'" in markdown


def test_what_is_missing_is_named(tmp_path):
    of = folder()
    with pytest.raises(ValueError, match=r"not a run folder: it has no run\.json"):
        _ = write_report(tmp_path)
    _ = of.save(tmp_path)
    (tmp_path / "convergence.parquet").unlink()
    with pytest.raises(ValueError, match=r"it has no convergence\.parquet"):
        _ = write_report(tmp_path)
    of.frame = of.frame.drop(columns=["ratio"])
    with pytest.raises(ValueError, match=r"frame\.parquet has no column ratio"):
        _ = write_report(of.save(tmp_path))
    of.header["schema"] = 2
    with pytest.raises(ValueError, match="not a run header of schema 1"):
        _ = write_report(of.save(tmp_path))
    _ = (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        _ = write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_rows_without_a_verdict_are_refused(tmp_path):
    of = folder()
    of.frame.loc[3, "verdict"] = None
    with pytest.raises(ValueError, match="empty cells in verdict"):
        _ = write_report(of.save(tmp_path))


def test_a_page_of_default_size_is_small(tmp_path):
    page, _ = report(folder(modes={"stochastic": 1024, "mini-batch": 320, "batch": 200}), tmp_path)
    assert len(page.encode()) < 1_000_000


def test_the_report_imports_nothing_of_the_job():
    code = "import sys, harness.report.writing; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = [m for m in modules if m.split(".")[0] in ("harness", "reference", "frameworks")]
    assert [m for m in ours if m != "harness" and not m.startswith("harness.report")] == []
    assert not {package for registered in FRAMEWORKS.values() for package in registered.packages} & set(modules)
