"""What readers yield and cleaning passes on."""

from typing import Literal, NamedTuple

Kind = Literal["text", "json", "wiki"]
"""What a document was read from: paragraphs between blank lines, a JSON row with `text`, or a CirrusSearch row."""


class Document(NamedTuple):
    """One text. Paragraphs are lines; there is no line break at its end."""

    text: str
    source: str
    """Name of the source in the recipe."""
    id: str
    """The corpus's own name for it (page id, URL), or `where` if it has none."""
    where: str
    """`file:line` of its first line."""
    kind: Kind = "text"

    def with_text(self, text: str) -> "Document":
        return self._replace(text=text)
