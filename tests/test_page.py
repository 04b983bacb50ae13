"""The server's page, driven in a real browser."""

import time

import pytest
from playwright.sync_api import expect

from serving import serving, small_lm, until


@pytest.fixture(scope="module")
def running(tokenizer):
    with serving(small_lm(tokenizer), slots=2) as found:
        yield found


@pytest.fixture
def page(browser, running):
    context = browser.new_context(locale="ja-JP", viewport={"width": 390, "height": 844})
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            message.type == "error" and "status of 400" not in message.text and problems.append(message.text)
        ),
    )
    page.on("request", lambda request: request.url.startswith((running.url, "data:")) or problems.append(request.url))
    page.goto(running.url)
    yield page
    context.close()
    assert not problems  # no error, and nothing fetched from elsewhere


def test_chat_streams_and_shows_tokens(page):
    expect(page.locator("#model")).to_have_text("small")
    page.locator("#show-tokens").check()
    page.locator("summary").press("Enter")
    page.locator("#max_tokens").fill("30")
    page.locator("#seed").fill("3")
    page.locator("#text").fill("こんにちは<b>。")
    page.locator("#text").press("Control+Enter")
    expect(page.locator(".turn.user")).to_have_text("こんにちは<b>。")
    expect(page.locator("#send")).to_be_visible()
    assert page.locator(".turn.assistant").inner_text()
    assert page.locator(".token").count() >= 2 and "%" in page.locator(".token small").first.inner_text()
    page.locator(".token").first.focus()
    expect(page.locator("#likeliest li")).to_have_count(5)
    page.locator("#clear").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_a_text_goes_on_and_can_be_stopped(page, running, monkeypatch):
    backend = running.server.worker.engine.backend
    forward = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *given: time.sleep(0.05) or forward(*given))  # time to click
    page.locator("#write-tab").click()
    page.locator("summary").click()
    page.locator("#max_tokens").fill("240")
    page.locator("#temperature").fill("1")
    page.locator("#text").fill("東京")
    with page.expect_request("**/v1/completions"):
        page.locator("#send").click()
    expect(page.locator(".new")).not_to_be_empty()
    page.locator("#stop").click()
    expect(page.locator("#send")).to_be_visible()
    until(lambda: running.server.worker.num_running == 0)
    assert page.locator("#written").inner_text().startswith("東京")


def test_languages_errors_and_width(page):
    expect(page.locator("#send")).to_have_text("送信")
    page.locator("#language").click()
    expect(page.locator("#send")).to_have_text("Send")
    page.locator("#write-tab").click()
    page.locator("#text").fill("猫" * 2000)
    with page.expect_response(lambda answer: answer.status == 400):
        page.locator("#send").click()
    expect(page.locator("#error")).to_contain_text("context")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing hangs over on a phone


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser, running, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(running.url)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 29)"}[scheme]
    page.close()
