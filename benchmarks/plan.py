"""`janeox plan --gpu here` against whole steps on this CPU, in turn, each in processes of its own.

    python -m benchmarks.plan [--rounds 3] [--shapes tiny-cpu 110m] [--dtypes bfloat16 float32] [--portions 1]

Predicted: from steps of models with some of the layers. Measured: steps of the whole model, as janeox's row in
cpu_training. Rounds are interleaved; figures are medians over the rounds, and in brackets the lowest and the highest
ratio of a round. --portions: micro-batches a step.
"""

import argparse
import itertools
import statistics

import torch

from benchmarks.cpu_training import SHAPES, measure
from benchmarks.machine import header
from janeox.config import DataConfig, GPTNeoXConfig, TrainConfig
from janeox.settings.train import Plan
from janeox.train import trial
from janeox.train.memory import GIB

STEPS = {"tiny-cpu": 40, "110m": 8}  # whole ones a round, divided by the micro-batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    parser.add_argument("--portions", type=int, default=1)
    arguments = parser.parse_args()
    print(header())
    print(f"{'':<38}{'predicted':>10}{'measured':>10}{'ratio':>7}", flush=True)
    for name, dtype in itertools.product(arguments.shapes, arguments.dtypes):
        asked = SHAPES[name] | {"dtype": dtype, "portions": arguments.portions}
        asked["steps"] = max(2, STEPS[name] // arguments.portions)
        tokens = asked["rows"] * asked["portions"] * asked["length"]
        data = DataConfig(sequence_length=asked["length"], batch_tokens=tokens, micro_batch_rows=asked["rows"])
        settings = Plan("here", model=GPTNeoXConfig(**asked["shape"]), data=data, train=TrainConfig(dtype=dtype))
        pairs: dict[str, list[tuple[float, float]]] = {"tokens/s": [], "memory, GiB": []}
        for _ in range(arguments.rounds):
            samples = trial.measure(settings, torch.device("cpu"))
            told = trial.predict(trial.whole_size(settings), samples)
            found = measure("janeox", device="cpu", **asked)
            if found is None:
                raise SystemExit("the whole step could not be measured")
            pairs["tokens/s"].append((tokens / told.median, tokens / statistics.median(found["seconds"])))
            pairs["memory, GiB"].append((told.memory / GIB, found["memory"] / GIB))
        layers = " and ".join(str(size.layers) for size in samples)
        print(f"{name}, {dtype}, {tokens:,} tokens a step, from {layers} of {settings.model.num_hidden_layers} layers")
        for figure, of in pairs.items():
            predicted, measured = (statistics.median(column) for column in zip(*of, strict=True))
            digits = ",.0f" if figure == "tokens/s" else ".2f"
            ratios = sorted(a / b for a, b in of)
            print(
                f"    {figure:<34}{predicted:>10{digits}}{measured:>10{digits}}{predicted / measured:>7.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
