"""lm-evaluation-harness on our engine and on its own transformers backend: the same scores, and how much faster.

    python -m benchmarks.harness MODEL DATA --tasks jnli-1.3-0.2 … --limit 40
    python -m benchmarks.harness --random 768x12x12 DATA …

DATA is a folder with JGLUE's files. `--random` writes a model of that width, layers and heads with random weights, and
takes its tokenizer from MODEL.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig
from janeox.evaluate.harness import JaneoxLM
from janeox.evaluate.tasks_command import SLOTS, evaluate_tasks, load_tasks, require_harness, transformers_model
from janeox.lm import LM, load
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer

TASKS = (
    "jcommonsenseqa-1.1-0.2",
    "jcommonsenseqa-1.1-0.4",
    "jnli-1.3-0.2",
    "jnli-1.3-0.4",
    "jsquad-1.1-0.2",
    "jsquad-1.2-0.4",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--random", default="")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="of the harness's backend")
    options = parser.parse_args()
    require_harness()
    print(header())
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(options.model, options.random, Path(folder)) if options.random else options.model
        lm = load(model, device="cpu", dtype="float32")
        models: dict[str, Any] = {"janeox": JaneoxLM(lm.engine(SLOTS).backend, lm.tokenizer)}
        for size in options.batch_sizes:
            models[f"transformers, batch {size}"] = transformers_model(str(model), "cpu", "float32", size)
        print(f"{options.limit} questions a task, float32, medians of {options.rounds} rounds")
        columns = "".join(f"{name + ' s':>25}" for name in models)
        print(f"{'task':<24}{'score':>9}{'same':>6}{columns}{'ratio':>8}")
        for name in options.tasks:
            compare(load_tasks((name,), options.data), models, options.limit, options.rounds)


def compare(tasks: dict[str, Any], models: dict[str, Any], limit: int, rounds: int) -> None:
    """One line: the first score, whether all scores agree, seconds, and the ratio of the fastest other's to ours."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    scores = {}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            scores[name] = evaluate_tasks(model, tasks, limit)
            seconds[name].append(time.perf_counter() - start)
    ours, *theirs = scores.values()
    medians = [statistics.median(values) for values in seconds.values()]
    (task,) = ours
    first = next(iter(ours[task]["metrics"].values()))["value"]
    same = "yes" if all(other == ours for other in theirs) else "NO"
    print(
        f"{task:<24}{first:>9.4f}{same:>6}"
        + "".join(f"{median:>25.2f}" for median in medians)
        + f"{min(medians[1:]) / medians[0]:>8.2f}",
        flush=True,
    )
    for other in theirs:
        if other != ours:
            print(f"  {ours}\n  {other}")


def random_model(tokenizer: str, shape: str, folder: Path) -> Path:
    width, layers, heads = map(int, shape.split("x"))
    pieces = Tokenizer.load(tokenizer)
    config = GPTNeoXConfig(pieces.vocab_size, width, layers, heads, 4 * width)
    model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0))
    lm = LM(model, pieces)
    lm.model.save_pretrained(folder / "model")
    pieces.save(folder / "model")
    return folder / "model"


if __name__ == "__main__":
    main()
