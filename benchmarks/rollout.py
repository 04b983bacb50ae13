"""Rollouts and whole iterations beside TRL's GRPO trainer: `python -m benchmarks.rollout MODEL PROMPTS.jsonl`

Both sides write the same number of replies of exactly the same length (neither may end early) to prompts of the same
file, with the same weights, and learn from them in one optimizer step by the same loss: `janeox grpo` and TRL's GRPO
trainer over transformers' generate, 8 replies a prompt, no reference (β 0). Both are timed in float32 and with products
in bfloat16 (`train.dtype` here, `bf16` there), as they learn from all replies at once and from 8 at a time; the faster
of each is compared. `janeox ppo`, which also runs a value head and a reference model, is timed beside them. They take
turns; printed are medians. All run in one process, whose C library keeps freed memory, as `janeox` sets it for itself.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.config import LoopConfig, OptimConfig, SamplingConfig
from janeox.device import keep_freed_memory
from janeox.engine.engine import Engine
from janeox.model import GPTNeoX
from janeox.settings.tune import Grpo, Ppo
from janeox.tokenizer import Tokenizer
from janeox.train.loop import take_step
from janeox.train.optim import build
from janeox.train.parallel import World
from janeox.tune.grpo import GrpoTrainer
from janeox.tune.on_policy import Trainer, read_prompts
from janeox.tune.ppo import PpoTrainer
from janeox.tune.start import open_run

ROWS, TOKENS, TURNS = 32, 48, 5
PORTION = 8  # replies that are learned from at once; both sides' default


def length(texts: list[str]) -> list[float]:
    """A reward that costs nothing."""
    return [float(len(text) % 7) for text in texts]


class Ours:
    def __init__(
        self,
        settings: type[Grpo] | type[Ppo],
        trainer: type[Trainer],
        model: str,
        prompts: Path,
        out: Path,
        portion: int,
        dtype: str,
    ):
        self.settings = settings(
            out=out, model=model, data=(prompts,), reward="benchmarks.rollout:length", batch_rows=ROWS,
            micro_batch_rows=portion, num_ppo_epochs=1, max_tokens=TOKENS, optim=OptimConfig(learning_rate=1e-6),
            train=LoopConfig(dtype=dtype, device="cpu"),
        )  # fmt: skip
        world = World(torch.device("cpu"))
        language_model, self.tokenizer = open_run(self.settings, world)
        self.prompts = read_prompts([prompts], self.tokenizer, TOKENS, language_model.config.max_position_embeddings)
        self.trainer = trainer(self.settings, world, language_model, self.tokenizer, self.prompts)
        self.optimizers = build(self.trainer.policy, self.settings.optim, language_model.config.head_dim)
        self.step = 0
        self.writing = 0.0
        self.trainer.writer.write = self._write  # type: ignore[method-assign]

    def _write(self, model, prompts, seeds, max_tokens):
        """As `Writer.write`, but no reply ends before its last token; notes the time."""
        from janeox.tune.rollout import Reply

        started = time.perf_counter()
        self.trainer.writer.backend.refresh(model)
        engine = Engine(self.trainer.writer.backend)
        sampling = [SamplingConfig(TOKENS, TOKENS, temperature=1.0, seed=seed) for seed in seeds]
        texts = [engine.submit(prompt, one) for prompt, one in zip(prompts, sampling, strict=True)]
        while not engine.idle:
            engine.step()
        self.writing = time.perf_counter() - started
        return [Reply(text.prompt, text.ids, text.logprobs) for text in texts]

    def iteration(self) -> tuple[float, float]:
        """(seconds of writing, seconds in all)."""
        started = time.perf_counter()
        batch = self.trainer.batch(self.step)
        settings, world = self.settings, self.trainer.world
        arguments = (
            self.trainer.objective,
            batch,
            settings.micro_batch_rows,
            1e-6,
            settings.optim,
            settings.train,
            world,
        )
        take_step(self.trainer.policy, self.optimizers, *arguments)
        self.step += 1
        return self.writing, time.perf_counter() - started


class Trl:
    def __init__(self, model: str, prompts: list[str], out: Path, portion: int, dtype: str):
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
        from trl import GRPOConfig, GRPOTrainer

        config = GRPOConfig(
            str(out), report_to=[], use_cpu=True, bf16=dtype == "bfloat16", gradient_checkpointing=False,
            num_generations=8, per_device_train_batch_size=portion, gradient_accumulation_steps=ROWS // portion,
            temperature=1.0, beta=0.0, max_completion_length=TOKENS, max_steps=TURNS + 1, learning_rate=1e-6,
            logging_steps=1000, save_strategy="no", disable_tqdm=True, generation_kwargs={"min_new_tokens": TOKENS},
        )  # fmt: skip
        self.trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            reward_funcs=lambda completions, **_: length(completions),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=PreTrainedTokenizerFast.from_pretrained(model, padding_side="left"),
        )
        # What its `train` does first: in bfloat16, the model's own products become so.
        self.trainer.model = self.trainer.model_wrapped = self.trainer.accelerator.prepare_model(self.trainer.model)
        self.writing = 0.0
        generate = self.trainer._generate_single_turn

        def timed(*arguments, **named):
            started = time.perf_counter()
            result = generate(*arguments, **named)
            self.writing = time.perf_counter() - started
            return result

        self.trainer._generate_single_turn = timed
        self.optimizer = torch.optim.AdamW(self.trainer.model.parameters(), lr=1e-6)
        self.portions = self.trainer.current_gradient_accumulation_steps = ROWS // portion
        self.batches = iter(self.trainer.get_train_dataloader())

    def iteration(self) -> tuple[float, float]:
        """(seconds of writing, seconds in all)."""
        started = time.perf_counter()
        trainer = self.trainer
        trainer.model.train()
        for _ in range(self.portions):  # the first of them writes
            inputs = trainer._prepare_inputs(next(self.batches))
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, inputs)
            loss.backward()
            trainer._step += 1
        self.optimizer.step()
        self.optimizer.zero_grad()
        trainer.state.global_step += 1
        return self.writing, time.perf_counter() - started


def main(model: str, prompts: str) -> None:
    keep_freed_memory()
    print(header())
    threads = torch.get_num_threads()
    print(f"{ROWS} replies of {TOKENS} tokens, one optimizer step; {threads} threads; medians of {TURNS} turns each")
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder), Path(prompts)
        tokenizer = Tokenizer.load(model)
        context = GPTNeoX.from_pretrained(model).config.max_position_embeddings
        texts = [tokenizer.decode(ids) for ids in read_prompts([file], tokenizer, TOKENS, context)]
        sides: dict[tuple[str, str, str], Ours | Trl] = {}
        for dtype in ("float32", "bfloat16"):
            for rows in (ROWS, PORTION):
                learning = f"from {rows} at a time"
                place = out / f"{dtype}-{rows}"
                sides["janeox grpo", dtype, learning] = Ours(
                    Grpo, GrpoTrainer, model, file, place / "grpo", rows, dtype
                )
                sides["TRL grpo", dtype, learning] = Trl(model, texts, place / "trl", rows, dtype)
            sides["janeox ppo", dtype, f"from {ROWS} at a time"] = Ours(
                Ppo, PpoTrainer, model, file, out / f"{dtype}-ppo", ROWS, dtype
            )
        found: dict[tuple[str, str, str], list[tuple[float, float]]] = {name: [] for name in sides}
        for turn in range(TURNS + 1):
            for name, side in sides.items():
                seconds = side.iteration()
                if turn:  # the first warms up
                    found[name].append(seconds)
    medians = {}
    for name, rows in found.items():
        writing, whole = (statistics.median(column) for column in zip(*rows, strict=True))
        medians[name] = writing, whole
        print(f"{', '.join(name)}: {ROWS * TOKENS / writing:,.0f} tokens/s of rollout, {whole:.3f} s an iteration")

    def fastest(side: str, *dtypes: str) -> list[float]:
        """Seconds of writing, and of an iteration."""
        own = [both for (name, dtype, _), both in medians.items() if name == side and dtype in dtypes]
        return [min(column) for column in zip(*own, strict=True)]

    for dtypes in (("float32",), ("bfloat16",), ("float32", "bfloat16")):
        rollout, iteration = (
            theirs / ours
            for ours, theirs in zip(*(fastest(f"{name} grpo", *dtypes) for name in ("janeox", "TRL")), strict=True)
        )
        print(
            f"janeox grpo to TRL grpo, the faster of each, {' or '.join(dtypes)}: "
            f"rollout {rollout:.2f} times as fast, iteration {iteration:.2f} times"
        )


if __name__ == "__main__":
    main(*sys.argv[1:3])
