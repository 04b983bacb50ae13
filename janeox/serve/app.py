"""The server's endpoints: OpenAI's, and those for tokens, health and metrics."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from janeox.config import SamplingConfig
from janeox.errors import JaneoxError
from janeox.lm import LM
from janeox.serve.answers import Answer, piece
from janeox.serve.limits import Limits, error_object
from janeox.serve.metrics import Metrics
from janeox.serve.protocol import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from janeox.serve.worker import Busy, Event, Job, Worker
from janeox.settings.serve import Serve

PAGE = Path(__file__).parent / "page"
# The page loads nothing from elsewhere, and no other page may put it in a frame.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Server:
    """A model behind its endpoints; `app` is the ASGI application."""

    def __init__(self, lm: LM, name: str, settings: Serve):
        self.lm, self.name, self.settings = lm, name, settings
        self.worker = Worker(lm.engine(settings.slots), settings.waiting)
        self.context = self.worker.engine.backend.capacity
        self.metrics = Metrics(self.worker)
        self.created = int(time.time())
        self.app = FastAPI(title="janeox", lifespan=self._lifespan, docs_url=None, redoc_url=None)
        self._routes()
        self.app.add_exception_handler(RequestValidationError, _invalid)
        self.app.add_exception_handler(StarletteHTTPException, _refused)
        self.app.mount("/page", StaticFiles(directory=PAGE))
        if settings.allow_origin:
            headers = ["Authorization", "Content-Type"]
            self.app.add_middleware(
                CORSMiddleware, allow_origins=list(settings.allow_origin), allow_methods=["*"], allow_headers=headers
            )
        self.app.add_middleware(
            Limits,
            api_key=settings.api_key,
            max_body_bytes=settings.max_body_bytes,
            client_seconds=settings.client_seconds,
        )

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        yield
        await asyncio.to_thread(self.worker.stop)

    def _routes(self) -> None:
        app = self.app
        errors: dict[int | str, dict[str, Any]] = {
            status: {"description": "an error object"} for status in (400, 401, 404, 408, 413, 429)
        }
        app.get("/", include_in_schema=False)(self.page)
        app.get("/health")(self.health)
        app.get("/metrics", responses=errors)(self.show_metrics)
        app.get("/v1/models", responses=errors)(self.models)
        app.get("/v1/models/{model:path}", responses=errors)(self.model)
        app.post("/v1/completions", responses=errors)(self.completions)
        app.post("/v1/chat/completions", responses=errors)(self.chat)
        app.post("/tokenize", responses=errors)(self.tokenize)
        app.post("/detokenize", responses=errors)(self.detokenize)

    async def page(self) -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def show_metrics(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model()]}

    async def model(self, model: str) -> dict[str, Any]:
        self._known(model)
        return self._model()

    def _model(self) -> dict[str, Any]:
        about = {"max_model_len": self.context}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "janeox"} | about

    def _known(self, model: str) -> None:
        if model not in ("", self.name):
            raise HTTPException(404, ("model_not_found", f"this server has no such model; it has {self.name!r}"))

    async def tokenize(self, body: TokenizeRequest) -> dict[str, Any]:
        self._known(body.model)
        ids = self.lm.tokenizer.encode(body.prompt)
        pieces = [piece(self.lm.tokenizer, id)[0] for id in ids]
        return {"tokens": ids, "pieces": pieces, "count": len(ids), "max_model_len": self.context}

    async def detokenize(self, body: DetokenizeRequest) -> dict[str, str]:
        self._known(body.model)
        with _bad_requests():
            return {"prompt": self.lm.tokenizer.decode(body.tokens)}

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        self._known(body.model)
        with _bad_requests():
            prompts = body.prompts(self.lm.tokenizer)
            samplings = body.samplings(self._allowed(body.max_tokens), body.logprobs or 0)
        answer = Answer(
            self.lm.tokenizer,
            self.name,
            sum(map(len, prompts)),
            len(prompts) * body.n,
            False,
            body.logprobs is not None,
        )
        return await self._answer(body, request, answer, prompts, samplings)

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        self._known(body.model)
        with _bad_requests():
            prompt = body.prompt_ids(self.lm.tokenizer)
            room = max(1, min(self.context - len(prompt), self.settings.max_tokens))
            asked = body.max_completion_tokens or body.max_tokens or room
            samplings = body.samplings(self._allowed(asked), (body.top_logprobs or 0) if body.logprobs else 0)
        answer = Answer(self.lm.tokenizer, self.name, len(prompt), body.n, True, body.logprobs)
        return await self._answer(body, request, answer, [prompt], samplings)

    def _allowed(self, max_tokens: int) -> int:
        if max_tokens > self.settings.max_tokens:
            raise JaneoxError(f"max_tokens = {max_tokens}: this server allows {self.settings.max_tokens}")
        return max_tokens

    async def _answer(
        self,
        body: CompletionRequest | ChatRequest,
        request: Request,
        answer: Answer,
        prompts: list[list[int]],
        samplings: list[SamplingConfig],
    ) -> Response:
        """Submits a text for each prompt and sampling, and answers in one piece or as a stream."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        client = request.client.host if request.client else ""
        wanted = [(ids, sampling) for ids in prompts for sampling in samplings]
        jobs = [Job(client, ids, sampling, index, events) for index, (ids, sampling) in enumerate(wanted)]
        with _bad_requests():
            self.worker.submit(jobs)
        start = time.monotonic()

        def end() -> None:
            self.worker.cancel(jobs)
            self.metrics.finished(answer, time.monotonic() - start)

        arrivals = self._arrivals(events, answer, start)
        if body.stream:
            usage = bool((body.stream_options or {}).get("include_usage"))
            return Stream(self._stream(arrivals, answer, usage), end)
        gone = asyncio.create_task(_disconnected(request))
        collecting = asyncio.create_task(_collect(arrivals, answer))
        try:
            await asyncio.wait({gone, collecting}, return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                return Response(status_code=499)  # nobody is there to read it
            await collecting
        finally:
            gone.cancel()
            collecting.cancel()
            end()
        return JSONResponse(answer.whole())

    async def _arrivals(self, events: "asyncio.Queue[Event]", answer: Answer, start: float) -> AsyncIterator[Event]:
        """The events of a request that began at `start`, until all its texts are done."""
        first = True
        while not answer.done:
            try:
                async with asyncio.timeout(start + self.settings.request_seconds - time.monotonic()):
                    event = await events.get()
            except TimeoutError as error:
                words = f"not done after {self.settings.request_seconds:g} s"
                raise HTTPException(503, ("timeout", words)) from error
            if event.error:
                raise HTTPException(500, ("engine_error", event.error))
            if first:
                self.metrics.first_token.observe(time.monotonic() - start)
                first = False
            yield event

    async def _stream(self, arrivals: AsyncIterator[Event], answer: Answer, usage: bool) -> AsyncIterator[str]:
        begun: set[int] = set()
        try:
            async for event in arrivals:
                chunk = answer.chunk(event, first=answer.chat and event.index not in begun)
                begun.add(event.index)
                if chunk is not None:
                    yield _data(chunk)
            if usage:
                yield _data(answer.usage_chunk())
        except HTTPException as error:
            yield _data(error_object(error.status_code, *error.detail))
        yield "data: [DONE]\n\n"


class Stream(StreamingResponse):
    """An answer in parts.

    `end` is called when it ends, in whatever way, also where the client has gone before it began: a generator that was
    never begun has no `finally`.
    """

    def __init__(self, parts: AsyncIterator[str], end: Callable[[], None]):
        super().__init__(parts, media_type="text/event-stream")
        self.end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()


async def _collect(arrivals: AsyncIterator[Event], answer: Answer) -> None:
    async for event in arrivals:
        answer.add(event)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _data(row: dict[str, Any]) -> str:
    return f"data: {json.dumps(row, ensure_ascii=False)}\n\n"


class _bad_requests:
    """What cannot be done becomes a 400, and a full queue a 429."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, JaneoxError):
            raise HTTPException(400, ("invalid_request", str(error)))
        if isinstance(error, Busy):
            raise HTTPException(429, ("busy", str(error)))


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing wrong with a request. What was sent is not repeated."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = ".".join(str(part) for part in first.get("loc", ())[1:])
    place = place.encode("ascii", "backslashreplace").decode()[:200]
    message = f"{place}: {first.get('msg', 'not valid')}" if place else str(first.get("msg", "not valid"))
    return JSONResponse(error_object(400, "invalid_request", message, place or None), 400)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail = error.detail if isinstance(error.detail, tuple) else ("http_error", str(error.detail))
    body = error_object(error.status_code, *detail)
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))
