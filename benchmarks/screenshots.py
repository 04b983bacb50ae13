"""The pictures of the page in docs/serving.md, of a model that goes on and a tuned one that answers.

    python -m benchmarks.screenshots MODEL TUNED

Needs Chromium and a Japanese font (on Debian: apt-get install chromium fonts-ipafont-gothic).
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.crowd import free_port, started

DOCS = Path(__file__).parents[1] / "docs"
DESKTOP, PHONE = {"width": 960, "height": 680}, {"width": 390, "height": 760}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("tuned")
    asked = parser.parse_args()
    port = free_port()
    url = f"http://localhost:{port}"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        serve, at = [sys.executable, "-m", "janeox.cli", "serve"], ["--port", str(port)]
        with started([*serve, asked.model, "--name", "tiny-cpu", *at], url):
            write(opened(browser, url, DESKTOP, "light", "ja-JP"), "serving-light.png")
            write(opened(browser, url, PHONE, "dark", "en-US"), "serving-phone-dark.png")
        with started([*serve, asked.tuned, "--name", "tiny-cpu-sft", *at], url):
            chat(opened(browser, url, DESKTOP, "dark", "ja-JP"), "serving-dark.png")
            chat(opened(browser, url, PHONE, "light", "ja-JP"), "serving-phone-light.png")
        browser.close()


def opened(browser: Browser, url: str, size: dict[str, int], scheme: str, language: str) -> Page:
    page = browser.new_page(viewport=size, color_scheme=scheme, locale=language)  # type: ignore[arg-type]
    page.goto(url)
    page.locator("summary").click()
    page.locator("#seed").fill("1")
    page.locator("#max_tokens").fill("48")
    page.locator("summary").click()
    return page


def send(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#text").press("Control+Enter")
    expect(page.locator("#send")).to_be_visible(timeout=120_000)


def write(page: Page, name: str) -> None:
    """Lets the model go on from a text, and shows its tokens and what else one of them could have been."""
    page.locator("#write-tab").click()
    page.locator("#show-tokens").check()
    send(page, "西田幾多郎は、")
    page.locator(".token").nth(3).click()
    page.locator("main").evaluate("main => main.scrollTop = 0")
    page.screenshot(path=DOCS / name)


def chat(page: Page, name: str) -> None:
    for text in ("日本で一番高い山は何ですか？", "ありがとうございます。おすすめの本を教えてください。"):
        send(page, text)
    page.screenshot(path=DOCS / name)


if __name__ == "__main__":
    main()
