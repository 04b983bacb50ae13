"""Scoring through a generation backend: what a quantised model loses, measured with the kernels that will run it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from janeox.engine.backend import Backend, Row
from janeox.tokenizer import Tokenizer

CALL_TOKENS = 2048  # whose logits exist at once


class BackendScorer:
    """`Scorer` of a backend (engine/backend.py)."""

    def __init__(self, backend: Backend, tokenizer: Tokenizer):
        self.backend, self.encode = backend, tokenizer.encode
        self.context = backend.capacity
        self.bos_token_id, self.eos_token_id = backend.config.bos_token_id, backend.config.eos_token_id

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        found = torch.zeros(targets.shape, dtype=torch.float64)
        rows = max(1, min(self.backend.num_slots, CALL_TOKENS // inputs.shape[1]))
        for first in range(0, len(inputs), rows):
            part = targets[first : first + rows]
            ends = [int(row.nonzero()[-1]) + 1 for row in part >= 0]  # what follows is padding
            texts = [ids[:end].tolist() for ids, end in zip(inputs[first : first + rows], ends, strict=True)]
            logits = self.backend.forward([Row(slot, 0, ids) for slot, ids in enumerate(texts)], every=True)
            for row, one in enumerate(logits.split(ends)):  # (T, V)
                wanted = part[row, : ends[row]].to(one.device)
                nll = F.cross_entropy(one.float(), wanted, ignore_index=-1, reduction="none")
                found[first + row, : ends[row]] = nll.double().cpu()
        return found
