"""Guesses at what comes next by a smaller model of the same vocabulary; they are checked as those of a lookup are.

The small model chooses as the large one will, with the same settings and the random number of the same token. So the
two agree as often as their distributions let them, and in greedy texts wherever they prefer the same token.
"""

from collections.abc import Sequence

import torch

from janeox.engine.backend import Backend, Row
from janeox.engine.choosing import Chooser
from janeox.engine.text import Writer


class Draft:
    """The small model. A text has the slot of the same number as in the large one's backend."""

    def __init__(self, backend: Backend):
        self.backend = backend

    @torch.inference_mode()
    def guess(self, texts: Sequence[tuple[Writer, int]]) -> list[list[int]]:
        """For each text, which is known up to its last id, and a number of tokens: as many guesses, or fewer."""
        guesses: list[list[int]] = [[] for _ in texts]
        while True:
            rows, asked = [], []
            for (writer, length), guess in zip(texts, guesses, strict=True):
                known = len(writer.generated.prompt) + len(writer.generated.ids)
                # Earlier guesses that were fed hold up to the first wrong one, in whose place the last known id stands.
                writer.drafted = min(writer.drafted, known + len(guess) - 1)
                if len(guess) < length and known + len(guess) <= self.backend.capacity:
                    ids = [*writer.generated.prompt, *writer.generated.ids, *guess][writer.drafted :]
                    rows.append(Row(writer.slot, writer.drafted, ids))
                    asked.append((writer, guess))
            if not rows:
                return guesses
            logits = self.backend.forward(rows)
            chooser = Chooser(asked, self.backend.config.eos_token_id, logits.device)
            chooser.choose(logits)
            for (writer, guess), row, (choice,) in zip(asked, rows, chooser.choices(), strict=True):
                writer.drafted = row.start + len(row.ids)
                guess.append(choice.id)
