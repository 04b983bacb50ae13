"""Speed, load time and memory on this CPU: janeox, llama.cpp, OpenVINO, CTranslate2 and transformers in turn.

    python -m benchmarks.cpu_speed FOLDER [--shape 3.6b] [--rounds 3] [--only janeox8,llama8]

FOLDER keeps the models (random weights) in every engine's format, so that a second run begins at once; 3.6b needs 30 GB
of disk. Each engine is opened in a fresh process, all in turn, round after round; a line shows medians over the rounds.
Before each, that process reads 1 GB with all threads: the bandwidth of that moment, since it changes between minutes.
Engines whose packages are not installed are named as such.

First benchmarks.rival_logits shows that all of them compute the same, at a tiny shape. `logits` says it of the weights
that are timed: |difference| / |logits| after a prompt of 32, to the first engine of the run (janeox16).
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from benchmarks import rival_files as files
from benchmarks.machine import header
from janeox.config import GPTNeoXConfig

SHAPES = {
    "134m": GPTNeoXConfig(32000, 768, 12, 12, 3072),
    "3.6b": GPTNeoXConfig(),
    # Weights so large that attention is sharp: what is wrong in a mask or rotation shows in the logits.
    "tiny": GPTNeoXConfig(512, 64, 2, 2, 256, initializer_range=0.2),
}


def gguf(kind: str) -> Callable[[Path, Path], None]:
    return lambda source, out: files.write_gguf(source, out, kind)


def packed(bits: int) -> Callable[[Path, Path], None]:
    return lambda source, out: files.write_janeox(source, out, bits)


# name: (class of benchmarks.rivals, package, file, how it is written)
ENGINES: dict[str, tuple[str, str, str, Callable[[Path, Path], None] | None]] = {
    "janeox16": ("Janeox", "janeox", "janeox16", packed(16)),
    "llama16": ("LlamaCpp", "llama_cpp", "llama16.gguf", gguf("F16")),
    "transformers16": ("Transformers", "transformers", "model", None),
    "janeox8": ("Janeox", "janeox", "janeox8", packed(8)),
    "llama8": ("LlamaCpp", "llama_cpp", "llama8.gguf", gguf("Q8_0")),
    "openvino8": ("OpenVINO", "openvino", "openvino8.xml", files.write_openvino),
    "ctranslate8": ("CTranslate2", "ctranslate2", "ctranslate8", files.write_ctranslate2),
    "janeox4": ("Janeox", "janeox", "janeox4", packed(4)),
    "llama4": ("LlamaCpp", "llama_cpp", "llama4.gguf", gguf("Q4_0")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="134m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="steps of a measurement")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prefill")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(ENGINES), help="engines, with commas")
    parser.add_argument("--write", action="store_true", help="only write the files")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / options.shape
    if options.child:
        print(json.dumps(measure(options.child, folder, options)))
        return
    names = [name for name in options.only.split(",") if name and installed(name)]
    write_missing(folder, SHAPES[options.shape], names)
    if options.write:
        return
    print(header())
    logits = [sys.executable, "-m", "benchmarks.rival_logits", str(options.folder), "--only", ",".join(names)]
    subprocess.run(logits, check=True)
    print(
        f"{options.shape}, random weights, {options.threads} threads; prompts of 32 tokens, prefill of {options.prompt}"
    )
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    expected: list[float] = []
    for _ in range(options.rounds):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.cpu_speed", *sys.argv[1:], "--child", name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            measured = json.loads(done.stdout.splitlines()[-1])
            expected = expected or measured["logits"]
            results[name].append(measured | {"logits": relative(measured["logits"], expected)})
            figures = ", ".join(f"{key} {value:.3g}" for key, value in results[name][-1].items())
            print(f"{name}: {figures}", file=sys.stderr, flush=True)
    report(results)


def installed(name: str) -> bool:
    found = importlib.util.find_spec(ENGINES[name][1]) is not None
    if not found:
        print(f"{name}: not installed")
    return found


def write_missing(folder: Path, config: GPTNeoXConfig, names: list[str]) -> None:
    if not (folder / "model").exists():
        files.write_random_model(config, folder / "model")
    for name in names:
        _, _, file, write = ENGINES[name]
        if write and not (folder / file).exists():
            start = time.perf_counter()
            write(folder / "model", folder / file)
            print(f"wrote {file} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float | list[float]]:
    from benchmarks import rivals
    from janeox.engine.limits import read_bandwidth

    kind, package, file, _ = ENGINES[name]
    importlib.import_module(package)
    bandwidth = read_bandwidth(options.threads)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again, without the memory just read
    start = time.perf_counter()
    engine = getattr(rivals, kind)(folder / file, options.threads)
    engine.prefill([7, 8, 9, 10])
    load = time.perf_counter() - start
    prompt = [number % 500 for number in range(options.prompt)]
    measured: dict[str, float | list[float]] = {
        "load s": load,
        "batch 1": 1 / engine.decode([prompt[:32]], options.steps),
        "batch 8": 8 / engine.decode([prompt[row : row + 32] for row in range(8)], options.steps),
        "prefill": options.prompt / engine.prefill(prompt),
        "peak GB": resident(),
        "GB/s": bandwidth,
    }
    return measured | {"logits": engine.logits([prompt[:32]], [[]])[0, 0].tolist()}


def relative(found: ArrayLike, expected: ArrayLike) -> float:
    """|difference| / |expected|."""
    return float(np.linalg.norm(np.subtract(found, expected)) / np.linalg.norm(expected))


def resident() -> float:
    """The largest resident size of this process, in GB; mapped files count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def report(results: dict[str, list[dict[str, float]]]) -> None:
    medians = {
        name: {key: statistics.median(round[key] for round in rounds) for key in rounds[0]}
        for name, rounds in results.items()
    }
    columns = ("batch 1", "batch 8", "prefill", "load s", "peak GB", "GB/s", "logits")
    print(f"{'tokens/s':<16}" + "".join(f"{column:>10}" for column in columns))
    for name, row in medians.items():
        print(f"{name:<16}" + "".join(f"{row[column]:>10.2f}" for column in columns[:-1]) + f"{row['logits']:>10.2g}")
    print("\nratios to the engines of the same bits (median of the rounds' ratios; lowest, highest)")
    for name in medians:
        for other in medians:
            if name.startswith("janeox") and other != name and other[-1] == name[-1]:
                parts = []
                for column in columns[:3]:
                    ratios = [a[column] / b[column] for a, b in zip(results[name], results[other], strict=True)]
                    parts.append(f"{column} {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")
                print(f"{name} / {other}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
