"""Replies without padding, and each prompt read once for all of its replies: what learning from them costs on a CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

from janeox.model import GPTNeoX


class Packed(NamedTuple):
    """Rows that hold several prompts, each followed by its replies; see `GPTNeoX.hidden`."""

    ids: Tensor
    documents: Tensor
    branches: Tensor
    """All (R, W)."""
    places: Tensor
    """(N,) of the tokens that replies' tokens are chosen after, in the flattened rows; in the order of the replies."""


def reply_hidden(model: GPTNeoX, ids: Tensor, targets: Tensor) -> Tensor:
    """What the head reads to choose the tokens of replies: `model.hidden(ids)[targets >= 0]`, (N, C).

    On a GPU it is computed so, row by row: the kernels that are fast there take no mask.

    Args:
        ids: (B, T) prompts with their replies, padded on the right.
        targets: (B, T) with −1 outside the replies.
    """
    if ids.device.type != "cpu":
        return model.hidden(ids)[targets >= 0]
    # Attention costs as much as the matrices where a row is a few times as long as the model is wide.
    packed = pack(ids, targets, 2 * model.config.hidden_size)
    hidden = model.hidden(packed.ids, documents=packed.documents, branches=packed.branches)
    return hidden.flatten(0, 1)[packed.places]


def pack(ids: Tensor, targets: Tensor, width: int) -> Packed:
    """Rows of at most `width` tokens, or as many as the longest prompt with one reply has.

    The last token of a reply is left out: nothing is chosen after it.
    """
    replies: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}  # by prompt: (row, tokens that are read)
    for row, (tokens, chosen) in enumerate(zip(ids.tolist(), (targets >= 0).tolist(), strict=True)):
        start = chosen.index(True) + 1
        replies.setdefault(tuple(tokens[:start]), []).append((row, tokens[start : start + sum(chosen) - 1]))
    width = max(width, *(len(prompt) + len(reply) for prompt, own in replies.items() for _, reply in own))
    documents: list[tuple[list[int], list[tuple[int, list[int]]]]] = []
    for prompt, own in replies.items():
        room = -1
        for row, reply in own:
            if len(reply) > room:
                documents.append((list(prompt), []))
                room = width - len(prompt)
            documents[-1][1].append((row, reply))
            room -= len(reply)
    lengths = [len(prompt) + sum(len(reply) for _, reply in own) for prompt, own in documents]
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(documents)), key=lambda number: -lengths[number]):
        row = next((row for row, room in enumerate(free) if room >= lengths[number]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(width)
        rows[row].append(number)
        free[row] -= lengths[number]
    W = width - min(free)
    packed = torch.zeros(3, len(rows), W, dtype=torch.long)  # ids, documents, branches
    places: list[list[int]] = [[] for _ in range(len(ids))]
    for row, numbers in enumerate(rows):
        end = 0
        for document, number in enumerate(numbers):
            beginning, branches = documents[number]
            for branch, (reply_of, tokens) in enumerate([(-1, beginning), *branches]):
                start, end = end, end + len(tokens)
                packed[0, row, start:end] = torch.tensor(tokens, dtype=torch.long)
                packed[1, row, start:end], packed[2, row, start:end] = document, branch
                if branch == 0:
                    last = row * W + end - 1
                else:
                    places[reply_of] = [last, *range(row * W + start, row * W + end)]
        packed[1, row, end:] = len(numbers)
    return Packed(packed[0], packed[1], packed[2], torch.tensor([place for some in places for place in some]))
