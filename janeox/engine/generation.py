"""Text generation: choose the next token, step a batch through the cache, stop in time.

Sampling follows transformers' order: repetition penalty, minimum length, temperature, top-k, top-p.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from janeox.config import SamplingConfig
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX


def next_token_logits(
    logits: Tensor, ids: Tensor, mask: Tensor | None, num_new: int, sampling: SamplingConfig, eos_token_id: int
) -> Tensor:
    """What the next token is drawn from; −inf where it cannot be.

    Args:
        logits: (B, V) of the model.
        ids: (B, S) all tokens so far, prompt included.
        mask: (B, S) False where `ids` is padding; None if nowhere.
        num_new: tokens generated so far.

    Returns:
        (B, V) float32.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(logits)
        present = torch.ones_like(ids, dtype=seen.dtype) if mask is None else mask.to(seen.dtype)
        seen.scatter_reduce_(1, ids, present, reduce="amax")
        penalised = torch.where(logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty)
        logits = torch.where(seen > 0, penalised, logits)
    if num_new < sampling.min_new_tokens:
        logits = logits.clone()
        logits[:, eos_token_id] = -torch.inf
    if sampling.temperature == 0:
        return logits
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1.0:
        ascending, order = logits.sort(dim=1)
        drop = ascending.softmax(1).cumsum(1) <= 1 - sampling.top_p
        drop[:, -1] = False
        logits = logits.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids (B,) from logits (B, V) by inverting the distribution at `uniform` (B,) in [0, 1), float64."""
    if logits.device.type == "mps":  # Apple's GPU has no float64
        return draw(logits.cpu(), uniform).to(logits.device)
    cumulative = logits.double().softmax(1).cumsum(1)
    point = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    # The first place above the point: a token of probability 0 adds nothing to the sum, so it is never that place.
    return (cumulative > point).byte().argmax(1)


class Generation:
    """Steps a batch of prompts forward. Iterating yields, each step, {row: token id} for the rows still running.

    A row ends with `</s>` (not yielded), at `max_new_tokens`, at the end of the context, or by `finish(row)`.
    A row's tokens depend on its prompt and seed, not on its neighbours.

    Args:
        prompts: token ids of each row; an empty prompt starts a new document.

    Raises:
        JaneoxError: a prompt does not fit the context.
    """

    def __init__(self, model: GPTNeoX, prompts: list[list[int]], sampling: SamplingConfig):
        self.model, self.sampling = model, sampling
        self.eos_token_id = model.config.eos_token_id
        self.prompts = [prompt or [self.eos_token_id] for prompt in prompts]
        context = model.config.max_position_embeddings
        for prompt in self.prompts:
            if len(prompt) >= context:
                raise JaneoxError(f"the prompt has {len(prompt)} tokens; the model's context is {context}: shorten it")
        self.running = list(range(len(prompts)))
        self.capacity = min(context, max(map(len, self.prompts)) + sampling.max_new_tokens) if prompts else 0
        self._generators = self._seeded()

    def _seeded(self) -> list[torch.Generator]:
        """One generator a row; the n-th copy of a prompt counts n on from the seed, so that copies differ."""
        copies: dict[tuple[int, ...], int] = {}
        generators = []
        for prompt in map(tuple, self.prompts):
            copy = copies.get(prompt, 0)
            copies[prompt] = copy + 1
            generator = torch.Generator()
            if self.sampling.seed is None:
                generator.seed()
            else:
                generator.manual_seed((self.sampling.seed + copy) % 2**63)
            generators.append(generator)
        return generators

    def finish(self, row: int) -> None:
        """Ends a row; it is left out of the following steps."""
        if row in self.running:
            self.running.remove(row)

    def __iter__(self) -> Iterator[dict[int, int]]:
        if not self.prompts:
            return
        device, rows = self.model.device, list(self.running)
        width = max(map(len, self.prompts))
        ids = torch.full((len(rows), width), self.eos_token_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for row, prompt in enumerate(self.prompts):  # padding on the left: all rows end together
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = True
        ids, padded = ids.to(device), None if bool(mask.all()) else mask.to(device)
        cache = self.model.new_cache(len(rows), self.capacity)
        new = ids  # (B, T) tokens that the cache does not hold yet
        for num_new in range(self.sampling.max_new_tokens):
            with torch.inference_mode():
                hidden = self.model.hidden(new, mask=padded, cache=cache)[:, -1]  # (B, C)
                logits = next_token_logits(
                    self.model.embed_out(hidden), ids, padded, num_new, self.sampling, self.eos_token_id
                )
                chosen = self._choose(logits, rows)
            step = dict(zip(rows, chosen.tolist(), strict=True))
            for row, token in step.items():
                if token == self.eos_token_id:
                    self.finish(row)
            yield {row: token for row, token in step.items() if row in self.running}
            if not self.running or cache.length == self.capacity:
                return
            kept = [place for place, row in enumerate(rows) if row in self.running]
            if len(kept) < len(rows):
                rows = [rows[place] for place in kept]
                places = torch.tensor(kept, device=device)
                ids, chosen = ids[places], chosen[places]
                padded = None if padded is None else padded[places]
                cache.keep(places)
            new = chosen[:, None]
            ids = torch.cat((ids, new), 1)
            padded = None if padded is None else torch.cat((padded, torch.ones_like(new, dtype=torch.bool)), 1)

    def _choose(self, logits: Tensor, rows: list[int]) -> Tensor:
        if self.sampling.temperature == 0:
            return logits.argmax(1)
        uniform = [torch.rand((), generator=self._generators[row], dtype=torch.float64) for row in rows]
        return draw(logits, torch.stack(uniform))


class StopScanner:
    """Cuts a stream of text before the first stop string, holding back only what may still become one."""

    def __init__(self, stop: tuple[str, ...]):
        self.stop = stop
        self.stopped = False
        self._held = ""

    def push(self, text: str) -> str:
        """Text that is safe to show. After a stop string `stopped` is true and nothing more comes."""
        if self.stopped:
            return ""
        self._held += text
        places = [place for place in (self._held.find(stop) for stop in self.stop) if place >= 0]
        if places:
            self.stopped = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = max((self._overlap(stop) for stop in self.stop), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        return next(n for n in range(min(len(stop) - 1, len(self._held)), -1, -1) if self._held.endswith(stop[:n]))

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held
