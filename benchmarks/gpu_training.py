"""Training steps on one GPU: janeox, the same with train.fp8, and transformers' Trainer in turn.

    python -m benchmarks.gpu_training [--rounds 3] [--shapes 3.6b 110m] [--toy]

Not run yet: no GPU was at hand when it was written. --toy runs the same code at a tiny shape on the CPU, which says
that the code runs and nothing about speed. Memory stands beside what `janeox plan` predicts. MFU counts 6N + 12·L·C·T
operations a token against the card's data sheet.
"""

import argparse
import statistics

import torch

from benchmarks.cpu_training import BASE, TINY, measure
from benchmarks.machine import header
from janeox.config import GPTNeoXConfig
from janeox.device import device_memory
from janeox.train.cost import flops_per_token, peak_flops
from janeox.train.memory import Layout, memory

SHAPES = {
    "3.6b": {"shape": {}, "length": 2048, "rows": 2, "portions": 8, "recompute": 11, "steps": 4},
    "110m": {"shape": BASE, "length": 2048, "rows": 16, "portions": 2, "recompute": 0, "steps": 10},
}
TOY = {"toy": {"shape": TINY, "length": 64, "rows": 2, "portions": 2, "recompute": 1, "steps": 1}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    if not arguments.toy and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --toy runs the code on the CPU")
    device = torch.device("cpu" if arguments.toy else "cuda")
    print(header())
    print("CPU" if arguments.toy else torch.cuda.get_device_name(device), f"{device_memory(device) / 2**30:.1f} GiB")
    for name, asked in (TOY if arguments.toy else {name: SHAPES[name] for name in arguments.shapes}).items():
        config = GPTNeoXConfig(**asked["shape"])
        tokens = asked["rows"] * asked["portions"] * asked["length"]
        flops, peak = flops_per_token(config, asked["length"]), peak_flops(device)
        seconds: dict[str, list[float]] = {"janeox": [], "janeox, fp8": [], "transformers": []}
        held = dict.fromkeys(seconds, 0)
        for _ in range(arguments.rounds):
            for contender in seconds:
                who, _, fp8 = contender.partition(", ")
                if found := measure(who, device=device.type, dtype="bfloat16", fp8=bool(fp8), **asked):
                    seconds[contender] += found["seconds"]
                    held[contender] = max(held[contender], found["memory"])
        print(f"\n{name}\n{'':<14}{'tokens/s':>10}{'MFU':>8}{'GiB':>8}")
        for contender, times in seconds.items():
            if times:
                speed = tokens / statistics.median(times)
                mfu = f"{speed * flops / peak:.1%}" if peak else "–"
                print(f"{contender:<14}{speed:>10,.0f}{mfu:>8}{held[contender] / 2**30:>8.2f}")
        layout = Layout(1, 1, asked["rows"], asked["recompute"])
        predicted = memory(config, asked["length"], layout, asked["portions"] > 1, True, device.type)
        print(f"janeox plan predicts {sum(predicted.values()) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
