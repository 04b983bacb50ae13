"""Raw files → corpus, report, tokenizer and shards in one command, in several ways: the same bytes?

    python -m benchmarks.corpus_bytes DATA [--kills 5] [--seed 0]

DATA holds `cc100/`, `mc4/` and `wiki/`, raw. `janeox run RECIPE --until shards` is done with one worker; with two; with
two and kill -9 at random moments, until a call comes to its end; and with datatrove's Ray executor in place of the
first step. Compared are the SHA-256 of all files of the results.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from benchmarks.machine import header

ROOT = Path(__file__).parent.parent
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
    """Begins the command `kills` times and kills it at a moment drawn from the time that it takes undisturbed."""
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


def digests(folder: Path) -> dict[str, str]:
    return dict(sorted(_digests(folder)))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for part in ("corpus", "tokenizer", "shards"):
        for path in (folder / part).rglob("*"):
            if path.is_file():
                yield str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the results; else they are removed")
    options = parser.parse_args()
    print(header(), "\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        given = recipe(options.data.resolve(), folder / "recipe.toml")
        timed("one worker", command(given, folder / "one", 1))
        two = timed("two workers", command(given, folder / "two", 2))
        killed(command(given, folder / "killed", 2), options.kills, options.seed, two)
        timed("two workers, the last call", command(given, folder / "killed", 2))
        ray = folder / "ray"
        steps = [command(given, ray, 0, verb) for verb in ("train-tokenizer", "tokenize")]
        timed("Ray, then the other verbs", [sys.executable, "-c", RAY, str(given), str(ray)], *steps)
        found = {name: digests(folder / name) for name in ("one", "two", "killed", "ray")}
    size = len(found["one"])
    print(f"{size} files; SHA-256 over their SHA-256:")
    for name, those in found.items():
        whole = hashlib.sha256(repr(those).encode()).hexdigest()
        differing = [path for path in those.keys() | found["one"].keys() if those.get(path) != found["one"].get(path)]
        print(f"  {name:8} {whole}  {'the same' if not differing else f'DIFFERS: {sorted(differing)[:5]}'}")
    sys.exit(any(those != found["one"] for those in found.values()))


if __name__ == "__main__":
    main()
