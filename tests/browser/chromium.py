"""Headless Chromium, and visits to pages in it that note every fault and every request."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Route

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, PHONE = 1200, 375  # CSS pixels


def find_chromium() -> str | None:
    """The first program of $CHROMIUM and PATH that tells its version; a stub that only names a snap does not."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        path = shutil.which(name) if name else None
        if path and subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0:
            return path
    return None


@contextmanager
def started() -> Iterator["Browser"]:
    """The browser; skips the test if there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install 'dist-s2s[browser]'")
    executable = find_chromium()
    if executable is None:
        pytest.skip("Chromium is missing: `bash launch/browser.sh` installs it; CHROMIUM names one that is elsewhere")
    # A container's /dev/shm may be too small, and the sandbox refuses to start as root.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@contextmanager
def visit(
    browser: "Browser", address: str, *, width: int = WIDE, scheme: str = "light", accepted: str | None = None
) -> Iterator["Page"]:
    """Open a page; at the end, fail if it has asked anyone else for anything, or logged any fault.

    What it logs that begins with ``accepted`` is no fault, but has to occur.
    """
    own = address.partition("#")[0]
    faults, met = list[str](), list[str]()

    def answer(route: "Route") -> None:
        if route.request.url.startswith(own):
            route.continue_()
        else:
            faults.append(f"a request of {route.request.url}")
            route.abort()

    def note(message: "ConsoleMessage") -> None:
        if message.type not in ("error", "warning"):
            return
        if accepted is not None and message.text.startswith(accepted):
            met.append(message.text)
        else:
            faults.append(f"{message.type}: {message.text}")

    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(20_000)
    context.route("**/*", answer)
    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
    try:
        page.goto(address)
        yield page
    finally:
        context.close()
    assert not faults, "\n".join(faults)
    assert bool(met) == (accepted is not None), f"nothing begins with {accepted}"


def tab_to(page: "Page", selector: str, most: int = 40) -> None:
    """Press Tab until what has the focus fits the selector."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"{most} times Tab do not reach {selector}")


def faults_of_access(page: "Page", *rules: str) -> list[str]:
    """What axe-core finds by these rules, or by all, serious or not, each with its places."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core is missing: pip install 'dist-s2s[browser]'"
    )
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = axe.Axe().run(page, options=options).response["violations"]
    return [f"{each['impact']}: {each['help']}: {[node['target'] for node in each['nodes']]}" for each in found]


def overflow(page: "Page") -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
