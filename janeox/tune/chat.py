"""The verb `chat`: a talk in the terminal, in the series' format."""

import sys

from janeox.dialogue import STOP, Message, NewlineDecoder, prompt_text
from janeox.lm import LM, load, newest_model
from janeox.settings.tune import Chat

HELP = "/reset forgets the talk, /system TEXT gives an instruction and begins anew, /quit or Ctrl-D ends"


def recommended(name: str) -> tuple[float, float]:
    """(temperature, repetition penalty) that the series' cards give for a variant, by its name."""
    return (0.7, 1.1) if "ppo" in name.lower() else (0.7, 1.0) if "sft" in name.lower() else (0.8, 1.0)


def run_chat(settings: Chat) -> None:
    """Reads a line, streams the reply, until the end of the input.

    Raises:
        JaneoxError: no such model.
    """
    name = settings.model or str(newest_model())
    lm = load(name, device=settings.device, dtype=settings.dtype)
    temperature, penalty = recommended(name)
    sampling = {
        "temperature": temperature if settings.temperature is None else settings.temperature,
        "repetition_penalty": penalty if settings.repetition_penalty is None else settings.repetition_penalty,
        "top_p": settings.top_p,
        "seed": settings.seed,
        "stop": STOP,
    }
    print(f"{HELP}\ntemperature {sampling['temperature']}, repetition penalty {sampling['repetition_penalty']}")
    messages: list[Message] = []
    while True:
        try:
            line = input("ユーザー: ").strip()
        except EOFError:
            print()
            return
        if line == "/quit":
            return
        if line == "/reset" or line.startswith("/system "):
            messages = [Message("system", line.removeprefix("/system "))] if line != "/reset" else []
        elif line.startswith("/"):
            print(HELP)
        elif line:
            messages.append(Message("user", line))
            messages = fitting(lm, messages, settings.max_new_tokens)
            reply = say(lm, messages, settings.max_new_tokens, sampling)
            if reply.strip():
                messages.append(Message("assistant", reply))
            else:
                messages.pop()


def say(lm: LM, messages: list[Message], max_new_tokens: int, sampling: dict) -> str:
    """Prints the reply as it comes; Ctrl-C ends it early."""
    print("システム: ", end="", flush=True)
    decoder, reply = NewlineDecoder(), ""
    prompt = prompt_text(messages)
    room = lm.model.config.max_position_embeddings - len(lm.tokenizer.encode(prompt))
    try:
        for part in lm.stream(prompt, max_new_tokens=min(max_new_tokens, room), **sampling):
            part = decoder.push(part)
            reply += part
            print(part, end="", flush=True)
    except KeyboardInterrupt:
        pass
    rest = decoder.flush()
    print(rest)
    sys.stdout.flush()
    return reply + rest


def fitting(lm: LM, messages: list[Message], max_new_tokens: int) -> list[Message]:
    """The talk without its oldest turns, as many as leave `max_new_tokens` or half the context to the reply."""
    context = lm.model.config.max_position_embeddings
    room = context - min(max_new_tokens, context // 2)
    while len(lm.tokenizer.encode(prompt_text(messages))) > room:
        first = 1 if messages[0].role == "system" else 0
        if len(messages) - first <= 1:
            break
        del messages[first : first + 2]
    return messages
