"""The pictures of the page in docs/serving.md, of a server that runs.

python -m benchmarks.screenshots [--url http://localhost:8000]
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

DOCS = Path(__file__).parents[1] / "docs"


def write(page: Page, text: str) -> None:
    """Lets the model go on from `text`, with its tokens shown."""
    page.locator("#show-tokens").check()
    page.locator("summary").click()
    page.locator("#seed").fill("1")
    page.locator("#max_tokens").fill("60")
    page.locator("summary").click()
    page.locator("#text").fill(text)
    page.locator("#text").press("Control+Enter")
    expect(page.locator("#send")).to_be_visible(timeout=120_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000")
    url = parser.parse_args().url
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 620}, locale="ja-JP")
        page.goto(url)
        page.locator("#write-tab").click()
        write(page, "西田幾多郎は、")
        page.screenshot(path=DOCS / "serving-tokens.png")
        phone = browser.new_page(viewport={"width": 390, "height": 720}, locale="en-US", color_scheme="dark")
        phone.goto(url)
        write(phone, "こんにちは。")
        phone.screenshot(path=DOCS / "serving-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
