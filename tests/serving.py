"""A server for the tests: a small model with random weights behind the real HTTP stack, in a thread."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import uvicorn

from janeox import LM
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.serve.app import Server
from janeox.serve.connection import uvicorn_config
from janeox.settings.serve import Serve
from janeox.tokenizer import Tokenizer


def small_lm(tokenizer: Tokenizer) -> LM:
    """Random weights with the spread of a trained model's logits."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return LM(GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval(), tokenizer)


@dataclass
class Running:
    url: str
    server: Server
    http: uvicorn.Server


@contextlib.contextmanager
def serving(lm: LM, **settings: object) -> Iterator[Running]:
    """The address of a server over `lm`, and the server itself."""
    given = Serve(port=0, shutdown_seconds=5, **settings)  # type: ignore[arg-type]
    server = Server(lm, "small", given)
    http = uvicorn.Server(uvicorn_config(server.app, given))
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    until(lambda: http.started)
    yield Running(f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}", server, http)
    http.should_exit = True
    thread.join()


def until(holds: object, seconds: float = 20.0) -> None:
    """Waits until `holds()`; fails if that does not come."""
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)
