"""The verb `generate`."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from janeox.atomic import new_file
from janeox.config import SamplingConfig
from janeox.errors import JaneoxError
from janeox.lm import LM, Completion, load, newest_model
from janeox.settings.generate import Generate

BATCH = 256  # prompts handed over at once; their answers are then written


def run_generate(settings: Generate) -> None:
    """The verb `generate`: prints the prompt and its continuation as it comes, or answers a file of prompts."""
    prompts = [] if settings.input is None else list(read_prompts(settings.input))
    prompt = read_standard_input() if settings.prompt == "-" and not prompts else settings.prompt
    sampling = {field.name: getattr(settings, field.name) for field in fields(SamplingConfig)}
    lm = load(
        settings.model or newest_model(),
        device=settings.device,
        dtype=settings.dtype,
        bits=settings.bits,
        assistant_model=settings.assistant_model,
    )
    start = time.perf_counter()
    num_tokens = answer(lm, prompts, settings.output, sampling) if prompts else stream(lm, prompt, sampling)
    seconds = time.perf_counter() - start
    print(f"{num_tokens:,} tokens, {num_tokens / seconds:,.1f} a second", file=sys.stderr)


def stream(lm: LM, prompt: str, sampling: dict[str, Any]) -> int:
    """Prints a text as it is written; Ctrl-C ends it with what is there. Returns the number of new tokens."""
    print(prompt, end="", flush=True)
    shown, num_tokens = 0, 0
    try:
        for generated in lm.follow(prompt, **sampling):
            print(generated.text[shown:], end="", flush=True)
            shown, num_tokens = len(generated.text), len(generated.ids)
    finally:
        print()
    return num_tokens


def answer(lm: LM, prompts: list[str], output: Path | None, sampling: dict[str, Any]) -> int:
    """Writes a JSON line for each prompt; Ctrl-C keeps those that are there. Returns the number of new tokens."""
    num_tokens, stopped = 0, False
    with (
        nullcontext() if output is None else new_file(output) as partial,
        nullcontext(sys.stdout) if partial is None else partial.open("w", encoding="utf-8") as lines,
    ):
        try:
            for first in range(0, len(prompts), BATCH):
                some = prompts[first : first + BATCH]
                for prompt, completion in zip(some, lm.complete(some, **sampling), strict=True):
                    print(json.dumps(row(prompt, completion), ensure_ascii=False), file=lines, flush=True)
                    num_tokens += len(completion.ids)
        except KeyboardInterrupt:
            stopped = True
    if stopped:
        raise KeyboardInterrupt
    return num_tokens


def row(prompt: str, completion: Completion) -> dict[str, Any]:
    shown = {"prompt": prompt, "text": completion.text, "finish_reason": completion.finish_reason}
    return shown | {"num_tokens": len(completion.ids), "logprob": sum(completion.logprobs)}


def read_standard_input() -> str:
    """All of it.

    Raises:
        JaneoxError: it is not UTF-8.
    """
    try:
        text = sys.stdin.read()
        text.encode()  # some locales let Python read any bytes
    except UnicodeError as error:
        raise JaneoxError(f"standard input: cannot be read as UTF-8 text ({error})") from error
    return text


def read_prompts(file: Path) -> Iterator[str]:
    """The prompts of a file: see `Generate.input`.

    Raises:
        JaneoxError: the file cannot be read, or a line of it is no such row.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JaneoxError(f"{file}: cannot be read as UTF-8 text ({error})") from error
    if not lines:
        raise JaneoxError(f"{file}: holds no prompt")
    for number, line in enumerate(lines, 1):
        if file.suffix != ".jsonl":
            yield line
            continue
        try:
            yield str(json.loads(line)["prompt"])
        except (ValueError, KeyError, TypeError) as error:
            words = 'expected a JSON object with a "prompt"'
            raise JaneoxError(f"{file}:{number}: {words}, found {line[:60]!r}") from error
