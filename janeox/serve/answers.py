"""Events of the engine → the objects of OpenAI's interface, whole or in a stream."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from janeox.dialogue import NewlineDecoder
from janeox.serve.worker import Event
from janeox.tokenizer import Tokenizer


def piece(tokenizer: Tokenizer, id: int) -> tuple[str, list[int]]:
    """How an id is shown, and the UTF-8 bytes that it stands for."""
    surface = tokenizer.surfaces[id] if id < len(tokenizer) else None
    if isinstance(surface, int):
        return f"<0x{surface:02X}>", [surface]
    if surface is None:
        return tokenizer.file.pieces[id].text if id < len(tokenizer) else f"<{id}>", []
    return surface, list(surface.encode("utf-8"))


@dataclass
class Choice:
    """One of the answers to a request, as far as it has come."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: str | None = None
    logprobs: list[Any] = field(default_factory=list)
    _newlines: NewlineDecoder = field(default_factory=NewlineDecoder)


class Answer:
    """Collects the events of a request.

    Args:
        chat: in the form of chat completions.
        shows: whether log-probabilities were asked for.
    """

    def __init__(self, tokenizer: Tokenizer, model: str, num_prompt: int, num_choices: int, chat: bool, shows: bool):
        self.tokenizer, self.model, self.chat, self.shows = tokenizer, model, chat, shows
        self.num_prompt = num_prompt
        self.choices = [Choice() for _ in range(num_choices)]
        self.head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    @property
    def done(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)

    def add(self, event: Event) -> tuple[str, list[Any]]:
        """Takes an event in; returns the text and the log-probabilities that it adds."""
        choice = self.choices[event.index]
        text = choice._newlines.push(event.text) if self.chat else event.text
        if event.finish_reason:
            text += choice._newlines.flush()
            choice.finish_reason = event.finish_reason
        added = self._logprobs(event) if self.shows else []
        choice.text += text
        choice.num_tokens += len(event.ids)
        choice.logprobs += added
        return text, added

    def chunk(self, event: Event, first: bool) -> dict[str, Any] | None:
        """The event as a part of a stream; None where it shows nothing."""
        text, logprobs = self.add(event)
        if not (text or logprobs or first or event.finish_reason):
            return None
        choice: dict[str, Any] = {"index": event.index, "finish_reason": event.finish_reason}
        if self.chat:
            choice["delta"] = {"role": "assistant", "content": text} if first else {"content": text}
            choice["logprobs"] = {"content": logprobs} if self.shows else None
        else:
            offset = len(self.choices[event.index].text) - len(text)
            choice["text"], choice["logprobs"] = text, self._columns(logprobs, offset) if self.shows else None
        return self.head | {"object": self._object("chunk"), "choices": [choice]}

    def usage_chunk(self) -> dict[str, Any]:
        return self.head | {"object": self._object("chunk"), "choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        completion = sum(choice.num_tokens for choice in self.choices)
        return {
            "prompt_tokens": self.num_prompt,
            "completion_tokens": completion,
            "total_tokens": self.num_prompt + completion,
        }

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, choice in enumerate(self.choices):
            shown: dict[str, Any] = {"index": index, "finish_reason": choice.finish_reason}
            if self.chat:
                shown["message"] = {"role": "assistant", "content": choice.text}
                shown["logprobs"] = {"content": choice.logprobs} if self.shows else None
            else:
                shown["text"] = choice.text
                shown["logprobs"] = self._columns(choice.logprobs, 0) if self.shows else None
            choices.append(shown)
        return self.head | {"object": self._object(""), "choices": choices, "usage": self.usage()}

    def _object(self, part: str) -> str:
        return ("chat.completion" + (f".{part}" if part else "")) if self.chat else "text_completion"

    def _logprobs(self, event: Event) -> list[Any]:
        """A row for each id, in the form of chat completions."""
        tops = event.top_logprobs or [[]] * len(event.ids)
        return [
            self._token(id, logprob) | {"top_logprobs": [self._token(*pair) for pair in top]}
            for id, logprob, top in zip(event.ids, event.logprobs, tops, strict=True)
        ]

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        text, raw = piece(self.tokenizer, id)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": raw}  # JSON has no infinity

    def _columns(self, rows: list[Any], offset: int) -> dict[str, Any]:
        """The form of completions. Offsets count characters of the pieces as shown."""
        offsets = []
        for row in rows:
            offsets.append(offset)
            offset += len(row["token"]) if row["bytes"] else 0
        return {
            "tokens": [row["token"] for row in rows],
            "token_logprobs": [row["logprob"] for row in rows],
            "top_logprobs": [{top["token"]: top["logprob"] for top in row["top_logprobs"]} for row in rows],
            "text_offset": offsets,
        }
