"""The committed page in a real browser: Debian's Chromium, or another that is installed. Playwright brings none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PAGE = Path(__file__).parent.parent / "explorer.html"
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    assert found, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens the page in a window of its own. At the end it has said no error and asked the network for nothing."""
    contexts, complaints, requests = [], [], []

    def opened(width: int = 1280, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(PAGE.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert set(requests) <= {PAGE.as_uri()}


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()
