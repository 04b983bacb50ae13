"""Which documents are worth training on: named sets of rules with thresholds and where those come from.

- light: what no Japanese corpus would keep. Thresholds of Swallow, but none that long or literary prose breaks.
- swallow: all of quality.py's `apply_v1` of the Swallow corpus, version 1 (arXiv 2404.17733). Made for web pages.
- llm-jp: the filters of the llm-jp corpus, version 1, that look at the text, at their weak level (filters.py of its
  scripts, and the HojiChar filters that it calls). Left out are the address (a valid top-level domain) and the lists of
  words of advertising, adult content, discrimination and violence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from janeox.corpus.document import Kind
from janeox.corpus.measures import Measures


@dataclass(frozen=True)
class Rule:
    """Keeps a text whose figure lies between `least` and `most`, both included."""

    name: str
    """As the report calls it; rules of one name count together."""
    what: str
    """What is measured."""
    measure: Callable[[Measures], float]
    least: float = -inf
    most: float = inf
    spares: tuple[Kind, ...] = ()
    """Kinds of documents that the rule is not for."""


@dataclass(frozen=True)
class Verdict:
    """What a rule found in a text."""

    rule: Rule
    value: float

    @property
    def keeps(self) -> bool:
        return self.rule.least <= self.value <= self.rule.most


LIGHT = (
    Rule("little_japanese", "share of Japanese characters", lambda m: m.script_shares[1], least=0.5),
    # Chinese, word lists and tables fall below it. An encyclopedia's prose is terse and full of names and dates.
    Rule("little_hiragana", "share of hiragana", lambda m: m.script_shares[0], least=0.2, spares=("wiki",)),
    Rule("repeated_lines", "share of repeated lines", lambda m: m.line_repeats[0], most=0.3),
    Rule("repeated_lines", "the same, by characters", lambda m: m.line_repeats[1], most=0.2),
)


def _top(n: int, most: float) -> Rule:
    return Rule("frequent_ngram", f"share of the most frequent {n}-gram", lambda m: m.top_ngram(n), most=most)


def _repeated(n: int, most: float) -> Rule:
    return Rule("repeated_ngrams", f"share of repeated {n}-grams", lambda m: m.repeated_ngrams(n), most=most)


SWALLOW = (
    Rule("few_letters", "characters", lambda m: len(m.text), least=400),
    Rule("repeated_lines", "share of repeated lines", lambda m: m.line_repeats[0], most=0.3),
    Rule("repeated_lines", "the same, by characters", lambda m: m.line_repeats[1], most=0.2),
    Rule("repeated_sentences", "share of repeated sentences", lambda m: m.sentence_repeats[0], most=0.3),
    Rule("repeated_sentences", "the same, by characters", lambda m: m.sentence_repeats[1], most=0.2),
    Rule("little_hiragana", "share of hiragana in Japanese", lambda m: m.letter_share("hiragana"), least=0.2),
    Rule("much_katakana", "share of katakana in Japanese", lambda m: m.letter_share("katakana"), most=0.5),
    Rule("little_japanese", "share of Japanese letters", lambda m: m.letter_share("japanese"), least=0.5),
    Rule("few_letters", "Japanese letters", lambda m: m.letters["japanese"], least=400),
    Rule("sentence_length", "mean length of sentences", lambda m: m.mean_sentence, least=20, most=90),
    Rule("sentence_length", "longest sentence", lambda m: m.longest_sentence, most=200),
    Rule("ellipsis", "share of sentences that trail off", lambda m: m.ellipsis_share, most=0.2),
    # Last here, since they take longest; the decision is the same in any order.
    *(_top(n, most) for n, most in ((2, 0.20), (3, 0.18), (4, 0.16))),
    *(_repeated(n, most) for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))),
)

LLM_JP = (
    Rule("no_kana", "kana in the first 50 characters", lambda m: m.kana_at_start, least=1),
    Rule("sentence_length", "。 per character", lambda m: m.stop_share, least=1 / 250),
    Rule("compression", "compressed size, as a share", lambda m: m.compression, least=0.30, most=0.70),
)

PRESETS = {"light": LIGHT, "swallow": SWALLOW, "llm-jp": LLM_JP}


def rules(preset: str, min_chars: int) -> tuple[Rule, ...]:
    """The rules of a preset, in the order they are tried, after the recipe's own least length."""
    return (Rule("too_short", "characters", lambda m: len(m.text), least=min_chars), *PRESETS[preset])


def verdicts(text: str, kind: Kind, preset: str, min_chars: int) -> list[Verdict]:
    """What each rule that is for this kind of document says of a cleaned text."""
    measures = Measures(text)
    return [Verdict(r, r.measure(measures)) for r in rules(preset, min_chars) if kind not in r.spares]


def reason_to_drop(text: str, kind: Kind, preset: str, min_chars: int) -> str | None:
    """Why a cleaned text is not worth training on: the first rule that fails it, or None to keep it."""
    measures = Measures(text)
    for rule in rules(preset, min_chars):
        if kind not in rule.spares and not Verdict(rule, rule.measure(measures)).keeps:
            return rule.name
    return None
