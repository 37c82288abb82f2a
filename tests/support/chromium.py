"""A real browser: Debian's chromium, or Google Chrome, without a window."""

from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which

from playwright.sync_api import Browser, expect, sync_playwright

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


# Five seconds, the default, are few for a busy machine; what comes sooner is not waited for.
expect.set_options(timeout=20_000)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser, closed at the end. Contexts of it are people who know nothing of each other."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium") or which("google-chrome"), args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()
