"""Replies without padding, and each prompt read once for all of its replies: what learning from them costs on a CPU."""

from torch import Tensor, tensor

from janeox.branches import Branches, branches
from janeox.model import GPTNeoX


def reply_hidden(model: GPTNeoX, ids: Tensor, targets: Tensor) -> Tensor:
    """What the head reads to choose the tokens of replies: `model.hidden(ids)[targets >= 0]`, (N, C).

    On a GPU it is computed so, row by row: the kernels that are fast there know nothing else.

    Args:
        ids: (B, T) prompts with their replies, padded on the right.
        targets: (B, T) with −1 outside the replies.
    """
    if ids.device.type != "cpu":
        return model.hidden(ids)[targets >= 0]
    texts, places = pack(ids, targets)
    return model.hidden(texts.ids, branches=texts)[0, places]


def pack(ids: Tensor, targets: Tensor) -> tuple[Branches, Tensor]:
    """Each prompt once, then all replies, of which the last token is left out: nothing is chosen after it.

    Returns:
        the row, and (N,) the places of the tokens that replies' tokens are chosen after, in the order of the replies.
    """
    numbers: dict[tuple[int, ...], int] = {}  # of the prompts
    replies: list[tuple[int, list[int]]] = []
    for tokens, chosen in zip(ids.tolist(), (targets >= 0).tolist(), strict=True):
        start = chosen.index(True) + 1
        number = numbers.setdefault(tuple(tokens[:start]), len(numbers))
        replies.append((number, tokens[start : start + sum(chosen) - 1]))
    prompts = list(map(list, numbers))
    ends = []
    at = 0
    for prompt in prompts:
        at += len(prompt)
        ends.append(at - 1)
    places: list[int] = []
    for number, reply in replies:
        places += [ends[number], *range(at, at + len(reply))]
        at += len(reply)
    return branches(prompts, [(number, reply) for number, reply in replies if reply]), tensor(places)
