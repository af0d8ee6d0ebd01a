"""Recorded runs of cases: what is compared from disk is what is compared live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frameworks as registry
from harness.case import Case, HarnessError
from harness.cases import CASES
from harness.conventions import resolve
from harness.investigating import investigate
from harness.trace import Difference, Run, Trace, read_trace, record
from harness.trace import diff as _diff
from harness.trace.header import Header, written
from harness.trace.writing import Writer

TOY = CASES["toy-animals"]
SQUARES = replace(CASES["diabetes-regression"], steps=40)
STEPS = 30

SAME = ["step", "name", "kind", "shape", "reference", "candidate", "d32", "d64", "noise_reference", "noise_candidate"]
SAME += ["budget", "ratio", "ulp", "digits", "worst_index", "verdict", "because", "detail"]


def diff(reference: Any, candidate: Any) -> Difference:
    found = _diff(reference, candidate)
    assert isinstance(found, Difference)
    return found


def live(case: Case, framework: str) -> Any:
    return investigate(case, frameworks=[framework], steps=STEPS)


def columns_apart(one: Any, other: Any) -> list[str]:
    return [column for column in SAME if list(one[column].astype(str)) != list(other[column].astype(str))]


def altered(trace: Trace, folder: Path, step: int, kind: str, name: str, factor: float) -> Trace:
    """A copy in which one element of a quantity, in both precisions, is another number from one step on: sound files
    with a wrong number in them."""
    with Writer(folder) as writer:
        for shard in trace.header.shards:
            tensors = {}
            for block in trace.blocks(shard.first, shard.steps):
                values = block.values.copy()
                if (block.kind, block.name) == (kind, name) and block.first <= step < block.first + len(values):
                    values[step - block.first : step - block.first + 1].flat[0] *= factor
                tensors[f"{block.first}/{block.precision}/{block.kind}/{block.name}"] = values
            writer.add(shard.first, shard.steps, tensors)
        fields = {name: getattr(trace.header, name) for name in Header.model_fields}
        for own in ("format", "schema_version", "checksum", "created", "shards"):
            del fields[own]
        writer.finish(**fields)
    return read_trace(folder)


def foreign(trace: Trace, version: str = "0.0") -> Trace:
    """The same trace as if another version had recorded it: its framework is not at hand."""
    environment = {**trace.header.environment, "numpy": version}
    header = trace.header.model_copy(update={"environment": environment})
    _ = (trace.folder / "header.json").write_bytes(written(header))
    return read_trace(trace.folder)


@pytest.mark.parametrize("name", CASES)
def test_full_traces_say_exactly_what_is_said_live(name: str, framework_name: str, tmp_path: Path) -> None:
    told = live(CASES[name], framework_name)
    if not len(told.summary):
        with pytest.raises(HarnessError, match=name):
            _ = record(Run(case=CASES[name], framework=framework_name), tmp_path / "candidate", steps=STEPS)
        return
    candidate = record(Run(case=CASES[name], framework=framework_name), tmp_path / "candidate", steps=STEPS)
    reference = record(Run(case=CASES[name], conventions=framework_name), tmp_path / "reference", steps=STEPS)
    found, row = diff(reference, candidate), told.summary.iloc[0]
    assert (found.verdict, found.because, found.first) == (row["verdict"], row["because"], row["first_divergence"])
    assert [*found.notes] == row["notes"]
    apart = columns_apart(told.frame, found.frame)
    if apart:  # TensorFlow's last bits follow where in memory its buffers lie: then live runs are apart too
        assert any(columns_apart(told.frame, live(CASES[name], framework_name).frame) for _ in range(8)), apart
    assert str(diff(replace(CASES[name], steps=STEPS), candidate)).splitlines()[0].startswith(row["verdict"])


def test_a_run_is_identical_to_its_record(framework_name: str, tmp_path: Path) -> None:
    run = Run(case=TOY, framework=framework_name)
    found = diff(record(run, tmp_path / "trace", steps=STEPS), run)
    assert (found.verdict, found.exit_code, found.first, found.changes) == ("identical", 0, None, None)
    assert len(found.frame) == STEPS * 31
    assert "identical" in str(found)


@pytest.mark.parametrize("factor", [1 + 1e-3, 1 + 1e-9, -1.0])
@pytest.mark.parametrize(("kind", "name"), [("gradient", "dL/dW2"), ("activation", "z1"), ("parameter", "b3")])
@pytest.mark.parametrize("known", [True, False])
def test_one_wrong_element_is_found_where_it_is(
    kind: str, name: str, factor: float, known: bool, framework_name: str, tmp_path: Path
) -> None:
    run = Run(case=CASES["tutorial-minibatch"], framework=framework_name)
    sound = record(run, tmp_path / "sound", steps=8)
    wrong = altered(sound, tmp_path / "wrong", 5, kind, name, factor)
    if not known:
        wrong = foreign(wrong)
    for reference in (sound, CASES["tutorial-minibatch"]):
        found = diff(reference, wrong)
        if not known and factor == 1 + 1e-9:  # a float64 run that is float32 inside would look the same
            assert (found.verdict, found.because, found.changes) == (
                "undecided",
                "unconfirmed",
                5 * (reference is sound),
            )
            continue
        assert (found.verdict, found.exit_code) == ("different", 1), str(found)
        assert found.first
        place = f"update:{name}" if kind == "parameter" else name
        assert (found.first["step"], found.first["name"]) == (5, place), str(found)


def test_what_only_a_rerun_can_settle_is_undecided_without_it(framework_name: str, tmp_path: Path) -> None:
    """An alarm between K and 1e5 needs the step again."""
    run = Run(case=TOY, framework=framework_name)
    sound = record(run, tmp_path / "sound", steps=3)
    wrong = foreign(altered(sound, tmp_path / "wrong", 1, "activation", "z1", 1 + 1e-13))
    found = diff(TOY, wrong)
    assert (found.verdict, found.because, found.exit_code) == ("undecided", "unconfirmed", 3)


def test_versions_are_named(framework_name: str, tmp_path: Path) -> None:
    run = Run(case=TOY, framework=framework_name)
    old = foreign(record(run, tmp_path / "old", steps=5), "1.99")
    found = diff(old, run)
    assert found.verdict == "identical"
    assert any(version.startswith("numpy: 1.99 -> 2") for version in found.versions)
    assert "recorded elsewhere" in str(found)


def test_two_frameworks_agree_where_the_case_writes_all_conventions_out() -> None:
    first, *others = registry.installed()
    for other in others:
        found = diff(Run(case=SQUARES, framework=first), Run(case=SQUARES, framework=other))
        assert (found.verdict, found.exit_code) == ("rounding", 0), str(found)
        assert found.changes is not None


def test_two_frameworks_differ_by_their_own_conventions_and_the_cause_is_proven() -> None:
    case = replace(CASES["tutorial-adam"], steps=5)
    epsilons = {name: resolve(case, registry.adapter(name).CONVENTIONS).optimizer for name in registry.installed()}
    first, *others = epsilons
    for other in others:
        found = diff(Run(case=case, framework=first), Run(case=case, framework=other))
        if epsilons[first] != epsilons[other]:
            assert (found.verdict, found.exit_code) == ("different", 1), str(found)
            assert any(c.id.startswith("adam-epsilon") and c.status == "proven" for c in found.causes), str(found)


def test_other_cases_are_refused(tmp_path: Path) -> None:
    one = record(TOY, tmp_path / "one", steps=4)
    with pytest.raises(HarnessError, match="another case than deep-tanh"):
        _ = diff(one, CASES["deep-tanh"])
    longer = record(TOY, tmp_path / "longer", steps=5)
    with pytest.raises(HarnessError, match="4 steps"):
        _ = diff(one, longer)


def test_recording_again_replaces_the_trace_and_leaves_no_rest(tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    _ = record(TOY, folder, steps=4)
    before = {path.name for path in folder.iterdir()}
    again = record(TOY, folder, steps=5)
    after = {path.name for path in folder.iterdir()}
    assert before & after == {"header.json"}
    assert after == {"header.json", *(shard.file for shard in again.header.shards)}
    assert again.header.steps == 5


def test_values_on_disk_are_those_of_the_run(tmp_path: Path) -> None:
    trace = record(TOY, tmp_path / "trace", steps=4)
    weights = {b.precision: b.values for b in trace.blocks(0, 4) if (b.kind, b.name) == ("parameter", "W1")}
    assert weights["float32"].dtype == np.float32
    assert weights["float64"].shape == (4, 4, 3)
    assert np.abs(weights["float64"] - weights["float32"]).max() < 1e-6
    assert (np.diff(weights["float64"], axis=0) != 0).any()


def test_a_reference_that_has_changed_since_does_not_explain_its_own_change(tmp_path: Path, monkeypatch: Any) -> None:
    from reference import updates

    before = record(TOY, tmp_path / "before", steps=5)
    plain = updates.sgd
    wrong = lambda optimizer, t, W, g, v=None: plain(optimizer, t, W, g * (1 + 1e-6), v)  # noqa: E731
    monkeypatch.setattr(updates, "sgd", wrong)
    after = record(TOY, tmp_path / "after", steps=5)
    assert diff(before, after).verdict == "different"
    assert diff(before, record(TOY, tmp_path / "again", steps=5)).verdict == "different"
    assert diff(after, record(TOY, tmp_path / "same", steps=5)).verdict == "identical"


def test_two_references_of_other_conventions_are_told_apart_and_the_cause_is_proven() -> None:
    case = replace(CASES["tutorial-adam"], steps=6)
    found = diff(Run(case=case, conventions="torch"), Run(case=case, conventions="keras"))
    assert found.sides == ("numpy (torch)", "numpy (keras)")
    assert found.verdict == "different"
    proven = {cause.id for cause in found.causes if cause.status == "proven"}
    assert {"adam-epsilon", "adam-epsilon-placement"} <= proven
    assert diff(Run(case=case, conventions="torch"), Run(case=case, conventions="torch")).verdict == "identical"


def test_causes_of_records_need_no_framework(tmp_path: Path) -> None:
    """The conventions that were recorded are edited in the reference; whose run it was need not be here."""
    case = replace(CASES["tutorial-adam"], steps=6)
    traces = [record(Run(case=case, conventions=name), tmp_path / name) for name in ("torch", "keras")]
    found = diff(foreign(traces[0]), foreign(traces[1]))
    assert "adam-epsilon" in {cause.id for cause in found.causes if cause.status == "proven"}, str(found)


def test_a_wrong_number_is_not_put_down_to_conventions(tmp_path: Path) -> None:
    case = replace(CASES["tutorial-adam"], steps=6)
    one, other = (record(Run(case=case, conventions=name), tmp_path / name) for name in ("torch", "keras"))
    found = diff(one, altered(other, tmp_path / "wrong", 1, "gradient", "dL/dW2", 1.01))
    assert found.verdict == "different"
    assert not [cause for cause in found.causes if cause.status == "proven"], str(found)


def test_a_difference_is_a_page_and_a_run_folder_too(tmp_path: Path) -> None:
    from harness import read_report

    case = replace(CASES["tutorial-adam"], steps=4)
    found = diff(Run(case=case, conventions="torch"), Run(case=case, conventions="keras"))
    report = read_report(found.save(tmp_path / "folder"))
    assert len(report.frame) == len(found.frame)
    page = found.to_html(tmp_path / "page.html").read_text()
    for words in ("adam-epsilon", "numpy (torch)", str(found.first and found.first["name"])):
        assert words in page
    assert "adam-epsilon" in found._repr_html_()
    assert {cause["id"] for cause in found.as_json()["causes"]} == {cause.id for cause in found.causes}
