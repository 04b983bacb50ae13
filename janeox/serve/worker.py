"""The one thread that steps the engine, and how requests reach it from the event loop.

Requests wait by client and are taken in turn, so that one with a hundred requests does not hold up one with a single.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field

from janeox.config import SamplingConfig
from janeox.engine.engine import Engine
from janeox.engine.text import FinishReason, Generated
from janeox.errors import JaneoxError


class Busy(Exception):
    """No more requests can wait."""


@dataclass
class Event:
    """What is new about one text."""

    index: int
    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str = ""


@dataclass(eq=False)
class Job:
    """One text to be written for a client; its events arrive in `events`, which several jobs may share."""

    client: str
    ids: list[int]
    sampling: SamplingConfig
    index: int
    events: "asyncio.Queue[Event]"
    _generated: Generated | None = None
    _sent: tuple[int, int] = 0, 0  # ids and characters


class Worker:
    """Runs an engine in a thread of its own. `submit` and `cancel` are for the event loop's thread."""

    def __init__(self, engine: Engine, max_waiting: int):
        self.engine, self.max_waiting = engine, max_waiting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = threading.Condition()
        self._waiting: dict[str, deque[Job]] = {}  # by client, the next one to be served first
        self._cancelled: list[Job] = []
        self._running: dict[Generated, Job] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """To be called in the event loop that submits."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its current step."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def num_waiting(self) -> int:
        return sum(map(len, list(self._waiting.values())))

    @property
    def num_running(self) -> int:
        return len(self._running)

    def submit(self, jobs: list[Job]) -> None:
        """Takes on all of the jobs, or none.

        Raises:
            JaneoxError: what a job asks for cannot be done.
            Busy: too many wait.
        """
        for job in jobs:
            self.engine.check(job.ids, job.sampling)
        with self._wake:
            if self.num_waiting + len(jobs) > self.max_waiting:
                raise Busy(f"{self.max_waiting} requests are waiting; try again later")
            for job in jobs:
                self._waiting.setdefault(job.client, deque()).append(job)
            self._wake.notify()

    def cancel(self, jobs: list[Job]) -> None:
        """Ends jobs wherever they are; no events come after that for those that still waited."""
        with self._wake:
            self._cancelled += jobs
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._cancelled or self._running or self._stopping):
                    self._wake.wait()
                if self._stopping:
                    return
                self._take_notes()
            try:
                changed = self.engine.step()
            except Exception as error:  # whatever it is, the server must live on
                self._fail(error)
                continue
            self._post([event for text in changed if (event := self._news(text))])

    def _take_notes(self) -> None:
        """Cancels what is no longer wanted, and fills free slots from the clients in turn."""
        for job in self._cancelled:
            if job._generated is not None:
                self.engine.cancel(job._generated)
                self._running.pop(job._generated, None)
            elif job in self._waiting.get(job.client, ()):
                self._waiting[job.client].remove(job)
        self._cancelled.clear()
        self._waiting = {client: jobs for client, jobs in self._waiting.items() if jobs}
        while self._waiting and len(self._running) < self.engine.backend.num_slots:
            client = next(iter(self._waiting))
            jobs = self._waiting.pop(client)
            job = jobs.popleft()
            if jobs:
                self._waiting[client] = jobs  # behind the others
            job._generated = self.engine.submit(job.ids, job.sampling)
            self._running[job._generated] = job

    def _news(self, text: Generated) -> tuple[Job, Event] | None:
        job = self._running.get(text)
        if job is None:
            return None
        sent, shown = job._sent
        event = Event(
            job.index,
            text.text[shown:],
            text.ids[sent:],
            text.logprobs[sent:],
            text.top_logprobs[sent:],
            text.finish_reason,
        )
        job._sent = len(text.ids), len(text.text)
        if text.finish_reason is not None:
            del self._running[text]
        return job, event

    def _fail(self, error: Exception) -> None:
        """Tells all that run; what waits is tried again."""
        message = str(error) if isinstance(error, JaneoxError) else f"the engine failed ({type(error).__name__})"
        failed = list(self._running.items())
        self._running.clear()
        for text, _ in failed:
            self.engine.cancel(text)
        self._post([(job, Event(job.index, error=message)) for _, job in failed])

    def _post(self, news: list[tuple[Job, Event]]) -> None:
        if news and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, news)


def _deliver(news: list[tuple[Job, Event]]) -> None:
    for job, event in news:
        job.events.put_nowait(event)
