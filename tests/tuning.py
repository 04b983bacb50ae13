"""A tiny model and tiny data for the tests of tuning."""

import json
from pathlib import Path

import torch

from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer

SHAPE = GPTNeoXConfig(
    vocab_size=2000, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=128, initializer_range=0.1,
)  # fmt: skip


def write_model(folder: Path, tokenizer: Tokenizer, seed: int = 0) -> Path:
    """A model folder with random weights, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    model = GPTNeoX(SHAPE).initialize(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def write_jsonl(file: Path, rows: list) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def conversations(works: list[str], number: int = 24) -> list:
    """Conversations of one and two replies, in all three forms."""
    lines = [line[:8] for work in works for line in work.split("\n") if len(line) > 12]
    rows: list = []
    for at in range(number):
        a, b, c, d = lines[4 * at : 4 * at + 4]
        talk = zip(("human", "gpt", "human", "gpt"), (a, b, c, d), strict=True)
        rows += [
            {"messages": [{"role": "user", "content": a + "\n" + b}, {"role": "assistant", "content": c}]},
            {"conversations": [{"from": who, "value": text} for who, text in talk]},
            [{"speaker": "ユーザー", "text": d}, {"speaker": "システム", "text": a + "\n" + c}],
        ][at % 3 : at % 3 + 1]
    return rows


def pairs(works: list[str], number: int = 24) -> list:
    """Prompts with a polite and a plain reply."""
    lines = [line[:20] for work in works for line in work.split("\n") if len(line) > 12]
    return [
        {"prompt": lines[2 * at], "chosen": lines[2 * at + 1] + "です。", "rejected": lines[2 * at + 1] + "だ"}
        for at in range(number)
    ]
