"""The recipe's cleaning, made ready once: what is left of a document, and why it is dropped, if it is."""

from janeox.config import CorpusConfig
from janeox.corpus.clean import clean
from janeox.corpus.document import Document, Kind
from janeox.corpus.presets import Verdict, reason_to_drop, verdicts


class Cleaner:
    """Cleans documents as a recipe's `[corpus]` says. Each document alone: no state, so any process can hold one."""

    def __init__(self, config: CorpusConfig):
        self.config = config

    def clean(self, document: Document) -> str:
        """What is left of the document's text; may be empty."""
        return clean(document)

    def reason_to_drop(self, text: str, kind: Kind) -> str | None:
        """Why a cleaned text is not worth training on: the first rule that fails it, or None to keep it."""
        return reason_to_drop(text, kind, self.config.preset, self.config.min_chars)

    def verdicts(self, text: str, kind: Kind) -> list[Verdict]:
        """What each rule that is for this kind of document says of a cleaned text."""
        return verdicts(text, kind, self.config.preset, self.config.min_chars)
