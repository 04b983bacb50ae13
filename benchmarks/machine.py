"""What a figure was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def header() -> str:
    """Machine, versions and commit, on two lines."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    measured = ("torch", "transformers", "tokenizers", "sentencepiece")
    libraries = ", ".join(f"{name} {version(name)}" for name in measured)
    return (
        f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; {commit()}\n"
        f"Python {platform.python_version()}, {libraries}"
    )


def processor() -> str:
    """Its name, and on x86 the family and model that tell its generation, which a cloud's name for it may hide."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    if "model name" not in fields:
        return platform.processor()
    return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"


def commit() -> str:
    """The commit of this working tree, marked where it has changes."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return f"commit {described.stdout.strip() or 'unknown'}"
