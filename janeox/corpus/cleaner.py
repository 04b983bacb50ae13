"""The recipe's cleaning, made ready once: what is left of a document, and why it is dropped, if it is."""

import unicodedata

from janeox.config import CorpusConfig
from janeox.corpus.clean import clean
from janeox.corpus.document import Document, Kind
from janeox.corpus.personal import masked
from janeox.corpus.presets import Judge, Verdict, rules
from janeox.corpus.word_lists import WordLists


class Cleaner:
    """Cleans documents as a recipe's `[corpus]` says. Each document alone: no state, so any process can hold one.

    Raises:
        JaneoxError: a threshold or a word list of the recipe is unknown, or a list cannot be read.
    """

    def __init__(self, config: CorpusConfig):
        self.config = config
        self._judge = Judge(rules(config.preset, config.min_chars, config.thresholds), WordLists(config.word_lists))

    def clean(self, document: Document) -> str:
        """What is left of the document's text; may be empty."""
        if self.config.normalization == "nfkc":
            document = document.with_text(unicodedata.normalize("NFKC", document.text))
        text = clean(document)
        return masked(text) if self.config.mask_personal else text

    def reason_to_drop(self, text: str, kind: Kind) -> str | None:
        """Why a cleaned text is not worth training on: the first rule that fails it, or None to keep it."""
        return self._judge.reason_to_drop(text, kind)

    def verdicts(self, text: str, kind: Kind) -> list[Verdict]:
        """What each rule that is for this kind of document says of a cleaned text."""
        return self._judge.verdicts(text, kind)
