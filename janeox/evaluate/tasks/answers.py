"""Tasks whose answer is written by the model: how long it may be, and how it is compared with the right one."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from lm_eval.api.task import ConfigurableTask

from janeox.errors import JaneoxError

SYMBOLS = re.compile("[\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff\u2702-\u27b0]")
"""Blocks of pictures, of which not every character is an emoji."""
PUNCTUATION = re.compile("[!-/:-@[-`{-~–—‘’‛-‟…‧、-〃》「-】〔-〟〰〾〿﹏！-－／：-＠［-｀｛-､]")


class WrittenAnswer(ConfigurableTask):
    """As in the published harness, a prompt gets as many of its few-shots as fit the context, and an answer may have as
    many tokens as the longest right one (`extra_tokens` more for summaries); both take the model's tokenizer.
    """

    encode: Callable[[str], list[int]] | None = None
    """Of the model; without it prompts stay as long as they are, and answers may have `max_gen_toks`."""
    decode: Callable[[list[int]], str] | None = None
    context = 0
    """Tokens of the model's context."""

    def __init__(self, config: dict[str, Any]):
        self.extra_tokens: int | None = config["metadata"].get("extra_tokens")
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def limit(self, doc: dict[str, Any]) -> int:
        """The most tokens of an answer."""
        if self.encode is None or self.extra_tokens is None:
            return self.config.generation_kwargs["max_gen_toks"]
        answers = doc["answers"]["text"] if "answers" in doc else [self.doc_to_target(doc)]
        return max(len(self.encode(answer)) for answer in answers) + self.extra_tokens

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int, **options: Any) -> Any:
        for shots in range(num_fewshot, -1, -1):
            context = super().fewshot_context(doc, num_fewshot=shots, **options)
            if self.encode is None or len(self.encode(context)) + self.limit(doc) <= self.context:
                break
        return context

    def construct_requests(self, doc: dict[str, Any], ctx: str, **options: Any) -> Any:
        request = super().construct_requests(doc, ctx, **options)
        request.arguments = (ctx, request.arguments[1] | {"max_gen_toks": self.limit(doc)})
        return request


@cache
def libraries() -> tuple[Any, Any, Any]:
    """neologdn, emoji, and MeCab with its dictionary: what the published harness compares Japanese answers with.

    Raises:
        JaneoxError: one of them is not installed.
    """
    try:
        import emoji
        import neologdn
        from fugashi import Tagger

        return neologdn, emoji, Tagger("-Owakati")
    except (ImportError, RuntimeError) as error:
        raise JaneoxError(f"comparing Japanese answers takes more ({error}): pip install 'janeox[eval]'") from error


def normalised(text: str) -> str:
    """Without emoji; widths, hyphens and long vowels by neologdn's rules; spaces at the ends gone, others as one."""
    neologdn, emoji, _ = libraries()
    text = SYMBOLS.sub("", "".join(character for character in text if not emoji.is_emoji(character)))
    return " ".join(neologdn.normalize(text).split())


def words(text: str) -> list[str]:
    """MeCab's words of the normalised text."""
    return libraries()[2].parse(normalised(text)).split()


def exact_match_and_f1(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The best over the right answers, in percent: equality once normalised, and F1 by words without punctuation."""
    said, right = results[0], doc["answers"]["text"]
    return {
        "exact_match": 100.0 * max(normalised(answer) == normalised(said) for answer in right),
        "f1": 100.0 * max(_f1(_bag(answer), _bag(said)) for answer in right),
    }


def _bag(text: str) -> Counter[str]:
    return Counter(word for word in words(text) if not PUNCTUATION.fullmatch(word))


def _f1(right: Counter[str], said: Counter[str]) -> float:
    common = (right & said).total()
    return 2 * common / (right.total() + said.total()) if common else 0.0


def last_number(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the last number of the answer is the right one."""
    found = re.findall(r"-?[0-9.,]+", results[0])
    try:
        number = float(found[-1].strip(".").replace(",", "")) if found else None
    except ValueError:
        number = None
    return {"acc": float(number == float(doc["answer_number"]))}
