"""One client's connection: what is asked of it before there is a request, and while it takes in an answer."""

import asyncio
import json
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from janeox.serve.limits import error_object
from janeox.settings.serve import Serve

MOST = 10_000  # connections at a time, where the system lets a process have so many files
RESERVED = 100  # files for everything else


def uvicorn_config(app: ASGIApp, settings: Serve) -> uvicorn.Config:
    """How `app` is served."""
    http = partial(Connection, seconds=settings.client_seconds, most=most_connections())
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=http,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        h11_max_incomplete_event_size=65536,
    )


def most_connections() -> int:
    """How many there can be, after this process has been allowed as many files as the system lets it have."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, whose event loop has no such limit
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + RESERVED if hard == resource.RLIM_INFINITY else min(hard, MOST + RESERVED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft - RESERVED)


class Connection(H11Protocol):
    """uvicorn's connection, which on its own waits for ever for a client that does not go on.

    Args:
        seconds: how long the headers of a request may take to arrive (then 408), and how long a client may leave
            what is written to it untaken (then the connection is cut).
        most: connections at a time; more are refused with 503, while there are still files left to refuse them with.
    """

    def __init__(self, seconds: float, most: int, **given: Any):
        super().__init__(**given)
        self.seconds, self.most = seconds, most
        self._headers_due: asyncio.TimerHandle | None = None
        self._taking_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(503, "busy", f"{self.most} connections are open; try again later")
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._idle and self._headers_due is None and not self.transport.is_closing():
            self._expect_headers()

    def on_response_complete(self) -> None:
        self._stop_timers()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking_due = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking_due is not None:
            self._taking_due.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(self.seconds, self._headers_missing)

    def _headers_missing(self) -> None:
        self._headers_due = None
        if self._idle:
            self._refuse(408, "timeout", f"the request had not arrived after {self.seconds:g} s")

    def _stop_timers(self) -> None:
        for timer in (self._headers_due, self._taking_due):
            if timer is not None:
                timer.cancel()
        self._headers_due = self._taking_due = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """An answer without a request, and the end of the connection."""
        body = json.dumps(error_object(status, code, message)).encode()
        reason = {408: "Request Timeout", 503: "Service Unavailable"}[status]
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
