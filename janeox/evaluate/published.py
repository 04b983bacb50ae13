"""Perplexity as two published programs compute it, for comparison with their figures only; `score.py` has ours.

Both are per token of one vocabulary. The first depends on how documents fall into batches (the mean of exp lies above
exp of the mean); the second is ours over packed windows that do not overlap.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from janeox.evaluate.score import Score, Scorer, Window, read, score_packed

RINNA_TOKENS = 1024  # of a document, its <s> included, are read
RINNA_BATCH = 16  # documents; the default of the program


@dataclass(frozen=True)
class Published:
    rinna: float
    """Mean over batches of exp(mean loss of the batch), as in the training program of rinna's GPT-2 models
    (github.com/rinnakk/japanese-pretrained-models, src/task/pretrain_gpt2/train.py)."""
    gpt_neox: float
    """exp(mean loss) over packed windows (github.com/EleutherAI/gpt-neox, megatron/training.py)."""
    gpt_neox_char: float
    """exp(mean loss × tokens / characters), there `char_level_ppl`."""


def published(scorer: Scorer, texts: Iterable[str]) -> Published:
    """The figures of some texts, which are batched and packed in their order."""
    texts = list(texts)
    packed = sum(score_packed(scorer, texts, stride=scorer.context), Score())
    return Published(
        rinna(scorer, texts), packed.perplexity, math.exp(min(700.0, packed.nll / max(1, packed.num_chars)))
    )


def rinna(scorer: Scorer, texts: list[str], batch: int = RINNA_BATCH) -> float:
    """See `Published.rinna`; a model whose context is shorter reads that much of a document."""
    tokens = min(RINNA_TOKENS - 1, scorer.context)
    sequences = [torch.tensor([*scorer.encode(text), scorer.eos_token_id][:tokens]) for text in texts]
    losses = read(scorer, sequences, Window(scorer.context, scorer.context), start=scorer.bos_token_id)
    means = [torch.cat(losses[first : first + batch]).mean().item() for first in range(0, len(losses), batch)]
    return sum(math.exp(min(700.0, mean)) for mean in means) / max(1, len(means))
