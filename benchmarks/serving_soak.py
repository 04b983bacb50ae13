"""1,000 clients of a server, half of whom vanish at random moments, round after round: does anything leak or change?

    python -m benchmarks.serving_soak MODEL [--clients 1000] [--rounds 5] [--tokens 32]

First each client that will stay asks alone; that is what its answer must be. Half of them ask greedily, half with a
temperature and a seed. Then, in each round, all clients connect at once. Those that vanish do so after a random number
of parts of their answer, or as soon as their request is written. At the end of a round the server's slots and queue
must be empty; its memory and open files are shown. Ends with 1 where an answer differs, or a request fails or is left.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from benchmarks.crowd import Reply, free_port, prompts, session, started, stream
from benchmarks.machine import header
from janeox.serve.connection import most_connections


def bodies(count: int, tokens: int) -> list[dict[str, Any]]:
    sampled = [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1}]
    return [
        {"prompt": prompt, "max_tokens": tokens, "seed": number} | sampled[number // 2 % 2]
        for number, prompt in enumerate(prompts(count))
    ]


async def alone(url: str, asked: list[dict[str, Any]]) -> list[str]:
    async with session(1) as http:
        return [(await whole(http, url, body)).text for body in asked]


async def whole(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Reply:
    reply = Reply()
    await stream(http, url, body, reply)
    return reply


async def vanish(http: aiohttp.ClientSession, url: str, body: dict[str, Any], parts: int) -> None:
    """Leaves after `parts` parts of the answer; with fewer than none, as soon as the request is written."""
    if parts >= 0:
        await stream(http, url, body, Reply(), leave_after=parts)
        return
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    sent = json.dumps(body | {"stream": parts % 2 == 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
    writer.write(head.encode() + b"\r\n\r\n" + sent)
    await writer.drain()
    writer.close()


async def crowd(url: str, asked: list[dict[str, Any]], expected: list[str], chance: random.Random) -> tuple[int, int]:
    """(requests that failed, answers that differ) of the clients with even numbers; the others vanish."""
    async with session(len(asked)) as http:
        calls = [
            vanish(http, url, body, chance.randrange(-4, body["max_tokens"])) if number % 2 else whole(http, url, body)
            for number, body in enumerate(asked)
        ]
        answers = (await asyncio.gather(*calls, return_exceptions=True))[::2]
    failed = [answer for answer in answers if not isinstance(answer, Reply)]
    for answer in failed[:3]:
        print(f"failed: {answer!r}")
    differing = sum(isinstance(a, Reply) and a.text != b for a, b in zip(answers, expected, strict=True))
    return len(failed), differing


def gauges(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    rows = [line.rsplit(maxsplit=1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def state(process: "subprocess.Popen[bytes]", url: str) -> tuple[int, float, int]:
    """(texts that run or wait, MiB of memory in use, open files), once nothing runs, or after ten seconds."""
    left = 0
    for _ in range(40):
        time.sleep(0.25)
        found = gauges(url)
        left = int(found["janeox_running"] + found["janeox_waiting"])
        if not left:
            break
    time.sleep(1)
    of = Path(f"/proc/{process.pid}")
    resident = next(line for line in (of / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return left, int(resident.split()[1]) / 1024, len(list((of / "fd").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    asked = parser.parse_args()
    print(header())
    most_connections()
    wanted, chance = bodies(asked.clients, asked.tokens), random.Random(0)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bad = 0
    with started([sys.executable, "-m", "janeox.cli", "serve", asked.model, "--port", str(port)], url) as process:
        expected = asyncio.run(alone(url, wanted[::2]))
        print(f"{'round':<8}{'s':>7}{'failed':>8}{'differ':>8}{'left':>6}{'MiB':>9}{'files':>7}")
        print(f"{'alone':<8}{'':>23}{'{:>6}{:>9.1f}{:>7}'.format(*state(process, url))}")
        for number in range(1, asked.rounds + 1):
            start = time.perf_counter()
            failed, differing = asyncio.run(crowd(url, wanted, expected, chance))
            seconds = time.perf_counter() - start
            left, resident, files = state(process, url)
            print(f"{number:<8}{seconds:>7.1f}{failed:>8}{differing:>8}{left:>6}{resident:>9.1f}{files:>7}", flush=True)
            bad += failed + differing + left
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
