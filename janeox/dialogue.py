"""The dialogue format of the rinna series: `ユーザー: …<NL>システム: …<NL>ユーザー: …<NL>システム: `.

Every newline in a turn is written `<NL>`. That is text: a tokenizer that has a piece for it (`user_defined_symbols`)
gives one id, another one spells it out, and nothing here differs. No special token stands in a prompt; `</s>` ends a
reply. A turn is always read as the characters that it holds, so that nothing in it becomes a control token.

The format has no defence against a turn that holds a newline and `システム: `: it reads like the next turn, as in the
series itself.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from janeox.errors import JaneoxError
from janeox.tokenizer.tokenizer import Tokenizer

NEWLINE = "<NL>"
SPEAKERS = {"user": "ユーザー", "assistant": "システム"}
STOP = (f"{NEWLINE}{SPEAKERS['user']}: ",)
"""Where a reply ends in which the model goes on to write the user's part."""

# The three forms of a turn that are out there: (key of the speaker, key of the text).
FORMS = (("role", "content"), ("speaker", "text"), ("from", "value"))
ROLES = {
    "system": "system",
    "user": "user", "human": "user", "prompter": "user", "ユーザー": "user",
    "assistant": "assistant", "gpt": "assistant", "システム": "assistant",
}  # fmt: skip
LISTS = ("messages", "conversations", "conversation", "dialogue")

# The same prompt through transformers, vLLM and llama.cpp. An operator's instruction (role `system`) opens the first
# turn of the user, because the series has no speaker for it.
CHAT_TEMPLATE = """\
{%- set state = namespace(instruction='', written=false) -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' and loop.first -%}
{%- set state.instruction = message['content'] + '\\n' -%}
{%- elif message['role'] == 'user' or message['role'] == 'assistant' -%}
{%- if state.written -%}{{- '<NL>' -}}{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- 'ユーザー: ' + ((state.instruction + message['content']) | replace('\\r\\n', '\\n') | replace('\\n', '<NL>')) -}}
{%- set state.instruction = '' -%}
{%- else -%}
{{- 'システム: ' + (message['content'] | replace('\\r\\n', '\\n') | replace('\\n', '<NL>')) -}}
{%- endif -%}
{%- set state.written = true -%}
{%- else -%}
{{- raise_exception('roles are user and assistant, and system for the first message: ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<NL>システム: ' if state.written else 'システム: ' -}}{%- endif -%}
"""


class Message(NamedTuple):
    role: str
    """user, assistant, or system for an instruction before the first turn."""
    text: str


class Encoded(NamedTuple):
    """A conversation to be learned."""

    ids: list[int]
    """What the model reads."""
    targets: list[int]
    """By place, the id to be predicted next; −1 where nothing is."""


def read_messages(row: Any, where: str) -> list[Message]:
    """The turns of a conversation in one of three forms: `{"messages": [{"role", "content"}]}` (OpenAI),
    `{"conversations": [{"from", "value"}]}` (ShareGPT), `[{"speaker", "text"}]` (the model card); the list may stand
    alone in each.

    Raises:
        JaneoxError: not such a row, an unknown speaker, an empty turn, or a system message after the first place;
            begins with `where`.
    """
    turns = next((row[key] for key in LISTS if key in row), None) if isinstance(row, dict) else row
    if not isinstance(turns, list) or not turns:
        raise JaneoxError(f"{where}: no list of turns there, alone or under {', '.join(LISTS)}")
    return [_message(turn, f"{where}, turn {number}", number == 1) for number, turn in enumerate(turns, 1)]


def _message(turn: Any, where: str, first: bool) -> Message:
    form = next((form for form in FORMS if isinstance(turn, dict) and form[0] in turn and form[1] in turn), None)
    if form is None:
        forms = " or ".join(f'{{"{speaker}", "{text}"}}' for speaker, text in FORMS)
        raise JaneoxError(f"{where}: expected an object with {forms}")
    speaker, text = turn[form[0]], turn[form[1]]
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise JaneoxError(f"{where}: unknown speaker {speaker!r}; known are {', '.join(ROLES)}")
    if role == "system" and not first:
        raise JaneoxError(f"{where}: an instruction ({speaker!r}) can only be the first turn")
    if not isinstance(text, str) or not text.strip():
        raise JaneoxError(f"{where}: {speaker!r} says nothing; leave the turn or the conversation out")
    return Message(role, text)


def read_jsonl(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """(`file:line`, the row) of JSON lines; empty lines are passed over.

    Raises:
        JaneoxError: a file cannot be read, or a line is not JSON.
    """
    for file in files:
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise JaneoxError(f"{file}: cannot be read ({error.strerror})") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"{file}:{number}", json.loads(line)
                except ValueError as error:  # of JSON and of UTF-8
                    raise JaneoxError(f"{file}:{number}: not a JSON row ({error})") from error


def written(text: str) -> str:
    """A turn's text in the series' spelling: newlines are `<NL>`."""
    return text.replace("\r\n", "\n").replace("\n", NEWLINE)


def reply_text(text: str) -> str:
    """The inverse for what the model wrote."""
    return text.replace(NEWLINE, "\n")


def segments(messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    """The conversation's text in stretches: (text, whether the model is to write it)."""
    instruction, before, between = "", "", ""
    for message in messages:
        if message.role == "system":
            instruction = message.text + "\n"
        elif message.role == "user":
            before += f"{between}{SPEAKERS['user']}: {written(instruction + message.text)}"
            instruction, between = "", NEWLINE
        else:
            yield f"{before}{between}{SPEAKERS['assistant']}: ", False
            yield written(message.text), True
            before, between = "", NEWLINE
    yield before, False


def prompt_text(messages: Sequence[Message]) -> str:
    """The text after which the model writes its next reply; `tokenizer.encode` of it gives the prompt's ids."""
    text = "".join(part for part, _ in segments(messages))
    return text + (NEWLINE if text else "") + f"{SPEAKERS['assistant']}: "


def encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> Encoded:
    """Ids and targets of a conversation whose replies are to be learned.

    The targets cover the replies and, after each of them, `</s>`. (Between turns the text goes on with `<NL>`, but that
    is the history's spelling: a model that has said its part is to end.) Prompt and reply are encoded apart, as they
    meet when the model writes. What follows the last reply is left out.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise JaneoxError(f"{tokenizer.where}: has no </s>, which ends a reply")
    ids: list[int] = []
    targets: list[int] = []
    pending: list[int] = []
    for text, learned in segments(messages):
        new = tokenizer.encode(text)
        if not learned:
            pending = new
            continue
        ids += pending + new
        targets += [-1] * (len(pending) - 1) + new + [eos]
    return Encoded(ids, targets)


class NewlineDecoder:
    """Turns `<NL>` into newlines in a stream of text, holding back only what may still become one."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """Text that is certain now."""
        text = reply_text(self._held + text)
        keep = next((n for n in range(len(NEWLINE) - 1, 0, -1) if text.endswith(NEWLINE[:n])), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held
