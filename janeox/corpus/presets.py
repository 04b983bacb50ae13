"""Which documents are worth training on: named sets of rules, each with its threshold and where that comes from.

- light: what no Japanese corpus would keep. Thresholds of Swallow, but none that long or literary prose breaks.
- swallow: all of quality.py's `apply_v1` of the Swallow corpus, version 1 (arXiv 2404.17733). Made for web pages.
- fineweb2: the filters of FineWeb-2 for jpn_Jpan (configs/jpn_Jpan.yml and its pipeline, which are datatrove's Gopher
  and FineWeb filters). Its words are Sudachi's, ours those of `words.py`; its language score is GlotLID's, ours the
  share of letters in lines that read as Japanese, with a threshold of our own.
- llm-jp: the filters of the llm-jp corpus, version 1, at their weak level (filters.py of its scripts, and the HojiChar
  filters that it calls). Its word lists are not copied: `word_lists.py` has small ones of our own. Left out is the
  address (a valid top-level domain), which not every reader yields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from janeox.corpus.document import Kind
from janeox.corpus.figures import WHAT, Figures
from janeox.corpus.word_lists import WordLists
from janeox.errors import JaneoxError
from janeox.recipe import nearest

SWALLOW_SOURCE = "Swallow v1"
FINEWEB_SOURCE = "FineWeb-2 jpn_Jpan"
LLM_JP_SOURCE = "llm-jp v1"
OWN = "janeox"


@dataclass(frozen=True)
class Rule:
    """Keeps a text whose figure lies between `least` and `most`, both included."""

    name: str
    """As the report calls it; rules of one name count together."""
    figure: str
    """What is measured: a name in `figures.WHAT`, or a word list's with `_words`."""
    least: float = -inf
    most: float = inf
    source: str = OWN
    spares: tuple[Kind, ...] = ()
    """Kinds of documents that the rule is not for."""

    @property
    def what(self) -> str:
        return WHAT.get(self.figure, f"words of the list {self.figure.removesuffix('_words')!r}")


@dataclass(frozen=True)
class Verdict:
    """What a rule found in a text."""

    rule: Rule
    value: float

    @property
    def keeps(self) -> bool:
        return self.rule.least <= self.value <= self.rule.most


def _rules(
    source: str, *rows: tuple[str, str, float, float] | tuple[str, str, float, float, tuple[Kind, ...]]
) -> list[Rule]:
    return [Rule(name, figure, least, most, source, *spares) for name, figure, least, most, *spares in rows]


