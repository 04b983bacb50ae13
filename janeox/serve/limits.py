"""What is checked of every request before it is read: its key, its size, and that it arrives in time."""

import asyncio
import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/", "/health")  # and the page's files: what needs no key


class Limits:
    """ASGI middleware.

    Args:
        api_key: asked of every request but those for the page and for `/health`; empty for none.
    """

    def __init__(self, app: ASGIApp, api_key: str, max_body_bytes: int, client_seconds: float):
        self.app, self.max_body_bytes, self.client_seconds = app, max_body_bytes, client_seconds
        self.expected = f"Bearer {api_key}".encode() if api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        sent = headers.get(b"authorization", b"")
        free = scope["path"] in OPEN or scope["path"].startswith("/page/")
        if self.expected and not free and not hmac.compare_digest(sent, self.expected):
            await refuse(send, 401, "invalid_api_key", "send the server's key as Authorization: Bearer KEY")
            return
        body = b""
        try:
            async with asyncio.timeout(self.client_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.max_body_bytes:
                        words = f"the request is larger than {self.max_body_bytes} bytes"
                        await refuse(send, 413, "request_too_large", words)
                        return
        except TimeoutError:
            await refuse(send, 408, "timeout", f"the request had not arrived after {self.client_seconds:g} s")
            return
        held = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return held.pop() if held else await receive()

        await self.app(scope, replay, send)


async def refuse(send: Send, status: int, code: str, message: str) -> None:
    """Answers with an error object and closes the connection."""
    body = json.dumps(error_object(status, code, message)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_object(status: int, code: str, message: str, param: str | None = None) -> dict[str, object]:
    """OpenAI's form of an error."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
