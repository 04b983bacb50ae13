"""Tokens a second and time to the first token of servers over the same weights, under 1, 8, 64 and 256 clients.

python -m benchmarks.serving MODEL [--clients 1 8 64 256] [--tokens 64] [--rounds 3] [--slots 64]
    [--other NAME=URL]

Each client streams one completion: greedy, at most --tokens tokens (the chunks of text that came are counted, not
assumed). janeox and `transformers serve` are started here, one at a
time, and measured in turn, A B A B. --other names a server that runs already, such as llama.cpp's, at its /v1.
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from benchmarks.machine import header

PROMPT = "西田幾多郎は、京都の"
TRANSFORMERS = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"


def commands(model: str, port: int, slots: int) -> dict[str, list[str]]:
    at = ["--port", str(port)]
    serve = ["serve", model, "--slots", str(slots), "--name", "served", *at]
    theirs = ["serve", model, "--continuous-batching", "--device", "cpu", *at]
    return {
        "janeox": [sys.executable, "-m", "janeox.cli", *serve],
        "transformers": [sys.executable, "-c", TRANSFORMERS, *theirs],
    }


@contextmanager
def started(command: list[str], url: str) -> Iterator[None]:
    """Runs a server until the block ends; it has answered once before the block begins."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(240):
                time.sleep(0.5)
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"the server ended: {log.read().decode()[-2000:]}")
                try:
                    httpx.get(f"{url}/models")
                    break
                except httpx.TransportError:
                    continue
            yield
        finally:
            process.terminate()
            process.wait(60)


async def client(http: httpx.AsyncClient, url: str, model: str, tokens: int) -> tuple[int, float]:
    """(tokens received, seconds to the first)."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True}
    start, first, count = time.perf_counter(), 0.0, 0
    async with http.stream("POST", f"{url}/completions", json=body) as answer:
        if answer.status_code != 200:
            raise SystemExit(f"{url}: {answer.status_code} {(await answer.aread()).decode()[:300]}")
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and (json.loads(line[6:]).get("choices") or [{}])[0].get("text"):
                first = first or time.perf_counter() - start
                count += 1
    return count, first


async def crowd(url: str, model: str, clients: int, tokens: int) -> tuple[float, float]:
    """Chunks with text a second over all clients, and the median seconds to the first."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http:
        await client(http, url, model, 4)  # whatever is done once is done now
        start = time.perf_counter()
        found = await asyncio.gather(*(client(http, url, model, tokens) for _ in range(clients)))
        seconds = time.perf_counter() - start
    return sum(count for count, _ in found) / seconds, statistics.median(first for _, first in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--other", action="append", default=[])
    asked = parser.parse_args()
    print(header())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}/v1"
    speeds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(asked.rounds):
        for name, command in commands(asked.model, port, asked.slots).items():
            with started(command, url):
                for clients in asked.clients:
                    served = "served" if name == "janeox" else asked.model
                    found = asyncio.run(crowd(url, served, clients, asked.tokens))
                    speeds.setdefault((name, clients), []).append(found)
        for other in asked.other:
            name, _, address = other.partition("=")
            for clients in asked.clients:
                found = asyncio.run(crowd(address, name, clients, asked.tokens))
                speeds.setdefault((name, clients), []).append(found)
    print(f"{'server':<14}{'clients':>8}{'chunks/s':>10}{'first s':>9}{'janeox/it':>11}")
    for (name, clients), rounds in sorted(speeds.items(), key=lambda item: item[0][1]):
        rate, first = (statistics.median(values) for values in zip(*rounds, strict=True))
        ours = statistics.median(rate for rate, _ in speeds["janeox", clients])
        print(f"{name:<14}{clients:>8}{rate:>10.1f}{first:>9.3f}{ours / rate:>11.2f}")


if __name__ == "__main__":
    main()
