"""What rules compare with thresholds: figures of one text, group by group, in plain Python and numpy.

This is their definition, and what runs where the native library was not built; with it, `figures.py` gives the same
numbers from `native/figures.cpp`. Shares lie between 0 and 1; a share of nothing is 0.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from janeox.corpus.characters import ALPHABETIC, WORD_SHIFT, bits, share
from janeox.corpus.words import CLASSES, words

LINES = {
    "characters": "characters",
    "japanese": "share of Japanese characters, white space not counted",
    "hiragana": "share of hiragana, white space not counted",
    "japanese_letters": "Japanese letters",
    "japanese_letter_share": "share of Japanese letters",
    "hiragana_letters": "share of hiragana among Japanese letters",
    "katakana_letters": "share of katakana among Japanese letters",
    "kana_at_start": "kana among the first 50 characters",
    "full_stops": "。 per character",
    "repeated_lines": "share of repeated lines",
    "repeated_line_chars": "share of characters in repeated lines",
    "repeated_sentences": "share of repeated sentences",
    "repeated_sentence_chars": "share of characters in repeated sentences",
    "mean_sentence": "mean length of sentences",
    "longest_sentence": "longest sentence",
    "ellipsis_sentences": "share of sentences that trail off",
    "punctuated_lines": "share of lines that end with 。 . ! ? or the like",
    "ellipsis_lines": "share of lines that trail off",
    "bullet_lines": "share of lines that begin with - or •",
    "japanese_lines": "share of letters in lines that read as Japanese",
}
NGRAMS = {
    **{f"top_{n}gram": f"share of the most frequent {n}-gram of characters" for n in (2, 3, 4)},
    **{f"repeated_{n}grams": f"share of distinct {n}-grams that come again" for n in range(5, 11)},
}
WORDS = {
    "words": "words, signs not counted",
    "mean_word": "mean length of words",
    "alphabetic_words": "share of words with a letter",
    "stop_words": "of の に を は た て が と で 年 し ・ 月 れ さ, how many kinds occur",
    "lines_per_word": "line breaks per word",
    "hashes_per_word": "# per word",
    "ellipses_per_word": "… per word",
    **{f"top_{n}words": f"share of characters in the most frequent {n} words in a row" for n in (2, 3, 4)},
    **{f"repeated_{n}words": f"share of characters in {n} words in a row that came before" for n in range(5, 11)},
}

_SENTENCE = re.compile("[^。．！？!?]+[。．！？!?]?")


def line_figures(text: str) -> list[float]:
    """The figures of LINES. Sentences and letters are as quality.py of the Swallow corpus, version 1, counts them;
    lines as datatrove's filters do, which look at those that are not blank.
    """
    kinds = bits(text)
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    # Up to and with their 。, ．, ！, ？, ! or ?; a line's end also ends one.
    sentences = [sentence for line in lines for sentence in _SENTENCE.findall(line)]
    solid = len(text) - share(kinds, "white")
    hiragana, katakana = share(kinds, "hiragana_letter"), share(kinds, "katakana_letter")
    japanese = hiragana + katakana + share(kinds, "other_letter")
    ends = share(bits("".join(line[-1] for line in filled)), "line_end")
    return [
        len(text),
        _ratio(share(kinds, "hiragana", "japanese"), solid),
        _ratio(share(kinds, "hiragana"), solid),
        japanese,
        _ratio(japanese, len(text)),
        _ratio(hiragana, japanese),
        _ratio(katakana, japanese),
        share(kinds[:50], "kana"),
        _ratio(text.count("。"), len(text)),
        *repeat_shares(lines),
        *repeat_shares(sentences),
        _ratio(sum(map(len, sentences)), len(sentences)),
        max(map(len, sentences), default=0),
        _ratio(sum(s.rstrip().endswith(("・", "…")) for s in sentences), len(sentences)),
        _ratio(ends, len(filled)),
        _ratio(sum(line.rstrip().endswith(("...", "…")) for line in filled), len(filled)),
        _ratio(sum(line.lstrip().startswith(("•", "-")) for line in filled), len(filled)),
        _japanese_lines(filled),
    ]


def _japanese_lines(lines: list[str]) -> float:
    """Language identification by script: a line reads as Japanese if 5 % of its letters are kana. Without kana, one of
    at most 20 letters, all kanji, could be Japanese as well as Chinese and is not counted.
    """
    japanese = judged = 0
    for line in lines:
        kinds = bits(line)
        letters = int(np.count_nonzero(kinds & ALPHABETIC))
        kana = share(kinds, "kana")
        kanji = int(np.count_nonzero(kinds >> WORD_SHIFT == list(CLASSES).index("kanji") + 1))
        if kana or kanji < letters or letters > 20:
            judged += letters
            japanese += letters if kana * 20 >= letters else 0
    return _ratio(japanese, judged)


def repeat_shares(parts: Sequence[str]) -> tuple[float, float]:
    """Share of `parts`, and of their characters, that say again what an earlier part said."""
    counts = Counter(parts)
    chars_again = sum(len(part) * (count - 1) for part, count in counts.items())
    return _ratio(len(parts) - len(counts), len(parts)), _ratio(chars_again, sum(map(len, parts)))


def ngram_figures(text: str) -> list[float]:
    """The figures of NGRAMS. Exact, no hashes."""
    figures = []
    letters = ids = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), return_inverse=True)[1]
    for n in range(2, 11):
        # An n-gram is the pair of the one shorter by a character and the character behind it.
        pairs = ids[:-1].astype(np.int64) * (len(letters) + 1) + letters[n - 1 :] if len(text) >= n else letters[:0]
        _, ids, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        if n <= 4:
            figures.append(_ratio(int(counts.max(initial=0)), len(pairs)))
        else:
            figures.append(_ratio(int(np.count_nonzero(counts > 1)), len(counts)))
    return figures


def word_figures(text: str) -> list[float]:
    """The figures of WORDS, as datatrove's GopherRepetitionFilter, GopherQualityFilter and FineWebQualityFilter take
    them, over the words of `words.py`.
    """
    found = words(text)
    kinds = [bits(word) for word in found]
    lengths = [len(kind) for kind in kinds if share(kind, "symbol") < len(kind)]
    alphabetic = sum(bool(np.any(kind & ALPHABETIC)) for kind in kinds)
    stops = {word for word, kind in zip(found, kinds, strict=True) if len(word) == 1 and share(kind, "stop_word")}
    return [
        len(lengths),
        _ratio(sum(lengths), len(lengths)),
        _ratio(alphabetic, len(found)),
        len(stops),
        *(_ratio(text.count(sign), len(found)) for sign in ("\n", "#")),
        _ratio(text.count("...") + text.count("…"), len(found)),
        *(_ratio(_most_frequent(found, n), len(text)) for n in (2, 3, 4)),
        *(_ratio(_said_again(found, n), len(text)) for n in range(5, 11)),
    ]


def _most_frequent(found: list[str], n: int) -> int:
    """Characters, a space between words counted, in the most frequent n words in a row; the first of equals."""
    rows = Counter(" ".join(found[start : start + n]) for start in range(len(found) - n + 1))
    row, count = max(rows.items(), key=lambda item: item[1], default=("", 0))
    return len(row) * count


def _said_again(found: list[str], n: int) -> int:
    """Characters in rows of n words that came before; from left to right, none counted twice."""
    seen: set[str] = set()
    start = again = 0
    while start <= len(found) - n:
        row = "".join(found[start : start + n])
        if row in seen:
            again += len(row)
            start += n
        else:
            seen.add(row)
            start += 1
    return again


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
