"""Servers and crowds of streaming clients, for benchmarks.serving and benchmarks.serving_soak."""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx

INSTRUCTIONS = Path(__file__).parents[1] / "data" / "instruct" / "sft.jsonl"


def prompts(count: int) -> list[str]:
    """Beginnings of 30 characters of real text, all different."""
    rows = [json.loads(line) for line in INSTRUCTIONS.read_text(encoding="utf-8").splitlines()]
    texts = [message["content"].replace("\n", " ") for row in rows for message in row["messages"]]
    found = list(dict.fromkeys(text[at : at + 30] for text in texts for at in range(0, len(text) - 30, 10)))
    if len(found) < count:
        raise SystemExit(f"{INSTRUCTIONS} gives only {len(found)} different beginnings")
    return found[:count]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def started(command: list[str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends; it answers before the block begins."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(480):
                time.sleep(0.25)
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"the server ended: {log.read().decode()[-2000:]}")
                try:
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    continue
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Reply:
    """An answer as far as it has come."""

    text: str = ""
    tokens: int = 0
    """As the server counts them; of an answer that is not finished, the parts with text."""
    first: float | None = None
    """Seconds to the first text."""
    finished: bool = False


async def stream(
    http: aiohttp.ClientSession, url: str, body: dict[str, Any], reply: Reply, leave_after: int | None = None
) -> None:
    """Asks for a completion in parts, and fills `reply`; with `leave_after`, goes away after so many parts."""
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    async with http.post(f"{url}/v1/completions", json=asked) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{url}: {answer.status} {(await answer.text())[:300]}")
        async for line in answer.content:
            if reply.tokens == leave_after:
                answer.close()
                return
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            if "error" in part:
                raise RuntimeError(f"{url}: {part['error']}")
            if part["choices"] and part["choices"][0].get("text"):
                reply.first = reply.first or time.perf_counter() - start
                reply.text += part["choices"][0]["text"]
                reply.tokens += 1
            if part.get("usage"):
                reply.tokens, reply.finished = part["usage"]["completion_tokens"], True
    if not reply.finished:
        raise RuntimeError(f"{url}: a stream ended without its count of tokens")


def session(clients: int) -> aiohttp.ClientSession:
    """A connection for each client."""
    connector = aiohttp.TCPConnector(limit=clients, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=900))
