"""One text at a time on this CPU: engines of `benchmarks.cpu_speed` that are open at once and take turns by the second.

    python -m benchmarks.batch_one FOLDER [--shape 3.6b] [--engines janeox8,llama8] [--rounds 20]

What a memory gives changes within seconds on a shared machine. So each engine has a process of its own, all stay open
(as much memory is needed), and in a round each makes a few steps, in an order that changes from round to round. The
memory's bandwidth is measured in each round too: by all threads, over 1 GB, in pages of 2 MB. FOLDER is filled by
benchmarks.cpu_speed.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cpu_speed import ENGINES, SHAPES
from benchmarks.machine import header

PROMPT = [number % 500 for number in range(32)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="3.6b")
    parser.add_argument("--engines", default="janeox8,llama8", help="with commas; the first is held against the others")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8, help="of an engine in a round; their median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    print(header())
    names = [*options.engines.split(","), "memory"]
    children = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.batch_one", *sys.argv[1:], "--serve", name]
        children[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ask(children[name])  # opened, and warm
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds):
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        rounds.append({name: ask(children[name]) for name in order})
        print(" ".join(f"{name} {rounds[-1][name]:.2f}" for name in names), file=sys.stderr, flush=True)
    for child in children.values():
        child.communicate()
    first, *others = names[:-1]
    print(f"{options.shape}, {options.threads} threads, one text; {options.rounds} rounds: median (lowest, highest)")
    for name in names:
        print(f"{name:<16}{spread([one[name] for one in rounds])} {'GB/s' if name == 'memory' else 'tokens/s'}")
    for other in others:
        print(f"{first} / {other}: {spread([one[first] / one[other] for one in rounds])}")


def ask(child: subprocess.Popen[str]) -> float:
    assert child.stdin is not None and child.stdout is not None
    print("go", file=child.stdin, flush=True)
    return float(json.loads(child.stdout.readline()))


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def serve(options: argparse.Namespace) -> None:
    """Answers each line of standard input with a measurement."""
    if options.serve == "memory":
        from janeox.engine.limits import read_bandwidth

        measure = lambda: read_bandwidth(options.threads)  # noqa: E731
    else:
        from benchmarks import rivals

        kind, _, file, _ = ENGINES[options.serve]
        engine = getattr(rivals, kind)(options.folder / options.shape / file, options.threads)
        measure = lambda: 1 / engine.decode([PROMPT], options.steps)  # noqa: E731
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
