"""One contender's training step, timed in a process of its own; used by cpu_training and gpu_training.

    python -m benchmarks.contenders JSON

JSON: contender (janeox, transformers, litgpt), shape (fields of GPTNeoXConfig), length, rows (of a micro-batch),
portions (micro-batches a step), steps, device, dtype (of the products), fp8 (janeox's layers), recompute (layers).
Prints one line of JSON: seconds of each step after two to warm up, the most memory that the process held, and what
janeox's held before the model.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch

from janeox.config import GPTNeoXConfig, OptimConfig, TrainConfig
from janeox.train.cost import peak_memory

WARM_UP = 2


def janeox(config: GPTNeoXConfig, asked: dict[str, Any], rows: torch.Tensor) -> Iterator[None]:
    """The loop's own step."""
    from janeox.device import keep_freed_memory
    from janeox.model import GPTNeoX
    from janeox.train.fp8 import use_float8
    from janeox.train.loop import compile_layers, recompute_layers, take_step
    from janeox.train.optim import build
    from janeox.train.parallel import World
    from janeox.train.pretrain import next_token_objective

    if asked["device"] == "cpu":
        keep_freed_memory()
        some = torch.ones(64, 64, requires_grad=True)  # what PyTorch loads with the first product and optimizer
        with torch.autocast("cpu", torch.bfloat16):
            (some @ some).sum().backward()
        torch.optim.AdamW([some], fused=True).step()
    asked["before"] = peak_memory(torch.device(asked["device"]))
    model = GPTNeoX(config).to(asked["device"]).initialize(torch.Generator().manual_seed(0))
    optim, train = OptimConfig(), TrainConfig(dtype=asked["dtype"])
    optimizers = build(model, optim, config.head_dim)
    if asked.get("fp8"):
        use_float8(model)
    recompute_layers(model, asked.get("recompute", 0))
    compile_layers(model, train)
    world = World(torch.device(asked["device"]))
    while True:
        take_step(model, optimizers, next_token_objective, rows, asked["rows"], 1e-4, optim, train, world)
        yield


def transformers(config: GPTNeoXConfig, asked: dict[str, Any], rows: torch.Tensor) -> Iterator[None]:
    """transformers' Trainer with its own model and SDPA attention; its callback tells the time of a step."""
    from transformers import GPTNeoXConfig as TheirConfig
    from transformers import GPTNeoXForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = GPTNeoXForCausalLM(TheirConfig(**config.to_hf("float32"), attn_implementation="sdpa"))
    if asked.get("recompute"):
        model.gradient_checkpointing_enable()
    steps = asked["steps"] + WARM_UP

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows) * steps

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = rows[index % len(rows), :-1]
            return {"input_ids": row, "labels": row}

    ends: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if args.device.type == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=asked["rows"],
        gradient_accumulation_steps=asked["portions"], bf16=asked["dtype"] == "bfloat16",
        use_cpu=asked["device"] == "cpu", save_strategy="no", report_to=[], logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Watch()]).train()
    asked["seconds"] = [after - before for before, after in itertools.pairwise(ends)][WARM_UP - 1 :]
    while True:
        yield


def litgpt(config: GPTNeoXConfig, asked: dict[str, Any], rows: torch.Tensor) -> Iterator[None]:
    """litgpt's GPT-NeoX and chunked loss, as its `pretrain` steps: autocast, accumulation, clipping, fused AdamW."""
    from litgpt.model import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    shape = Config(
        name="", block_size=asked["length"], n_layer=config.num_hidden_layers, n_embd=config.hidden_size,
        n_head=config.num_attention_heads, padded_vocab_size=config.vocab_size, rotary_percentage=1.0,
        parallel_residual=False, intermediate_size=config.intermediate_size,
    )  # fmt: skip
    model = GPT(shape).to(asked["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    kind = torch.device(asked["device"]).type
    while True:
        for part in rows.split(asked["rows"]):
            part = part.to(asked["device"])
            with torch.autocast(kind, torch.bfloat16, enabled=asked["dtype"] == "bfloat16"):
                loss = chunked_cross_entropy(model(part[:, :-1]), part[:, 1:], chunk_size=128)
                (loss / asked["portions"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked["device"] == "cpu":
        torch.set_num_threads(asked.get("threads", torch.get_num_threads()))
    config = GPTNeoXConfig(**asked["shape"])
    size = (asked["rows"] * asked["portions"], asked["length"] + 1)
    rows = torch.randint(0, config.vocab_size, size, generator=torch.Generator().manual_seed(0))
    contender = {"janeox": janeox, "transformers": transformers, "litgpt": litgpt}[asked["contender"]]
    steps = contender(config, asked, rows)
    seconds = []
    for number in range(WARM_UP + asked["steps"]):
        started = time.perf_counter()
        next(steps)
        if asked["device"] != "cpu":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    memory = peak_memory(torch.device(asked["device"]))
    print(json.dumps({"seconds": asked.get("seconds", seconds), "memory": memory, "before": asked.get("before")}))


if __name__ == "__main__":
    main()
