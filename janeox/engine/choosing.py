"""The next tokens of texts of any kinds, chosen where the logits are; the host hears of them when it asks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from janeox.engine.sampling import draw, needs_history, next_token_logits
from janeox.engine.text import Writer


class Choice(NamedTuple):
    id: int
    logprob: float
    """Under the model itself."""
    top: list[tuple[int, float]]
    """The likeliest (id, log p), as many as the text asks for."""


class Chooser:
    """Chooses for texts in a fixed order, one token of each a step.

    Args:
        texts: each with ids that are taken to follow it.
        steps: how many there will be.
    """

    def __init__(
        self, texts: Sequence[tuple[Writer, Sequence[int]]], eos_token_id: int, device: torch.device, steps: int = 1
    ):
        self._num_top = [writer.generated.sampling.top_logprobs for writer, _ in texts]
        places: dict[str, list[int]] = {}
        for place, (writer, _) in enumerate(texts):
            places.setdefault(writer.kind, []).append(place)
        self._kinds = [
            (torch.tensor(some, device=device), _Kind([texts[place] for place in some], eos_token_id, device, steps))
            for some in places.values()
        ]
        self._chosen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def choose(self, logits: Tensor) -> Tensor:
        """The next ids (B,) from logits (B, V) of the model; nothing waits for them."""
        if len(self._kinds) == 1:
            ids = self._kinds[0][1].choose(logits)
        else:
            ids = torch.empty(len(logits), dtype=torch.long, device=logits.device)
            for places, kind in self._kinds:
                ids[places] = kind.choose(logits[places])
        logp = logits.log_softmax(1)  # on a CPU, in less than half the time of logsumexp
        num_top = min(max(self._num_top), logits.shape[1])
        top, top_ids = logp.topk(num_top) if num_top else (logp[:, :0], logp[:, :0])
        self._chosen.append((ids, logp.gather(1, ids[:, None])[:, 0], top_ids, top))
        return ids

    def choices(self) -> list[list[Choice]]:
        """For each text, what was chosen in each step. Waits for it."""
        ids, logprobs, top_ids, top_logprobs = (
            torch.stack(parts, 1).tolist() for parts in zip(*self._chosen, strict=True)
        )
        found = []
        for row, num_top in enumerate(self._num_top):
            tops = (zip(*pair, strict=True) for pair in zip(top_ids[row], top_logprobs[row], strict=True))
            each = zip(ids[row], logprobs[row], tops, strict=True)
            found.append([Choice(id, logprob, list(top)[:num_top]) for id, logprob, top in each])
        return found


class _Kind:
    """Texts with the same settings, and what these need to know of them."""

    def __init__(self, texts: list[tuple[Writer, Sequence[int]]], eos_token_id: int, device: torch.device, steps: int):
        self.sampling, self.eos_token_id, self.step = texts[0][0].generated.sampling, eos_token_id, 0
        self.last = torch.empty(0)
        self.num_new = torch.tensor([len(w.generated.ids) + len(given) for w, given in texts], device=device)
        self.ids, self.lengths = torch.empty(0, 0, dtype=torch.long), torch.empty(0)
        if needs_history(self.sampling):
            seen = [torch.tensor([*w.generated.prompt, *w.generated.ids, *given]) for w, given in texts]
            self.lengths = torch.tensor([len(some) for some in seen], device=device)
            room = torch.zeros(len(texts), steps - 1, dtype=torch.long)
            self.ids = torch.cat((pad_sequence(seen, batch_first=True), room), 1).to(device)
        if self.sampling.temperature > 0:
            uniform = [[w.uniform(len(given) + step) for w, given in texts] for step in range(steps)]
            self.uniform = torch.tensor(uniform, dtype=torch.float64).to(device if device.type != "mps" else "cpu")

    def choose(self, logits: Tensor) -> Tensor:
        if self.step:  # the tokens of the step before are known now
            self.num_new += 1
            if self.ids.numel():
                self.ids.scatter_(1, self.lengths[:, None], self.last[:, None])
                self.lengths += 1
        logits = next_token_logits(logits, self.ids, self.lengths, self.num_new, self.sampling, self.eos_token_id)
        self.last = logits.argmax(1) if self.sampling.temperature == 0 else draw(logits, self.uniform[self.step])
        self.step += 1
        return self.last
