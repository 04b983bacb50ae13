"""PPO: prompts and a reward → a model that earns more of it.

An optimizer step is a step of the one loop. The first step of an iteration writes replies and scores them; the steps of
the iteration learn from them. What was written is part of the saved state, so a run goes on exactly from any step.
Metrics have TRL's names.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig
from janeox.device import autocast
from janeox.dialogue import prompt_text, read_jsonl, reply_text
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX, Linear
from janeox.settings.tune import Ppo
from janeox.tokenizer import Tokenizer
from janeox.train.loop import Task, move, split, train
from janeox.train.parallel import World, join, shard, total, whole_weights
from janeox.tune.losses import gae, masked_mean, next_kl_coef, ppo_loss, token_logps, token_rewards, whiten
from janeox.tune.pairs import read_prompt, replies_batch
from janeox.tune.rollout import Writer, gathered, open_reward, padded
from janeox.tune.start import Shuffled, fingerprint, open_run, write_dialogue_model


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
        return new.requires_grad_(True)

    def values(self, hidden: Tensor) -> Tensor:
        """(B, T) float32 from (B, T, C)."""
        return (hidden @ self.v_head.weight.to(hidden.dtype).T + self.v_head.bias.to(hidden.dtype))[..., 0].float()


def run_ppo(settings: Ppo) -> None:
    """The verb `ppo`.

    Raises:
        JaneoxError: a row is no prompt, the reward is wrong (see `open_reward`), parts that do not fit each other, or
            `out` holds a run with other settings. The last save stays.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    if not settings.reward:
        raise JaneoxError(
            "no reward: name a folder of `janeox reward`, or a function as module:function, with --reward"
        )
    world = join(settings.train.device)
    if settings.batch_rows // settings.num_mini_batches % world.size:
        raise JaneoxError(f"batch_rows / num_mini_batches rows cannot be shared by {world.size} processes")
    language_model, tokenizer = open_run(settings, world)
    prompts = read_prompts(settings, tokenizer, language_model.config.max_position_embeddings)
    trainer = Trainer(settings, world, language_model, tokenizer, prompts)

    def write(folder: Any, weights: dict[str, Tensor]) -> None:
        plain = {name: tensor for name, tensor in weights.items() if not name.startswith("v_head.")}
        write_dialogue_model(trainer.policy, tokenizer, settings.train.save_dtype, folder, plain)

    if world.is_first:
        print(f"{len(prompts):,} prompts; {settings.iterations:,} iterations of {settings.batch_rows} replies")
    task = Task(
        model=trainer.policy,
        tokenizer=tokenizer,
        batch=trainer.batch,
        objective=trainer.objective,
        validate=dict,
        sample=lambda step: trainer.sample,
        data=fingerprint(tokenizer, prompts),
        num_steps=settings.iterations * trainer.steps_per_iteration,
        tokens_per_step=settings.batch_rows * settings.max_tokens // settings.num_mini_batches,
        world=world,
        write_model=write,
        memory=trainer.memory,
        figures=trainer.figures,
    )
    train(settings.out, task, settings.optim, settings.train, settings.micro_batch_rows)


