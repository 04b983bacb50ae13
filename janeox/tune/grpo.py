"""GRPO: replies to one prompt are compared with each other, so no value head is needed. Metrics have TRL's names."""

import torch
from torch import Tensor

from janeox.model import GPTNeoX
from janeox.settings.tune import Grpo
from janeox.tokenizer import Tokenizer
from janeox.train.parallel import World
from janeox.tune.losses import at_places, group_advantages, grpo_loss, token_logps
from janeox.tune.on_policy import Scored, Trainer, run
from janeox.tune.pairs import replies_batch

FIGURES = ("kl", "entropy", "clip_ratio/region_mean", "sampling/sampling_logp_difference/mean")


def run_grpo(settings: Grpo) -> None:
    """The verb `grpo`; raises what `on_policy.run` raises."""
    run(settings, GrpoTrainer)


class GrpoTrainer(Trainer):
    """The language model itself, and a copy of it where the KL has a weight."""

    settings: Grpo

    def __init__(
        self, settings: Grpo, world: World, language_model: GPTNeoX, tokenizer: Tokenizer, prompts: list[list[int]]
    ):
        super().__init__(settings, world, tokenizer, prompts, language_model, settings.beta > 0, FIGURES)
        # With one step an iteration the policy is still the one that wrote: its log p are those of the step itself.
        self.keeps_logps = self.steps_per_iteration > 1

    def measure(self, portion: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """log p by the policy and by the reference, where each is needed."""
        ids, targets = portion["ids"], portion["targets"]
        own = (token_logps(self.policy, ids, targets)[0],) if self.keeps_logps else ()
        return (*own, self.reference_logps(ids, targets)) if self.settings.beta else own

    def learn_from(self, rows: list[Scored]) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Advantages of all replies, and the figures of the iteration."""
        settings = self.settings
        batch = replies_batch([(row.prompt, row.ids) for row in rows], 0)
        raw = torch.tensor([row.score for row in rows])
        ended = torch.tensor([row.ended for row in rows])
        scores = raw - settings.missing_eos_penalty * ~ended
        batch["advantages"] = group_advantages(scores, settings.num_generations)
        places = batch["targets"] >= 0
        names = ["logps"] * self.keeps_logps + ["reference"] * (settings.beta > 0)
        for n, name in enumerate(names):
            batch[name] = at_places(torch.cat([row.measured[n] for row in rows]), places)
        spread = scores.view(-1, settings.num_generations).std(1)
        lengths = torch.tensor([float(len(row.ids)) for row in rows])
        return batch, {
            "episode": (self.memory["iteration"] + 2) * settings.batch_rows,
            "reward": raw.mean().item(),
            "reward_std": spread.mean().item(),
            "frac_reward_zero_std": (spread < 1e-8).float().mean().item(),
            "completions/mean_length": lengths.mean().item(),
            "completions/clipped_ratio": (~ended).float().mean().item(),
        }

    def objective(self, model: GPTNeoX, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed loss over the replies' tokens, and their number."""
        mask = batch["targets"] >= 0
        logps, entropies = token_logps(model, batch["ids"], batch["targets"])
        old_logps = batch.get("logps", logps.detach())
        loss = grpo_loss(
            logps, old_logps, batch.get("reference"), batch["advantages"], mask, self.settings.cliprange,
            self.settings.beta,
        )  # fmt: skip
        count = mask.sum().float()
        self.note([loss.kl, entropies.sum(), loss.clipped, (old_logps - batch["sampled"]).abs().sum()], count)
        return loss.total, count
