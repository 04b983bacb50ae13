"""The series on real data: SFT, reward model, PPO, and wins, ties and losses of PPO against SFT.

    python -m benchmarks.series BASE DATA OUT

DATA holds `sft_train.jsonl`, `sft_valid.jsonl` (`messages`), `preference_train.jsonl` and `preference_valid.jsonl`
(`prompt`, `chosen`, `rejected`), each row with `source` and, for pairs, `label_source`. Conversations are those that
talk, explain or define. Pairs are those that people or a judge decided; pairs derived from a question's answer are left
out, since telling them apart asks for knowledge that a small model lacks. One prompt in six of the pairs to learn from
is held out too, chosen by its hash; of these, SFT has read the dialogues that people edited, and so the better replies.
The pairs of the valid file are unseen by all stages.

SFT, reward model, PPO and the verdict are the verbs themselves; a stage that is done is not done again. Printed are the
reward model's accuracy on held-out pairs, how often the longer reply is the better one, PPO's score and KL, and wins,
ties and losses of PPO against SFT on held-out prompts. Rate and epochs of the reward model were chosen by the prompts
held out from the pairs to learn from, not by the unseen pairs.
"""

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import header
from janeox.config import LoopConfig, OptimConfig
from janeox.dialogue import read_jsonl
from janeox.settings.tune import Judge, Ppo, Reward, Sft
from janeox.tokenizer import Tokenizer
from janeox.train.metrics import read_metrics
from janeox.tune.judge import run_judge
from janeox.tune.pairs import read_pairs
from janeox.tune.ppo import run_ppo
from janeox.tune.reward import pair_margins, run_reward
from janeox.tune.reward_model import RewardModel
from janeox.tune.sft import run_sft

TALKS = {"instruction_ja": 10_000, "wiki-definition": 1500, "howto": 700, "niilc-qa": 10_000}
"""Sources of conversations, and how many of each."""
ASKED = ("instruction_ja", "wiki-definition")
"""Sources of the prompts that PPO and the verdict take."""
MAX_TOKENS = 64

optim = partial(OptimConfig, weight_decay=0.0, warmup_fraction=0.05, beta2=0.99)
loop = partial(LoopConfig, sample_every=0, save_every=10_000, log_every=5, sample_prompt="日本の首都はどこですか？")


def decided(row: dict[str, Any]) -> bool:
    return "derived" not in row["label_source"]


def held_out(row: dict[str, Any]) -> bool:
    """One prompt in six."""
    return int(hashlib.sha1(json.dumps(row["prompt"]).encode()).hexdigest(), 16) % 6 == 0


def select(source: Path, target: Path, wanted: Callable[[dict[str, Any]], bool]) -> Path:
    """Writes the rows that are wanted."""
    with target.open("w", encoding="utf-8") as file:
        for _, row in read_jsonl([source]):
            if wanted(row):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target


def talks() -> Callable[[dict[str, Any]], bool]:
    """Counts, so that of each source only the first so many are taken."""
    left = dict(TALKS)

    def wanted(row: dict[str, Any]) -> bool:
        left[row["source"]] = left.get(row["source"], 0) - 1
        return left[row["source"]] >= 0

    return wanted


