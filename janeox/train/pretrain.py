"""Shards and a tokenizer → a trained model: next-token prediction over the packed stream."""

import hashlib
from dataclasses import replace
from functools import partial
from typing import Any

import tomli_w
import torch
from torch import Tensor

from janeox.atomic import new_file
from janeox.data.batches import Batches
from janeox.data.shards import MANIFEST, Shards
from janeox.data.tokenize import load_tokenizer
from janeox.device import autocast, bfloat16_products, device_memory
from janeox.errors import JaneoxError
from janeox.evaluate.score import Score, score_shards, unigram_entropy
from janeox.lm import LM
from janeox.model import GPTNeoX
from janeox.recipe import read_recipe, to_table
from janeox.settings.train import Pretrain
from janeox.tokenizer import Tokenizer
from janeox.train.checkpoint import sole
from janeox.train.fp8 import check_float8, use_float8
from janeox.train.loop import Task, train
from janeox.train.loss import next_token_loss
from janeox.train.memory import check_fits, choice
from janeox.train.parallel import World, check_heads, check_rows, cut_like, join, least, shard
from janeox.train.plot import plot_runs

# Settings that may change between two starts of one run: they move or show the work, and do not change its result.
FREE = {"train.device", "train.compile", "train.tensor_parallel", "train.recompute_layers", "data.micro_batch_rows",
        "train.keep", "train.log_to", "train.save_every", "train.evaluate_every", "train.sample_every",
        "train.sample_prompt", "train.log_every", "out", "shards", "tokenizer_folder"}  # fmt: skip


