"""What Prometheus may ask for."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from janeox.serve.answers import Answer
from janeox.serve.worker import Worker

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counts and times of one server."""

    def __init__(self, worker: Worker):
        self._registry = on = CollectorRegistry()
        Gauge("janeox_running", "texts that are being written", registry=on).set_function(lambda: worker.num_running)
        Gauge("janeox_waiting", "texts that wait for a slot", registry=on).set_function(lambda: worker.num_waiting)
        self._requests = Counter("janeox_requests", "requests that ended, by how", ["outcome"], registry=on)
        self._prompt = Counter("janeox_prompt_tokens", "tokens of prompts", registry=on)
        self._generated = Counter("janeox_generated_tokens", "tokens of answers", registry=on)
        self.first_token = Histogram(
            "janeox_first_token_seconds", "until the first token", buckets=SECONDS, registry=on
        )
        self._whole = Histogram("janeox_request_seconds", "until the end", buckets=SECONDS, registry=on)

    def finished(self, answer: Answer, seconds: float) -> None:
        """Notes a request that ended after `seconds`, done or not."""
        self._requests.labels("done" if answer.done else "cut short").inc()
        self._prompt.inc(answer.num_prompt)
        self._generated.inc(answer.usage()["completion_tokens"])
        self._whole.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