def interval(right: int, number: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, right / number
    middle = share + z * z / (2 * number)
    spread = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return (middle - spread) / scale, (middle + spread) / scale


def share(right: Iterable[bool]) -> str:
    found = list(right)
    low, high = interval(sum(found), len(found))
    return f"{sum(found)}/{len(found)} = {sum(found) / len(found):.1%} (95 % interval {low:.1%} to {high:.1%})"


def report_accuracy(folder: Path, files: dict[str, Path]) -> None:
    """Of the reward model, by file of held-out pairs, over those that no stage has seen, and over all."""
    model, tokenizer = RewardModel.from_pretrained(folder, torch.float32), Tokenizer.load(folder)
    right: dict[str, list[bool]] = {}
    longer: list[bool] = []
    for name, file in files.items():
        pairs = read_pairs(tokenizer, [file], model.config.max_position_embeddings)
        right[name] = [margin > 0 for margin in pair_margins(model, pairs, tokenizer.pad_token_id or 0, 8).tolist()]
        longer += [len(pair.chosen) > len(pair.rejected) for pair in pairs]
        print(f"reward model, {name}: {share(right[name])}")
    print(f"reward model, all unseen: {share(x for name, own in right.items() if 'unseen' in name for x in own)}")
    print(f"reward model, all: {share(x for own in right.values() for x in own)}")
    print(f"the longer reply is the better one in {share(longer)}")


def report_ppo(folder: Path) -> None:
    """What PPO did to the prompts that it learned from: score, KL and length at first and over the last third."""
    rows = list({row["episode"]: row for row in read_metrics(folder / "metrics.jsonl")}.values())
    for name, some in (("first iteration", rows[:1]), ("last third", rows[-len(rows) // 3 :])):
        names = ("objective/scores", "objective/kl", "response_length", "objective/kl_coef")
        score, kl, length, kl_coef = (statistics.mean(row[name] for row in some) for name in names)
        print(f"PPO, {name}: score {score:.3f}, KL {kl:.2f}, {length:.1f} tokens a reply, β {kl_coef:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="model folder or Hub id")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    print(header())
    base, source, folder = asked.base, asked.data, asked.out
    folder.mkdir(parents=True, exist_ok=True)
    talk = select(source / "sft_train.jsonl", folder / "talks.jsonl", talks())
    prompts = select(source / "sft_train.jsonl", folder / "asked.jsonl", lambda row: row["source"] in ASKED)
    unseen = select(source / "sft_valid.jsonl", folder / "unseen.jsonl", lambda row: row["source"] in ASKED)
    pairs, unseen_pairs = source / "preference_train.jsonl", source / "preference_valid.jsonl"
    learned = select(pairs, folder / "pairs.jsonl", lambda row: decided(row) and not held_out(row))
    kinds = (
        (pairs, "human edits, dialogues of SFT", lambda row: "human" in row["label_source"] and held_out(row)),
        (pairs, "a judge's verdicts, prompts held out", lambda row: "GPT" in row["label_source"] and held_out(row)),
        (unseen_pairs, "human edits, unseen", lambda row: "human" in row["label_source"]),
        (unseen_pairs, "a judge's verdicts, unseen", lambda row: "GPT" in row["label_source"]),
    )
    valid = {
        name: select(file, folder / f"held-out-{number}.jsonl", wanted)
        for number, (file, name, wanted) in enumerate(kinds)
    }
    run_sft(
        Sft(
            out=folder / "sft", model=base, data=(talk,), max_tokens=256, batch_rows=16, micro_batch_rows=16, epochs=2,
            optim=optim(learning_rate=1e-3), train=loop(evaluate_every=10_000),
        )
    )  # fmt: skip
    sft = str(folder / "sft" / "model")
    run_reward(
        Reward(
            out=folder / "reward", model=sft, data=(learned,), valid=tuple(valid.values()), max_tokens=512,
            batch_rows=16, micro_batch_rows=8, epochs=2, optim=optim(learning_rate=1e-3), train=loop(evaluate_every=35),
        )
    )  # fmt: skip
    report_accuracy(folder / "reward" / "model", valid)
    run_ppo(
        Ppo(
            out=folder / "ppo", model=sft, data=(prompts,), reward=str(folder / "reward" / "model"), iterations=60,
            batch_rows=64, micro_batch_rows=32, num_ppo_epochs=2, max_tokens=MAX_TOKENS, kl_coef=0.2, kl_target=6.0,
            kl_horizon=640, vf_coef=0.5, optim=optim(learning_rate=2e-4, schedule="wsd"), train=loop(log_every=2),
        )
    )  # fmt: skip
    report_ppo(folder / "ppo")
    run_judge(
        Judge(
            models=(str(folder / "ppo" / "model"), sft), reward=str(folder / "reward" / "model"), data=(unseen,),
            max_tokens=MAX_TOKENS, out=folder / "judged.jsonl",
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
