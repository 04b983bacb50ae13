"""Tokens a second and time to the first text of servers over the same weights, under 1, 8, 64 and 256 clients.

    python -m benchmarks.serving FOLDER --tokenizer runs/tiny-cpu/tokenizer [--dtype bfloat16] [--llama-server PATH]
        [--clients 1 8 64 256] [--tokens 32] [--rounds 3] [--slots 64] [--seconds 30]

FOLDER keeps a model of GPT-NeoX's small shape (12 layers of width 768) with random weights and that tokenizer, in the
formats of all servers, so that a second run begins at once. janeox, `transformers serve` and llama.cpp's `llama-server`
(found on the PATH unless given) are started in turn, round after round, A B C A B C. Each client streams one completion
of a beginning of its own, greedily; the model never ends a text, so that all get --tokens tokens, as the servers count
them. A crowd that is not done after --seconds is sent home; what had come by then counts, and the column `tokens` (of a
client) shows it. transformers runs with its continuous batching (CB) and, for up to 8 clients, without: it then answers
one after the other; it has no 8 bits on a CPU.
"""

import argparse
import asyncio
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import rival_files as files
from benchmarks.crowd import Reply, free_port, prompts, session, started, stream
from benchmarks.machine import header
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer

TRANSFORMERS = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
GGUF = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "Q8_0"}
"""llama.cpp's name of each precision."""
ROOM = 256  # tokens of a slot in llama.cpp: the texts here come to less


def write_models(folder: Path, tokenizer: Tokenizer, kind: str) -> None:
    if not (folder / "model").exists():
        config = GPTNeoXConfig(tokenizer.vocab_size, 768, 12, 12, 3072)
        files.write_random_model(config, folder / "model")
        never_control(folder / "model", tokenizer)
        tokenizer.save(folder / "model")
    if not (folder / f"{kind}.gguf").exists():
        files.write_gguf(folder / "model", folder / f"{kind}.gguf", kind, tokenizer)


def never_control(folder: Path, tokenizer: Tokenizer) -> None:
    """Makes control and byte pieces, whose rows of the head become 0, less likely than the likeliest of the others."""
    model = GPTNeoX.from_pretrained(folder)
    with torch.no_grad():
        for id in range(tokenizer.vocab_size):
            if not isinstance(tokenizer.surfaces[id], str):
                model.embed_out.weight[id] = 0
    model.save_pretrained(folder, dtype=torch.float16)


def commands(folder: Path, dtype: str, port: int, slots: int, llama_server: str | None) -> dict[str, list[str]]:
    model, at = str(folder / "model"), ["--port", str(port)]
    precision = ["--bits", "8"] if dtype == "int8" else ["--dtype", dtype]
    found = {"janeox": [sys.executable, "-m", "janeox.cli", "serve", model, "--slots", str(slots), *precision]}
    found["janeox"] += ["--name", model, *at]
    if dtype != "int8":
        theirs = ["serve", model, "--device", "cpu", "--dtype", dtype, *at]
        found["transformers"] = [sys.executable, "-c", TRANSFORMERS, *theirs]
        found["transformers CB"] = [*found["transformers"], "--continuous-batching"]
    if llama_server:
        found[f"llama.cpp {GGUF[dtype]}"] = [
            llama_server, "-m", str(folder / f"{GGUF[dtype]}.gguf"), *at, "-np", str(slots), "-c", str(slots * ROOM),
            "--threads-http", str(slots + 8),
        ]  # fmt: skip
    return found


async def crowd(
    url: str, model: str, beginnings: list[str], tokens: int, limit: float | None = None
) -> tuple[float, float, float]:
    """Tokens a second over all clients, the median seconds to the first text, and tokens of a client."""
    body = {"model": model, "max_tokens": tokens, "temperature": 0}
    replies = [Reply() for _ in beginnings]
    async with session(len(beginnings)) as http:
        start = time.perf_counter()
        calls = [
            asyncio.create_task(stream(http, url, body | {"prompt": text}, reply))
            for text, reply in zip(beginnings, replies, strict=True)
        ]
        done, late = await asyncio.wait(calls, timeout=limit)
        seconds = time.perf_counter() - start
        for call in late:
            call.cancel()
        for call in done:
            call.result()
    counts = [reply.tokens for reply in replies]
    first = statistics.median(math.inf if reply.first is None else reply.first for reply in replies)
    return sum(counts) / seconds, first, statistics.mean(counts)


def measure(
    command: list[str], url: str, beginnings: list[str], crowds: list[int], asked: argparse.Namespace
) -> Iterator[tuple[int, tuple[float, float, float]]]:
    """(clients, figures of their crowd) of one server. It is started again after a crowd that it did not finish."""
    model, left = str(asked.folder / "model"), list(crowds)
    while left:
        with started(command, url):
            asyncio.run(crowd(url, model, beginnings[-1:], 4))  # whatever is done once is done now
            whole = True
            while left and whole:
                clients = left.pop(0)
                figures = asyncio.run(crowd(url, model, beginnings[:clients], asked.tokens, asked.seconds))
                whole = figures[2] >= asked.tokens
                yield clients, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--dtype", choices=GGUF, default="bfloat16")
    parser.add_argument("--llama-server", default=shutil.which("llama-server"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", nargs="+", help="servers")
    asked = parser.parse_args()
    write_models(asked.folder, Tokenizer.load(asked.tokenizer), GGUF[asked.dtype])
    print(header())
    if asked.llama_server:
        told = subprocess.run([asked.llama_server, "--version"], capture_output=True, text=True)
        print(f"llama-server {(told.stdout + told.stderr).split('version: ')[-1].splitlines()[0]}")
    else:
        print("llama-server: not installed")
    beginnings = prompts(max(asked.clients))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for _ in range(asked.rounds):
        for name, command in commands(asked.folder, asked.dtype, port, asked.slots, asked.llama_server).items():
            if asked.only and name not in asked.only:
                continue
            crowds = [clients for clients in asked.clients if name != "transformers" or clients <= 8]
            for clients, figures in measure(command, url, beginnings, crowds, asked):
                found.setdefault((name, clients), []).append(figures)
                print(f"{name}, {clients}: {figures[0]:.1f} tokens/s, {figures[1]:.3f} s", file=sys.stderr)
    report(found, asked.dtype, asked.rounds)


def report(found: dict[tuple[str, int], list[tuple[float, float, float]]], dtype: str, rounds: int) -> None:
    print(f"{dtype}, medians of {rounds} rounds; the ratio is the median of the rounds' ratios")
    print(f"{'server':<18}{'clients':>8}{'tokens/s':>10}{'first s':>9}{'tokens':>8}{'janeox/it':>11}")
    for (name, clients), figures in sorted(found.items(), key=lambda item: item[0][1]):
        rate, first, tokens = (statistics.median(values) for values in zip(*figures, strict=True))
        ours = found.get(("janeox", clients), figures)
        ratio = statistics.median(mine[0] / max(its[0], 1e-9) for mine, its in zip(ours, figures, strict=True))
        print(f"{name:<18}{clients:>8}{rate:>10.1f}{first:>9.3f}{tokens:>8.1f}{ratio:>11.2f}")


if __name__ == "__main__":
    main()
