"""Tasks whose answer is written by the model: how long it may be, and how it is compared with the right one."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from lm_eval.api.task import ConfigurableTask

from janeox.errors import JaneoxError


class WrittenAnswer(ConfigurableTask):
    """As in the published harness, a prompt gets as many of its few-shots as fit the context, and an answer may have as
    many tokens as the longest right one (`cap_tokens` more of them for summaries); both take the model's tokenizer.
    """

    encode: Callable[[str], list[int]] | None = None
    """Of the model; without it prompts keep all few-shots, and answers may have `max_gen_toks`."""
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


def normalised(text: str) -> str:
    """NFKC, spaces at the ends gone, others as one. (The published harness uses neologdn, which also shortens ーー.)"""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def exact_match_and_f1(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The best over the right answers, in percent: equality, and F1 by characters (JGLUE, Kurihara et al. 2022)."""
    said = normalised(results[0])
    right = [normalised(answer) for answer in doc["answers"]["text"]]
    return {
        "exact_match": 100.0 * max(answer == said for answer in right),
        "f1": 100.0 * max(_f1(Counter(answer), Counter(said)) for answer in right),
    }


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


def rouge2(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ROUGE-2 F over MeCab's words, in percent.

    Raises:
        JaneoxError: MeCab is not installed.
    """
    from rouge_score.rouge_scorer import RougeScorer

    try:
        from fugashi import Tagger
    except ImportError as error:
        raise JaneoxError("xlsum_ja cuts text into words by MeCab: pip install fugashi unidic-lite") from error

    class Words:
        tagger = Tagger("-Owakati")

        def tokenize(self, text: str) -> list[str]:
            return self.tagger.parse(normalised(text)).split()

    score = RougeScorer(["rouge2"], tokenizer=Words()).score(doc["summary"], results[0])
    return {"rouge2": 100.0 * score["rouge2"].fmeasure}
