"""Bits per byte for the same tokens: janeox with Muon and with AdamW, and Trainer's defaults, three seeds each.

    python -m benchmarks.training_quality TRAIN VALID --out FOLDER [--png FILE]

TRAIN and VALID are folders of corpus files in any format that janeox reads. All contenders see the same rows of the
same shards in the same order, have the same shape and precision (bfloat16 products over float32 weights) and are scored
by the same code on the first texts of VALID. The learning rates of Muon and of AdamW are tuned alike: three values, one
seed. How many tokens Muon needs for AdamW's last figure is measured by runs that are shorter, schedule and all.
Every run is a file in FOLDER, so that the command can be stopped and goes on where it was.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import header
from janeox.atomic import new_file
from janeox.config import GPTNeoXConfig, OptimConfig, TokenizerConfig, TrainConfig
from janeox.corpus.clean import clean
from janeox.corpus.read import BadRows, known, read_documents
from janeox.data.batches import Batches
from janeox.data.shards import ShardFile, Shards, ShardWriter, write_manifest
from janeox.device import autocast, keep_freed_memory
from janeox.evaluate.score import Score, losses, score_shards
from janeox.model import GPTNeoX
from janeox.tokenizer.train import train_tokenizer
from janeox.train.loop import take_step
from janeox.train.optim import build, learning_rate
from janeox.train.parallel import World
from janeox.train.pretrain import next_token_objective

SHAPE = GPTNeoXConfig(4096, 128, 4, 4, 512, max_position_embeddings=256)
TRAIN_CHARS, VALID_CHARS = 1_000_000, 100_000  # of each source
LENGTH, ROWS, STEPS, EVERY = 256, 8, 100, 20
SEEDS = (0, 1, 2)
GRID = {"muon": (1e-2, 2e-2, 4e-2), "adamw": (5e-3, 1e-2, 2e-2)}
SHARES = (0.25, 0.5)  # of the steps, for Muon's shorter runs
DEFAULT_RATE = 5e-5  # of transformers.TrainingArguments


def prepare(train: Path, valid: Path, out: Path) -> Shards:
    """Tokenizer and shards, made once."""
    folder = out / "shards"
    if (folder / "shards.json").exists():
        return Shards(folder)
    texts = {"train": list(_texts(train, TRAIN_CHARS)), "valid": list(_texts(valid, VALID_CHARS))}
    sample = TokenizerConfig(vocab_size=SHAPE.vocab_size, character_coverage=0.99, sample_chars=3_000_000)
    tokenizer = train_tokenizer((text for _, text in texts["train"]), sample)
    eos = SHAPE.eos_token_id
    files = []
    for split, rows in texts.items():
        for source in sorted({source for source, _ in rows}):
            own = [text for name, text in rows if name == source]
            file = ShardFile(split, source, f"{split}/{source}-00000", len(own), 0, sum(map(len, own)), 0)
            file.num_bytes = sum(len(text.encode()) for text in own)
            with ShardWriter(folder / file.name, tokenizer.vocab_size) as writer:
                for text in own:
                    ids = [*tokenizer.encode(text), eos]
                    writer.append(ids)
                    file.num_tokens += len(ids)
            files.append(file)
    tokenizer.save(out / "tokenizer")
    write_manifest(folder, tokenizer.vocab_size, eos, tokenizer.fingerprint, files)
    return Shards(folder)


def _texts(folder: Path, chars: int):
    """(source, cleaned text): the first documents of each subfolder, up to `chars` characters."""
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        taken = 0
        for file in filter(known, sorted(source.iterdir())):
            for document in read_documents(file, source.name, BadRows()):
                text = clean(document)
                if taken < chars and len(text) > 200:
                    taken += len(text)
                    yield source.name, text
                elif taken >= chars:
                    break


def result(name: str, rate: float, seed: int, shards: Shards, tokens: Tensor, out: Path, steps: int = STEPS) -> dict:
    """One run, or what it gave before."""
    file = out / f"{name}-{rate:g}-{steps}-{seed}.json"
    if not file.exists():
        if name == "trainer":
            run = trainer(rate, seed, shards, tokens, out)
        else:
            run = ours(name, rate, seed, shards, tokens, steps)
        with new_file(file) as new:
            new.write_text(json.dumps(run))
        print(f"{name} at {rate:g}, {steps} steps, seed {seed}: {run['bits_per_byte']:.4f} bits a byte", flush=True)
    return json.loads(file.read_text())


def ours(name: str, rate: float, seed: int, shards: Shards, tokens: Tensor, steps: int) -> dict:
    """One run of janeox, with its defaults for everything but the learning rate."""
    model = GPTNeoX(SHAPE).initialize(torch.Generator().manual_seed(seed))
    optim, config = OptimConfig(name=name, learning_rate=rate), TrainConfig(dtype="bfloat16")
    optimizers = build(model, optim, SHAPE.head_dim)
    batches = Batches(shards, {}, LENGTH, ROWS, seed)
    world, curve = World(torch.device("cpu")), []
    for step in range(steps):
        rows = torch.from_numpy(batches.batch(step))
        now = learning_rate(step, steps, optim)
        take_step(model, optimizers, next_token_objective, rows, ROWS, now, optim, config, world)
        if (step + 1) % EVERY == 0:
            curve.append(((step + 1) * ROWS * LENGTH, valid_loss(model, tokens)))
    return {"curve": curve, "bits_per_byte": bits_per_byte(model, shards)}


def trainer(rate: float, seed: int, shards: Shards, tokens: Tensor, out: Path) -> dict:
    """One run of transformers' Trainer on its own model, with its defaults for everything but the learning rate."""
    from transformers import GPTNeoXConfig as TheirConfig
    from transformers import GPTNeoXForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    set_seed(seed)
    model = GPTNeoXForCausalLM(TheirConfig(**SHAPE.to_hf("float32")))
    batches = Batches(shards, {}, LENGTH, ROWS, seed)

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self):
            for step in range(STEPS):
                for row in batches.batch(step)[:, :-1]:
                    yield {"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)}

    curve = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % EVERY == 0:
                curve.append((state.global_step * ROWS * LENGTH, valid_loss(as_ours(model), tokens)))

    arguments = TrainingArguments(
        output_dir=str(out / "trainer"), max_steps=STEPS, per_device_train_batch_size=ROWS, learning_rate=rate,
        seed=seed, bf16=True, use_cpu=True, save_strategy="no", report_to=[], logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Watch()]).train()
    return {"curve": curve, "bits_per_byte": bits_per_byte(as_ours(model), shards)}


