"""The page of a cleaned corpus: it has the report's figures, and looks as it should in a real browser."""

import json
from html.parser import HTMLParser

import pytest

from janeox.config import CorpusConfig
from janeox.corpus.page import PAGE
from janeox.corpus.pipeline import clean_corpus
from janeox.data.tokenize import tokenize_corpus
from test_corpus_pipeline import corpus, prose

VOID = ("meta", "rect")


class Page(HTMLParser):
    """Rows of the tables, titles of the bars, and whether every element is closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.rows, self.bars, self.addresses, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open[-1] in VOID and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.open[-2:] == ["rect", "title"]:
            self.bars.append(data)


@pytest.fixture(scope="module")
def cleaned(works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    a = corpus(folder / "raw", *map(prose, range(300)), prose(1), "<script>short</script>", prose(5) + "終わり。")
    b = folder / "raw/b.jsonl"
    rows = [json.dumps({"text": work[: 99 + 40 * number]}) for number, work in enumerate(works)]
    b.write_text("\n".join([*rows, "broken"]), encoding="utf-8")
    config = CorpusConfig({"a": a, "b": str(b)}, valid_fraction=0.1, near_duplicates=True)
    return folder / "out", clean_corpus(config, folder / "out")


def test_the_page_has_the_reports_figures(cleaned):
    out, report = cleaned
    page = Page((out / PAGE).read_text(encoding="utf-8"))
    assert not set(page.open) - {"html", *VOID} and not page.addresses
    for number, source in enumerate(report["sources"].values()):
        for stage, tally in (("read", source["in"]), ("clean", source["passed"]), ("valid", source["valid"])):
            row = [row for row in page.rows if row[0] == stage][number]
            assert row[1:4] == [f"{tally[unit]:,}" for unit in ("documents", "chars", "bytes")]
        for rule, drop in source["dropped"].items():
            (row,) = (row for row in page.rows if row[0] == rule)
            assert row[1 + number].split()[0] == f"{drop['documents']:,}" and drop["documents"]
        assert {f"{name}: {count:,}" for name, count in source["lengths"].items()} <= set(page.bars)
        assert sum(source["lengths"].values()) == source["train"]["documents"] + source["valid"]["documents"]
        assert sum(source["scripts"].values()) == source["train"]["chars"] + source["valid"]["chars"]
    assert report["groups"]["text"] == {"2": 1} and "2: 1" in page.bars
    assert report["sources"]["b"]["train"]["documents"] > 20
    assert set(report["sources"]["a"]["dropped"]) == {"duplicate", "near_duplicate", "too_short"}
    last = report["sources"]["b"]["in"]["documents"] + 1
    for words in ("<script>short</script>", f"b.jsonl:{last}: not JSON", "valid_fraction = 0.1"):
        assert words in page.text


def test_tokens_join_the_page(cleaned, tokenizer, tmp_path):
    out, _ = cleaned
    shards = tokenize_corpus(out, tokenizer, tmp_path / "shards")
    page = Page((out / PAGE).read_text(encoding="utf-8"))
    for name in "ab":
        files = [file for file in shards.files if file.source == name]
        per_char = sum(file.num_tokens for file in files) / sum(file.num_chars for file in files)
        assert f"{name}: {per_char:.3f}" in page.bars


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_and_without_anything_from_elsewhere(browser, cleaned, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((cleaned[0] / PAGE).as_uri())
    assert len(asked) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("svg rect").count() > 10
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    page.close()
