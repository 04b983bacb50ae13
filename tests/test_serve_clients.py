"""Clients that are slow, that leave, and that are many: the others get their answers."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

from janeox.serve import connection
from serving import serving, small_lm, until

PROMPT = "吾輩は猫である。"
LONG = {"prompt": PROMPT, "max_tokens": 200, "min_tokens": 200}


@pytest.fixture(scope="module")
def lm(tokenizer):
    return small_lm(tokenizer)


def slowed(running, monkeypatch, seconds):
    """Makes each step of the server take so long."""
    backend = running.server.worker.engine.backend
    forward = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *given: time.sleep(seconds) or forward(*given))


def connected(running):
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def request(body):
    sent = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent


def everything(client):
    """What comes until the server closes."""
    found = b""
    while part := client.recv(65536):
        found += part
    return found


def free(running):
    worker = running.server.worker
    return worker.num_running == worker.num_waiting == 0 and worker.engine.idle


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_is_gone_before_its_answer_begins_ends_its_text(lm, monkeypatch, stream):
    arrivals = [{"type": "http.request", "body": json.dumps(LONG | {"stream": stream}).encode()}]

    async def receive():
        return arrivals.pop() if arrivals else {"type": "http.disconnect"}

    async def send(message):
        await asyncio.sleep(0)  # the parts of a stream are not asked for before its head is sent

    with serving(lm, slots=1) as running:
        slowed(running, monkeypatch, 0.05)  # all of the text would take ten seconds
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": "/v1/completions", "raw_path": b"", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1), "server": ("x", 1),
        }  # fmt: skip
        call = running.server.app(scope, receive, send)
        asyncio.run_coroutine_threadsafe(call, running.server.worker._loop).result(20)
        until(lambda: free(running), 5)
        assert 'outcome="cut short"} 1.0' in httpx.get(f"{running.url}/metrics").text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(lm, monkeypatch, stream):
    with serving(lm, slots=1) as running:
        slowed(running, monkeypatch, 0.05)
        with connected(running) as client:
            client.sendall(request(LONG | {"stream": stream}))
            until(lambda: running.server.worker.num_running == 1)
        until(lambda: free(running), 5)


def test_headers_must_arrive_in_time_and_others_do_not_wait_for_them(lm, monkeypatch):
    with serving(lm, client_seconds=0.5) as running, contextlib.ExitStack() as clients:
        silent, kept, dribbling, half = (clients.enter_context(connected(running)) for _ in range(4))
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in kept.recv(1000)
        kept.sendall(b"GET /health HTTP/1.1\r\n")  # the second request of a connection has no more time than the first
        half.sendall(request(LONG)[:-5])

        def dribble():
            with contextlib.suppress(OSError):
                for letter in b"GET /health HTTP/1.1\r\nX: " + b"x" * 1000:
                    dribbling.sendall(bytes([letter]))
                    time.sleep(0.02)

        threading.Thread(target=dribble, daemon=True).start()
        slowed(running, monkeypatch, 0.02)
        body = {"prompt": PROMPT, "max_tokens": 50, "min_tokens": 50, "temperature": 0}
        answer = httpx.post(f"{running.url}/v1/completions", json=body, timeout=30)  # takes longer than the limit
        assert answer.json()["usage"]["completion_tokens"] == 50
        for slow in (silent, kept, dribbling, half):
            assert b"408" in everything(slow)
        until(lambda: not running.http.server_state.connections)


def test_a_client_that_does_not_read_is_cut_off(lm):
    with serving(lm, client_seconds=0.5) as running:
        for listening in running.http.servers[0].sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with connected(running) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(request(LONG | {"stream": True, "n": 4, "logprobs": 5}))
            until(lambda: running.http.server_state.connections)
            until(lambda: not running.http.server_state.connections)
            found = everything(deaf)
            assert found.startswith(b"HTTP/1.1 200") and b"[DONE]" not in found
        until(lambda: free(running))


def test_connections_past_the_most_are_refused(lm, monkeypatch):
    monkeypatch.setattr(connection, "most_connections", lambda: 2)
    with serving(lm) as running:
        with connected(running), connected(running):
            until(lambda: len(running.http.server_state.connections) == 2)
            with connected(running) as third:
                assert b"503" in everything(third)
        until(lambda: not running.http.server_state.connections)
        assert httpx.get(f"{running.url}/health").status_code == 200


def test_a_full_queue_is_said_so_and_clients_that_leave_free_their_slots(lm):
    with serving(lm, slots=1, waiting=2) as running:
        url = f"{running.url}/v1/completions"
        long = {"prompt": PROMPT, "max_tokens": 200, "min_tokens": 200, "stream": True}
        with httpx.Client() as http:
            streams = []
            for _ in range(3):
                stream = http.stream("POST", url, json=long)
                assert stream.__enter__().status_code == 200
                streams.append(stream)
                until(lambda: running.server.worker.num_running == 1)  # else the first takes a waiting place too
            if running.server.worker.num_waiting == 2:
                assert httpx.post(url, json={"prompt": PROMPT}).status_code == 429
            for stream in streams:
                stream.__exit__(None, None, None)
        until(lambda: running.server.worker.num_running == running.server.worker.num_waiting == 0)
        assert httpx.post(url, json={"prompt": PROMPT, "max_tokens": 3}).status_code == 200


def test_half_of_the_clients_vanish_and_the_others_get_their_answers(lm):
    async def client(http, url, number):
        body = {"prompt": PROMPT, "max_tokens": 20, "temperature": 0, "stream": True}
        text = ""
        async with http.stream("POST", url, json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if number % 2 and len(text) > number % 7:
                    return None
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        return text

    async def crowd(url):
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(timeout=60, limits=limits) as http:
            return await asyncio.gather(*(client(http, url, number) for number in range(120)))

    with serving(lm, slots=6) as running:
        texts = asyncio.run(crowd(f"{running.url}/v1/completions"))
        expected = lm.generate(PROMPT, max_new_tokens=20, temperature=0)
        assert {text for text in texts[::2]} == {expected}
        worker = running.server.worker
        until(lambda: worker.num_running == worker.num_waiting == 0)
        assert worker.engine.idle and not worker.engine._writers
