"""Any causal model that transformers runs, scored by the same code as ours, for comparison."""

from typing import Any

import torch
from torch import Tensor

from janeox import device as devices
from janeox.errors import JaneoxError


class TransformersScorer:
    """`evaluate.Scorer` of a Hugging Face folder or Hub id, run by transformers with its own tokenizer.

    Raises:
        JaneoxError: transformers is not installed, cannot open the model, or its tokenizer has no end-of-text token.
    """

    def __init__(self, name: str, device: str, dtype: str):
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise JaneoxError("the engine transformers is not installed here: pip install transformers") from error
        where = devices.pick_device(device)
        try:
            # Without trust_remote_code: nothing runs code from a model folder.
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise JaneoxError(f"{name}: transformers cannot open it ({str(error).splitlines()[0]})") from error
        self.model = model.to(device=where, dtype=devices.pick_dtype(dtype, where, stored=model.dtype)).eval()
        check_tokenizer(name, self.tokenizer)
        if self.tokenizer.eos_token_id is None:
            raise JaneoxError(f"{name}: its tokenizer has no end-of-text token")
        self.eos_token_id: int = self.tokenizer.eos_token_id
        bos = self.tokenizer.bos_token_id
        self.bos_token_id: int = self.eos_token_id if bos is None else bos
        self.context: int = self.model.config.max_position_embeddings

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.model(inputs.to(self.model.device)).logits.float()  # (B, T, V)
        targets = targets.to(logits.device)
        return torch.nn.functional.cross_entropy(logits.mT, targets, ignore_index=-1, reduction="none").double()


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """Raises JaneoxError for an empty one, which transformers 5 silently makes where a folder has none."""
    if set(tokenizer.encode("a1日本", add_special_tokens=False)) <= set(tokenizer.all_special_ids):
        raise JaneoxError(f"{name}: transformers finds no tokenizer there")
