"""What PPO and GRPO share: the model's own replies, written and scored once an iteration and learned from in its steps.

An optimizer step is a step of the one loop. The first step of an iteration writes replies and scores them; the steps of
the iteration learn from them. What was written is part of the saved state, so a run goes on exactly from any step.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from janeox.device import autocast, bfloat16_products
from janeox.dialogue import prompt_text, read_jsonl, reply_text
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.settings.tune import OnPolicy
from janeox.tokenizer import Tokenizer
from janeox.train.loop import Task, move, split, train
from janeox.train.parallel import World, join, shard, total, whole_weights
from janeox.tune import lora
from janeox.tune.losses import at_places, token_logps
from janeox.tune.pairs import read_prompt, replies_batch
from janeox.tune.rollout import Writer, gathered, open_reward
from janeox.tune.start import Shuffled, fingerprint, open_run, write_dialogue_model


class Scored(NamedTuple):
    """A reply, as every process knows it."""

    prompt: list[int]
    ids: list[int]
    score: float
    ended: bool
    """Whether the model ended it by itself."""
    sampled: list[float]
    """log p of `ids`, as the engine saw them."""
    measured: tuple[Tensor, ...]
    """What `measure` says at the places of `ids`."""


class Trainer(ABC):
    """Writes, scores, and hands out mini-batches. `memory` is all that it knows beyond weights and step.

    Args:
        policy: what learns, with adapters where the settings say so.
        refers: whether it may not leave the model of the beginning too far: a copy, or itself without its adapters.
        names: of the figures that `objective` adds to `sums`.
    """

    def __init__(
        self, settings: OnPolicy, world: World, tokenizer: Tokenizer, prompts: list[list[int]], policy: GPTNeoX,
        refers: bool, names: tuple[str, ...],
    ):  # fmt: skip
        self.settings, self.world, self.tokenizer, self.prompts, self.names = settings, world, tokenizer, prompts, names
        self.score = open_reward(settings.reward, tokenizer, settings.micro_batch_rows, world.device)
        copied = refers and not settings.lora_rank
        self.reference = copy.deepcopy(policy).to(world.device).requires_grad_(False).eval() if copied else None
        self.policy = policy.to(world.device)
        # Cut among processes or with adapters, a model cannot write by itself: there a whole, plain one does.
        self.actor: GPTNeoX | None = None
        if world.size > 1 or settings.lora_rank:
            with torch.device("meta"):
                self.actor = GPTNeoX(policy.config).requires_grad_(False)
            self.actor.to_empty(device=world.device)
        shard(self.policy, world)
        capacity = max(map(len, prompts)) + settings.max_tokens
        # As exact as the training: what is rounded there already costs time only.
        half = bfloat16_products(settings.train.dtype, world.device)
        dtype = torch.bfloat16 if half else torch.float32
        self.writer = Writer(self._acting(), settings.batch_rows // world.size, capacity, dtype)
        self.steps_per_iteration = settings.num_ppo_epochs * settings.num_mini_batches
        self.memory: dict[str, Any] = {"iteration": -1, "figures": {}}
        self.sample = ""
        self.sums = torch.zeros(len(names) + 1, device=world.device)  # of the losses' figures, and their number

    @abstractmethod
    def measure(self, portion: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Of rows as they were just written, (B, T) tensors that are right at the places of their replies."""

    @abstractmethod
    def learn_from(self, rows: list[Scored]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All replies of an iteration → rows for `objective`, and figures."""

    @abstractmethod
    def objective(self, model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The summed loss over the replies' tokens, and their number."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's rows of a step's mini-batch."""
        iteration, at = divmod(step, self.steps_per_iteration)
        if self.memory["iteration"] != iteration:
            rows = self._rollout(iteration)
            written, figures = self.learn_from(rows)
            sampled = torch.tensor([logp for row in rows for logp in row.sampled])
            written["sampled"] = at_places(sampled, written["targets"] >= 0)
            self.memory |= {"iteration": iteration, "rollout": written, "figures": figures}
        num_rows = self.settings.batch_rows
        order = Shuffled(num_rows, num_rows // self.settings.num_mini_batches, self.settings.train.seed + 1 + iteration)
        wanted = sorted(order.rows(at, self.world))  # replies to one prompt side by side, so that they share it
        return {name: tensor[wanted] for name, tensor in self.memory["rollout"].items()}

    def _rollout(self, iteration: int) -> list[Scored]:
        """Replies of one iteration; every process writes and scores its share, and then holds all of them."""
        settings, world = self.settings, self.world
        order = Shuffled(len(self.prompts), settings.batch_rows // settings.num_generations, settings.train.seed)
        asked = [row for row in order.rows(iteration, World(world.device)) for _ in range(settings.num_generations)]
        share = settings.batch_rows // world.size
        own = range(world.rank * share, (world.rank + 1) * share)
        seeds = [settings.train.seed * 1_000_003 + iteration * settings.batch_rows + place for place in own]
        replies = self.writer.write(
            self._acting(), [self.prompts[asked[place]] for place in own], seeds, settings.max_tokens
        )
        prompts, ids, sampled = map(list, zip(*replies, strict=True))
        ended = [reply[-1] == self.tokenizer.eos_token_id for reply in ids]
        parts = zip(prompts, ids, self.score(prompts, ids), ended, sampled, self._measured(prompts, ids), strict=True)
        rows = gathered([Scored(*part) for part in parts], world)
        self.sample = f"{self.tokenizer.decode(rows[0].prompt)}{reply_text(self.tokenizer.decode(rows[0].ids))}"
        return rows

    def _acting(self) -> GPTNeoX:
        """What writes: the policy as it is."""
        if self.actor is None:
            return self.policy
        weights = whole_weights(self.policy)
        if self.settings.lora_rank:
            weights = lora.merged(weights, self.settings)
        self.actor.load_state_dict({name: weights[name] for name in self.actor.state_dict()})
        return self.actor

    def reference_logps(self, ids: Tensor, targets: Tensor) -> Tensor:
        """As the first of `token_logps`, by the model of the beginning."""
        if self.reference is not None:
            return token_logps(self.reference, ids, targets)[0]
        with lora.switched_off(self.policy):
            return token_logps(self.policy, ids, targets)[0]

    @torch.no_grad()
    def _measured(self, prompts: list[list[int]], ids: list[list[int]]) -> list[tuple[Tensor, ...]]:
        """What `measure` says of each reply, at its places."""
        measured = []
        self.policy.eval()
        with autocast(self.settings.train.dtype, self.world.device):
            rows = replies_batch(list(zip(prompts, ids, strict=True)), 0)
            for portion in split(rows, self.settings.micro_batch_rows):
                found = self.measure(move(portion, self.world.device))
                for row, targets in enumerate(portion["targets"]):
                    measured.append(tuple(x[row].cpu()[targets >= 0] for x in found))
        return measured

    def figures(self) -> dict[str, Any]:
        """Those of the iteration's replies, and means of the losses since the last call."""
        *sums, count = total(self.sums.clone(), self.world).tolist()
        self.sums.zero_()
        return self.memory["figures"] | {name: x / max(1, count) for name, x in zip(self.names, sums, strict=True)}

    def note(self, sums: list[Tensor], count: Tensor) -> None:
        """Adds sums over `count` tokens to what `figures` gives the means of."""
        self.sums += torch.stack([*(x.detach().float() / count for x in sums), torch.ones_like(count)])


def run(settings: OnPolicy, make: Callable[..., Trainer]) -> None:
    """Trains with `make(settings, world, language_model, tokenizer, prompts)`.

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
    context = language_model.config.max_position_embeddings
    prompts = read_prompts(settings.data, tokenizer, settings.max_tokens, context)
    if settings.lora_rank:
        lora.add(language_model, settings.lora_rank, settings.lora_alpha, settings.train.seed, settings.optim.name)
    trainer = make(settings, world, language_model, tokenizer, prompts)
    published = set(language_model.state_dict())

    def write(folder: Any, weights: dict[str, Tensor]) -> None:
        own = {name: tensor for name, tensor in weights.items() if name in published}
        plain: Any = partial(write_dialogue_model, trainer.policy, tokenizer, settings.train.save_dtype)
        if settings.lora_rank:
            lora.write(settings, plain, folder, own)
        else:
            plain(folder, own)

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


def read_prompts(files: Sequence[Path], tokenizer: Tokenizer, max_tokens: int, context: int) -> list[list[int]]:
    """Ids of all prompts that leave room for a reply of `max_tokens`; says how many do not."""
    found = [tokenizer.encode(prompt_text(read_prompt(row, where))) for where, row in read_jsonl(files)]
    kept = [ids for ids in found if len(ids) + max_tokens <= context]
    if not kept:
        raise JaneoxError(
            f"none of {len(found)} prompts leaves room for {max_tokens} tokens in a context of {context}; "
            "lower max_tokens or take shorter prompts"
        )
    if len(kept) < len(found):
        print(f"{len(found) - len(kept):,} prompts are too long and were left out")
    return kept
