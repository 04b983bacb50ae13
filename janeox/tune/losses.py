"""The formulas of preference learning, PPO and GRPO, as pure functions.

Shapes: B replies, T places. At place t the model, having read token t, chose token t + 1: log-probability, value,
reward and advantage of that choice all stand at t. `mask` (B, T) is True at the places of a reply's tokens; means are
over those places only, never over padding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from janeox.model import GPTNeoX
from janeox.train.loss import chosen_logps
from janeox.tune.shared_prompts import reply_hidden


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places of the mask."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Values with variance 1 over the mask and, with `shift_mean`, mean 0; 0 outside the mask."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (white if shift_mean else white + mean) * mask


def token_logps(model: GPTNeoX, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each target and the entropy of the choice, both (B, T) float32, 0 where the target is −1.

    Args:
        ids: (B, T) prompts with their replies, padded on the right.
        targets: (B, T).
    """
    return logps_at(model, reply_hidden(model, ids, targets), targets)


def logps_at(model: GPTNeoX, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As `token_logps`, from `reply_hidden`'s (N, C)."""
    mask = targets >= 0
    logps, entropies = chosen_logps(hidden, model.embed_out.weight, targets[mask])
    return at_places(logps, mask), at_places(entropies, mask)


def at_places(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) at the places of the mask (B, T), 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """−log σ(r_chosen − r_rejected), by pair (Bradley & Terry 1952; arXiv 2203.02155, equation 1)."""
    return -F.logsigmoid(chosen - rejected)


def dpo_loss(logps: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The loss by pair (B,) and the implied rewards (B, 2) (arXiv 2305.18290, equation 7).

    Args:
        logps: (B, 2) log p of the chosen and of the rejected reply.
        reference: (B, 2) the same by the model of the beginning.
    """
    rewards = beta * (logps - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


def token_rewards(scores: Tensor, logps: Tensor, reference: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """−β (log π − log π_ref) at each place, and the score at the last (arXiv 1909.08593, equation 2); (B, T)."""
    rewards = -kl_coef * (logps - reference) * mask
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1)  # (B,)
    return rewards + F.one_hot(last, mask.shape[1]) * scores[:, None]


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (B, T): A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V_{t+1} − V_t (arXiv 1506.02438, eq. 16).

    After a reply's last place comes nothing: V is 0 there, whatever stands in the padding.
    """
    values, rewards = values * mask, rewards * mask
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        following = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(running)
        running = (rewards[:, t] + gamma * following - values[:, t] + gamma * lam * running) * mask[:, t]
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


class PpoLoss(NamedTuple):
    """Sums over the places of the mask."""

    policy: Tensor
    value: Tensor
    policy_clipped: Tensor
    """Places at which the policy's clip holds."""
    value_clipped: Tensor
    approx_kl: Tensor
    """½ (log ratio)², as the literature on PPO reports it."""


def ppo_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, values: Tensor, old_values: Tensor, returns: Tensor,
    mask: Tensor, cliprange: float, cliprange_value: float,
) -> PpoLoss:  # fmt: skip
    """Sums of max(−A ρ, −A clip(ρ, 1 ± ε)) (arXiv 1707.06347, eq. 7) and ½ max((V − R)², (V_clipped − R)²).

    All tensors are (B, T); ρ = exp(logps − old_logps).
    """
    log_ratio = (logps - old_logps) * mask
    ratio = log_ratio.exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    value_plain, value_near = (values - returns) ** 2, (near - returns) ** 2
    return PpoLoss(
        (torch.maximum(plain, clipped) * mask).sum(),
        0.5 * (torch.maximum(value_plain, value_near) * mask).sum(),
        ((clipped > plain) * mask).sum(),
        ((value_near > value_plain) * mask).sum(),
        0.5 * (log_ratio.detach() ** 2).sum(),
    )


def group_advantages(scores: Tensor, num_generations: int) -> Tensor:
    """(B,) (r − mean) / (s.d. + 1e-4) within each group of neighbours (arXiv 2402.03300, section 4.1.2)."""
    groups = scores.view(-1, num_generations)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


class GrpoLoss(NamedTuple):
    """Sums over the places of the mask."""

    total: Tensor
    kl: Tensor
    clipped: Tensor
    """Places at which the clip holds."""


def grpo_loss(
    logps: Tensor, old_logps: Tensor, reference: Tensor | None, advantages: Tensor, mask: Tensor, cliprange: float,
    beta: float,
) -> GrpoLoss:  # fmt: skip
    """The sum of max(−A ρ, −A clip(ρ, 1 ± ε)) + β ρ (q − log q − 1), q = π_ref / π (arXiv 2402.03300, eq. 3 and 4).

    The factor ρ of the KL, whose gradient counts, makes it that of the KL itself (arXiv 2512.02556, section 3.1).

    Args:
        logps, old_logps, reference: (B, T).
        advantages: (B,), one for all places of a reply.
    """
    A = advantages[:, None]
    ratio = ((logps - old_logps) * mask).exp()
    plain, clipped = -A * ratio, -A * ratio.clamp(1 - cliprange, 1 + cliprange)
    policy = (torch.maximum(plain, clipped) * mask).sum()
    kl = torch.zeros_like(policy)
    if reference is not None:
        difference = (reference - logps) * mask
        kl = (ratio * (difference.exp() - difference - 1) * mask).sum()
    return GrpoLoss(policy + beta * kl, kl, ((clipped > plain) * mask).sum())


def next_kl_coef(kl_coef: float, kl: float, target: float, num_replies: int, horizon: int) -> float:
    """β for the next replies: β (1 + clip(KL / target − 1, ±0.2) n / horizon) (arXiv 1909.08593, section 2.2)."""
    if target == 0:
        return kl_coef
    error = min(0.2, max(-0.2, kl / target - 1))
    return kl_coef * (1 + error * num_replies / horizon)
