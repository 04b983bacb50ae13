"""Fixtures shared by the tests; each pytest worker makes its own, which takes about two seconds."""

import lzma
import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

from janeox.config import TokenizerConfig
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.train import train_tokenizer

# One thread: the tests run side by side, and sums then come out alike here and in the processes that tests start.
torch.set_num_threads(1)

DATA = Path(__file__).parent / "data"
SMALL = TokenizerConfig(vocab_size=2000, character_coverage=0.98)


@pytest.fixture(scope="session")
def works() -> list[str]:
    """Short works of Japanese literature."""
    return lzma.open(DATA / "aozora.txt.xz", "rt", encoding="utf-8").read().split("\n\n")


@pytest.fixture(scope="session")
def tokenizer(works: list[str]) -> Tokenizer:
    """2,000 pieces, trained on `works` with our defaults."""
    return train_tokenizer(works, SMALL)


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved with the files for other libraries."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the page is tested in Chromium: apt-get install -y chromium"
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
