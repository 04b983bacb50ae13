"""Beam search: the likeliest text that a search with so many open ends finds, by transformers' rules.

Scores are sums of log p, after the processors, which work on log p here. That of an ended text is divided by its length
to the power `length_penalty`. Only candidates among the best `num_beams` may end; the open ones go on without them.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from janeox.config import SamplingConfig
from janeox.engine.backend import Backend, Row
from janeox.engine.sampling import next_token_logits
from janeox.engine.text import Generated, Writer
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer


class Beam(NamedTuple):
    """An open text: its new ids, their log-probabilities under the model, its score, and the slot that holds it."""

    ids: list[int]
    logprobs: list[float]
    score: float
    slot: int


@torch.inference_mode()
def beam_search(
    backend: Backend, tokenizer: Tokenizer | None, prompt: list[int], sampling: SamplingConfig
) -> Generated:
    """The finished text of best score; nothing is drawn. Uses the first `num_beams` slots of the backend.

    Args:
        prompt: at least one id and fewer than the capacity.

    Raises:
        JaneoxError: the model's logits are not numbers.
    """
    sampling, eos_token_id = replace(sampling, temperature=0), backend.config.eos_token_id
    width, longest = sampling.num_beams, min(sampling.max_new_tokens, backend.capacity - len(prompt) + 1)
    beams = [Beam([], [], 0.0, 0)]
    ended: list[tuple[float, Beam]] = []  # by score, the best first
    rows = [Row(0, 0, prompt)]
    while True:
        candidates = _candidates(beams, backend.forward(rows), prompt, sampling, eos_token_id)
        length = len(beams[0].ids) + 1
        ends = [length == longest or _ends(beam.ids, tokenizer, sampling, eos_token_id) for beam in candidates]
        for beam, end in list(zip(candidates, ends, strict=True))[:width]:
            if end:
                ended.append((_scaled(beam.score, length, sampling.length_penalty), beam))
        ended = sorted(ended, key=lambda pair: -pair[0])[:width]
        going_on = [beam for beam, end in zip(candidates, ends, strict=True) if not end][:width]
        if not going_on or (len(ended) == width and _done(going_on[0], ended[-1][0], length, longest, sampling)):
            best = ended[0][1] if ended else beams[0]  # where the processors leave nothing, what there was before
            return _written(best.ids, best.logprobs, Generated(prompt, sampling), tokenizer, eos_token_id)
        beams = _in_slots(going_on, backend, len(prompt) + length - 1)
        rows = [Row(beam.slot, len(prompt) + length - 1, beam.ids[-1:]) for beam in beams]


def _candidates(
    beams: list[Beam], logits: Tensor, prompt: list[int], sampling: SamplingConfig, eos_token_id: int
) -> list[Beam]:
    """The best continuations by one id: twice as many as open ends, so that enough do not end; slots as before."""
    logp = logits.log_softmax(1)  # (beams, V)
    lengths = torch.full((len(beams),), len(prompt) + len(beams[0].ids), device=logits.device)
    seen = torch.tensor([prompt + beam.ids for beam in beams], device=logits.device)
    scores = next_token_logits(logp, seen, lengths, lengths - len(prompt), sampling, eos_token_id)
    scores = scores + torch.tensor([beam.score for beam in beams], device=logits.device)[:, None]
    if scores.isnan().any():
        raise JaneoxError("the model's logits are not numbers: its weights are damaged")
    best = scores.flatten().topk(min(2 * sampling.num_beams, scores.numel()))
    owners, ids = best.indices // logp.shape[1], best.indices % logp.shape[1]
    found = zip(best.values.tolist(), owners.tolist(), ids.tolist(), logp[owners, ids].tolist(), strict=True)
    return [
        Beam([*beams[owner].ids, id], [*beams[owner].logprobs, logprob], score, beams[owner].slot)
        for score, owner, id, logprob in found
        if score > -torch.inf
    ]


def _ends(ids: list[int], tokenizer: Tokenizer | None, sampling: SamplingConfig, eos_token_id: int) -> bool:
    if ids[-1] == eos_token_id:
        return True
    return tokenizer is not None and any(stop in tokenizer.decode(ids) for stop in sampling.stop)


def _done(best: Beam, worst_ended: float, length: int, longest: int, sampling: SamplingConfig) -> bool:
    """Whether the search ends, once `num_beams` texts have ended; `best` is the best of the open ones."""
    if sampling.early_stopping is True:
        return True
    hoped = longest if sampling.early_stopping == "never" and sampling.length_penalty > 0 else length
    return _scaled(best.score, hoped, sampling.length_penalty) <= worst_ended


def _scaled(score: float, length: int, penalty: float) -> float:
    """In float32, in which transformers compares."""
    return (torch.tensor(score) / length**penalty).item()


def _in_slots(beams: list[Beam], backend: Backend, length: int) -> list[Beam]:
    """Each beam in a slot of its own: the first of a slot keeps it, the others get a copy of its `length` tokens."""
    taken = {beam.slot for beam in beams}
    free = [slot for slot in range(backend.num_slots) if slot not in taken]
    placed = []
    for beam in beams:
        if beam.slot in taken:
            taken.remove(beam.slot)
            placed.append(beam)
        else:
            slot = free.pop(0)
            backend.copy(beam.slot, slot, length)
            placed.append(beam._replace(slot=slot))
    return placed


def _written(
    ids: list[int], logprobs: list[float], text: Generated, tokenizer: Tokenizer | None, eos_token_id: int
) -> Generated:
    writer = Writer(text, tokenizer)
    stopped = [writer.push(id) for id in ids][-1]
    writer.close()
    text.logprobs = logprobs
    text.finish_reason = "stop" if stopped or ids[-1] == eos_token_id else "length"
    return text
