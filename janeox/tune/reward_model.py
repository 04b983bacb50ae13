"""The reward model: GPT-NeoX with one number in place of the vocabulary; its files are those of transformers' class."""

import json
from pathlib import Path

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX, Linear, check_tensors
from janeox.tune.shared_prompts import reply_hidden
from janeox.weights import read_json, read_weights, write_weights

ARCHITECTURE = "GPTNeoXForSequenceClassification"


class RewardModel(GPTNeoX):
    """A trunk and `score`, (1, C). Parameter names are those of the files, as everywhere."""

    def __init__(self, config: GPTNeoXConfig):
        super().__init__(config)
        del self.embed_out
        self.score = Linear(config.hidden_size, 1, bias=False)

    @property
    def device(self) -> torch.device:
        return self.score.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.score.weight.dtype

    def scores(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Scores (B,) float32, each read at the last token of a reply.

        Args:
            ids: (B, T) prompts with their replies, padded on the right.
            targets: (B, T) with −1 outside the replies.
        """
        read = targets.clone()
        read[:, 1:] = targets[:, 1:].maximum(targets[:, :-1])  # the place of the last token too
        ends = (read >= 0).sum(1).cumsum(0) - 1
        at = reply_hidden(self, ids, read)[ends]  # (B, C)
        return (at @ self.score.weight.to(at.dtype).T)[:, 0].float()

    @classmethod
    def from_language_model(cls, model: GPTNeoX) -> "RewardModel":
        """The model's trunk, and a score that is 0 for every text."""
        with torch.device("meta"):
            new = cls(model.config)
        new.gpt_neox = model.gpt_neox
        new.score = Linear(model.config.hidden_size, 1, bias=False, dtype=model.dtype)
        torch.nn.init.zeros_(new.score.weight)
        return new.requires_grad_(True)

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype | None = None) -> "RewardModel":
        """Opens a folder of `janeox reward`, or any with this architecture and one label.

        Raises:
            JaneoxError: another architecture, or tensors that do not fit the config.
        """
        folder = Path(folder)
        file = folder / "config.json"
        if not file.is_file():
            raise JaneoxError(f"{folder}: no config.json there, so it is not a model folder")
        table = read_json(file)
        if ARCHITECTURE not in table.get("architectures", ()):
            raise JaneoxError(f"{folder}: no reward model ({ARCHITECTURE}); make one with `janeox reward`")
        with torch.device("meta"):
            model = cls(GPTNeoXConfig.from_hf(table, where=str(file)))
        tensors = read_weights(folder)
        check_tensors(tensors, model.state_dict(), folder)
        dtype = dtype or tensors["score.weight"].dtype
        model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
        return model.requires_grad_(False).eval()

    def write(self, folder: Path, dtype: torch.dtype, weights: dict[str, Tensor], pad_token_id: int | None) -> None:
        """Writes config.json and safetensors into an existing folder.

        Args:
            pad_token_id: transformers reads the score at the last token that is not this one.
        """
        table = self.config.to_hf(str(dtype).removeprefix("torch."))
        table |= {"architectures": [ARCHITECTURE], "num_labels": 1, "pad_token_id": pad_token_id}
        table |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        write_weights({name: tensor.detach().to(dtype) for name, tensor in weights.items()}, folder)
        (folder / "config.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
