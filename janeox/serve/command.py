"""The verb `serve`."""

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from janeox.errors import JaneoxError
from janeox.lm import load, newest_model
from janeox.settings.serve import Serve


def run_serve(settings: Serve) -> None:
    """Opens the model and serves it until SIGINT or SIGTERM; what runs then is finished, what comes is refused."""
    try:
        import uvicorn

        from janeox.serve.app import Server
        from janeox.serve.connection import uvicorn_config
    except ModuleNotFoundError as error:
        raise JaneoxError(
            f"{error.name} is not installed, and serving needs it: pip install 'janeox[serve]'"
        ) from error
    settings = replace(settings, api_key=settings.api_key or os.environ.get("JANEOX_API_KEY", ""))
    listener = bound(settings.host, settings.port)  # before a large model is opened for nothing
    model = settings.model or str(newest_model())
    lm = load(model, device=settings.device, dtype=settings.dtype, bits=settings.bits, use_mmap=settings.use_mmap)
    folder = Path(model)
    name = settings.name or (folder.resolve().name if folder.is_dir() else model)
    server = Server(lm, name, settings)
    address = f"http://{'localhost' if settings.host in ('127.0.0.1', '0.0.0.0') else settings.host}:{settings.port}"
    print(f"{name}: a page at {address}/, OpenAI's interface at {address}/v1", file=sys.stderr)
    uvicorn.Server(uvicorn_config(server.app, settings)).run([listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket of that address, which does not listen yet.

    Raises:
        JaneoxError: another program has the address, or it is none of this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise JaneoxError(f"{host}:{port}: cannot be served on ({error.strerror}); name another --port") from error
    return listener