def read_prompts(settings: Ppo, tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Ids of all prompts that leave room for a reply; says how many do not."""
    found = [tokenizer.encode(prompt_text(read_prompt(row, where))) for where, row in read_jsonl(settings.data)]
    kept = [ids for ids in found if len(ids) + settings.max_tokens <= context]
    if not kept:
        raise JaneoxError(
            f"none of {len(found)} prompts leaves room for {settings.max_tokens} tokens in a context of {context}; "
            "lower max_tokens or take shorter prompts"
        )
    if len(kept) < len(found):
        print(f"{len(found) - len(kept):,} prompts are too long and were left out")
    return kept


class Trainer:
    """Writes, scores, and hands out mini-batches. `memory` is all that it knows beyond weights and step."""

    def __init__(
        self, settings: Ppo, world: World, language_model: GPTNeoX, tokenizer: Tokenizer, prompts: list[list[int]]
    ):
        self.settings, self.world, self.tokenizer, self.prompts = settings, world, tokenizer, prompts
        self.score = open_reward(settings.reward, tokenizer, settings.micro_batch_rows, world.device)
        self.reference = copy.deepcopy(language_model).to(world.device).requires_grad_(False).eval()
        # Cut among processes, a model cannot write by itself: there a whole copy does.
        self.actor = copy.deepcopy(self.reference) if world.size > 1 else None
        self.policy = Policy.from_language_model(language_model).to(world.device)
        capacity = max(map(len, prompts)) + settings.max_tokens
        self.writer = Writer(self.actor or self.policy, settings.batch_rows // world.size, capacity)
        shard(self.policy, world)
        self.steps_per_iteration = settings.num_ppo_epochs * settings.num_mini_batches
        self.memory: dict[str, Any] = {"iteration": -1, "kl_coef": settings.kl_coef, "figures": {}}
        self.sample = ""
        self._sums = torch.zeros(7, device=world.device)  # of the losses' figures, and their number

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's rows of a step's mini-batch."""
        iteration, at = divmod(step, self.steps_per_iteration)
        if self.memory["iteration"] != iteration:
            self._rollout(iteration)
        rows = self.settings.batch_rows
        order = Shuffled(rows, rows // self.settings.num_mini_batches, self.settings.train.seed + 1 + iteration)
        wanted = order.rows(at, self.world)
        return {name: tensor[wanted] for name, tensor in self.memory["rollout"].items()}

    def _rollout(self, iteration: int) -> None:
        """Replies of one iteration; every process writes and scores its share, and then holds all of them."""
        settings, world = self.settings, self.world
        if iteration > 0:
            kl = self.memory["figures"]["objective/kl"]
            self.memory["kl_coef"] = next_kl_coef(
                self.memory["kl_coef"], kl, settings.kl_target, settings.batch_rows, settings.kl_horizon
            )
        chosen = Shuffled(len(self.prompts), settings.batch_rows, settings.train.seed).rows(iteration, world)
        first = iteration * settings.batch_rows + world.rank * len(chosen)
        seeds = [settings.train.seed * 1_000_003 + first + place for place in range(len(chosen))]
        if self.actor:
            weights = whole_weights(self.policy)
            self.actor.load_state_dict({name: weights[name] for name in self.actor.state_dict()})
        writing = self.actor or self.policy
        replies = self.writer.write(writing, [self.prompts[row] for row in chosen], seeds, settings.max_tokens)
        prompts, ids = [reply.prompt for reply in replies], [reply.ids for reply in replies]
        scores = self.score(prompts, ids)
        eos = self.tokenizer.eos_token_id
        ended = [reply[-1] == eos for reply in ids]
        rows = gathered(
            [
                (prompt, reply.ids, score, end, *parts)
                for prompt, reply, score, end, parts in zip(
                    prompts, replies, scores, ended, self._measured(prompts, ids), strict=True
                )
            ],
            world,
        )
        self.sample = f"{self.tokenizer.decode(rows[0][0])}{reply_text(self.tokenizer.decode(rows[0][1]))}"
        self._learn_from(rows, iteration)

    @torch.no_grad()
    def _measured(self, prompts: list[list[int]], ids: list[list[int]]) -> list[tuple[Tensor, ...]]:
        """Of each reply: log p by the policy and by the reference, values, and entropies, at its places."""
        measured = []
        device = self.world.device
        self.policy.eval()
        with autocast(self.settings.train.dtype, device):
            for portion in split(
                replies_batch(list(zip(prompts, ids, strict=True)), 0), self.settings.micro_batch_rows
            ):
                portion = move(portion, device)
                hidden = self.policy.hidden(portion["ids"])
                logps, entropies = token_logps(self.policy, hidden, portion["targets"])
                reference, _ = token_logps(self.reference, self.reference.hidden(portion["ids"]), portion["targets"])
                values = self.policy.values(hidden)
                for row, targets in enumerate(portion["targets"]):
                    at = targets >= 0
                    measured.append(tuple(x[row][at].cpu() for x in (logps, reference, values, entropies)))
        return measured

    def _learn_from(self, rows: list[tuple[Any, ...]], iteration: int) -> None:
        """Rewards, advantages and returns of all replies, and the figures of the iteration."""
        settings = self.settings
        batch = replies_batch([(prompt, ids) for prompt, ids, *_ in rows], 0)
        T = max(len(ids) for _, ids, *_ in rows)
        raw = torch.tensor([score for _, _, score, *_ in rows])
        ended = torch.tensor([end for _, _, _, end, *_ in rows])
        scores = raw.clamp(-settings.score_clip, settings.score_clip) if settings.score_clip else raw
        scores = scores - settings.missing_eos_penalty * ~ended
        logps, reference, values, entropies = (padded([row[4 + n] for row in rows], T) for n in range(4))
        mask = padded([torch.ones(len(row[1]), dtype=torch.bool) for row in rows], T)
        kl_coef = self.memory["kl_coef"]
        rewards = token_rewards(scores, logps, reference, mask, kl_coef)
        if settings.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, values, mask, settings.gamma, settings.lam)
        advantages = whiten(advantages, mask)
        names = {"logps": logps, "advantages": advantages, "values": values, "returns": returns}
        places = batch["targets"] >= 0
        for name, tensor in names.items():
            batch[name] = torch.zeros(places.shape).masked_scatter(places, tensor[mask])
        kl = ((logps - reference) * mask).sum(1)
        self.memory |= {"iteration": iteration, "rollout": batch}
        self.memory["figures"] = {
            "episode": (iteration + 1) * settings.batch_rows,
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
        hidden = model.hidden(batch["ids"])
        logps, entropies = token_logps(model, hidden, batch["targets"])
        loss = ppo_loss(
            logps, batch["logps"], batch["advantages"], model.values(hidden), batch["values"], batch["returns"], mask,
            settings.cliprange, settings.cliprange_value,
        )  # fmt: skip
        count = mask.sum().float()
        figures = (loss.policy, loss.value, loss.policy_clipped, loss.value_clipped, loss.approx_kl, entropies.sum())
        self._sums += torch.stack([*(figure.detach().float() / count for figure in figures), torch.ones_like(count)])
        return loss.policy + settings.vf_coef * loss.value, count

    def figures(self) -> dict[str, Any]:
        """Those of the iteration's replies, and means of the losses since the last call."""
        *sums, count = total(self._sums.clone(), self.world).tolist()
        self._sums.zero_()
        names = ("loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "val/clipfrac_avg", "policy/approxkl_avg",
                 "policy/entropy_avg")  # fmt: skip
        return self.memory["figures"] | {name: sum / max(1, count) for name, sum in zip(names, sums, strict=True)}
