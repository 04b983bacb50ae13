"""What a figure was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def header() -> str:
    """Machine, versions and commit, on two lines."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    measured = ("torch", "transformers", "tokenizers", "sentencepiece")
    libraries = ", ".join(f"{name} {version(name)}" for name in measured)
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; {commit()}\n"
        f"Python {platform.python_version()}, {libraries}"
    )


def commit() -> str:
    """The commit of this working tree, marked where it has changes."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return f"commit {described.stdout.strip() or 'unknown'}"
