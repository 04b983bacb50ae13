"""Japanese GPT-NeoX: corpus, tokenizer, pre-training, evaluation and generation in one small package."""

import importlib
from typing import TYPE_CHECKING, Any

from janeox.errors import JaneoxError

if TYPE_CHECKING:
    from janeox.config import GPTNeoXConfig
    from janeox.lm import LM, load
    from janeox.model import GPTNeoX
    from janeox.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["LM", "GPTNeoX", "GPTNeoXConfig", "JaneoxError", "Tokenizer", "load"]

# Imported at first use, so that `import janeox` costs nothing and the command line's help needs no torch.
_HOMES = {
    "GPTNeoX": "janeox.model",
    "GPTNeoXConfig": "janeox.config",
    "LM": "janeox.lm",
    "Tokenizer": "janeox.tokenizer",
    "load": "janeox.lm",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'janeox' has no attribute {name!r}")
