"""XL-Sum: articles cut to the context, and summaries compared by ROUGE-2."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm_eval.api.task import ConfigurableTask
from rouge_score.rouge_scorer import RougeScorer

from janeox.evaluate.tasks.answers import WrittenAnswer, words


class Form(NamedTuple):
    """The strings of a prompt that its parts are found by."""

    opening: str
    """What every turn begins with."""
    closing: str
    """What stands between a text and its summary."""
    end: str
    """What ends a line."""


class Summary(WrittenAnswer):
    """Keeps all few-shots; where they do not fit, each article loses sentences at its end, as in the published harness.

    The scores, in percent: `rouge2` over the model's own pieces, which is what the published program computes, since
    it replaces the task's tokenizer by the model's; `rouge2_mecab` over MeCab's words, which is what it means to.
    """

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int, **options: Any) -> Any:
        context = ConfigurableTask.fewshot_context(self, doc, num_fewshot=num_fewshot, **options)
        if self.encode is None or self.decode is None:
            return context
        form = Form(**self.config.metadata["form"])
        context = shortened(context, self.context - self.limit(doc), form, self.encode, self.decode)
        return context.replace("<NL><NL>", "<NL>")

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        scores = {"rouge2_mecab": rouge2(doc["summary"], results[0], words)}
        if self.encode is not None:
            scores["rouge2"] = rouge2(doc["summary"], results[0], self.encode)
        return scores


def shortened(
    context: str, room: int, form: Form, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
) -> str:
    """A prompt of at most about `room` tokens: each turn keeps whole sentences up to its equal share of them.

    Of a turn whose first sentence is longer than that, only the first tokens stay.
    """
    if len(encode(context)) <= room:
        return context
    before, *turns = context.split(form.opening)
    turns = [form.opening + turn for turn in turns]
    if form.closing in before:
        turns.insert(0, form.opening + before)
        before = ""
    share = room // len(turns)
    for turn in turns:
        text, closing, summary = turn.partition(form.closing)
        kept: list[str] = []
        for sentence in text.split("。"):
            if len(encode("。".join([*kept, sentence]))) > share:
                if kept:
                    kept[-1] += "。" + form.end
                else:
                    kept.append(decode(encode(sentence)[:share]) + form.end)
                break
            kept.append(sentence)
        before += "。".join(kept) + closing + summary
    return before


def rouge2(right: str, said: str, tokenize: Callable[[str], Sequence[str | int]]) -> float:
    """F of ROUGE-2 (Lin 2004) over what `tokenize` makes of both, in percent."""

    class Tokens:
        def tokenize(self, text: str) -> Sequence[str | int]:
            return tokenize(text)

    return 100.0 * RougeScorer(["rouge2"], tokenizer=Tokens()).score(right, said)["rouge2"].fmeasure
