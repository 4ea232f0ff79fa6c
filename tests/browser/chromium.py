"""Drive Debian's Chromium: visit the pages of the admin, count the clicks of a person, and take screenshots."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client
    from selenium.webdriver.remote.webelement import WebElement

AXE = Path(sys.prefix) / "axe" / "axe_playwright_python" / "axe.min.js"  # `make test-browser` installs it
PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
WIDTH, HEIGHT = 1280, 800
COLOURS = 96  # of a screenshot: enough for a page, and a fifth of the bytes
PATIENCE = 15.0  # seconds
# What people and machines change: each machine has other fonts, and readers widen texts (WCAG 2.2, 1.4.12).
SPACING = "line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important"
STYLES = {
    "as it is": "",
    "spaced text": f"* {{ {SPACING} }} p {{ margin-bottom: 2em !important }}",
    "a wide font": ":not([class*=symbols]) { font-family: monospace !important; letter-spacing: .05em !important }",
}
MEASURE = """
for (const each of document.querySelectorAll("main details")) each.open = true;
const root = document.documentElement;
return arguments[0].map(style => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  document.adoptedStyleSheets = [sheet];
  const boxes = [root, ...document.querySelectorAll(".panel, .band, .figures div, button, .btn")];
  const pixels = Math.max(...boxes.map(each => each.clientWidth && each.scrollWidth - each.clientWidth));
  document.adoptedStyleSheets = [];
  return pixels;
});
"""


FINDINGS = """
const done = arguments[arguments.length - 1];
for (const each of document.querySelectorAll("main details")) each.open = true;
axe.run(arguments[0], {preload: false, resultTypes: ["violations"]}).then(
  found => done(found.violations.filter(each => each.impact !== "minor").flatMap(
    each => each.nodes.map(node => `${each.impact}, ${each.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`))),
  error => done([String(error)]));
"""


def missing_packages() -> list[str]:
    """Return the Debian packages that the tests need and this machine lacks."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]


@contextmanager
def started() -> Iterator[webdriver.Chrome]:
    """Run a browser without a window, which ends with the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # CI runs as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


class Visitor:
    """A person who looks at the pages.

    Args:
        driver: the browser.
        url: of the server, without a path.
        screenshots: where screenshots go; None for none.
    """

    def __init__(self, driver: webdriver.Chrome, url: str, screenshots: Path | None) -> None:
        self.driver = driver
        self.url = url
        self.clicks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._question = ""
        self._screenshots = screenshots

    def log_in(self, client: Client) -> None:
        """Take over the session of a client of Django's."""
        self.driver.get(f"{self.url}/health/")
        self.driver.add_cookie({"name": "sessionid", "value": client.cookies["sessionid"].value, "path": "/"})

    def open(self, path: str) -> None:
        """Go to a page by its address, as by a bookmark."""
        self.driver.get(f"{self.url}{path}")

    @contextmanager
    def question(self, text: str) -> Iterator[None]:
        """Count the clicks of the block for a question, and the seconds that its pages take."""
        self._question = text
        self.clicks[text] = 0
        began = time.monotonic()
        yield
        self.seconds[text] = time.monotonic() - began

    def click(self, text: str, within: str = "//body") -> None:
        """Click on the link or the button with a text, and wait for its page.

        Args:
            text: all of it.
            within: an XPath of the element that it is in; the first one counts.
        """
        wanted = f"normalize-space(.)='{text}' or @value='{text}'"
        path = f"({within}//*[(self::a or self::button or self::input[@type='submit']) and ({wanted})])[1]"
        self.click_on(self.find(path))

    def click_on(self, element: WebElement) -> None:
        """Click on an element, and wait for its page."""
        self.clicks[self._question] += 1
        root, windows = self.driver.find_element(By.TAG_NAME, "html"), self.driver.window_handles
        # Not by coordinates: a theme's bar may cover a link at the lower edge.
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        opened: list[str] = []

        def arrived() -> bool:
            opened[:] = [each for each in self.driver.window_handles if each not in windows]
            return bool(opened) or _is_gone(root)

        wait_until(arrived, PATIENCE, "the page that the click leads to")
        if opened:
            self.driver.switch_to.window(opened[0])

    def close_tab(self) -> None:
        """Close this tab, and go on in the first one."""
        self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])

    def type(self, selector: str, text: str) -> WebElement:
        """Fill a field.

        Args:
            selector: its CSS selector.
            text: what is typed.
        """
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)
        return field

    def find(self, path: str) -> WebElement:
        """Return the element that an XPath finds, as soon as it is there."""
        found: list[WebElement] = []

        def look() -> bool:
            try:
                found[:] = [self.driver.find_element(By.XPATH, path)]
            except NoSuchElementException:
                return False
            return True

        try:
            wait_until(look, PATIENCE, path)
        except AssertionError as error:
            error.add_note(f"{self.driver.current_url}\n{self.text}")
            raise
        return found[0]

    @property
    def text(self) -> str:
        """The text of the page, with single spaces, as it would be read."""
        return " ".join(self.driver.find_element(By.TAG_NAME, "body").text.split())

    def reload_until(self, *texts: str) -> str:
        """Load the page again until it has all of the texts; return its text."""

        def shows() -> str | None:
            self.driver.refresh()
            shown = self.text
            return shown if all(text in shown for text in texts) else None

        try:
            return wait_until(shows, 30, f"{texts} at {self.driver.current_url}")
        except AssertionError as error:
            error.add_note(self.text)
            raise

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def overflows(self, *widths: int) -> dict[str, int]:
        """Return by how many pixels the page, or a part of it, is too wide, with other fonts and spaces, where it is.

        A constructed stylesheet is not forbidden by any policy of content.

        Args:
            widths: of windows, in pixels.
        """
        found: dict[str, int] = {}
        for width in widths:
            self.resize(width)
            pixels = self.driver.execute_script(MEASURE, list(STYLES.values()))
            found |= {f"{width}, {name}": each for name, each in zip(STYLES, pixels, strict=True) if each > 0}
        return found

    def findings(self, selector: str) -> list[str]:
        """Return what axe-core finds on the page that hinders people, with all details open.

        Args:
            selector: CSS of what is looked at.
        """
        if not self.driver.execute_script("return 'axe' in window"):
            self.driver.execute_script(AXE.read_text())
        return list(self.driver.execute_async_script(FINDINGS, selector))

    def errors(self) -> list[str]:
        """Return the errors of scripts and requests since the last call."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")
        return [each["message"] for each in log if each["level"] == "SEVERE" and "favicon" not in each["message"]]

    def resize(self, width: int, height: int = HEIGHT) -> None:
        """Make the window another size, as a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        """Prefer a colour scheme: "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def look(self, name: str, width: int, scheme: str) -> None:
        """Write a picture for somebody who looks at all pages, if the folder `all` is there."""
        if self._screenshots is not None and (self._screenshots / "all").is_dir():
            self.screenshot(f"all/{name}-{width}-{scheme}")

    def screenshot(self, name: str) -> None:
        """Write a small picture of the page, if pictures are wanted."""
        if self._screenshots is None:
            return
        picture = Image.open(BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        picture.quantize(COLOURS).save(self._screenshots / f"{name}.png", optimize=True)


def _is_gone(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True
    except WebDriverException as error:
        # In the moment in which one page replaces the other, Chromium says it in its own words.
        if "does not belong to the document" not in str(error):
            raise
        return True
    return False
