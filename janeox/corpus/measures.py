"""Figures of a text that rules of a preset compare with thresholds. Every share lies between 0 and 1."""

import re
import zlib
from collections import Counter
from functools import cached_property

import numpy as np

_HIRAGANA = re.compile("[\u3041-\u309f]+")
_OTHER_JAPANESE = re.compile(
    "[\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f\u3001-\u301f々\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff！？（）]+"
)
_WHITE = re.compile(r"\s+")


def script_shares(text: str) -> tuple[float, float]:
    """Share of hiragana, and of hiragana, katakana, kanji and Japanese punctuation, among non-space characters."""
    total = len(_WHITE.sub("", text))
    if not total:
        return 0.0, 0.0
    hiragana = sum(map(len, _HIRAGANA.findall(text)))
    return hiragana / total, (hiragana + sum(map(len, _OTHER_JAPANESE.findall(text)))) / total


def repeat_shares(parts: list[str]) -> tuple[float, float]:
    """Share of `parts`, and of their characters, that say again what an earlier part said."""
    counts = Counter(parts)
    chars_again = sum(len(part) * (count - 1) for part, count in counts.items())
    return (len(parts) - len(counts)) / max(1, len(parts)), chars_again / max(1, sum(map(len, parts)))


_SENTENCE = re.compile("[^。．！？!?]+[。．！？!?]?")
_LETTERS = {
    "hiragana": re.compile("[\u3041-\u3096]+"),
    "katakana": re.compile("[\u30a1-\u30fa]+"),
    "other": re.compile("[々〇〻\u3400-\u9fff\uf900-\ufaff\U00020000-\U0010ffff、，。．！？]+"),
}
_KANA = re.compile("[ぁ-んァ-ン]")


class Measures:
    """Figures of one text, each computed when first asked for.

    Sentences, letters and n-grams are as quality.py of the Swallow corpus, version 1, counts them.
    """

    def __init__(self, text: str):
        self.text = text
        self._ids: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    @cached_property
    def script_shares(self) -> tuple[float, float]:
        return script_shares(self.text)

    @cached_property
    def line_repeats(self) -> tuple[float, float]:
        return repeat_shares(self.text.split("\n"))

    @cached_property
    def sentences(self) -> list[str]:
        """Up to and with their 。, ．, ！, ？, ! or ?; a line's end also ends one."""
        return [sentence for line in self.text.split("\n") for sentence in _SENTENCE.findall(line)]

    @cached_property
    def sentence_repeats(self) -> tuple[float, float]:
        return repeat_shares(self.sentences)

    @property
    def mean_sentence(self) -> float:
        """Characters."""
        return sum(map(len, self.sentences)) / max(1, len(self.sentences))

    @property
    def longest_sentence(self) -> int:
        """Characters."""
        return max(map(len, self.sentences), default=0)

    @property
    def ellipsis_share(self) -> float:
        """Share of sentences that end with … or ・, as teasers of longer pages do."""
        return sum(s.rstrip().endswith(("・", "…")) for s in self.sentences) / max(1, len(self.sentences))

    @cached_property
    def letters(self) -> dict[str, int]:
        """Number of hiragana, katakana, other Japanese letters (kanji, 、，。．！？), and `japanese`, their sum."""
        counts = {name: sum(map(len, pattern.findall(self.text))) for name, pattern in _LETTERS.items()}
        return counts | {"japanese": sum(counts.values())}

    def letter_share(self, script: str) -> float:
        """Of the Japanese letters, hiragana or katakana; of all characters, `japanese`."""
        whole = len(self.text) if script == "japanese" else self.letters["japanese"]
        return self.letters[script] / max(1, whole)

    def ngram_counts(self, n: int) -> np.ndarray:
        """How often each distinct n-gram of characters occurs; empty where the text is shorter. Exact, no hashes."""
        if not self._ids:
            codes = np.frombuffer(self.text.encode("utf-32-le"), dtype="<u4").astype(np.int64)
            self._rank(codes)
        while len(self._ids) < n:
            # An n-gram is the pair of the one shorter by a character and the character behind it.
            letters, shorter = self._ids[0], self._ids[-1]
            self._rank(shorter[:-1] * (len(letters) + 1) + letters[len(self._ids) :])
        return self._counts[n - 1]

    def _rank(self, keys: np.ndarray) -> None:
        _, ids, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self._ids.append(ids)
        self._counts.append(counts)

    def top_ngram(self, n: int) -> float:
        """Share of the most frequent n-gram among all."""
        counts = self.ngram_counts(n)
        return float(counts.max() / counts.sum()) if len(counts) else 0.0

    def repeated_ngrams(self, n: int) -> float:
        """Share of the distinct n-grams that occur more than once."""
        counts = self.ngram_counts(n)
        return float((counts > 1).mean()) if len(counts) else 0.0

    @property
    def kana_at_start(self) -> int:
        """Kana among the first 50 characters."""
        return len(_KANA.findall(self.text, 0, 50))

    @property
    def stop_share(self) -> float:
        """。 per character."""
        return self.text.count("。") / max(1, len(self.text))

    @property
    def compression(self) -> float:
        """Bytes after zlib at level 9 per byte of UTF-8; above 1 for a very short text."""
        encoded = self.text.encode("utf-8")
        return len(zlib.compress(encoded, level=9)) / max(1, len(encoded))
