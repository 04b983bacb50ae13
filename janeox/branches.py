"""Texts that share their beginnings, read without padding: every token once, all of them in one row.

Everything but attention works token by token. Attention is computed text by text, for all texts at once: a text's
tokens are the queries, they and its beginning the keys, gathered from the row and padded for these products only.

Shapes: N tokens in all, H heads, D head size; S texts of a group, Q queries and K keys of the longest.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Group(NamedTuple):
    """Texts of a kind, so that padding them to one length costs little."""

    queries: Tensor
    """(S, Q) places in the row."""
    keys: Tensor
    """(S, K) places in the row."""
    unseen: Tensor
    """(S, Q, K) bool: keys that a query may not see. What pads the queries sees something too: a softmax over nothing
    is not a number."""
    inside: Tensor
    """(M,) places of the queries that are no padding, in the flattened `queries`."""
    tokens: Tensor
    """(M,) `queries` there."""


class Branches(NamedTuple):
    """A row of beginnings, and then of their continuations; each is read as if it alone followed its beginning."""

    ids: Tensor
    """(1, N)."""
    positions: Tensor
    """(1, N), each in its text."""
    groups: tuple[Group, ...]
    """The beginnings, and the continuations, where there are any."""


def branches(beginnings: Sequence[list[int]], continuations: Sequence[tuple[int, list[int]]]) -> Branches:
    """Puts them into a row in the order given.

    Args:
        beginnings: ids, at least one each.
        continuations: (number of the beginning, ids, at least one) each.
    """
    ids: list[int] = []
    positions: list[int] = []
    starts = []
    groups: list[list[tuple[range, range]]] = [[], []]  # (places of the beginning, own places) by text
    for own in beginnings:
        starts.append(range(len(ids), len(ids) + len(own)))
        groups[0].append((range(0), starts[-1]))
        ids += own
        positions += range(len(own))
    for number, own in continuations:
        beginning = starts[number]
        groups[1].append((beginning, range(len(ids), len(ids) + len(own))))
        ids += own
        positions += range(len(beginning), len(beginning) + len(own))
    return Branches(torch.tensor([ids]), torch.tensor([positions]), tuple(map(_group, filter(None, groups))))


def _group(texts: list[tuple[range, range]]) -> Group:
    keys = pad_sequence([torch.tensor([*before, *own]) for before, own in texts], batch_first=True)
    before, own = (torch.tensor([len(text[part]) for text in texts])[:, None] for part in (0, 1))
    numbers = torch.arange(int(own.max()))
    at = before + numbers  # (S, Q): which of its text's keys a query is
    queries = keys.gather(1, at.clamp(max=keys.shape[1] - 1))
    inside = (numbers < own).flatten().nonzero()[:, 0]
    return Group(queries, keys, torch.arange(keys.shape[1]) > at[..., None], inside, queries.flatten()[inside])


def branched_attention(q: Tensor, k: Tensor, v: Tensor, texts: Branches) -> Tensor:
    """Attention of each token to what stands before it in its text, and to itself; all (1, H, N, D)."""
    return _BranchedAttention.apply(q, k, v, texts)


class _BranchedAttention(torch.autograd.Function):
    """Plain products, a head at a time, so that what is computed on the way stays in the cache. Probabilities are
    computed again for the gradient: nothing of size Q·K is kept."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, texts: Branches) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.texts = texts
        out = torch.empty_like(q)
        for queries, keys, values, result in zip(q[0], k[0], v[0], out[0], strict=True):
            for group in texts.groups:
                p = _probabilities(queries[group.queries], keys[group.keys], group.unseen)
                result[group.tokens] = (p @ values[group.keys]).flatten(0, 1)[group.inside]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scale = 1 / math.sqrt(q.shape[-1])
        for head, grad in enumerate(grads[0][0]):
            for group in ctx.texts.groups:
                queries, keys = q[0, head, group.queries], k[0, head, group.keys]
                p = _probabilities(queries, keys, group.unseen)
                of_out = torch.zeros_like(queries)
                of_out.flatten(0, 1)[group.inside] = grad[group.tokens]  # padding says nothing
                places = group.keys.flatten()
                to_v[0, head].index_add_(0, places, (p.mT @ of_out).flatten(0, 1))
                to_scores = torch._softmax_backward_data(of_out @ v[0, head, group.keys].mT, p, -1, p.dtype)
                to_q[0, head, group.tokens] = (to_scores @ keys).flatten(0, 1)[group.inside] * scale
                to_k[0, head].index_add_(0, places, (to_scores.mT @ queries).flatten(0, 1), alpha=scale)
        return to_q, to_k, to_v, None


def _probabilities(queries: Tensor, keys: Tensor, unseen: Tensor) -> Tensor:
    """(S, Q, K) of (S, Q, D) and (S, K, D)."""
    scores = queries @ keys.mT
    return scores.mul_(1 / math.sqrt(queries.shape[-1])).masked_fill_(unseen, -torch.inf).softmax(-1)
