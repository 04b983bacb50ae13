"""PPO: prompts and a reward → a model that earns more of it. Metrics have TRL's names."""

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX, Linear
from janeox.settings.tune import Ppo
from janeox.tokenizer import Tokenizer
from janeox.train.parallel import World
from janeox.tune.losses import (
    at_places,
    gae,
    logps_at,
    masked_mean,
    next_kl_coef,
    ppo_loss,
    token_rewards,
    whiten,
)  # fmt: skip
from janeox.tune.on_policy import Scored, Trainer, run
from janeox.tune.pairs import replies_batch
from janeox.tune.rollout import padded
from janeox.tune.shared_prompts import reply_hidden

FIGURES = (
    "loss/policy_avg",
    "loss/value_avg",
    "policy/clipfrac_avg",
    "val/clipfrac_avg",
    "policy/approxkl_avg",
    "policy/entropy_avg",
    "sampling/sampling_logp_difference/mean",
)


class Policy(GPTNeoX):
    """The language model with a value head, (1, C). The head is not part of what is published."""

    def __init__(self, config: GPTNeoXConfig):
        super().__init__(config)
        self.v_head = Linear(config.hidden_size, 1)

    @classmethod
    def from_language_model(cls, model: GPTNeoX) -> "Policy":
        """The model itself, whose value is 0 for every text."""
        with torch.device("meta"):
            new = cls(model.config)
        new.gpt_neox, new.embed_out = model.gpt_neox, model.embed_out
        new.v_head = Linear(model.config.hidden_size, 1, dtype=model.dtype)
        torch.nn.init.zeros_(new.v_head.weight)
        torch.nn.init.zeros_(new.v_head.bias)
        new.v_head.requires_grad_(True)
        return new

    def values(self, hidden: Tensor) -> Tensor:
        """(N,) float32 from (N, C)."""
        return (hidden @ self.v_head.weight.to(hidden.dtype).T + self.v_head.bias.to(hidden.dtype))[..., 0].float()


def run_ppo(settings: Ppo) -> None:
    """The verb `ppo`; raises what `on_policy.run` raises."""
    run(settings, PpoTrainer)


class PpoTrainer(Trainer):
    """A value head, and a price on each nat by which the policy leaves its reference."""

    settings: Ppo
    policy: Policy

    def __init__(
        self, settings: Ppo, world: World, language_model: GPTNeoX, tokenizer: Tokenizer, prompts: list[list[int]]
    ):
        policy = Policy.from_language_model(language_model)
        super().__init__(settings, world, tokenizer, prompts, policy, True, FIGURES)
        self.memory["kl_coef"] = settings.kl_coef

    def measure(self, portion: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """log p by the policy and by the reference, values, and entropies."""
        hidden = reply_hidden(self.policy, portion["ids"], portion["targets"])
        logps, entropies = logps_at(self.policy, hidden, portion["targets"])
        reference = self.reference_logps(portion["ids"], portion["targets"])
        return logps, reference, at_places(self.policy.values(hidden), portion["targets"] >= 0), entropies

    def learn_from(self, rows: list[Scored]) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Advantages and returns of all replies, and the figures of the iteration."""
        settings, memory = self.settings, self.memory
        if memory["figures"]:
            kl = memory["figures"]["objective/kl"]
            memory["kl_coef"] = next_kl_coef(
                memory["kl_coef"], kl, settings.kl_target, settings.batch_rows, settings.kl_horizon
            )
        batch = replies_batch([(row.prompt, row.ids) for row in rows], 0)
        T = max(len(row.ids) for row in rows)
        raw = torch.tensor([row.score for row in rows])
        ended = torch.tensor([row.ended for row in rows])
        scores = raw.clamp(-settings.score_clip, settings.score_clip) if settings.score_clip else raw
        scores = scores - settings.missing_eos_penalty * ~ended
        logps, reference, values, entropies = (padded([row.measured[n] for row in rows], T) for n in range(4))
        mask = padded([torch.ones(len(row.ids), dtype=torch.bool) for row in rows], T)
        kl_coef = memory["kl_coef"]
        rewards = token_rewards(scores, logps, reference, mask, kl_coef)
        if settings.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, values, mask, settings.gamma, settings.lam)
        advantages = whiten(advantages, mask)
        names = {"logps": logps, "advantages": advantages, "values": values, "returns": returns}
        places = batch["targets"] >= 0
        for name, tensor in names.items():
            batch[name] = at_places(tensor[mask], places)
        kl = ((logps - reference) * mask).sum(1)
        return batch, {
            "episode": (memory["iteration"] + 2) * settings.batch_rows,
            "objective/kl": kl.mean().item(),
            "objective/entropy": (entropies * mask).sum(1).mean().item(),
            "objective/non_score_reward": (-kl_coef * kl).mean().item(),
            "objective/rlhf_reward": (scores - kl_coef * kl).mean().item(),
            "objective/scores": raw.mean().item(),
            "objective/scores_std": raw.std(correction=0).item(),
            "objective/kl_coef": kl_coef,
            "val/num_eos_tokens": int(ended.sum()),
            "val/explained_variance": (
                1 - masked_mean((returns - values) ** 2, mask) / (returns[mask].var(correction=0) + 1e-8)
            ).item(),
            "response_length": mask.sum(1).float().mean().item(),
        }

    def objective(self, model: Policy, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed policy and value loss over the replies' tokens, and their number."""
        settings = self.settings
        mask = batch["targets"] >= 0
        hidden = reply_hidden(model, batch["ids"], batch["targets"])
        logps, entropies = logps_at(model, hidden, batch["targets"])
        loss = ppo_loss(
            logps, batch["logps"], batch["advantages"], at_places(model.values(hidden), mask), batch["values"],
            batch["returns"], mask, settings.cliprange, settings.cliprange_value,
        )  # fmt: skip
        count = mask.sum().float()
        rounding = (batch["logps"] - batch["sampled"]).abs()
        sums = [loss.policy, loss.value, loss.policy_clipped, loss.value_clipped, loss.approx_kl, entropies.sum()]
        self.note([*sums, rounding.sum()], count)
        return loss.policy + settings.vf_coef * loss.value, count
