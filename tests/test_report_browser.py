"""The pages as their readers meet them: in a browser, offline, on a telephone, in the dark, on paper, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browsing import DESK, PHONE, launched, opened, violations
from report_folder import Folder, convergence_of, folder

import frameworks as registry
from harness.cases import CASES
from harness.report.writing import write_report

CASE = "tutorial-mini-batch"
HOSTILE = {
    "script": "<script>document.title='broken'</script><img src=x onerror=document.title='broken'>",
    "quotes": """'single' "double" `back` </td></table> &amp; $x$ {{ 7 * 7 }}""",
    "emoji": "🦊👩‍👩‍👧 flag 🇩🇪 é̂̃",
    "long": "layer" * 1000,
    "right-to-left": "שכבה \u202eenihcam\u202c طبقة",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def page_of(of: Folder, path: Path) -> Path:
    return write_report(of.save(path))[1]


def differing() -> Folder:
    """A run with a difference, its map, a proven cause, undecided quantities and optimizer slots."""
    of = folder()
    at = (of.frame.step == 3) & (of.frame.case == CASE) & (of.frame.framework == "beta")
    of.frame.loc[at & of.frame["kind"].isin(["update", "parameter"]), ["verdict", "ratio"]] = ["different", 1e9]
    of.frame.loc[at & (of.frame["kind"] == "loss"), ["verdict", "because"]] = ["undecided", "chaotic"]
    of.frame.loc[of.frame["name"] == "b3", "kind"] = "slot"
    of.frame.loc[of.frame["name"] == "dL/dyhat", ["verdict", "because"]] = ["undecided", "missing"]
    first = {"name": "update:W1", "step": 3, "text": "480/480 elements differ"}
    of.entry(CASE, "beta").update(verdict="different", worst="update:W1", step=3, ratio=1e9, first_divergence=first)
    place = {"case": CASE, "framework": "beta", "name": "update:W1", "step": 3}
    of.header["maps"] = [{**place, "block": [1, 1], "budget": 1e-17, "array": "array-0"}]
    of.arrays["array-0"] = np.abs(np.random.default_rng(0).normal(0, 1e-9, (16, 30)))
    proof = {"before64": 2e-9, "after64": 3e-17, "before32": 1e-7, "after32": 2e-8}
    advice = {"reference": "SGD(momentum=0.9)", "candidate": ""}
    cause = {"id": "momentum-dampening", "status": "proven", "edit": "SGD.dampening 0 > 0.1", **place, **proof}
    of.header["causes"] = [cause | {"where": "update:W1", "advice": advice}]
    return of


def check(browser: Any, page: Path) -> None:
    """What must hold of every page."""
    for look in ({"size": PHONE}, {"size": DESK, "color_scheme": "dark"}):
        with opened(browser, page, **look) as found:
            assert found.said == []
            assert found.asked == [page.as_uri()]
            assert found.overflow() <= 0
    assert violations(browser, page) == []


@pytest.mark.parametrize("name", list(CASES))
def test_the_page_of_every_named_case(browser: Any, tmp_path: Path, name: str) -> None:
    from harness.investigating import investigate

    installed = registry.installed()
    if not installed:
        pytest.skip("no framework is installed")
    framework = installed[list(CASES).index(name) % len(installed)]
    _ = investigate(CASES[name], frameworks=[framework], steps=4, out=tmp_path / "run")
    check(browser, tmp_path / "run" / "report.html")


def test_the_page_of_a_port_with_a_cause(browser: Any, tmp_path: Path) -> None:
    if "pytorch" not in registry.installed():
        pytest.skip(registry.pip_line("pytorch"))
    import torch
    from torch import nn

    import harness

    def side(epsilon: float) -> Any:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, eps=epsilon), nn.ReLU(), nn.Linear(8, 3))
        return harness.side(net, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), 0.1))

    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    result = harness.compare(side(1e-5), side(1e-3), x, np.arange(32) % 3, steps=3)
    assert result.verdict == "different"
    page = result.to_html(tmp_path / "port.html")
    check(browser, page)
    with opened(browser, page) as found:
        assert "starts here" in found.page.locator(".cells .first").first.inner_text()
        assert found.page.locator(".cells .first").first.inner_text().startswith("≠")
        for cause in result.causes:
            assert cause.id in found.page.locator("#why").inner_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text(browser: Any, tmp_path: Path, text: str) -> None:
    name = HOSTILE[text]
    of = differing()
    for table in (of.frame, of.convergence):
        table["framework"] = table["framework"].replace("beta", name)
        table["case"] = table["case"].replace(CASE, name)
    of.frame["name"] = of.frame["name"].str.replace("W1", name)
    of.header["cases"][name] = of.header["cases"].pop(CASE)
    of.header["cases"][name]["skipped"] = {name: name}
    of.header["command"] = of.header["environment"][name] = name
    for entry in [*of.header["summary"], *of.header["causes"], *of.header["maps"]]:
        entry["case"] = name if entry["case"] == CASE else entry["case"]
        entry["framework"] = name if entry["framework"] == "beta" else entry["framework"]
    entry = of.entry(name, name)
    entry["first_divergence"] = {"name": f"update:{name}", "step": 3, "text": name}
    entry["notes"] = [name]
    of.header["causes"][0] |= {"id": name, "where": name, "edit": name}
    page = page_of(of, tmp_path)
    check(browser, page)
    assert page.stat().st_size < 3_000_000
    with opened(browser, page) as found:
        assert found.page.title() == "gradparity: different"
        assert name.split()[0] in found.page.locator("body").inner_text()


@pytest.mark.parametrize("empty", ["frame", "both", "nothing compared"])
def test_an_empty_run_stays_a_page(browser: Any, tmp_path: Path, empty: str) -> None:
    of = folder()
    of.frame = of.frame[:0]
    if empty != "frame":
        of.convergence = of.convergence[:0]
    if empty == "nothing compared":
        of.header["summary"], of.header["cases"] = [], {}
    check(browser, page_of(of, tmp_path))


def test_values_that_are_not_finite(browser: Any, tmp_path: Path) -> None:
    of = differing()
    at = of.frame.step >= 2
    of.frame.loc[at, ["ratio", "reference", "candidate", "budget"]] = [np.inf, np.nan, np.inf, np.nan]
    of.frame.loc[at, "because"] = "nonfinite"
    of.convergence.loc[of.convergence.step >= 3, ["loss", "distance32", "distance64", "seconds"]] = np.nan
    of.arrays["array-0"][3] = np.inf
    of.arrays["array-0"][5] = 0
    page = page_of(of, tmp_path)
    check(browser, page)
    with opened(browser, page) as found:
        assert "not finite from step 3" in found.page.locator("#training").text_content()


def test_200_layers_and_10000_steps(browser: Any, tmp_path: Path) -> None:
    of, rng = deep(steps=3), np.random.default_rng(0)
    of.convergence = pd.concat([convergence_of(rng, "batch", 10_000, name) for name in ("numpy", "alpha")])
    page = page_of(of, tmp_path)
    assert page.stat().st_size < 3_000_000
    check(browser, page)
    with opened(browser, page) as found:
        where = found.page.locator("#where").inner_text()
        assert "≈ z1 … z120" in where
        assert "≠ z121\xa0" in where or "≠ z121" in where
        assert "starts here" in where
        assert "200 of 10,001 points drawn" in found.page.locator("#training").text_content()
        assert "The 500 worst of" in found.page.locator("#quantities").inner_text()


def deep(*, steps: int, layers: int = 200) -> Folder:
    """A run of a deep network whose layer 121 differs in the last step."""
    of = folder(modes={"batch": steps}, frameworks=("alpha",))
    kinds = of.frame["kind"].isin(["activation", "gradient", "update"]) & of.frame["tensor"].isin(["z1", "W1"])
    row = of.frame[kinds].copy()
    parts = []
    for _, rows in row.groupby("step"):
        for kind in ("activation", "gradient", "update"):
            one = rows[rows["kind"] == kind]
            order = range(1, layers + 1) if kind != "gradient" else range(layers, 0, -1)
            parts += [one.assign(**{"name": one["name"].str[:-1] + str(i)}) for i in order]
    of.frame = pd.concat(parts, ignore_index=True)
    last = steps - 1
    behind = of.frame["name"].str.extract(r"(\d+)$")[0].astype(int) > 120
    late = (of.frame["step"] == last) & ((of.frame["kind"] != "activation") | behind)
    of.frame.loc[late, ["verdict", "ratio"]] = ["different", 1e8]
    of.frame.loc[~late, "verdict"] = "rounding"
    first = {"name": "z121", "step": last, "text": "all elements differ"}
    of.header["summary"][0] |= {"verdict": "different", "first_divergence": first}
    return of


def test_tables_sort_and_filter(browser: Any, tmp_path: Path) -> None:
    with opened(browser, page_of(differing(), tmp_path)) as found:
        table = found.page.locator("#same table.data")
        ratios = table.locator("tbody tr td:nth-child(7)")
        heading = table.get_by_role("button", name="ratio to budget")
        heading.click()
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        assert ratios.last.inner_text() == "1e+09"
        heading.focus()
        found.page.keyboard.press("Enter")
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        assert ratios.first.inner_text() == "1e+09"
        table.get_by_role("button", name="framework").click()
        names = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
        assert names == sorted(names)

        whole = found.page.locator("#quantities table.data").first
        box = found.page.get_by_label("Filter quantities")
        box.fill("beta update different")
        shown = [row for row in whole.locator("tbody tr").all() if row.is_visible()]
        assert 0 < len(shown) == 6
        assert all("beta" in row.inner_text() for row in shown)
        assert f"6 of {whole.locator('tbody tr').count()} rows" in found.page.locator("#quantities").inner_text()
        box.fill("no such words")
        assert not any(row.is_visible() for row in whole.locator("tbody tr").all())
        box.fill("")
        assert all(row.is_visible() for row in whole.locator("tbody tr").all())
        assert found.said == []


def test_a_framework_is_highlighted_in_all_drawings(browser: Any, tmp_path: Path) -> None:
    with opened(browser, page_of(differing(), tmp_path)) as found:
        button = found.page.locator("#highlight").get_by_role("button", name="beta")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        opacity = "element => getComputedStyle(element).opacity"
        for section in ("training", "gradients"):
            one, other = (found.page.locator(f"#{section} .of-{i}").first for i in (1, 0))
            assert (one.evaluate(opacity), other.evaluate(opacity)) == ("1", "0.12")
        button.click()
        assert found.page.locator("#training .of-0").first.evaluate(opacity) == "1"
        assert found.said == []


def test_without_scripts_everything_is_there(browser: Any, tmp_path: Path) -> None:
    page = page_of(differing(), tmp_path)
    with opened(browser, page, java_script_enabled=False) as bare, opened(browser, page) as whole:
        assert not bare.page.locator("#highlight").is_visible()
        assert bare.page.locator("svg").count() == whole.page.locator("svg").count() > 10
        assert bare.page.locator("tbody tr").count() == whole.page.locator("tbody tr").count()
        assert "update:W1 at step 3" in bare.page.locator("#where").inner_text()


def test_the_dark_page_is_dark_and_its_curves_are_not(browser: Any, tmp_path: Path) -> None:
    page = page_of(differing(), tmp_path)
    assert violations(browser, page, color_scheme="dark") == []
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('#training .of-0 path')).stroke"
    looks = {}
    for scheme in ("light", "dark"):
        with opened(browser, page, color_scheme=scheme) as found:
            looks[scheme] = [sum(map(int, _numbers(found.page.evaluate(of)))) for of in (ground, line)]
    assert looks["light"][0] > 700
    assert looks["dark"][0] < 120
    assert looks["dark"][1] > looks["light"][1] > 0


def test_paper_is_white_and_shows_what_is_folded(browser: Any, tmp_path: Path) -> None:
    with opened(browser, page_of(differing(), tmp_path), color_scheme="dark") as found:
        found.page.emulate_media(media="print", color_scheme="dark")
        assert sum(map(int, _numbers(found.page.evaluate("getComputedStyle(document.body).backgroundColor")))) > 700
        assert not found.page.locator("nav").is_visible()
        assert found.page.locator("#where details .strip").first.is_visible()


def _numbers(colour: str) -> list[str]:
    return colour[colour.index("(") + 1 : -1].split(",")[:3]


def test_the_keyboard_reaches_everything(browser: Any, tmp_path: Path) -> None:
    with opened(browser, page_of(differing(), tmp_path)) as found:
        found.page.keyboard.press("Tab")
        assert found.page.evaluate("document.activeElement.textContent") == "Skip to the answer's details"
        seen = set()
        for _ in range(25):
            found.page.keyboard.press("Tab")
            seen.add(found.page.evaluate("document.activeElement.tagName"))
        assert {"A", "BUTTON", "DIV"} <= seen
