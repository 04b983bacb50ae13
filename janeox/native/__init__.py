"""The compiled library of this folder's C++ files: a plain C interface, called through ctypes.

It is built when the package is installed, where there is a compiler; whoever uses it has another way for where it was
not.
"""

import ctypes
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

VERSION = 11
"""Of its calls; a library of another version, left by an older install, is not used, and one line says so."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where it was not built, or is of another version than this file."""
    for suffix in EXTENSION_SUFFIXES:
        file = Path(__file__).with_name("_library" + suffix)
        if file.exists():
            try:
                loaded = ctypes.CDLL(str(file))
                version = loaded.janeox_version()
            except (OSError, AttributeError):
                continue
            if version == VERSION:
                return loaded
            print(
                f"janeox: {file.name} is version {version} of the native code, not {VERSION}, and goes unused, "
                "which is slow: install again (pip install --editable .)",
                file=sys.stderr,
            )
    return None