def as_ours(model) -> GPTNeoX:
    copy = GPTNeoX(SHAPE)
    weights = {name.replace("lm_head", "embed_out"): value for name, value in model.state_dict().items()}
    copy.load_state_dict(weights)
    return copy.eval()


def valid_loss(model: GPTNeoX, tokens: Tensor) -> float:
    """Nats a token over the same 64 rows each time."""
    with autocast("bfloat16", model.device):
        return losses(model, tokens[:, :-1], tokens[:, 1:]).sum().item() / tokens[:, 1:].numel()


def bits_per_byte(model: GPTNeoX, shards: Shards) -> float:
    with autocast("bfloat16", model.device):
        return sum(score_shards(model, shards, LENGTH, 16).values(), Score()).bits_per_byte


def valid_rows(shards: Shards) -> Tensor:
    """64 rows spread over the validation tokens of all sources."""
    rows = []
    for file in shards.of("valid"):
        tokens = torch.from_numpy(shards.tokens(file).astype("int64"))
        starts = torch.linspace(0, len(tokens) - LENGTH - 1, 64 // len(shards.of("valid")) + 1).long()
        rows += [tokens[start : start + LENGTH + 1] for start in starts.tolist()]
    return torch.stack(rows)[:64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--png", type=Path, help="draw the curves there")
    arguments = parser.parse_args()
    out = arguments.out
    keep_freed_memory()
    print(header(), flush=True)
    shards = prepare(arguments.train, arguments.valid, out)
    tokens = valid_rows(shards)

    best = {}
    for name, rates in GRID.items():
        tried = {rate: result(name, rate, SEEDS[0], shards, tokens, out)["bits_per_byte"] for rate in rates}
        best[name] = min(tried, key=lambda rate: tried[rate])
        print(f"{name}: " + ", ".join(f"{rate:g} → {value:.4f}" for rate, value in tried.items()))
    contenders = {
        "janeox, Muon": ("muon", best["muon"]),
        "janeox, AdamW": ("adamw", best["adamw"]),
        "Trainer, defaults": ("trainer", DEFAULT_RATE),
    }
    runs = {title: [result(*which, seed, shards, tokens, out) for seed in SEEDS] for title, which in contenders.items()}
    tokens_seen = STEPS * ROWS * LENGTH
    print(f"\n{tokens_seen:,} tokens, {SHAPE.num_hidden_layers} layers of {SHAPE.hidden_size}, {len(SEEDS)} seeds")
    print(f"{'':<22}{'rate':>8}{'bits a byte':>13}{'lowest':>9}{'highest':>9}")
    for title, (_, rate) in contenders.items():
        values = [run["bits_per_byte"] for run in runs[title]]
        print(f"{title:<22}{rate:>8g}{mean_bits(runs[title]):>13.4f}{min(values):>9.4f}{max(values):>9.4f}")
    if arguments.png:
        draw({title: mean_curve(of) for title, of in runs.items()}, arguments.png)

    def muon(share: float) -> float:
        return mean_bits([result("muon", best["muon"], s, shards, tokens, out, round(share * STEPS)) for s in SEEDS])

    reached = [(share, muon(share)) for share in SHARES] + [(1.0, mean_bits(runs["janeox, Muon"]))]
    print("Muon with a share of the tokens: " + ", ".join(f"{share:g} → {bits:.4f}" for share, bits in reached))
    share = share_of_tokens(reached, mean_bits(runs["janeox, AdamW"]))
    print(f"Muon needs {share} of AdamW's tokens for the same bits a byte")


def mean_bits(runs: list[dict]) -> float:
    return statistics.mean(run["bits_per_byte"] for run in runs)


def mean_curve(runs: list[dict]) -> list[tuple[int, float]]:
    return [
        (points[0][0], statistics.mean(loss for _, loss in points))
        for points in zip(*(r["curve"] for r in runs), strict=False)
    ]


def share_of_tokens(reached: list[tuple[float, float]], wanted: float) -> str:
    """The share of the tokens after which `wanted` is reached, between two shares by a straight line."""
    if reached[0][1] <= wanted:
        return f"at most {reached[0][0]:.0%}"
    for (before, high), (after, low) in itertools.pairwise(reached):
        if low <= wanted:
            return f"{before + (after - before) * (high - wanted) / (high - low):.0%}"
    return "more than 100%"


def draw(curves: dict[str, list[tuple[int, float]]], png: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for title, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=title)
    axes.set(xlabel="tokens seen", ylabel="validation loss (nats a token), mean of 3 seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(png, dpi=110)


if __name__ == "__main__":
    main()
