"""Servers and crowds of streaming clients, for benchmarks.serving and benchmarks.serving_soak."""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
            process.wait(60)


class Reply(NamedTuple):
    text: str
    prompt_tokens: int
    tokens: int
    """As the server counts them."""
    first: float
    """Seconds to the first text."""


async def stream(
    http: aiohttp.ClientSession, url: str, body: dict[str, Any], leave_after: int | None = None
) -> Reply | None:
    """Asks for a completion in parts; with `leave_after`, goes away after so many parts and returns None."""
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    start, first, text, usage, parts = time.perf_counter(), 0.0, [], None, 0
    async with http.post(f"{url}/v1/completions", json=asked) as answer:
        if answer.status != 200:
            raise SystemExit(f"{url}: {answer.status} {(await answer.text())[:300]}")
        async for line in answer.content:
            if leave_after is not None and parts == leave_after:
                answer.close()
                return None
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            if "error" in part:
                raise SystemExit(f"{url}: {part['error']}")
            usage = part.get("usage") or usage
            if part["choices"] and part["choices"][0].get("text"):
                first = first or time.perf_counter() - start
                text.append(part["choices"][0]["text"])
                parts += 1
    if usage is None:
        raise SystemExit(f"{url}: a stream ended without its count of tokens")
    return Reply("".join(text), usage["prompt_tokens"], usage["completion_tokens"], first)


def session(clients: int) -> aiohttp.ClientSession:
    """A connection for each client."""
    connector = aiohttp.TCPConnector(limit=clients, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=900))
