"""Pairs of replies to one prompt: rows of a file → rows of a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from janeox.dialogue import Message, prompt_text, read_jsonl, read_messages, written
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer


class Pair(NamedTuple):
    """Ids of a prompt and of two replies to it, each of which ends with `</s>`."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def read_prompt(row: Any, where: str) -> list[Message]:
    """The turns before a reply: `prompt` as a text or as turns, or a whole conversation without its last reply.

    Raises:
        JaneoxError: there is neither.
    """
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    messages = read_messages(prompt if prompt is not None else row, where)
    if messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1].role != "user":
        raise JaneoxError(f"{where}: the prompt does not end with a turn of the user")
    return messages


def read_pairs(tokenizer: Tokenizer, files: Sequence[Path], max_tokens: int) -> list[Pair]:
    """Rows with `prompt`, `chosen` and `rejected`. Prompts are cut at their start so that both sides have `max_tokens`;
    rows with a reply that is too long by itself are left out, and how many is said.

    Raises:
        JaneoxError: a reply is missing or empty, both are equal, or no row is left.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise JaneoxError(f"{tokenizer.where}: has no </s>, which ends a reply")
    pairs, too_long = [], 0
    for where, row in read_jsonl(files):
        prompt = tokenizer.encode(prompt_text(read_prompt(row, where)))
        chosen, rejected = (_reply(row, side, where) for side in ("chosen", "rejected"))
        if chosen == rejected:
            raise JaneoxError(f"{where}: chosen and rejected are equal, so there is nothing to prefer; leave it out")
        replies = [[*tokenizer.encode(written(text)), eos] for text in (chosen, rejected)]
        room = max_tokens - max(map(len, replies))
        if room < 1:
            too_long += 1
        else:
            pairs.append(Pair(prompt[-room:], *replies))
    names = ", ".join(map(str, files))
    if files and not pairs:
        raise JaneoxError(
            f"{names}: no pairs there{f' whose replies have at most {max_tokens} tokens' * bool(too_long)}"
        )
    if too_long:
        print(f"{names}: {too_long:,} pairs left out: a reply has more than {max_tokens} tokens")
    return pairs


def _reply(row: dict[str, Any], side: str, where: str) -> str:
    reply = row.get(side)
    if isinstance(reply, list):  # the conversational form: the turns of the reply
        reply = "\n".join(message.text for message in read_messages(reply, f"{where}, {side}"))
    if not isinstance(reply, str) or not reply.strip():
        raise JaneoxError(f"{where}: {side!r} is missing or says nothing")
    return reply


def batch(pairs: Sequence[Pair], filler: int) -> dict[str, Tensor]:
    """Rows of (chosen, rejected), padded on the right.

    Returns:
        ids (B, 2, T), targets (B, 2, T) with −1 outside the replies.
    """
    sides = [(prompt, reply) for prompt, *replies in pairs for reply in replies]
    return {name: tensor.unflatten(0, (-1, 2)) for name, tensor in replies_batch(sides, filler).items()}


def replies_batch(rows: Sequence[tuple[list[int], list[int]]], filler: int) -> dict[str, Tensor]:
    """(prompt, reply) rows, padded on the right: ids (B, T), targets (B, T)."""
    T = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), T), filler)
    targets = torch.full_like(ids, -1)
    for row, (prompt, reply) in enumerate(rows):
        end = len(prompt) + len(reply)
        ids[row, :end] = torch.tensor(prompt + reply)
        targets[row, len(prompt) - 1 : end - 1] = torch.tensor(reply)
    return {"ids": ids, "targets": targets}