def next_token_objective(
    model: GPTNeoX, rows: Tensor, separate: bool = False, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Summed loss of predicting tokens 1 … T of rows (B, T + 1) from those before, and their number.

    With `separate`, tokens attend to their own document only. The end-of-text token begins the document after it: its
    target is that document's first token, as at the beginning of a text to be written.
    """
    inputs, targets = rows[:, :-1], rows[:, 1:].flatten()
    documents = (inputs == model.config.eos_token_id).cumsum(1) if separate else None
    hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
    loss = next_token_loss(hidden, model.embed_out.weight, targets, z_loss)
    return loss, torch.tensor(float(len(targets)), device=rows.device)


def run_pretrain(settings: Pretrain) -> None:
    """The verb `pretrain`: trains into `settings.out`, or goes on there.

    Raises:
        JaneoxError: shards, tokenizer and model do not fit each other; `out` holds a run with other settings.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    out, data = settings.out, settings.data
    shards = Shards(settings.shards or out / "shards")
    tokenizer = load_tokenizer(settings.tokenizer_folder, out)
    _check_fit(settings, shards, tokenizer)
    check_heads(settings.model, settings.train.tensor_parallel)
    world = join(settings.train.device, settings.train.tensor_parallel)
    rows = data.batch_tokens // data.sequence_length
    check_rows(rows, world)
    check_same_run(settings, FREE, world)
    batches = Batches(shards, data.weights, data.sequence_length, rows, settings.train.seed)
    device = world.device
    generator = torch.Generator().manual_seed(settings.train.seed)
    bfloat16 = bfloat16_products(settings.train.dtype, device)
    available = least(device_memory(device), world)  # tensor parallelism needs the same choice on all
    layout = check_fits(settings.model, data, settings.train, world.size, available, device.type, bfloat16)
    if settings.train.fp8:
        portion = min(rows // world.data_size, data.micro_batch_rows)
        check_float8(device, portion, data.sequence_length, settings.train.tensor_parallel)
    model = GPTNeoX(settings.model)
    if settings.train.fp8:
        use_float8(model)
    if world.mesh is None:
        model.to(device)
    num_parameters = sum(p.numel() for p in model.parameters())
    shard(model, world, settings.train.dtype)
    model.initialize(generator, settings.train.init, part=cut_like)  # matrix by matrix: nobody holds the whole model
    num_steps = max(1, settings.train.tokens // data.batch_tokens)
    entropy = unigram_entropy(shards)
    lm = LM(model, tokenizer)

    def validate() -> dict[str, Any]:
        with autocast(settings.train.dtype, device):
            scores = score_shards(
                model, shards, data.sequence_length, data.micro_batch_rows, separate=data.separate_documents
            )
        return figures(scores)

    def sample(step: int) -> str:
        prompt = settings.train.sample_prompt
        return prompt + lm.generate(prompt, max_new_tokens=60, temperature=0.8, top_p=0.9, seed=step)

    if world.is_first:
        where = f"{device}" if world.size == 1 else f"{world.size} × {device.type}"
        print(f"{num_parameters:,} parameters on {where}; {num_steps:,} steps of {data.batch_tokens:,} tokens")
        epochs = num_steps * rows / batches.windows_per_epoch
        print(f"{num_steps * data.batch_tokens:,} tokens in all, {epochs:.2f} epochs")
        if line := choice(settings.model, settings.train, layout):
            print(line)
    task = Task(
        model=model,
        tokenizer=tokenizer,
        batch=lambda step: torch.from_numpy(batches.batch(step, world.data_rank, world.data_size)),
        objective=partial(next_token_objective, separate=data.separate_documents, z_loss=settings.optim.z_loss),
        validate=validate,
        sample=sample,
        data=hashlib.sha256((shards.folder / MANIFEST).read_bytes()).hexdigest()[:16],
        num_steps=num_steps,
        tokens_per_step=data.batch_tokens,
        sequence_length=data.sequence_length,
        batch_ahead=True,
        world=world,
    )
    loop = replace(settings.train, recompute_layers=layout.recompute)
    train(out, task, settings.optim, loop, data.micro_batch_rows)
    if world.is_first:
        plot_runs([out], out / "loss.png", unigram_entropy=entropy or None)


def figures(scores: dict[str, Score]) -> dict[str, Any]:
    """Scores by source as fields of a metrics row; nothing where there was nothing to score."""
    total = sum(scores.values(), Score())
    if not total.num_tokens:
        return {}
    by_source = {name: round(score.bits_per_byte, 6) for name, score in scores.items()}
    return {
        "valid_loss": total.loss,
        "valid_perplexity": total.perplexity,
        "valid_bits_per_byte": total.bits_per_byte,
        "valid_bits_per_byte_by_source": by_source,
    }


def _check_fit(settings: Pretrain, shards: Shards, tokenizer: Tokenizer) -> None:
    model, data = settings.model, settings.data
    if shards.tokenizer != tokenizer.fingerprint:
        raise JaneoxError(
            f"{shards.folder} was not made with the tokenizer {tokenizer.where}; run `janeox tokenize` with it"
        )
    if tokenizer.vocab_size > model.vocab_size:
        raise JaneoxError(
            f"model.vocab_size = {model.vocab_size}, but the tokenizer {tokenizer.where} has "
            f"{tokenizer.vocab_size} pieces; set model.vocab_size = {tokenizer.vocab_size}"
        )
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(tokenizer, name) != getattr(model, name):
            raise JaneoxError(
                f"model.{name} = {getattr(model, name)}, but in the tokenizer it is {getattr(tokenizer, name)}"
            )
    if data.sequence_length > model.max_position_embeddings:
        raise JaneoxError(
            f"data.sequence_length = {data.sequence_length} is longer than model.max_position_embeddings = "
            f"{model.max_position_embeddings}"
        )
    prompt = len(tokenizer.encode(settings.train.sample_prompt))
    if settings.train.sample_every and prompt >= model.max_position_embeddings:
        raise JaneoxError(
            f"train.sample_prompt has {prompt} tokens, model.max_position_embeddings is "
            f"{model.max_position_embeddings}: shorten it"
        )


def check_same_run(settings: Any, free: set[str], world: World) -> None:
    """Writes `out/config.toml` for a verb's settings, or where one stands beside a state, makes sure that it says the
    same but for the settings in `free`.

    Raises:
        JaneoxError: it does not, or another process trains into `out`.
    """
    file = settings.out / "config.toml"
    if (settings.out / "state").exists() and file.exists():
        before, now = _flat(to_table(read_recipe(type(settings), file))), _flat(to_table(settings))
        changed = [
            key for key in sorted(before.keys() | now.keys()) if key not in free and before.get(key) != now.get(key)
        ]
        if changed:
            key = changed[0]
            raise JaneoxError(
                f"{settings.out}: holds a run with other settings ({key} was {before.get(key)!r}, now "
                f"{now.get(key)!r}); give another --out folder, or remove this one to train anew"
            )
    if not world.is_first:
        return
    with new_file(file) as new, sole(settings.out):
        new.write_bytes(tomli_w.dumps(to_table(settings)).encode())


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
