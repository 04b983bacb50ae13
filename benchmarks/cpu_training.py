"""Training steps on this CPU: janeox, transformers' Trainer and litgpt, in turn, each in a process of its own.

    python -m benchmarks.cpu_training [--rounds 3] [--shapes tiny-cpu 110m] [--dtypes bfloat16 float32]

The same shape, rows, micro-batch and precision for all (bfloat16 products over float32 weights, or all in float32;
AdamW, clipping). Rounds are interleaved; tokens/s is of the median step, memory is the most that the process held. The
last line is what `janeox pretrain` counts for its step beforehand, and what its process held before the model.
litgpt: pip install --no-deps litgpt lightning lightning-utilities torchmetrics
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig
from janeox.train.memory import GIB, Layout, memory

TINY = {"vocab_size": 6144, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
TINY |= {"intermediate_size": 1024, "max_position_embeddings": 512}
BASE = {"vocab_size": 32000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BASE |= {"intermediate_size": 3072, "max_position_embeddings": 2048}
SHAPES = {
    "tiny-cpu": {"shape": TINY, "length": 256, "rows": 16, "portions": 1, "steps": 6},
    "110m": {"shape": BASE, "length": 512, "rows": 4, "portions": 1, "steps": 2},
}
CONTENDERS = ("janeox", "transformers", "litgpt")


def measure(contender: str, **asked: object) -> dict | None:
    """What contenders.py says; none where it cannot run."""
    command = [sys.executable, "-m", "benchmarks.contenders", json.dumps({"contender": contender, **asked})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{contender}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    arguments = parser.parse_args()
    print(f"{header()}, {litgpt_version()}", flush=True)
    for name, dtype in itertools.product(arguments.shapes, arguments.dtypes):
        asked = SHAPES[name] | {"dtype": dtype}
        results: dict[str, list[dict]] = {contender: [] for contender in CONTENDERS}
        for _ in range(arguments.rounds):
            for contender in CONTENDERS:
                if found := measure(contender, device="cpu", **asked):
                    results[contender].append(found)
        report(f"{name}, {dtype}", asked["rows"] * asked["portions"] * asked["length"], results)
        layout = Layout(1, 1, asked["rows"], 0)
        config, accumulates = GPTNeoXConfig(**asked["shape"]), asked["portions"] > 1
        needed = memory(config, asked["length"], layout, accumulates, dtype == "bfloat16", "cpu")
        before = max(run["before"] for run in results["janeox"])
        print(f"predicted: {sum(needed.values()) / GIB:.2f} GiB and {before / GIB:.2f} of before", flush=True)


def litgpt_version() -> str:
    try:
        return f"litgpt {version('litgpt')}"
    except PackageNotFoundError:
        return "no litgpt"


def report(name: str, tokens: int, results: dict[str, list[dict]]) -> None:
    print(f"\n{name}, {tokens:,} tokens a step\n{'':<14}{'tokens/s':>10}{'of them':>9}{'GiB':>7}")
    speeds = {
        contender: tokens / statistics.median(second for run in runs for second in run["seconds"])
        for contender, runs in results.items()
        if runs
    }
    for contender, speed in speeds.items():
        held = max(run["memory"] for run in results[contender]) / GIB
        ratio = f"{speeds['janeox'] / speed:.2f}×"
        print(f"{contender:<14}{speed:>10,.0f}{ratio:>9}{held:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
