"""Does PPO earn a known reward, at its KL target? `python -m benchmarks.ppo MODEL PROMPTS.jsonl OUT`

The reward is a twentieth for each hiragana in a reply. Each of three seeds is a run of `janeox ppo` from the same
model, in its own folder under OUT, where the same command goes on. Printed are the mean score of the first and of the
last three iterations, its spread over replies, and the KL of a reply over the last third, beside its target.

β is steered as in the paper (arXiv 1909.08593): a tenth of the clipped error an iteration.
"""

import statistics
import sys
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.config import LoopConfig, OptimConfig
from janeox.settings.tune import Ppo
from janeox.train.metrics import read_metrics
from janeox.tune.ppo import run_ppo

SEEDS = 3
ITERATIONS = 120
REPLIES = 32
KL_TARGET = 6.0


def hiragana(texts: list[str]) -> list[float]:
    """The known reward: a twentieth for each."""
    return [sum("ぁ" <= character <= "ん" for character in text) / 20 for text in texts]


def settings(model: str, prompts: Path, out: Path, seed: int) -> Ppo:
    return Ppo(
        out=out, model=model, data=(prompts,), reward="benchmarks.ppo:hiragana", iterations=ITERATIONS,
        batch_rows=REPLIES, micro_batch_rows=REPLIES, num_ppo_epochs=2, max_tokens=24, kl_coef=0.08,
        kl_target=KL_TARGET, kl_horizon=10 * REPLIES,
        optim=OptimConfig(learning_rate=3e-4, schedule="wsd", warmup_fraction=0.03, weight_decay=0.0),
        train=LoopConfig(seed=seed, log_every=1, sample_every=0, save_every=100),
    )  # fmt: skip


def main(model: str, prompts: str, out: str) -> None:
    torch.set_num_threads(1)
    print(header())
    print(f"{ITERATIONS} iterations of {REPLIES} replies, KL target {KL_TARGET}")
    for seed in range(SEEDS):
        folder = Path(out) / f"seed-{seed}"
        run_ppo(settings(model, Path(prompts), folder, seed))
        rows = {row["episode"]: row for row in read_metrics(folder / "metrics.jsonl")}  # one an iteration
        scores = [row["objective/scores"] for row in rows.values()]
        late = [row["objective/kl"] for row in list(rows.values())[-ITERATIONS // 3 :]]
        spread = next(iter(rows.values()))["objective/scores_std"]
        print(
            f"seed {seed}: score {statistics.mean(scores[:3]):.3f} → {statistics.mean(scores[-3:]):.3f} "
            f"(one reply's standard deviation at first {spread:.3f}); KL over the last third "
            f"{statistics.mean(late):.2f} ({min(late):.2f} to {max(late):.2f}), "
            f"β {list(rows.values())[-1]['objective/kl_coef']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:4])
