"""The verb `generate`."""

import sys
from dataclasses import fields

from janeox.config import SamplingConfig
from janeox.lm import load, newest_model
from janeox.settings.generate import Generate


def run_generate(settings: Generate) -> None:
    """The verb `generate`: prints the prompt and its continuation as it comes."""
    prompt = sys.stdin.read() if settings.prompt == "-" else settings.prompt
    sampling = {field.name: getattr(settings, field.name) for field in fields(SamplingConfig)}
    lm = load(settings.model or newest_model(), device=settings.device, dtype=settings.dtype)
    print(prompt, end="", flush=True)
    for part in lm.stream(prompt, **sampling):
        print(part, end="", flush=True)
    print()
