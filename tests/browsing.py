"""A headless browser for the tests of pages: offline, under the page's own policy, telling all it complains about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
AXE = Path(__file__).parent.parent / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(slots=True)
class Opened:
    """A page in a browser: console messages and errors in `said`, addresses that it asked for in `asked`."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@contextmanager
def launched() -> Iterator[Any]:
    """Chromium of the system, or a visible skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, size: dict[str, int] = DESK, **options: Any) -> Iterator[Opened]:
    """A page of a file; options: of the browser's context."""
    context = browser.new_context(viewport=size, offline=True, **options)
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    page.on("request", lambda request: found.asked.append(request.url))
    try:
        page.goto(path.as_uri())
        yield found
    finally:
        context.close()


def violations(browser: Any, path: Path, *, size: dict[str, int] = DESK, **options: Any) -> list[str]:
    """What axe-core finds wrong; it is injected, which the page's own policy would refuse."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; with npm on PATH, dev.py installs it into .venv/node_modules")
    with opened(browser, path, size=size, bypass_csp=True, **options) as found:
        found.page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
        found.page.add_script_tag(path=str(AXE))
        result = found.page.evaluate("axe.run()")
    return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in result["violations"]]
