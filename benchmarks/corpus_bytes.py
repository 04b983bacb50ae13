"""Raw files → corpus, report, tokenizer and shards in one command, in several ways: the same bytes?

    python -m benchmarks.corpus_bytes DATA OUT [--ways one two killed ray] [--kills 4] [--longest 120] [--seed 0]

DATA holds `cc100/`, `mc4/` and `wiki/`, raw. `janeox run RECIPE --until shards` is done with one worker; with two; with
two and kill -9 at random moments, until a call comes to its end; and with datatrove's Ray executor in place of the
first step. Compared are the SHA-256 of all files of all results in the folder OUT, also of ways done there before.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import tomli_w

from benchmarks.machine import header

ROOT = Path(__file__).parent.parent
WAYS = ("one", "two", "killed", "ray")
RAY = """
import os, sys
from pathlib import Path
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
from janeox.corpus.cluster import clean_on
from janeox.recipe import read_recipe
from janeox.settings.corpus import Clean
settings = read_recipe(Clean, Path(sys.argv[1]))
clean_on("ray", settings.corpus, Path(sys.argv[2]) / "corpus", tasks=4, cpus_per_task=1, mem_per_cpu_gb=1)
"""


def recipe(data: Path, out: Path) -> Path:
    """recipes/small.toml over these raw files, with every kind of repetition looked for."""
    table = tomllib.loads((ROOT / "recipes/small.toml").read_text(encoding="utf-8"))
    table["corpus"]["sources"] = {name: str(data / name) for name in ("cc100", "mc4", "wiki")}
    table["corpus"]["repeated_lines"] = 60
    out.write_text(tomli_w.dumps(table), encoding="utf-8")
    return out


def command(recipe: Path, out: Path, workers: int, verb: str = "run") -> list[str]:
    more = ["--until", "shards"] if verb == "run" else []
    workers_given = [f"corpus.workers={workers}"] if verb == "run" else []
    return [sys.executable, "-m", "janeox.cli", verb, str(recipe), *workers_given, "--out", str(out), *more]


def timed(name: str, *calls: list[str]) -> float:
    started, before = time.monotonic(), os.times()
    for call in calls:
        done = subprocess.run(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(call)}\n{done.stderr[-3000:]}")
    seconds, after = time.monotonic() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{name:28} {seconds:7.0f} s, {cpu:7.0f} s of CPU", flush=True)
    return seconds


def killed(call: list[str], kills: int, seed: int, longest: float) -> None:
    """Begins the command `kills` times and kills it at a moment drawn from `longest` seconds."""
    draw = random.Random(seed)
    for number in range(kills):
        process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        delay = draw.uniform(0, longest)
        try:
            code = process.wait(delay)
            print(f"  call {number + 1} came to its end before its kill at {delay:.1f} s (exit {code})", flush=True)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"  call {number + 1} killed after {delay:.1f} s", flush=True)


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of every file of a run, in the order of their names."""
    paths = sorted(path for part in ("corpus", "tokenizer", "shards") for path in (folder / part).rglob("*"))
    only_the_verb = folder / "tokenizer/report.json"  # `train-tokenizer` writes it, `run` does not
    paths = [path for path in paths if path.is_file() and path != only_the_verb]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--longest", type=float, default=120, help="seconds: about what two workers take")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(header(), "\n")
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = recipe(options.data.resolve(), folder / "recipe.toml")
    for way in options.ways:
        out = folder / way
        if way == "ray":
            steps = [command(given, out, 0, verb) for verb in ("train-tokenizer", "tokenize")]
            timed("Ray, then the other verbs", [sys.executable, "-c", RAY, str(given), str(out)], *steps)
            continue
        call = command(given, out, 1 if way == "one" else 2)
        if way == "killed":
            killed(call, options.kills, options.seed, options.longest)
        timed({"one": "one worker", "two": "two workers", "killed": "two workers, the last call"}[way], call)
    found = {way: digests(folder / way) for way in WAYS if (folder / way / "shards").exists()}
    first, *others = found.values()
    print(f"{len(first)} files, {sum(size for _, size in first.values()) / 1e6:,.1f} MB; SHA-256 over their SHA-256:")
    for name, those in found.items():
        whole = hashlib.sha256(repr([digest for digest, _ in those.values()]).encode()).hexdigest()
        differing = [path for path in those.keys() | first.keys() if those.get(path) != first.get(path)]
        print(f"  {name:8} {whole}  {'the same' if not differing else f'DIFFERS: {sorted(differing)[:5]}'}")
    sys.exit(any(those != first for those in others))


if __name__ == "__main__":
    main()