PRESETS: dict[str, list[Rule]] = {
    "light": _rules(
        OWN,
        ("little_japanese", "japanese", 0.5, inf),
        # Chinese, word lists and tables fall below it. An encyclopedia's prose is terse and full of names and dates.
        ("little_hiragana", "hiragana", 0.2, inf, ("wiki",)),
        ("repeated_lines", "repeated_lines", -inf, 0.3),
        ("repeated_lines", "repeated_line_chars", -inf, 0.2),
    ),
    "swallow": _rules(
        SWALLOW_SOURCE,
        ("few_letters", "characters", 400, inf),
        ("repeated_lines", "repeated_lines", -inf, 0.3),
        ("repeated_lines", "repeated_line_chars", -inf, 0.2),
        ("repeated_sentences", "repeated_sentences", -inf, 0.3),
        ("repeated_sentences", "repeated_sentence_chars", -inf, 0.2),
        ("little_hiragana", "hiragana_letters", 0.2, inf),
        ("much_katakana", "katakana_letters", -inf, 0.5),
        ("little_japanese", "japanese_letter_share", 0.5, inf),
        ("few_letters", "japanese_letters", 400, inf),
        ("sentence_length", "mean_sentence", 20, 90),
        ("sentence_length", "longest_sentence", -inf, 200),
        ("ellipsis", "ellipsis_sentences", -inf, 0.2),
        # Last here, since they take longest; the decision is the same in any order.
        *(("frequent_ngram", f"top_{n}gram", -inf, most) for n, most in ((2, 0.20), (3, 0.18), (4, 0.16))),
        *(
            ("repeated_ngrams", f"repeated_{n}grams", -inf, most)
            for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ),
    ),
    "fineweb2": [
        Rule("little_japanese", "japanese_lines", least=0.5),
        *_rules(
            FINEWEB_SOURCE,
            ("repeated_lines", "repeated_lines", -inf, 0.328),
            ("repeated_lines", "repeated_line_chars", -inf, 0.1),
            ("unpunctuated", "punctuated_lines", 0.096, inf),
            ("bullets", "bullet_lines", -inf, 0.9),
            ("ellipsis", "ellipsis_lines", -inf, 0.3),
            ("list", "lines_per_word", -inf, 0.13),
            ("too_short", "words", 50, inf),
            ("too_long", "words", -inf, 100_000),
            ("word_length", "mean_word", 1, 6),
            ("symbols", "hashes_per_word", -inf, 0.1),
            ("symbols", "ellipses_per_word", -inf, 0.1),
            ("symbols", "alphabetic_words", 0.759, inf),
            ("stop_words", "stop_words", 2, inf),
            *(("frequent_ngram", f"top_{n}words", -inf, most) for n, most in ((2, 0.239), (3, 0.196), (4, 0.172))),
            *(
                ("repeated_ngrams", f"repeated_{n}words", -inf, most)
                for n, most in ((5, 0.243), (6, 0.225), (7, 0.207), (8, 0.19), (9, 0.175), (10, 0.159))
            ),
        ),
    ],
    "llm-jp": _rules(
        LLM_JP_SOURCE,
        ("no_kana", "kana_at_start", 1, inf),
        ("advertising", "advertising_words", -inf, 10),
        ("adult", "adult_words", -inf, 3),
        ("sentence_length", "full_stops", 1 / 250, inf),
        ("compression", "compression", 0.30, 0.70),
    ),
}


def rules(preset: str, min_chars: int, thresholds: Mapping[str, float]) -> list[Rule]:
    """The rules of a preset in the order they are tried, after the recipe's own least length, with its thresholds:
    `min_FIGURE` and `max_FIGURE` replace those of the rule on that figure, or add a rule where there is none.

    Raises:
        JaneoxError: a threshold is of no known figure.
    """
    found = [Rule("too_short", "characters", least=min_chars), *PRESETS[preset]]
    for key, value in thresholds.items():
        side, _, figure = key.partition("_")
        known = [f"{end}_{name}" for name in WHAT for end in ("min", "max")]
        if side not in ("min", "max") or (figure not in WHAT and not figure.endswith("_words")):
            raise JaneoxError(f"corpus.thresholds.{key}: no rule has it{nearest(key, known)}")
        change = {"least" if side == "min" else "most": value, "source": "recipe"}
        places = [place for place, rule in enumerate(found) if rule.figure == figure and place > 0]
        for place in places:
            found[place] = replace(found[place], **change)  # type: ignore[arg-type]
        if not places:
            found.append(replace(Rule(figure, figure), **change))  # type: ignore[arg-type]
    return found


class Judge:
    """Decides by a list of rules, with the word lists that some of them count."""

    def __init__(self, rules: list[Rule], lists: WordLists):
        self.rules, self.lists = rules, lists
        for rule in rules:
            if rule.figure not in WHAT:
                lists.check(rule.figure.removesuffix("_words"))

    def reason_to_drop(self, text: str, kind: Kind) -> str | None:
        """Why a cleaned text is not worth training on: the first rule that fails it, or None to keep it."""
        figures = Figures(text)
        for rule in self.rules:
            if kind not in rule.spares and not rule.least <= self._figure(rule, figures) <= rule.most:
                return rule.name
        return None

    def verdicts(self, text: str, kind: Kind) -> list[Verdict]:
        """What each rule that is for this kind of document says of a cleaned text."""
        figures = Figures(text)
        return [Verdict(rule, self._figure(rule, figures)) for rule in self.rules if kind not in rule.spares]

    def _figure(self, rule: Rule, figures: Figures) -> float:
        if rule.figure in WHAT:
            return figures[rule.figure]
        return self.lists.count(rule.figure.removesuffix("_words"), figures.text)
