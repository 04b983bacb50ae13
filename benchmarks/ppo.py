"""Does PPO earn a known reward, at its KL target? `python -m benchmarks.ppo MODEL PROMPTS.jsonl [LEARNING_RATE]`

The reward is the share of hiragana in a reply, between 0 and 1. Each seed is a run of `janeox ppo` from the same model.
Printed are the mean score of the first and of the last three iterations, its spread over replies, and the KL of a
reply over the last third, beside its target.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.config import LoopConfig, OptimConfig
from janeox.settings.tune import Ppo
from janeox.train.metrics import read_metrics
from janeox.tune.ppo import run_ppo

SEEDS = 3
ITERATIONS = 60
KL_TARGET = 6.0


def share_of_hiragana(texts: list[str]) -> list[float]:
    """The known reward."""
    return [sum("ぁ" <= character <= "ん" for character in text) / max(1, len(text)) for text in texts]


def settings(model: str, prompts: Path, out: Path, seed: int, rate: float) -> Ppo:
    return Ppo(
        out=out, model=model, data=(prompts,), reward="benchmarks.ppo:share_of_hiragana", iterations=ITERATIONS,
        batch_rows=32, micro_batch_rows=32, num_ppo_epochs=2, max_tokens=24, kl_coef=0.05, kl_target=KL_TARGET,
        kl_horizon=128, optim=OptimConfig(learning_rate=rate, schedule="wsd", warmup_fraction=0.03, weight_decay=0.0),
        train=LoopConfig(seed=seed, log_every=1, sample_every=0, dtype="float32", save_every=10_000),
    )  # fmt: skip


def main(model: str, prompts: str, rate: str = "4e-4") -> None:
    torch.set_num_threads(1)
    print(header())
    print(f"{ITERATIONS} iterations of 32 replies, KL target {KL_TARGET}, learning rate {rate}")
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            run_ppo(settings(model, Path(prompts), Path(folder), seed, float(rate)))
            rows = {row["episode"]: row for row in read_metrics(Path(folder) / "metrics.jsonl")}
        scores = [row["objective/scores"] for row in rows.values()]
        late = [row["objective/kl"] for row in list(rows.values())[-ITERATIONS // 3 :]]
        spread = next(iter(rows.values()))["objective/scores_std"]
        print(
            f"seed {seed}: score {statistics.mean(scores[:3]):.3f} → {statistics.mean(scores[-3:]):.3f} "
            f"(one reply's standard deviation at first {spread:.3f}); KL over the last third "
            f"{statistics.mean(late):.2f} ({min(late):.2f} to {max(late):.2f}), "
            f"β {list(rows.values())[-1]['objective/kl_coef']:.4f}; {time.monotonic() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:4])
